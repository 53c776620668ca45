from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokred.backbones.geometry import Geometry
from tokred.measure.flops import BLOCK_PARTS, MacReport, count, unreduced_plan
from tokred.plan import Plan, StepCount
from tokred.tokens import Grid

SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "H": (32, 1280, 16)}
#: fvcore on the official STA code, GMAC, 16x224x224, 400 classes, at r = 0, 16, ... 96.
MEASURED = {
    "S": (56.95, 49.15, 41.81, 35.03, 28.80, 23.14, 18.04),
    "B": (180.49, 157.90, 136.32, 115.86, 96.53, 78.31, 61.21),
    "L": (597.22, 520.40, 446.66, 376.11, 308.74, 244.56, 183.56),
    "H": (1191.64, 1038.46, 890.65, 748.33, 611.49, 480.14, 354.28),
}


def video_vit(size: str, classes: int = 400) -> Geometry:
    depth, dim, heads = SIZES[size]
    return Geometry(depth, dim, heads, dim // heads, 4 * dim, Grid(8, 14, 14), 0, classes, (2, 16, 16))


def deit_small(classes: int = 1000) -> Geometry:
    return Geometry(12, 384, 6, 64, 1536, Grid(1, 14, 14), 1, classes, (1, 16, 16), final_norm_tokens=True, video=False)


def sta_plan(geometry: Geometry, r: int) -> Plan:
    """STA as its official code runs it: 8, 4, 2 groups after blocks 0, L//3, (2L)//3."""
    n, depth, dm = geometry.tokens, geometry.depth, geometry.head_dim
    counts, steps = [], []
    groups = {0: 8, depth // 3: 4, 2 * depth // 3: 2} if r else {}
    for block in range(depth):
        counts.append(n)
        if block in groups:
            t = groups[block]
            g = n // t
            macs = ceil(g / 2) * (g // 2) * dm + g * g * dm + (t - 2) * g * (g - r) * (dm + 1)
            steps.append(StepCount(block, "after_block", n, n - t * r, macs, macs))
            n -= t * r
    return Plan(geometry.grid.patches, tuple(counts), tuple(counts), n, tuple(steps))


def after_attention_plan(geometry: Geometry, counts: list[int]) -> Plan:
    """``counts[i]`` tokens enter block i; the reduction lies between attention and MLP; the last is what is left."""
    return Plan(geometry.grid.patches, tuple(counts[:-1]), tuple(counts[1:]), counts[-1])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("index", "r"), list(enumerate(range(0, 97, 16))))
def test_sta_costs_what_fvcore_measured_on_the_official_code(size: str, index: int, r: int) -> None:
    geometry = video_vit(size)
    plan = sta_plan(geometry, r)
    n = geometry.grid.per_frame
    assert plan.final == 8 * n - 14 * r
    assert count(geometry, plan).gmac == pytest.approx(MEASURED[size][index], abs=0.01)


def test_the_unreduced_small_model_is_exact_to_the_last_digit() -> None:
    assert count(video_vit("S"), unreduced_plan(video_vit("S"))).macs == 56_950_316_928


def test_sta_on_the_large_model_spends_little_on_its_own_steps() -> None:
    report = count(video_vit("L"), sta_plan(video_vit("L"), 64))
    assert report.reduction == pytest.approx(38e6, rel=0.02)
    assert report.reduction_share == pytest.approx(0.00012, abs=1e-5)


@pytest.mark.parametrize(
    ("tokens", "gmac"),
    [
        ((197, 179, 163, 148), 4.022),
        ((197, 159, 129, 105), 3.477),
        ((197, 140, 100, 72), 3.029),
        ((197, 120, 74, 46), 2.635),
        ((197, 100, 52, 28), 2.309),
        ((197, 178, 161, 145), 3.988),
        ((197, 158, 127, 102), 3.444),
        ((197, 139, 98, 69), 2.997),
        ((197, 119, 72, 44), 2.608),
        ((197, 99, 50, 26), 2.282),
        ((197, 197, 197, 197), 4.599),
    ],
)
def test_evit_on_deit_small_reproduces_the_published_costs_without_norms(tokens: tuple[int, ...], gmac: float) -> None:
    a, b, c, d = tokens
    report = count(deit_small(), after_attention_plan(deit_small(), [a] * 4 + [b] * 3 + [c] * 3 + [d] * 3))
    assert (report.macs - report.norm) / 1e9 == pytest.approx(gmac, abs=0.0006)


def test_tome_on_the_large_video_model_is_the_281_that_sta_quotes() -> None:
    geometry = video_vit("L")
    counts = [1568]
    for _ in range(24):
        counts.append(counts[-1] - min(65, counts[-1] // 2))
    plan = after_attention_plan(geometry, counts)
    steps = tuple(
        StepCount(i, "after_attention", n, m, ceil(n / 2) * (n // 2) * 64) for i, (n, m) in enumerate(pairwise(counts))
    )
    assert count(geometry, replace(plan, steps=steps)).gmac == pytest.approx(281.0, abs=0.05)


geometries = st.builds(
    Geometry,
    depth=st.integers(1, 6),
    dim=st.integers(8, 64),
    heads=st.integers(1, 4),
    head_dim=st.integers(1, 16),
    mlp_hidden=st.integers(1, 128),
    grid=st.builds(Grid, st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
    prefix=st.integers(0, 3),
    classes=st.integers(0, 20),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    qk_norm=st.booleans(),
    inner_norms=st.integers(0, 1),
    final_norm_tokens=st.booleans(),
    heads_out=st.integers(1, 2),
)


@given(geometry=geometries, data=st.data())
def test_fewer_tokens_anywhere_never_cost_more(geometry: Geometry, data: st.DataObject) -> None:
    full = unreduced_plan(geometry)
    fewer = st.lists(st.integers(0, geometry.tokens), min_size=geometry.depth, max_size=geometry.depth)
    plan = Plan(
        embedded=data.draw(st.integers(0, full.embedded)),
        attention=tuple(data.draw(fewer)),
        mlp=tuple(data.draw(fewer)),
        final=data.draw(st.integers(0, full.final)),
    )
    small, large = count(geometry, plan), count(geometry, full)
    assert small.macs <= large.macs
    for ours, theirs in zip(small.blocks, large.blocks, strict=True):
        assert all(ours[part] <= theirs[part] for part in BLOCK_PARTS)


@given(geometry=geometries, costs=st.lists(st.integers(0, 10**6), max_size=4), data=st.data())
def test_the_parts_add_up_to_the_total(geometry: Geometry, costs: list[int], data: st.DataObject) -> None:
    n = geometry.tokens
    steps = tuple(
        StepCount(data.draw(st.integers(0, geometry.depth - 1)), "after_block", n, n, macs, 2 * macs) for macs in costs
    )
    report = count(geometry, replace(unreduced_plan(geometry), steps=steps))
    blocks = sum(sum(block.values()) for block in report.blocks)
    assert report.macs == report.embed + blocks + report.final_norm + report.head
    assert report.macs == report.embed + report.attention + report.mlp + report.norm + report.head + report.reduction
    assert report.reduction == sum(costs)
    assert report.executed_macs - report.macs == sum(costs)
    assert report.flops == 2 * report.macs


@given(geometry=geometries)
def test_another_block_costs_exactly_one_block_more(geometry: Geometry) -> None:
    deeper = replace(geometry, depth=geometry.depth + 1)
    more, less = (count(g, unreduced_plan(g)) for g in (deeper, geometry))
    assert more.macs - less.macs == sum(more.blocks[-1].values())


def test_norms_inside_the_attention_are_counted_on_its_tokens() -> None:
    geometry = deit_small()
    full = unreduced_plan(geometry)
    plain = count(geometry, full).norm
    assert count(replace(geometry, qk_norm=True), full).norm - plain == 12 * 197 * 5 * 2 * 384
    assert count(replace(geometry, inner_norms=1), full).norm - plain == 12 * 197 * 5 * 384


def test_a_step_is_booked_in_its_own_block() -> None:
    geometry = video_vit("S")
    plan = replace(unreduced_plan(geometry), steps=(StepCount(3, "after_block", 1568, 1568, 7),))
    assert [block["reduction"] for block in count(geometry, plan).blocks] == [0, 0, 0, 7] + [0] * 8


def test_an_unreduced_plan_of_a_smaller_input_has_its_tokens() -> None:
    plan = unreduced_plan(deit_small(), Grid(1, 10, 10))
    assert (plan.embedded, plan.attention[0], plan.final) == (100, 101, 101)


def test_implied_speedup_is_the_ratio_of_the_totals() -> None:
    geometry = video_vit("S")
    reduced, full = count(geometry, sta_plan(geometry, 64)), count(geometry, unreduced_plan(geometry))
    assert reduced.implied_speedup(full) == pytest.approx(1.98, abs=0.005)


def test_the_dictionary_is_json_and_names_its_units() -> None:
    report = count(video_vit("S"), sta_plan(video_vit("S"), 64))
    read = json.loads(json.dumps(report.as_dict()))
    assert read["total_flops"] == 2 * read["total_macs"] == 2 * report.macs
    assert len(read["block_macs"]) == 12
    assert all("_macs" in key or "_flops" in key for key in read if key not in ("reduction_share", "notes"))


def test_notes_of_the_plan_reach_the_report() -> None:
    plan = replace(unreduced_plan(video_vit("S")), notes=("r clamped from 900 to 784",))
    assert count(video_vit("S"), plan).notes == ("r clamped from 900 to 784",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention": (1568,) * 11}, "11 token counts, the backbone has 12 blocks"),
        ({"mlp": (1568,) * 13}, "plan.mlp has 13"),
        ({"attention": (1568,) * 11 + (-1,)}, "negative token count"),
        ({"embedded": -1}, "plan.embedded = -1"),
        ({"steps": (StepCount(12, "after_block", 1, 1),)}, "block 12; allowed: 0 to 11"),
        ({"steps": (StepCount(-1, "after_block", 1, 1),)}, "block -1; allowed"),
        ({"steps": (StepCount(0, "after_block", 1, 1, -5),)}, "costs -5 MAC"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    geometry = video_vit("S")
    with pytest.raises(ValueError, match=message):
        count(geometry, replace(unreduced_plan(geometry), **change))  # type: ignore[arg-type]


def test_an_empty_report_has_no_reduction_share() -> None:
    assert MacReport(0, (), 0, 0).reduction_share == 0.0
