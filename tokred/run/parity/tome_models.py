"""Replay of ToMe's end-to-end vectors: on timm's image models and composed with the video backbone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import tokred
from tokred.reduction import Merge
from tokred.run.parity.golden import Golden
from tokred.run.parity.hosts import crop_clips, timm_vit, video_vit
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed, Settings
from tokred.run.parity.tome import flat_size, membership, reducer_for
from tokred.run.parity.videomae import table_of

LOGITS = 2e-5

HOSTS = {"cls": ("token", "mean"), "distill": ("token", "mean"), "nocls": ("avg", "mean"), "mae": ("avg", "mass")}
"""How each host pools: timm's ``global_pool``, and whether merged tokens count once (the timm patch) or with their
mass (the MAE patch)."""


@torch.no_grad()
def timm_models(golden: Golden, ledger: Ledger) -> None:
    """Every run of a file on a timm VisionTransformer."""
    images = golden.floats("x", dims=4)
    weights = golden.weights(images.dtype)
    global_pool, pool = HOSTS[golden.settings.choice("model", tuple(HOSTS))]
    config = golden.settings.inner("config")
    config.agree_pair("img_size", (images.shape[2], images.shape[3]))
    host = timm_vit(weights, images, config, global_pool)
    config.finish()
    _runs(golden, ledger, host, images, pool)


@torch.no_grad()
def composed(golden: Golden, ledger: Ledger) -> None:
    """Every run of a file on the video backbone; how tokens are pooled is a setting of the run."""
    clips = golden.floats("x", dims=5)
    weights = golden.weights(clips.dtype)
    clips = crop_clips(weights, clips, ledger)
    config = golden.settings.inner("config")
    host = video_vit(weights, clips, config)
    config.finish()
    table_of(golden, host, ledger)
    _runs(golden, ledger, host, clips, None)


def _runs(golden: Golden, ledger: Ledger, host: nn.Module, pixels: Tensor, pool: str | None) -> None:
    settings = golden.settings
    settings.agree("batch", pixels.shape[0])
    runs = settings.inner("runs")
    names = [name.removesuffix(".logits") for name in golden.matching(r"[^.]+\.logits")]
    if not names:
        raise Malformed("there is no tensor RUN.logits")
    if "logits_unpatched" in golden:
        ledger.value("logits_unpatched", host(pixels), golden.floats("logits_unpatched"), absolute=LOGITS)
    logits = {}
    for name in names:
        if name == "r0" and name not in runs:
            told = Settings({"r": 0, "prop_attn": False, "pool": "mean"}, "r0")
        else:
            told = runs.inner(name)
        ledger.scope = f"{name}."
        logits[name] = _run(golden, ledger, host, pixels, name, told, pool)
        told.finish()
    ledger.scope = ""
    runs.finish()
    if "logits" in golden:
        main = settings.choice("main_run", tuple(names))
        ledger.value("logits", logits[main], golden.floats("logits"), absolute=LOGITS)


def _run(
    golden: Golden, ledger: Ledger, host: nn.Module, pixels: Tensor, name: str, told: Settings, pool: str | None
) -> Tensor:
    if pool is None or "pool" in told:
        pool = {"weighted": "mass", "mean": "mean"}[told.choice("pool", ("weighted", "mean"))]
    depth = len(host.blocks)  # type: ignore[arg-type]
    reducer = reducer_for(told, depth, ledger, proportional=told.flag("prop_attn"), pool=pool)
    amounts = [int(step.amount) for step in reducer.schedule.steps(depth)]
    ledger.counts("r_list", amounts, told.take("r_list", amounts))
    attached = tokred.attach(host, reducer)
    ledger.notes += [f"{name}: {note}" for note in attached.notes]
    run = attached.run(pixels, trace=True, record=True)

    merges = [reduction for _, reduction in run.steps if isinstance(reduction, Merge)]
    effective = [merge.n_in - merge.n_out for merge in merges]
    ledger.counts("r_effective", effective, told.take("r_effective", effective))
    start = attached.geometry.tokens
    counts = [start, *(merge.n_out for merge in merges)] if merges else []
    ledger.counts("tokens", counts, told.take("tokens", counts) or [])
    stored = golden.numbered(rf"{name}\.merge(\d+)\.assign")
    ledger.counts("merges", list(range(len(merges))), stored)
    total = torch.arange(start, device=pixels.device).expand(pixels.shape[0], start)
    for i, merge in enumerate(merges):
        total = merge.assign.gather(1, total)
        if i in stored:
            ledger.decision(f"merge{i}.assign", merge.assign, golden.indices(f"{name}.merge{i}.assign"))
    if f"{name}.size" in golden:
        size = flat_size(f"{name}.size", golden.floats(f"{name}.size"))
        ledger.value("size", run.tokens.masses.to(size), size)
    if f"{name}.source" in golden:
        source = membership(total, run.tokens.count)
        ledger.decision("source", source, golden.floats(f"{name}.source", dims=3))
    assert run.tokens.source is not None
    ledger.decision("trace", run.tokens.source, total[:, run.tokens.prefix :])
    ledger.value("logits", run.logits, golden.floats(f"{name}.logits"), absolute=LOGITS)
    if f"{name}.logits_float64" in golden:
        theirs = golden.floats(f"{name}.logits_float64")
        ledger.logits64("logits_float64", run.logits, theirs, LOGITS)
    return run.logits
