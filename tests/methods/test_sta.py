"""STA against loops that follow the published algorithm step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sta_loops import reference

from tokred.attach import attach
from tokred.backbones.geometry import Geometry
from tokred.methods import STA
from tokred.probe import Probe
from tokred.reducer import Site
from tokred.reduction import Keep
from tokred.testing import default_backbones
from tokred.tokens import Grid, Tokens

VIDEO, IMAGE, *_ = default_backbones()


def geometry(t: int = 4, h: int = 4, w: int = 6, depth: int = 6, prefix: int = 0) -> Geometry:
    grid = Grid(t, h, w)
    return Geometry(
        depth=depth, dim=24, heads=3, head_dim=8, mlp_hidden=48, grid=grid, prefix=prefix, classes=7, kernel=(2, 4, 4)
    )


def one_step(
    reducer: STA, grid: Grid, groups: int | None, stage: int, prefix: int = 0
) -> tuple[Keep | None, Tokens, Probe]:
    n = prefix + grid.patches
    g = torch.Generator().manual_seed(stage)
    x = torch.randn(2, n, 24, generator=g)
    q, k, v = (torch.randn(2, 3, n, 8, generator=g) for _ in range(3))
    probe = Probe(x, q, k, v, prefix=prefix, needs=reducer.capabilities.needs)
    probe.set_ffn(torch.randn(2, n, 24, generator=g))
    step = reducer.schedule.steps(6)[stage]
    tokens = Tokens(x, grid, prefix, groups=groups, sample_seed=torch.tensor([1, 2]))
    return reducer.reduce(tokens, probe, Site("after_block", step, 6, grid.t)), tokens, probe


@pytest.mark.parametrize("similarity", ["key", "query", "value", "ffn"])
@pytest.mark.parametrize("prefix", [0, 2])
def test_the_similarity_is_the_head_mean_of_what_is_asked_for(similarity: str, prefix: int) -> None:
    reducer = STA(r=5, similarity=similarity)
    keep, tokens, probe = one_step(reducer, Grid(4, 3, 4), 4, 0, prefix)
    assert keep is not None
    metric = probe.ffn if similarity == "ffn" else probe.head_mean(similarity)
    for i in range(2):
        expected = reference(tokens.patches[i].double(), metric[i, prefix:].double(), 4, 5)
        assert keep.index[i].tolist() == [*range(prefix), *(prefix + j for j in expected)]


@pytest.mark.parametrize(
    ("t", "grouping", "groups"),
    [
        (8, "clip", [8, 4, 2]),
        (4, "clip", [4, 2, 2]),
        (6, "clip", [6, 3, 3]),
        (5, "clip", [5, 5, 5]),
        (2, "clip", [2, 2, 2]),
        (1, "clip", [1, 1, 1]),
        (16, "clip", [16, 8, 4]),
        (8, "frame", [8, 8, 8]),
    ],
)
def test_groups_follow_from_the_clip(t: int, grouping: str, groups: list[int]) -> None:
    reducer = STA(r=4, grouping=grouping)
    assert [reducer._groups(t, stage, False)[0] for stage in range(3)] == groups
    for stage in range(3):
        keep, _, _ = one_step(reducer, Grid(t, 3, 4), t, stage)
        assert keep is not None
        assert keep.groups == groups[stage]


def test_the_order_is_a_string_of_directions_that_repeats() -> None:
    found = {}
    for order in ("F", "B", "FB", "bf"):
        for stage in range(3):
            keep, tokens, probe = one_step(
                STA(r=4, order=order, grouping="frame", schedule="constant"), Grid(4, 3, 4), 4, stage
            )
            assert keep is not None
            backward = order.upper()[stage % len(order)] == "B"
            expected = reference(tokens.patches[0].double(), probe.mean_key[0].double(), 4, 4, backward)
            assert keep.index[0].tolist() == expected
            found[order, stage] = expected
    assert found["F", 0] != found["B", 0]


@pytest.mark.parametrize("first", ["random", "grid"])
def test_the_first_frame_can_be_thinned_without_similarity_and_nothing_else_changes(first: str) -> None:
    by_similarity, tokens, _ = one_step(STA(r=5), Grid(4, 3, 4), 4, 0)
    other, _, _ = one_step(STA(r=5, first=first), Grid(4, 3, 4), 4, 0)
    assert by_similarity is not None
    assert other is not None
    assert torch.equal(other.index[:, 7:], by_similarity.index[:, 7:]), "the first drop influences no other group"
    start = other.index[:, :7]
    assert bool((start.diff(dim=1) > 0).all())
    if first == "grid":
        assert start.tolist() == [[0, 1, 3, 5, 6, 8, 10]] * 2
    else:
        again, _, _ = one_step(STA(r=5, first=first, seed=1), Grid(4, 3, 4), 4, 0)
        assert again is not None
        assert not torch.equal(again.index, other.index)
        assert not torch.equal(start[0], start[1])
    assert tokens.groups == 4


@pytest.mark.parametrize("backbone", [VIDEO, IMAGE], ids=lambda b: b.name)
@torch.no_grad()
def test_prefix_tokens_stay_in_front_and_every_frame_keeps_as_many(backbone: Any) -> None:
    host, clips = backbone.build()
    fast = attach(host, STA(r=4))
    run = fast.run(clips, record=True)
    for _, keep in run.steps:
        assert isinstance(keep, Keep)
        prefix = fast.geometry.prefix
        assert torch.equal(keep.index[:, :prefix], torch.arange(prefix).expand(3, prefix))
        assert keep.groups is not None
        g_in = (keep.n_in - prefix) // keep.groups
        frame = (keep.index[:, prefix:] - prefix) // g_in
        counts = torch.stack([(frame == c).sum(1) for c in range(keep.groups)])
        assert len(counts.unique()) == 1
