"""Replay of vid-TLDR's end-to-end vectors: the reference's encoder (UMT's video ViT) with merging in some blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import tokred
from tokred.backbones.videomae import VideoViT
from tokred.methods.vid_tldr import VidTLDR, saliency_of
from tokred.reduction import Merge
from tokred.run.parity.golden import Golden
from tokred.run.parity.hosts import NORM_EPS, crop_clips, video_vit
from tokred.run.parity.inside import Inside, run_inside
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed, Settings
from tokred.run.parity.vid_tldr import amount_of, column, decided, matching, score_tolerance

BLOCKS = 2e-4
"""Absolute tolerance of scores and block outputs: float32 noise of the scores is passed on by every merge."""
LOGITS = 2e-5
RELATIVE = 2e-5
"""Of the largest feature, where that is more: the reference's own float32 is off by a few of these in late blocks."""

POOL = "unweighted mean over remaining tokens after encoder.norm, then pool_norm"
BIASES = {"q and v only": True, "none": False, True: True, False: False}
_ABOUT_HOST = (
    *("embed_dim", "depth", "num_heads", "mlp_ratio", "in_chans", "num_classes", "ln_eps", "init_values", "qk_scale"),
    *("img_size", "patch_size", "tubelet_size", "num_frames", "all_frames"),
)


@torch.no_grad()
def end_to_end(golden: Golden, ledger: Ledger) -> None:
    """A whole forward: every block, every step's scores and decisions, tokens, pooled features and logits."""
    settings = golden.settings
    clips = golden.floats("x", dims=5)
    settings.agree("B", clips.shape[0])
    host = _host(golden, clips, ledger)
    clips = clips[:, :, : host.frames, : host.img_size[0], : host.img_size[1]]
    depth = len(host.blocks)
    given = settings.items("r")
    if len(given) < depth:
        raise Malformed(f"r has {len(given)} entries for {depth} blocks")
    amounts = tuple(amount_of(r, f"r[{i}]", ledger) for i, r in enumerate(given[:depth]))
    if len(given) > depth:
        ledger.notes.append(f"{len(given) - depth} entries of r beyond {depth} blocks ignored, as in the reference")
    attached = tokred.attach(host, VidTLDR(amounts if settings.flag("use", True) else 0))
    ledger.notes += attached.notes
    patches = attached.geometry.grid.patches
    ledger.counts("n_tokens_input", patches, settings.take("n_tokens_input", patches))

    inside = run_inside(attached, clips)
    blocks = [step.site.block for step in inside.steps]
    ledger.counts("reducing_blocks", blocks, settings.take("reducing_blocks", blocks))
    ledger.counts("stored steps", blocks, golden.numbered(r"block(\d+)\.src_idx"))
    counts = [x.shape[1] for x in inside.blocks]
    ledger.counts("token counts", counts, settings.take("token_counts_after_block", counts))
    _steps(golden, ledger, inside)
    for i in golden.numbered(r"block(\d+)\.out"):
        if i >= depth:
            raise Malformed(f"there is block{i}.out, but the model has {depth} blocks")
        _features(golden, ledger, f"block{i}.out", inside.blocks[i])
    if "x_vis" in golden:
        _features(golden, ledger, "x_vis", host.norm(inside.tokens.x))
    run = attached.run(clips)
    if "pooled" in golden:
        pooled = golden.floats("pooled")
        ledger.value("pooled", run.pooled.reshape(pooled.shape), pooled, absolute=LOGITS)
    if "logits" in golden:
        ledger.value("logits", run.logits, golden.floats("logits", dims=2), absolute=LOGITS)
    if "logits_float64" in golden:
        ledger.logits64("logits_float64", run.logits, golden.floats("logits_float64"), LOGITS)


def _steps(golden: Golden, ledger: Ledger, inside: Inside) -> None:
    for step in inside.steps:
        name = f"block{step.site.block}."
        assert isinstance(step.reduction, Merge)
        score = saliency_of(step.probe.sharpness)
        tolerance = score_tolerance(step.probe, BLOCKS)
        matching(golden, ledger, name, decided(step.reduction, score), tolerance)
        if f"{name}score" in golden:
            ledger.value(f"{name}score", score, column(golden, f"{name}score"), absolute=tolerance)
        if f"{name}neg_entropy" in golden:
            theirs = golden.floats(f"{name}neg_entropy", dims=2)
            ledger.value(f"{name}neg_entropy", step.probe.negative_entropy, theirs, absolute=BLOCKS)
        if f"{name}size" in golden:
            ledger.value(f"{name}size", step.after.masses, column(golden, f"{name}size"), absolute=BLOCKS)
        for suffix, x in (("x_before", step.before.x), ("x_after", step.after.x)):
            if f"{name}{suffix}" in golden:
                _features(golden, ledger, f"{name}{suffix}", x)


def _features(golden: Golden, ledger: Ledger, name: str, ours: Tensor) -> None:
    theirs = golden.floats(name, dims=3)
    ledger.value(name, ours, theirs, absolute=max(BLOCKS, RELATIVE * float(theirs.abs().max())))


def _host(golden: Golden, clips: Tensor, ledger: Ledger) -> VideoViT:
    """The reference's encoder: norm of every token, their plain mean, a second norm, and the file's linear head."""
    settings = golden.settings
    settings.choice("pool", (POOL,), POOL)
    weights = golden.weights(clips.dtype)
    encoder = {name.removeprefix("encoder."): t for name, t in weights.items() if name.startswith("encoder.")}
    norm = {name: encoder.pop(f"norm.{name}", None) for name in ("weight", "bias")}
    if norm["weight"] is None or norm["bias"] is None:
        raise Malformed("the weights have no encoder.norm")
    encoder |= {f"fc_{name.removeprefix('pool_')}": t for name, t in weights.items() if name.startswith("pool_norm.")}
    rest = [name for name in weights if not name.startswith(("encoder.", "pool_norm."))]
    if rest or "fc_norm.weight" not in encoder:
        raise Malformed(f"weights of an encoder and its pool_norm were expected, there is {', '.join(rest[:4])}")
    if "extra.head.weight" in golden:
        encoder |= {f"head.{name}": golden.floats(f"extra.head.{name}").to(clips.dtype) for name in ("weight", "bias")}
    if "pos_embed" in golden:
        encoder["pos_embed"] = golden.floats("pos_embed", dims=3).to(clips.dtype)
    config = {name: settings.take(name) for name in _ABOUT_HOST if name in settings}
    biased = settings.take("qkv_bias", "blocks.0.attn.q_bias" in encoder)
    if biased not in BIASES:
        raise Malformed(f"qkv_bias = {biased!r} is not understood")
    config["qkv_bias"] = BIASES[biased]
    told = Settings(config, "metadata")
    model = video_vit(encoder, crop_clips(encoder, clips, ledger), told)
    told.finish()
    eps = float(config.get("ln_eps", NORM_EPS))
    model.norm = nn.LayerNorm(model.dim, eps=eps).to(clips)
    model.norm.load_state_dict(norm)
    return model.eval()
