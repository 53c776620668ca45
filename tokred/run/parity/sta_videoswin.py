"""Replay of STA on VideoSwin: the nearest-token map, one block on kept tokens, and whole models."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from tokred.attach import Attached, attach
from tokred.backbones.swin_layers import SwinBlock
from tokred.backbones.videoswin_adapter import VideoSwinAdapter
from tokred.backbones.window_layout import Window, clipped, cut, relative_index
from tokred.backbones.windowed import attend_kept, attend_whole
from tokred.cover import Cover, nearest
from tokred.gather import take
from tokred.methods.sta import STA
from tokred.run.parity.golden import Golden, one_line
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed
from tokred.run.parity.sta_videoswin_models import GivenSets, WatchedSwin, kept_sets, per_frame
from tokred.run.parity.videoswin import three, video_swin
from tokred.tokens import Grid, Tokens

LOGITS = 2e-5
FORMS = {"published": False, "without replicas": True}
"""The two forms that must give the same tokens, and what ``skip_replicas`` is in each."""


@torch.no_grad()
def nearest_token(golden: Golden, ledger: Ledger) -> None:
    """Which kept token of its frame stands on each place."""
    sides = golden.settings.items("grid")
    if len(sides) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sides):
        raise Malformed(f"metadata.grid = {sides} is not two whole numbers of at least 1")
    keep = golden.indices("keep", dims=3)
    ledger.decision("source", _sources(keep, Grid(keep.shape[1], *sides)), golden.indices("source", dims=3))


@torch.no_grad()
def block(golden: Golden, ledger: Ledger) -> None:
    """One block on kept tokens, in both forms, and the nearest map that it needs."""
    grid, keep, x = Grid(*three(golden.settings, "grid")), golden.indices("keep", 3), golden.floats("x", 4)
    b, t, k, dim = x.shape
    if keep.shape != (b, t, k) or t != grid.t:
        raise Malformed(f"x {tuple(x.shape)}, keep {tuple(keep.shape)} and grid {tuple(grid)} do not belong together")
    golden.settings.agree("kept_per_frame", k)
    if "source" in golden:
        ledger.decision("source", _sources(keep, grid), golden.indices("source", dims=3))
    module, run = _block(golden, grid, dim, x.dtype)
    start = Cover.whole(grid, b, x.device, module.attn.window_size)
    chosen = per_frame(keep, grid)
    positions = torch.full((b, grid.patches), -1).scatter(1, chosen, torch.arange(t * k).expand(b, -1))
    tokens = Tokens(x.flatten(1, 2), grid, groups=t, class_token=False, cover=start.moved(positions, chosen))
    for form, skip in FORMS.items():
        ledger.scope = f"{form}: "
        ledger.value("out", run(tokens, skip).unflatten(1, (t, k)), golden.floats("out", dims=4))
    ledger.scope = ""


def given_sets(golden: Golden, ledger: Ledger) -> None:
    """A whole model that keeps the tokens given for each site: tokens after each block, logits."""
    drops = _drops(golden)
    if golden.settings.take("directions", None) is not None:
        raise Malformed("directions are given, but the kept sets are too: only a score needs directions")
    keep = [golden.indices(f"keep.{i}", dims=3) for i in range(len(drops))]
    _end_to_end(golden, ledger, GivenSets(keep), keep, drops)


def by_score(golden: Golden, ledger: Ledger) -> None:
    """A whole model on which STA chooses: kept sets, tokens after each block, logits."""
    drops = _drops(golden)
    words = golden.settings.items("directions")
    if len(words) != len(drops) or any(word not in ("forward", "backward") for word in words):
        raise Malformed(f"metadata.directions = {words} is not forward or backward for each of {len(drops)} drops")
    keep = [golden.indices(f"keep.{i}", dims=3) for i in range(len(drops))]
    order = "".join(word[0].upper() for word in words)
    _end_to_end(golden, ledger, STA(r=tuple(drops), order=order), keep, drops)


@torch.no_grad()
def _end_to_end(golden: Golden, ledger: Ledger, reducer: STA | GivenSets, keep: list[Tensor], drops: list[int]) -> None:
    clips = golden.floats("x", dims=5)
    config = golden.settings.inner("config")
    model = video_swin(golden.weights(clips.dtype), clips, config)
    config.finish()
    geometry = VideoSwinAdapter().geometry(model)
    grids = [geometry.stage_grid(i + 1) for i in range(len(geometry.stages) - 1)]
    if len(drops) != len(grids):
        raise Malformed(f"{len(drops)} drops for a model that merges patches {len(grids)} times")
    golden.settings.agree("grids_at_drop", [[grid.h, grid.w] for grid in grids])
    golden.settings.agree("kept_per_frame", [grid.per_frame - r for grid, r in zip(grids, drops)])
    for i, (sets, grid) in enumerate(zip(keep, grids)):
        if sets.shape != (clips.shape[0], grid.t, grid.per_frame - drops[i]):
            raise Malformed(f"keep.{i} has shape {tuple(sets.shape)}: {drops[i]} of {tuple(grid)} dropped per frame")
        per_frame(sets, grid)
    for form, skip in FORMS.items():
        ledger.scope = f"{form}: "
        _run(golden, ledger, attach(model, reducer, skip_replicas=skip), clips, keep, grids)
    ledger.scope = ""


def _run(
    golden: Golden, ledger: Ledger, attached: Attached, clips: Tensor, keep: list[Tensor], grids: list[Grid]
) -> None:
    watched = WatchedSwin(cast(VideoSwinAdapter, attached.adapter).skip_replicas)
    attached.adapter = watched
    run = attached.run(clips, record=True)
    geometry = attached.geometry
    ours = kept_sets(run.steps, geometry, clips.shape[0])
    for i, (sets, theirs) in enumerate(zip(ours, keep, strict=True)):
        ledger.decision(f"keep.{i}", sets.sort(dim=1).values.view(theirs.shape) % grids[i].per_frame, theirs)
    names = [(stage, j) for stage, sizes in enumerate(geometry.stages) for j in range(sizes.depth)]
    compared = 0
    for (stage, j), x in zip(names, watched.outputs, strict=True):
        name = f"stage.{stage}.block.{j}"
        if name in golden:
            if stage:
                x = take(x, ours[stage - 1].argsort(dim=1))
            ledger.value(name, x.unflatten(1, (geometry.grid.t, -1)), golden.floats(name, dims=4))
            compared += 1
    if not compared:
        raise Malformed("there is no tensor stage.I.block.J of a block of this model")
    ledger.value("logits", run.logits, golden.floats("logits", dims=2), absolute=LOGITS)
    if "logits_float64" in golden:
        ledger.logits64("logits_float64", run.logits, golden.floats("logits_float64"), LOGITS)


def _sources(keep: Tensor, grid: Grid) -> Tensor:
    """(B, T, H*W) position in ``keep`` (B, T, k) of the token on each place."""
    b, t, k = keep.shape
    chosen = per_frame(keep, grid)
    owner = torch.full((b, grid.patches), -1).scatter(1, chosen, torch.arange(t * k).expand(b, -1))
    return nearest(owner, grid).view(b, t, grid.per_frame) % k


def _drops(golden: Golden) -> list[int]:
    drops = golden.settings.items("dropped_per_frame")
    if not drops or any(isinstance(r, bool) or not isinstance(r, int) or r < 0 for r in drops):
        raise Malformed(f"metadata.dropped_per_frame = {drops} is not a list of whole numbers of at least 0")
    return drops


def _block(
    golden: Golden, grid: Grid, dim: int, dtype: torch.dtype
) -> tuple[SwinBlock, Callable[[Tokens, bool], Tensor]]:
    """The block of a file, and how it runs on reduced tokens, with or without skipping replicas."""
    config = golden.settings.inner("config")
    config.agree("dim", dim)
    heads = config.whole("num_heads", least=1)
    window, shift = three(config, "window_size"), three(config, "shift_size", least=0)
    weights = golden.weights(dtype)
    index = weights.pop("attn.relative_position_index", None)
    if index is not None and not torch.equal(index.long(), relative_index(window)):
        raise Malformed("attn.relative_position_index is not the index of the window")
    bias = "attn.qkv.bias" in weights
    config.agree("qkv_bias", bias)
    hidden = weights["mlp.fc1.weight"].shape[0] if "mlp.fc1.weight" in weights else 4 * dim
    config.agree("mlp_ratio", hidden / dim)
    if dim % heads or any(roll >= size for roll, size in zip(shift, window)):
        raise Malformed(f"{heads} heads of width {dim}, window {window}, shift {shift}: impossible")
    sizes, half = clipped(grid, window, True)
    rolled = cast(Window, tuple(roll if n > size else 0 for roll, n, size in zip(shift, grid, window)))
    module = SwinBlock(dim, heads, window, any(rolled), (hidden + 0.5) / dim, bias, 0.0).to(dtype).eval()
    config.finish()
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise Malformed(f"the weights do not fit: {one_line(error)}") from error
    if rolled in ((0, 0, 0), half):
        return module, lambda tokens, skip: VideoSwinAdapter(skip).run(module, tokens)
    layout = cut(grid, sizes, rolled)

    def run(tokens: Tokens, skip: bool) -> Tensor:
        """A shift that no VideoSwin has: the same attention on windows cut for it."""
        assert tokens.cover is not None
        form = attend_kept if skip else attend_whole
        qkv = module.attn.qkv(module.norm1(tokens.x))
        x = tokens.x + module.attn.proj(form(module.attn, qkv, tokens.cover, layout, module.attn.scale))
        return cast(Tensor, x + module.mlp(module.norm2(x)))

    return module, run
