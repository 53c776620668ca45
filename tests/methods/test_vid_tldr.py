"""vid-TLDR: saliency, a merge against loops, guards, schedules (streamed entropies: tests/test_saliency.py)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tokred.advance import advance
from tokred.attach import attach
from tokred.backbones.geometry import Geometry
from tokred.compose import compose
from tokred.dry import dry_run
from tokred.measure.flops import count
from tokred.methods import STA, VidTLDR
from tokred.methods.vid_tldr import LEAST_MASS, saliency_of
from tokred.probe import Probe
from tokred.reducer import Site
from tokred.reduction import Merge
from tokred.schedule import ScheduleError, Step
from tokred.testing import default_backbones
from tokred.tokens import Grid, Tokens

VIDEO, IMAGE = default_backbones()[:2]
GEOMETRY = Geometry(
    depth=6, dim=24, heads=3, head_dim=8, mlp_hidden=48, grid=Grid(4, 4, 6), prefix=0, classes=7, kernel=(2, 4, 4)
)


def step_on(
    x: Tensor, q: Tensor, k: Tensor, r: int, *, size: Tensor | None = None, prefix: int = 0, weighted: str = "sources"
) -> tuple[Tokens, Merge | None]:
    """One step on tokens x (B, N, C) whose block computed q and k (B, H, N, d)."""
    tokens = Tokens(x, Grid(1, 1, x.shape[1] - prefix), prefix, size=size)
    reducer = VidTLDR(r=r, weighted=weighted)
    probe = Probe(x, q, k, scale=q.shape[-1] ** -0.5, prefix=prefix, size=size, needs=reducer.capabilities.needs)
    return tokens, reducer.reduce(tokens, probe, Site("after_attention", Step(0, 0, "drop", r), 6, 1))


def saliency_by_the_official_chain(e: list[float]) -> list[float]:
    """Minimum to zero, maximum to one, the mask below the mean, centred, maximum to one again, masked."""
    s = [v - min(e) for v in e]
    s = [v / max(s) for v in s]
    mean = sum(s) / len(s)
    centred = [v - mean for v in s]
    return [0.0 if v < mean else c / max(centred) for v, c in zip(s, centred, strict=True)]


def entropies(q: Tensor, k: Tensor) -> list[float]:
    """sum P log P of each row of the head-averaged dense map of q, k (H, N, d), in float64."""
    rows = (q.double() @ k.double().transpose(1, 2) * q.shape[-1] ** -0.5).softmax(-1).mean(0)
    return [sum(p * math.log(p) for p in row) for row in rows.tolist()]


@given(st.lists(st.floats(-7, 0, width=32), min_size=2, max_size=30).filter(lambda e: max(e) - min(e) > 0.1))
def test_saliency_is_the_official_chain(e: list[float]) -> None:
    found = saliency_of(torch.tensor([e], dtype=torch.float64))
    assert found[0].tolist() == pytest.approx(saliency_by_the_official_chain(e), abs=1e-9)


@pytest.mark.parametrize("value", [0.0, -7.3, 1e-3])
def test_saliency_of_equal_tokens_is_one_and_not_nan(value: float) -> None:
    e = torch.full((2, 37), value)
    assert torch.equal(saliency_of(e), torch.ones(2, 37))
    noise = torch.linspace(-1, 1, 37).mul(1e-7)
    assert torch.equal(saliency_of(noise[None]), torch.ones(1, 37))
    found = saliency_of(noise.mul(100)[None])[0].tolist()
    assert found == pytest.approx(saliency_by_the_official_chain(noise.tolist()), abs=1e-6)


@given(st.integers(2, 13), st.integers(0, 2), st.integers(1, 9), st.booleans(), st.booleans(), st.integers(0, 9999))
def test_a_step_is_the_weighted_merge_of_the_closest_pairs(
    n: int, prefix: int, r: int, massive: bool, everything: bool, seed: int
) -> None:
    """One step against loops, the order of its output included."""
    g = torch.Generator().manual_seed(seed)
    total = prefix + n
    x = torch.randn(1, total, 5, generator=g)
    q, k = (2 * torch.randn(1, 2, total, 4, generator=g) for _ in range(2))
    size = torch.randint(1, 5, (1, total), generator=g).float() if massive else None
    tokens, merge = step_on(x, q, k, r, size=size, prefix=prefix, weighted="all" if everything else "sources")
    r = min(r, n // 2)
    if r == 0:
        assert merge is None
        return
    assert merge is not None
    after = advance(tokens, merge)

    saliency = saliency_by_the_official_chain(entropies(q[0], k[0])[prefix:])
    features = x[0, prefix:].double()
    unit = features / features.norm(dim=1, keepdim=True)
    best = {i: max((float(unit[i] @ unit[j]), -j) for j in range(1, n, 2)) for i in range(0, n, 2)}
    sources = sorted(best, key=lambda i: -best[i][0])[:r]
    groups = [[i] for i in range(0, n, 2) if i not in sources]
    groups += [[j, *(i for i in sources if best[i][1] == -j)] for j in range(1, n, 2)]

    mass = [1.0] * total if size is None else size[0].tolist()
    weighted = [saliency[i] * mass[prefix + i] if everything or i in sources else mass[prefix + i] for i in range(n)]
    weighted = [max(w, LEAST_MASS) if everything else w for w in weighted]
    assert after.count == total - r
    assert after.size is not None
    assert torch.equal(after.x[:, :prefix], x[:, :prefix])
    assert after.size[0, :prefix].tolist() == mass[:prefix]
    for place, members in enumerate(groups, start=prefix):
        weight = sum(weighted[i] for i in members)
        expected = torch.stack([features[i] * weighted[i] for i in members]).sum(0) / weight
        torch.testing.assert_close(after.x[0, place].double(), expected, rtol=1e-4, atol=1e-4)
        assert float(after.size[0, place]) == pytest.approx(weight, rel=1e-4, abs=1e-5)
        if len(members) == 1:
            assert torch.equal(after.x[0, place], x[0, prefix + members[0]])


def made(seed: int, b: int = 2, n: int = 40, c: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(b, n, c, generator=g)
    q, k = (2 * torch.randn(b, 3, n, 4, generator=g) for _ in range(2))
    return x, q, k


def test_total_mass_falls_by_what_merged_tokens_lack_in_saliency_and_none_falls_below_one() -> None:
    x, q, k = made(0)
    size = torch.randint(1, 9, (2, 40), generator=torch.Generator().manual_seed(1)).float()
    tokens, merge = step_on(x, q, k, 15, size=size)
    assert merge is not None
    assert merge.weight is not None
    lost = (size * (1 - merge.weight)).sum(1)
    assert bool((lost > 1).all())
    after = advance(tokens, merge).masses
    torch.testing.assert_close(after.sum(1), size.sum(1) - lost)
    assert float(after.min()) >= 1
    assert bool((merge.weight[:, 1::2] == 1).all()), "destinations keep their mass"


def test_a_background_source_vanishes() -> None:
    """Token 0 looks at everything alike and is closest to token 1: it leaves no trace in it."""
    x, q, k = made(3, b=1, n=8)
    q[0, :, 0] = 0
    x[0, 0] = 1.01 * x[0, 1] + 1e-3
    tokens, merge = step_on(x, q, k, 1)
    assert merge is not None
    assert merge.weight is not None
    assert merge.assign[0, 0] == merge.assign[0, 1]
    assert float(merge.weight[0, 0]) == 0
    after = advance(tokens, merge)
    assert torch.equal(after.x[0, merge.assign[0, 1]], x[0, 1])
    assert torch.equal(after.masses, torch.ones(1, 7))


def test_uniform_attention_merges_by_similarity_alone() -> None:
    x, q, k = made(4)
    tokens, merge = step_on(x, torch.zeros_like(q), k, 12)
    assert merge is not None
    assert merge.weight is not None
    assert torch.equal(merge.weight, torch.ones(2, 40))
    after = advance(tokens, merge)
    plain = Merge(merge.assign, merge.n_out)
    torch.testing.assert_close(after.x, plain.apply(x))
    assert after.masses.sum(1).tolist() == [40.0, 40.0]


def test_attention_that_underflows_and_tokens_without_length_give_no_nan() -> None:
    x, q, k = made(5)
    x[:, :6] = 0
    tokens, merge = step_on(x, 200 * q, 200 * k, 12)
    assert merge is not None
    assert merge.weight is not None
    assert bool(merge.weight.isfinite().all())
    assert bool((merge.weight < 1).any())
    after = advance(tokens, merge)
    assert bool(after.x.isfinite().all())
    assert bool(after.masses.isfinite().all())


def test_tokens_without_length_are_close_to_nothing() -> None:
    """The official similarities are not numbers: everything would merge into the first such odd token."""
    x, q, k = made(8)
    x = x.abs() + 0.1
    x[:, [4, 7]] = 0
    _, merge = step_on(x, q, k, 19)
    assert merge is not None
    assert bool((merge.assign[:, ::2] != merge.assign[:, [7]]).all()), "nothing merges into the odd one"
    assert merge.assign[:, 4].tolist() == [0, 0], "the even one is the last to merge"


def test_no_order_of_the_samples_and_no_dtype_changes_a_decision() -> None:
    x, q, k = (part.half() for part in made(6))
    _, wide = step_on(x.float(), q.float(), k.float(), 12)
    assert wide is not None
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            _, narrow = step_on(x, q, k, 12)
        assert narrow is not None
        assert torch.equal(narrow.assign, wide.assign)
        assert torch.equal(narrow.weight, wide.weight)  # type: ignore[arg-type]
    _, alone = step_on(x[1:].float(), q[1:].float(), k[1:].float(), 12)
    assert alone is not None
    assert torch.equal(alone.assign, wide.assign[1:])
    assert torch.equal(alone.weight, wide.weight[1:])  # type: ignore[index,arg-type]


def test_groups_without_any_mass_become_their_plain_mean_and_leave_attention_defined() -> None:
    """With all masses weighted, background alone has no mass: it keeps a trace of it instead of 0 / 0 and log 0."""
    x, q, k = made(7)
    tokens, merge = step_on(x, q, k, 12, weighted="all")
    assert merge is not None
    after = advance(tokens, merge)
    assert float(after.masses.min()) == LEAST_MASS
    dark = (merge.weight == LEAST_MASS)[0]  # type: ignore[index]
    lone = [p for p in range(merge.n_out) if bool(dark[merge.assign[0] == p].all())]
    assert lone
    for place in lone:
        torch.testing.assert_close(after.x[0, place], x[0, merge.assign[0] == place].mean(0))
    host, clips = VIDEO.build()
    fast = attach(host, VidTLDR(r=(20, 20, 10), weighted="all"))
    with torch.no_grad():
        assert bool(fast(clips).isfinite().all())


@torch.no_grad()
def test_masses_bias_later_blocks_and_pooling_is_a_choice() -> None:
    host, clips = VIDEO.build()
    reducer = VidTLDR(r=(30,))
    biased = attach(host, reducer)(clips)
    reducer.proportional = False
    assert (attach(host, reducer)(clips) - biased).abs().max() > 1e-3
    run = attach(host, VidTLDR(r=(30,), pool="mass")).run(clips)
    assert (run.logits - biased).abs().max() > 1e-3
    assert run.tokens.size is not None
    share = run.tokens.size / run.tokens.size.sum(1, keepdim=True)
    pooled = host.fc_norm((run.tokens.x * share[..., None]).sum(1))  # type: ignore[operator]
    torch.testing.assert_close(run.pooled, pooled)


def counts(reducer: VidTLDR, n: int = 96) -> list[int]:
    found = []
    for step in reducer.schedule.steps(6):
        n = reducer.promise(step, n, None, GEOMETRY).left
        found.append(n)
    return found


def test_every_way_to_say_how_much() -> None:
    assert counts(VidTLDR(r=10)) == [86, 76, 66, 56]
    assert counts(VidTLDR(r=(8, 0, 3))) == [88, 88, 85, 85, 85, 85]
    assert counts(VidTLDR(r=0.25)) == [72, 54, 41, 31]
    assert counts(VidTLDR(r=(0.25, 1, 0.999))) == [72, 71, 36, 36, 36, 36]
    assert counts(VidTLDR(r=8, at=(1, 4))) == [88, 80]
    assert counts(VidTLDR(r=(0.1,)), 9) == [9] * 6, "a share that is less than one token merges nothing"


def test_a_large_r_is_clamped_to_half_and_told() -> None:
    assert counts(VidTLDR(r=(999, 0, 30)), 33) == [17, 17, 9, 9, 9, 9]
    assert VidTLDR(r=(999, 0, 30)).check(GEOMETRY) == [
        "block 0: r = 999 clamped to 48, half of the tokens",
        "block 2: r = 30 clamped to 24, half of the tokens",
    ]
    assert VidTLDR(r=(0.5, 24)).check(GEOMETRY) == []


def test_temporal_groups_end_with_the_first_merge() -> None:
    first, second = VidTLDR(r=(0.005, 5)).schedule.steps(6)[:2]
    assert VidTLDR().promise(first, 96, 4, GEOMETRY)[:3] == (96, 4, ())
    assert VidTLDR().promise(second, 96, 4, GEOMETRY)[:3] == (91, None, ())
    with pytest.raises(ScheduleError, match="equal temporal groups"):
        compose(VidTLDR(r=(5,)), STA(r=2)).check(GEOMETRY)


UMT_B: dict[str, Any] = {"depth": 12, "dim": 768, "heads": 12, "head_dim": 64, "mlp_hidden": 3072}
UMT_L: dict[str, Any] = {"depth": 24, "dim": 1024, "heads": 16, "head_dim": 64, "mlp_hidden": 4096}


@pytest.mark.parametrize(
    ("size", "r", "gmac"),
    [
        (UMT_B, 0, 303.1),
        (UMT_B, (600, 200, 100), 175.7),
        (UMT_B, (450, 250, 200), 178.8),
        (UMT_B, (250, 150, 150, 150), 209.4),
        (UMT_B, (600, 200), 186.7),
        (UMT_L, 0, 984.0),
        (UMT_L, (550, 400), 540.8),
        (UMT_L, (450, 250, 100), 607.5),
        (UMT_L, (350, 300, 100, 50), 611.5),
    ],
)
def test_multiply_adds_of_the_published_settings(size: dict[str, Any], r: Any, gmac: float) -> None:
    """12 frames of 224 x 224 in tubelets of one frame, no norms, no head; a step costs its similarities, a quarter of
    N^2 C."""
    geometry = Geometry(grid=Grid(12, 14, 14), prefix=0, classes=0, kernel=(1, 16, 16), **size)
    plan = dry_run(VidTLDR(r=r), geometry, device="meta")
    report = count(geometry, plan)
    assert (report.embed + report.attention + report.mlp) / 1e9 == pytest.approx(gmac, abs=0.05)
    for step in plan.steps:
        assert step.macs == ((step.n_in + 1) // 2) * (step.n_in // 2) * geometry.dim
        assert step.executed_macs == step.macs + step.n_in**2 * geometry.dim, "streaming the entropy"


def test_prefix_tokens_are_in_the_attention_and_not_in_the_matching() -> None:
    geometry = replace(GEOMETRY, prefix=2)
    (step,) = dry_run(VidTLDR(r=(4,)), geometry).steps
    assert (step.n_in, step.macs) == (98, 48 * 48 * 24)
    assert step.executed_macs == step.macs + 98 * 98 * 24


@pytest.mark.parametrize(("tokens", "prefix"), [(96, 0), (97, 0), (97, 1)])
def test_a_step_costs_the_similarities_of_even_with_odd_patches(tokens: int, prefix: int) -> None:
    where = Geometry(
        depth=6, dim=24, heads=3, head_dim=8, mlp_hidden=48, grid=Grid(4, 4, 6), prefix=prefix, classes=7,
        kernel=(2, 4, 4),
    )  # fmt: skip
    even, odd = len(range(prefix, tokens, 2)), len(range(prefix + 1, tokens, 2))
    assert VidTLDR(3).macs(tokens, where, Step(0, 0, "drop", 3)) == even * odd * 24


def test_a_token_of_no_mass_weighs_an_exact_factor_that_is_nothing_in_attention() -> None:
    assert math.frexp(LEAST_MASS)[0] == 0.5
    assert math.log(LEAST_MASS) == pytest.approx(-27.7, abs=0.05)


def test_what_ran_is_told_where_it_is_not_the_official_method() -> None:
    host, _ = IMAGE.build()
    assert attach(host, VidTLDR(r=4)).notes == ("vid-TLDR with protected prefix tokens (no official counterpart)",)
    assert VidTLDR(r=4).describe(GEOMETRY) == []
    assert "official code: merged tokens only" in VidTLDR(r=4, weighted="all").describe(GEOMETRY)[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": -3}, "drop = -3 is not a whole number of at least 0"),
        ({"r": 1.5}, r"drop = 1.5 is not a whole number of at least 0, or a share in \(0, 1\)"),
        ({"r": (20, 1.0)}, r"drop = 1.0 is not a whole number of at least 0, or a share in \(0, 1\)"),
        ({"weighted": "none"}, "weighted = 'none' is not one of sources, all"),
        ({"pool": "max"}, "pool = 'max' is not one of mass, mean"),
    ],
)
def test_wrong_settings_are_refused_when_it_is_made(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        VidTLDR(**settings)


def test_a_list_longer_than_the_backbone_is_refused() -> None:
    with pytest.raises(ScheduleError, match="drop has 7 entries for 6 steps"):
        VidTLDR(r=(1,) * 7).check(GEOMETRY)
