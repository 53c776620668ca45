"""STA on VideoSwin: how much goes where, the order, the scores' features, and what is refused. Its decisions are held
against slow code in the parity tests."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch

from tokred.accumulation import select
from tokred.attach import Attached, attach
from tokred.backbones.geometry import Geometry, Stage
from tokred.dry import dry_run
from tokred.methods import STA
from tokred.reduction import Keep
from tokred.schedule import ScheduleError
from tokred.testing import default_backbones
from tokred.tokens import Grid

WINDOWS = default_backbones()[-1]
GRIDS = (Grid(3, 4, 5), Grid(3, 2, 3))
STAGES = tuple(Stage(depth, 96 * 2**i, 3 * 2**i, (8, 7, 7)) for i, depth in enumerate((2, 2, 6, 2)))
TINY = Geometry(
    12,
    96,
    3,
    32,
    384,
    Grid(16, 56, 56),
    0,
    400,
    (2, 4, 4),
    final_norm_tokens=True,
    class_token=False,
    stages=STAGES,
    embed_norm=True,
)


def drops(**settings: Any) -> list[int]:
    """Tokens dropped per frame at each site of VideoSwin-T."""
    plan = dry_run(STA(**settings), TINY)
    assert [step.block for step in plan.steps] == [1, 3, 9]
    assert [step.n_in for step in plan.steps] == [16 * 784, 16 * 196, 16 * 49], "each stage starts from a whole grid"
    return [(step.n_in - step.n_out) // 16 for step in plan.steps]


@pytest.mark.parametrize(("r", "kept"), [(192, (592, 124, 25)), (256, (528, 100, 17)), (320, (464, 76, 9))])
def test_the_papers_numbers_are_dropped_on_the_merged_grids(r: int, kept: tuple[int, ...]) -> None:
    assert [n - d for n, d in zip((784, 196, 49), drops(r=r))] == list(kept)


def test_shapes_are_shares_of_each_grid() -> None:
    assert drops(r=256) == [256, 96, 32]
    assert drops(r=256, schedule="constant") == [256, 64, 16]
    assert drops(r=128, schedule="increasing") == [128, 64, 32]
    assert drops(r=(200, 50, 7)) == [200, 50, 7]


def test_numbers_that_are_not_whole_are_rounded_down_and_noted() -> None:
    assert drops(r=100) == [100, 37, 12]
    notes = dry_run(STA(r=100), TINY).notes
    assert "block 3: 37.5 tokens per group rounded down to 37" in notes
    assert "block 9: 12.5 tokens per group rounded down to 12" in notes
    assert not [note for note in dry_run(STA(r=64), TINY).notes if "rounded" in note]
    assert [note for note in dry_run(STA(r=320), TINY).notes if "odd places go too" in note]


def test_a_frame_must_keep_a_token() -> None:
    assert drops(r=391) == [391, 146, 48]
    with pytest.raises(ScheduleError, match=r"r = 49 per frame at block 9 drops 49 of 49 tokens per group of 1 frame"):
        dry_run(STA(r=392), TINY)
    with pytest.raises(ScheduleError, match=r"drops 784 of 784"):
        dry_run(STA(r=(784, 0, 0)), TINY)
    with pytest.raises(ScheduleError, match="drop has 4 entries for 3 steps"):
        dry_run(STA(r=(1, 1, 1, 1)), TINY)


def test_every_frame_is_a_group_at_every_site_and_r_is_solved_on_the_first_reduced_grid() -> None:
    reducer = STA(r=64)
    for index in range(3):
        assert reducer._groups(16, index, True) == (16, 1)
    assert reducer.strength_range(TINY).strongest == 391
    step = reducer.steps(TINY)[3]
    assert step.amount == Fraction(24)
    assert (step.kind, step.index) == ("drop", 1)


def test_what_happens_is_said() -> None:
    assert "drops per frame of each stage's own grid; the next stage starts from a whole grid" in STA(r=8).describe(
        TINY
    )


def chosen(fast: Attached, clips: torch.Tensor) -> list[torch.Tensor]:
    kept = []
    for _, reduction in fast.run(clips, record=True).steps:
        assert isinstance(reduction, Keep)
        kept.append(reduction.index)
    return kept


@torch.no_grad()
def test_frames_keep_equally_many_and_the_next_stage_is_whole_again() -> None:
    host, clips = WINDOWS.build()
    kept = chosen(attach(host, STA(r=(7, 2))), clips)
    for index, grid, r in zip(kept, GRIDS, (7, 2), strict=True):
        assert index.shape == (3, 3 * (grid.per_frame - r))
        frames = index.view(3, 3, -1) // grid.per_frame
        assert bool((frames == torch.arange(3)[None, :, None]).all())


@pytest.mark.parametrize("order", ["FB", "BF", "B"])
@torch.no_grad()
def test_the_direction_of_each_site_follows_the_order(order: str) -> None:
    host, clips = WINDOWS.build()
    reducer = STA(r=(7, 2), order=order)
    fast = attach(host, reducer)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    own = reducer.reduce

    def noted(tokens: Any, probe: Any, site: Any) -> Any:
        seen.append((tokens.x, probe.mean_key))
        return own(tokens, probe, site)

    reducer.reduce = noted  # type: ignore[method-assign]
    kept = chosen(fast, clips)
    for i, ((x, keys), r) in enumerate(zip(seen, (7, 2), strict=True)):
        for direction in "FB":
            same = torch.equal(select(x, keys, 3, r, backward=direction == "B").kept, kept[i])
            assert same == (direction == order[i % len(order)])


@pytest.mark.parametrize(
    "settings",
    [{"similarity": s} for s in ("query", "value", "ffn")]
    + [{"first": "grid"}, {"first": "random"}, {"score": "activation"}, {"score": "accumulation"}],
    ids=str,
)
@torch.no_grad()
def test_every_knob_works_and_matters(settings: dict[str, str]) -> None:
    host, clips = WINDOWS.build()
    usual = chosen(attach(host, STA(r=(7, 2))), clips)
    other = chosen(attach(host, STA(r=(7, 2), **settings)), clips)  # type: ignore[arg-type]
    assert [index.shape for index in other] == [index.shape for index in usual]
    assert any(not torch.equal(a.sort(1).values, b.sort(1).values) for a, b in zip(usual, other, strict=True))


@torch.no_grad()
def test_blocks_inside_a_stage_may_be_named() -> None:
    host, clips = WINDOWS.build()
    run = attach(host, STA(r=(5, 2), at=(1, 3))).run(clips)
    assert run.tokens.count == 18 - 3 * 2
    assert [step.n_in for step in dry_run(STA(r=(5, 2), at=(1, 3)), attach(host, STA()).geometry).steps] == [60, 18]


@pytest.mark.parametrize(("similarity", "widths"), [("key", (6, 24)), ("ffn", (12, 24))])
def test_costs_follow_the_width_of_what_is_compared_which_is_the_finished_stages(
    similarity: str, widths: tuple[int, int]
) -> None:
    stages = (Stage(1, 12, 2, (2, 3, 3)), Stage(1, 24, 1, (2, 3, 3)), Stage(1, 48, 4, (2, 3, 3)))
    sizes = {"depth": 3, "dim": 12, "heads": 2, "head_dim": 6, "mlp_hidden": 24, "grid": Grid(4, 12, 12)}
    geometry = replace(TINY, stages=stages, **sizes)  # type: ignore[arg-type]
    plan = dry_run(STA(r=(10, 3), similarity=similarity), geometry)
    for step, n, r, d in zip(plan.steps, (36, 9), (10, 3), widths, strict=True):
        pairs = -(-n // 2) * (n // 2) + n * n
        assert step.macs == pairs * d + 2 * n * (n - r) * (d + 1)
