"""Replay of ToMe's function-level vectors: one merge, chained merges, every k-th token, schedules."""

from __future__ import annotations

import torch
from torch import Tensor

from tokred.advance import advance
from tokred.matching import match_every_kth, match_halves
from tokred.methods.tome import ToMe
from tokred.probe import Probe
from tokred.reducer import Site
from tokred.reduction import Merge
from tokred.run.parity.golden import Golden
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed, Settings
from tokred.tokens import Grid, Tokens


@torch.no_grad()
def function(golden: Golden, ledger: Ledger) -> None:
    """One merge: the matching, every mode of merging, masses, provenance and the way back."""
    settings = golden.settings
    x, metric = golden.floats("x", dims=3), golden.floats("metric", dims=3)
    n, prefix = x.shape[1], _prefix(settings)
    settings.agree("tokens_in", n)
    requested = settings.whole("r_requested")
    tokens = _tokens(x, prefix)
    merge = _merge(tokens, metric, requested)
    if merge is None:
        merge = Merge(torch.arange(n, device=x.device).expand(x.shape[0], n), n)
    effective = n - merge.n_out
    ledger.counts("r_effective", effective, settings.whole("r_effective", effective))
    ledger.counts("tokens_out", merge.n_out, settings.whole("tokens_out", merge.n_out))
    matching = match_halves(metric, effective, prefix)
    if effective and "assign" not in golden:
        raise Malformed("there is no tensor assign")
    for name, ours in (
        ("assign", merge.assign),
        ("unm_idx", matching.unmerged),
        ("src_idx", matching.source),
        ("dst_idx", matching.destination),
    ):
        if name in golden:
            ledger.decision(name, ours, golden.indices(name))
    _merged(golden, ledger, merge, x)
    if "size_in" in golden:
        size = _flat("size_in", golden.floats("size_in"))
        if "wavg_sized.x" in golden:
            ledger.value("wavg_sized.x", merge.apply(x, size), golden.floats("wavg_sized.x"))
        if "wavg_sized.size" in golden:
            theirs = _flat("wavg_sized.size", golden.floats("wavg_sized.size"))
            ledger.value("wavg_sized.size", _size(merge, size), theirs)
    if "source" in golden:
        ledger.decision("source", membership(merge.assign, merge.n_out), golden.floats("source", dims=3))


@torch.no_grad()
def every_kth(golden: Golden, ledger: Ledger) -> None:
    """Every k-th token a destination."""
    settings = golden.settings
    x, metric, k = golden.floats("x", dims=3), golden.floats("metric", dims=3), settings.whole("k", least=2)
    b, n, _ = x.shape
    settings.agree("tokens_in", n)
    assign, count = match_every_kth(metric, k)
    if count < 1:
        raise Malformed(f"k = {k} leaves nothing of {n} tokens")
    ledger.counts("tokens_out", count, settings.whole("tokens_out", count))
    full = count * k
    if "dst_idx" in golden:
        # The sources in their order: all but the last of each run.
        destination = assign[:, :full].reshape(b, count, k)[:, :, : k - 1].flatten(1)
        ledger.decision("dst_idx", destination, golden.indices("dst_idx").flatten(1))
    if "assign" in golden:
        theirs = golden.indices("assign", dims=2)
        ledger.decision("assign", assign[:, : theirs.shape[1]], theirs)
    merge = Merge(assign[:, :full], count)
    _merged(golden, ledger, merge, x[:, :full])


@torch.no_grad()
def chain(golden: Golden, ledger: Ledger) -> None:
    """Merges in a row with the keys of each given: maps, features, masses, provenance."""
    settings = golden.settings
    x, prefix = golden.floats("x", dims=3), _prefix(settings)
    amounts = settings.items("r_list")
    steps = golden.numbered(r"step(\d+)\..*")
    if steps != list(range(len(amounts))):
        raise Malformed(f"r_list has {len(amounts)} entries, but the steps are {steps}")
    tokens = _tokens(x, prefix)
    total = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
    for i, r in enumerate(amounts):
        if isinstance(r, bool) or not isinstance(r, int) or r < 0:
            raise Malformed(f"r_list[{i}] = {r!r} is not a whole number of at least 0")
        merge = _merge(tokens, golden.floats(f"step{i}.metric", dims=3), r)
        if merge is not None:
            tokens = advance(tokens, merge)
            total = merge.assign.gather(1, total)
            ledger.decision(f"step{i}.assign", merge.assign, golden.indices(f"step{i}.assign"))
        ledger.value(f"step{i}.x", tokens.x, golden.floats(f"step{i}.x"))
        size = _flat(f"step{i}.size", golden.floats(f"step{i}.size"))
        ledger.value(f"step{i}.size", tokens.masses.to(size), size)
    if "source" in golden:
        ledger.decision("source", membership(total, tokens.count), golden.floats("source", dims=3))


def schedules(golden: Golden, ledger: Ledger) -> None:
    """Tokens merged per layer for each way to give r."""
    cases = golden.settings.inner("cases")
    names = golden.matching(r"case\d+")
    if not names:
        raise Malformed("there is no tensor caseN")
    for name in names:
        told = cases.inner(name)
        theirs = golden.indices(name, dims=1)
        told.agree("layers", len(theirs))
        reducer = reducer_for(told, len(theirs), ledger)
        told.finish()
        ours = [int(step.amount) for step in reducer.schedule.steps(len(theirs))]
        ledger.decision(name, torch.tensor(ours, device=theirs.device), theirs)
    cases.finish()


def reducer_for(told: Settings, depth: int, ledger: Ledger, *, proportional: bool = False, pool: str = "mass") -> ToMe:
    """ToMe as a run of a file sets it: ``r`` a number, (r, inflection), or a list with one number per layer.

    JSON has no tuples: where no type is given, the list form is taken unless only the other gives ``r_list``.
    """
    r = told.take("r")
    kind = told.choice("type" if "type" in told else "r_type", ("int", "tuple", "list", ""), "")
    pair = isinstance(r, list) and len(r) == 2 and isinstance(r[1], (int, float)) and -1 <= r[1] <= 1
    if not kind:
        kind = "int" if not isinstance(r, list) else "list"
        if pair and told.take("r_list", None) is not None:
            realised = ToMe(r[0], inflection=float(r[1])).schedule.steps(depth)
            kind = "tuple" if [int(s.amount) for s in realised] == told.items("r_list") else "list"
    if kind == "int" and isinstance(r, int):
        return ToMe(r, proportional=proportional, pool=pool)
    if kind == "tuple" and pair:
        return ToMe(r[0], inflection=float(r[1]), proportional=proportional, pool=pool)
    if kind == "list" and isinstance(r, list):
        if len(r) > depth:
            ledger.notes.append(f"{len(r) - depth} entries of r beyond {depth} layers ignored, as in the reference")
        return ToMe(tuple(r[:depth]), proportional=proportional, pool=pool)
    raise Malformed(f"{told.where}.r = {r!r} is not understood as {kind}")


def membership(assign: Tensor, n_out: int) -> Tensor:
    """The map (B, N) as a 0/1 matrix (B, n_out, N) of the floats that reference files hold."""
    return torch.nn.functional.one_hot(assign, n_out).transpose(1, 2).float()


def flat_size(name: str, size: Tensor) -> Tensor:
    """Masses (B, N, 1) or (B, N) as (B, N)."""
    return _flat(name, size)


def _merge(tokens: Tokens, metric: Tensor, r: int) -> Merge | None:
    """What ToMe decides with the given head-mean keys (B, N, d)."""
    if metric.shape[:2] != tokens.x.shape[:2]:
        raise Malformed(f"keys {tuple(metric.shape)} for {tokens.count} tokens")
    reducer = ToMe(r)
    probe = Probe(tokens.x, k=metric[:, None], prefix=tokens.prefix, needs=reducer.capabilities.needs)
    return reducer.reduce(tokens, probe, Site(reducer.site, reducer.schedule.steps(1)[0], 1, 1))


def _merged(golden: Golden, ledger: Ledger, merge: Merge, x: Tensor) -> None:
    """The three plain modes, the weighted average without prior masses, and the way back."""
    for mode in ("mean", "sum", "amax"):
        if f"merged_{mode}" in golden:
            ours = Merge(merge.assign, merge.n_out, mode=mode).apply(x)
            ledger.value(f"merged_{mode}", ours, golden.floats(f"merged_{mode}"))
    average = merge.apply(x)
    if "wavg.x" in golden:
        ledger.value("wavg.x", average, golden.floats("wavg.x"))
    if "wavg.size" in golden:
        ledger.value("wavg.size", _size(merge, None), _flat("wavg.size", golden.floats("wavg.size")))
    if "unmerged" in golden:
        ledger.value("unmerged", merge.restore(average), golden.floats("unmerged"))


def _size(merge: Merge, size: Tensor | None) -> Tensor:
    masses = merge.masses(size)
    assert masses is not None
    return masses


def _flat(name: str, size: Tensor) -> Tensor:
    if size.ndim == 3 and size.shape[2] == 1:
        return size[..., 0]
    if size.ndim != 2:
        raise Malformed(f"{name} has shape {tuple(size.shape)}: (B, N, 1) was expected")
    return size


def _prefix(settings: Settings) -> int:
    return int(settings.flag("class_token")) + int(settings.flag("distill_token", False))


def _tokens(x: Tensor, prefix: int) -> Tokens:
    if x.shape[1] <= prefix:
        raise Malformed(f"{x.shape[1]} tokens, {prefix} of them protected: none is left to merge")
    return Tokens(x, Grid(1, 1, x.shape[1] - prefix), prefix)
