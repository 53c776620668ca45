"""Replay of STA's vectors: one stage, and whole models on VideoViT."""

from __future__ import annotations

import torch
from torch import Tensor

import tokred
from tokred.accumulation import select
from tokred.backbones.geometry import Geometry
from tokred.gather import take
from tokred.methods.sta import STA
from tokred.probe import Probe
from tokred.reducer import Capabilities, Promise, Site, TokenReducer, keep_patches
from tokred.reduction import Keep
from tokred.run.parity.golden import Golden
from tokred.run.parity.hosts import crop_clips, video_vit
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed, Settings
from tokred.run.parity.videomae import table_of
from tokred.saliency import activation_map
from tokred.schedule import Schedule, Step
from tokred.tokens import Tokens

LOGITS = 2e-5
OFFICIAL_TUBELETS = 8
"""The number of tubelets for which the official code's constant 8, 4, 2 groups are those of the clip."""


@torch.no_grad()
def function(golden: Golden, ledger: Ledger) -> None:
    """One stage: kept tokens, the first group's similarities, each processed group's scores."""
    settings = golden.settings
    x, metric = golden.floats("x", dims=3), golden.floats("metric", dims=3)
    b, n, dim = x.shape
    groups, r = settings.whole("groups", least=1), settings.whole("r")
    if n % groups or metric.shape[:2] != x.shape[:2]:
        raise Malformed(f"x {tuple(x.shape)} and metric {tuple(metric.shape)} are not in {groups} equal groups")
    g = n // groups
    if not r < g:
        raise Malformed(f"r = {r} leaves nothing of groups of {g} tokens")
    for name, size in (("group_len", g), ("batch", b), ("dim", dim), ("metric_dim", metric.shape[2])):
        settings.agree(name, size)
    settings.without_effect("depth", "block_index")
    backward = settings.choice("direction", ("forward", "backward")) == "backward"
    order = list(reversed(range(groups))) if backward else list(range(groups))
    settings.agree("processing_order", order, "direction and groups")

    chosen = select(x, metric, groups, r, backward=backward)
    ledger.decision("kept", chosen.kept, golden.indices("kept"))
    ledger.bits("out", take(x, chosen.kept), golden.floats("out"))
    if "first.max_sim" in golden:
        ledger.value("first.max_sim", chosen.first_similarity, golden.floats("first.max_sim"))
    if "first.order" in golden:
        rising = chosen.first_similarity.argsort(dim=1, stable=True)
        ledger.decision("first.order", rising, golden.indices("first.order"))
    local = chosen.kept.reshape(b, groups, -1) % g
    damping = 1 - activation_map(x.reshape(b, groups, g, dim))
    for j in golden.numbered(r"step(\d+)\..*"):
        if not 1 <= j < groups:
            raise Malformed(f"there is a step{j}, but the groups after the first are 1..{groups - 1}")
        score, place = chosen.score[:, j - 1], order[j]
        if f"step{j}.score" in golden:
            ledger.value(f"step{j}.score", score, golden.floats(f"step{j}.score"))
        if f"step{j}.acc" in golden:
            # Our score is accumulation times damping; so must the file's accumulation be.
            ledger.value(f"step{j}.acc", score, golden.floats(f"step{j}.acc") * damping[:, place])
        if f"step{j}.kept_local" in golden:
            ledger.decision(f"step{j}.kept_local", local[:, place], golden.indices(f"step{j}.kept_local"))


@torch.no_grad()
def end_to_end(golden: Golden, ledger: Ledger) -> None:
    """Every r of a file: the blocks, the kept tokens of each stage in order, the logits."""
    settings = golden.settings
    clips = golden.floats("x", dims=5)
    weights = golden.weights(clips.dtype)
    settings.agree("batch", clips.shape[0])
    clips = crop_clips(weights, clips, ledger)
    config = settings.inner("config")
    model = video_vit(weights, clips, config)
    config.finish()
    table_of(golden, model, ledger)
    told = settings.inner("per_r", {})
    wanted = golden.numbered(r"r(\d+)\.logits")
    for r in settings.items("r_values", []):
        if r not in wanted:
            raise Malformed(f"r_values names r = {r}, but there is no tensor r{r}.logits")
    if not wanted:
        raise Malformed("there is no tensor rN.logits")
    logits = {}
    for r in wanted:
        ledger.scope = f"r{r}."
        logits[r] = _run(golden, ledger, model, clips, r, told.inner(str(r), {}))
    ledger.scope = ""
    told.finish()
    if "logits" in golden:
        main = settings.whole("main_r")
        if main not in logits:
            raise Malformed(f"main_r = {main}, but there is no tensor r{main}.logits")
        ledger.value("logits", logits[main], golden.floats("logits"), absolute=LOGITS)


def _run(golden: Golden, ledger: Ledger, model: torch.nn.Module, clips: Tensor, r: int, told: Settings) -> Tensor:
    stages = golden.numbered(rf"r{r}\.stage(\d+)\.kept(?:_original)?")
    if stages != list(range(1, len(stages) + 1)):
        raise Malformed(f"r = {r} has stages {stages}, not 1, 2, 3, ...")
    kept = [golden.indices(f"r{r}.stage{s}.kept", dims=2) for s in stages]
    attached = tokred.attach(model, STA(r=r))
    run = attached.run(clips, record=True)
    patches = attached.geometry.grid.patches
    if _dropped(patches, [k.shape[1] for k in kept]) != _dropped(patches, [red.n_out for _, red in run.steps]):
        if attached.geometry.grid.t == OFFICIAL_TUBELETS:
            ledger.counts("tokens", [red.n_out for _, red in run.steps], [k.shape[1] for k in kept])
            return run.logits
        drops = _dropped(patches, [k.shape[1] for k in kept])
        if len(drops) != 3 or any(drop % r for drop in drops):
            raise Malformed(f"r = {r} drops {drops} tokens: not r from each of some groups in three stages")
        groups = tuple(drop // r for drop in drops)
        ledger.notes.append(f"r = {r} in the official code's constant {groups} groups")
        attached = tokred.attach(model, _ConstantGroups(r, groups))
        run = attached.run(clips, record=True)

    ledger.counts("block_index", [s.block for s, _ in run.steps], told.take("block_index", _blocks(run.steps)))
    counts = [patches, *(reduction.n_out for _, reduction in run.steps)]
    ledger.counts("tokens", counts, told.take("tokens", counts))
    original: Tensor | None = None
    for s, theirs, (_, reduction) in zip(stages, kept, run.steps):
        if not isinstance(reduction, Keep):
            raise Malformed(f"STA made a {type(reduction).__name__} where it must keep a subset")
        ledger.decision(f"stage{s}.kept", reduction.index, theirs)
        original = reduction.index if original is None else original.gather(1, reduction.index)
        if f"r{r}.stage{s}.kept_original" in golden:
            ledger.decision(f"stage{s}.kept_original", original, golden.indices(f"r{r}.stage{s}.kept_original"))
    ledger.value("logits", run.logits, golden.floats(f"r{r}.logits"), absolute=LOGITS)
    if f"r{r}.logits_float64" in golden:
        ledger.logits64("logits_float64", run.logits, golden.floats(f"r{r}.logits_float64"), LOGITS)
    told.finish()
    return run.logits


def _blocks(steps: tuple[tuple[Site, object], ...]) -> list[int]:
    return [site.block for site, _ in steps]


def _dropped(start: int, counts: list[int]) -> list[int]:
    return [before - after for before, after in zip([start, *counts], counts)]


class _ConstantGroups(TokenReducer):
    """STA as the official code runs it on a clip that has not eight tubelets: 8, 4, 2 groups all the same."""

    site = "after_block"
    capabilities = Capabilities(needs=frozenset({"key"}))

    def __init__(self, r: int, groups: tuple[int, ...]) -> None:
        super().__init__(Schedule(at="thirds", drop=r))
        self.r = r
        self.groups = groups

    def promise(self, step: Step, count: int, groups: int | None, geometry: Geometry) -> Promise:
        now = self.groups[step.index]
        if now < 1 or count % now or not self.r < count // now:
            raise Malformed(f"{count} tokens in {now} equal groups, {self.r} of each to drop: impossible")
        return Promise(count - now * self.r, None)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep:
        groups = self.groups[site.index]
        backward = site.index % 2 == 1
        return keep_patches(tokens, select(tokens.patches, probe.mean_key, groups, self.r, backward=backward).kept)
