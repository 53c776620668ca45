"""Replay of DynamicViT: inference of a whole model with its predictors, and the masked attention of training."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tokred.attach import attach
from tokred.backbones.masked import LEAK, attend_masked, masked_softmax
from tokred.learned import run_wide
from tokred.methods.dynamicvit import DynamicViT
from tokred.reduction import Keep
from tokred.run.parity.golden import Golden
from tokred.run.parity.hosts import timm_vit
from tokred.run.parity.inside import Inside, run_inside
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed

LOGITS = 5e-5
BLOCK = 1e-4
ATTENTION = 1e-6
PREDICTORS = "score_predictor."


@torch.no_grad()
def end_to_end(golden: Golden, ledger: Ledger) -> None:
    """A whole model at inference: what each predictor saw and said, which tokens stayed in which order, the logits."""
    settings = golden.settings
    images = golden.floats("x", dims=4)
    weights = golden.weights(images.dtype)
    settings.agree("B", images.shape[0])
    settings.agree_pair("img_size", (images.shape[2], images.shape[3]))
    host = timm_vit({k: v for k, v in weights.items() if not k.startswith(PREDICTORS)}, images, settings, "token")
    reducer = _reducer(golden)
    attached = attach(host, reducer)
    reducer.load_official(weights, golden.path.name)
    reducer.to(images.dtype)
    settings.agree("n_init", attached.geometry.grid.patches)
    settings.agree("depth", attached.geometry.depth)

    inside = run_inside(attached, images)
    counts = [x.shape[1] - attached.geometry.prefix for x in inside.blocks]
    ledger.counts("token counts", counts, settings.take("token_counts_after_block_excl_cls", counts))
    _steps(golden, ledger, inside, reducer)
    for i in golden.numbered(r"block(\d+)\.out"):
        if i >= len(inside.blocks):
            raise Malformed(f"there is block{i}.out, but the model has {len(inside.blocks)} blocks")
        ledger.value(f"block{i}.out", inside.blocks[i], golden.floats(f"block{i}.out"), absolute=BLOCK)
    ledger.value("logits", attached(images), golden.floats("logits"), absolute=LOGITS)


@torch.no_grad()
def policy_attention(golden: Golden, ledger: Ledger) -> None:
    """Attention under a keep mask: the weights from given logits, and the whole layer."""
    settings = golden.settings
    x = golden.floats("x", dims=3)
    b, n, dim = x.shape
    for name, size in (("B", b), ("N", n), ("C", dim)):
        settings.agree(name, size)
    settings.agree("eps", LEAK, "this implementation")
    heads = settings.whole("num_heads", least=1)
    policy = golden.floats("policy", dims=3)
    if policy.shape != (b, n, 1):
        raise Malformed(f"policy has shape {tuple(policy.shape)}, not {(b, n, 1)}")
    weights = golden.weights(x.dtype)
    if "logits_in" in golden:
        bare = masked_softmax(golden.floats("logits_in", 4), policy[..., 0])
        ledger.value("attn_out", bare, golden.floats("attn_out", 4), absolute=ATTENTION)
    qkv = F.linear(x, weights.pop("qkv.weight"), weights.pop("qkv.bias", None))
    q, k, v = qkv.reshape(b, n, 3, heads, dim // heads).permute(2, 0, 3, 1, 4).unbind(0)
    out = attend_masked(q, k, v, (dim // heads) ** -0.5, policy[..., 0]).transpose(1, 2).reshape(b, n, dim)
    out = F.linear(out, weights.pop("proj.weight"), weights.pop("proj.bias", None))
    if weights:
        raise Malformed(f"weights that are not understood: {', '.join(weights)}")
    ledger.value("out", out, golden.floats("out", 3))


def _reducer(golden: Golden) -> DynamicViT:
    """The stages and shares of the file: as powers of a base rate where they are that, else listed."""
    settings = golden.settings
    stages, shares = settings.items("pruning_loc"), settings.items("token_ratio")
    if len(stages) != len(shares) or not stages:
        raise Malformed(f"pruning_loc = {stages} and token_ratio = {shares} do not belong together")
    if any(isinstance(s, bool) or not isinstance(s, (int, float)) for s in shares):
        raise Malformed(f"token_ratio = {shares} are not numbers")
    base = float(shares[0])
    powers = [base ** (i + 1) for i in range(len(shares))] == shares
    keep = base if powers else tuple(map(float, shares))
    return DynamicViT(keep, at=tuple(stages), weights=None)


def _steps(golden: Golden, ledger: Ledger, inside: Inside, reducer: DynamicViT) -> None:
    blocks = [step.site.block for step in inside.steps]
    ledger.counts("blocks with idx", blocks, golden.numbered(r"block(\d+)\.idx"))
    for step in inside.steps:
        name, prefix = f"block{step.site.block}", step.before.prefix
        if not isinstance(step.reduction, Keep):
            raise Malformed(f"DynamicViT made a {type(step.reduction).__name__} where it must keep a subset")
        kept = step.reduction.index[:, prefix:] - prefix
        ledger.decision(f"{name}.idx", kept, golden.indices(f"{name}.idx", 2))
        if f"{name}.pred_in" in golden:
            ledger.value(f"{name}.pred_in", step.before.patches, golden.floats(f"{name}.pred_in", 3), absolute=BLOCK)
        if f"{name}.log_probs" in golden:
            said = run_wide(reducer.predictors[step.site.index], step.before.patches)
            ledger.value(f"{name}.log_probs", said, golden.floats(f"{name}.log_probs", 3), absolute=LOGITS)
