from __future__ import annotations

from dataclasses import replace

from tokred.backbones.geometry import Geometry, Stage, StageSites
from tokred.tokens import Grid

VIDEO = Geometry(
    depth=6, dim=24, heads=3, head_dim=8, mlp_hidden=48, grid=Grid(4, 5, 6), prefix=2, classes=7, kernel=(2, 8, 16)
)


def test_tokens_are_patches_and_prefix() -> None:
    assert VIDEO.tokens == 2 + 4 * 5 * 6


def test_the_input_is_the_grid_in_pixels() -> None:
    assert VIDEO.input_shape() == (1, 3, 8, 40, 96)
    assert VIDEO.input_shape(4, Grid(1, 2, 3)) == (4, 3, 2, 16, 48)


def test_an_image_has_no_time_axis() -> None:
    image = replace(VIDEO, video=False, grid=Grid(1, 5, 6), kernel=(1, 8, 16), in_chans=1)
    assert image.input_shape(2) == (2, 1, 40, 96)


WINDOW = (2, 3, 3)
SWIN = replace(
    VIDEO,
    grid=Grid(4, 7, 6),
    prefix=0,
    stages=(Stage(2, 24, 3, WINDOW), Stage(1, 48, 3, WINDOW), Stage(3, 96, 6, WINDOW)),
)


def test_blocks_belong_to_stages_and_grids_halve_rounded_up() -> None:
    assert [SWIN.stage_of(block) for block in range(6)] == [0, 0, 1, 2, 2, 2]
    assert [block for block in range(6) if SWIN.ends_stage(block)] == [1, 2]
    assert [SWIN.stage_grid(stage) for stage in range(3)] == [Grid(4, 7, 6), Grid(4, 4, 3), Grid(4, 2, 2)]
    assert SWIN.reduced_grid == Grid(4, 4, 3)
    assert VIDEO.reduced_grid == VIDEO.grid
    assert [VIDEO.stage_of(5), VIDEO.ends_stage(5)] == [0, False]


def test_a_step_sees_the_sizes_of_the_stage_that_it_acts_on() -> None:
    seen = SWIN.at(48, Grid(4, 4, 3))
    assert (seen.dim, seen.heads, seen.head_dim, seen.mlp_hidden) == (48, 3, 16, 96)
    assert (seen.grid, seen.span) == (Grid(4, 4, 3), 18)
    assert SWIN.at(96, Grid(4, 2, 2)).span == 2 * 2 * 2, "windows are clipped to the grid"
    assert VIDEO.at(24, Grid(1, 2, 2)) == replace(VIDEO, grid=Grid(1, 2, 2))


def test_steps_after_the_last_block_of_a_stage_act_on_the_next_grid() -> None:
    places = (4 * 42, 4 * 12, 4 * 4)
    late = SWIN.sites("after_block")
    assert late == StageSites((1, 2), (1, 2, 3, 4, 5), (places[0], places[1], *[places[2]] * 4))
    for site in ("before_block", "after_attention"):
        early = SWIN.sites(site)
        assert early == StageSites((2, 3), (2, 3, 4, 5), (*[places[0]] * 2, places[1], *[places[2]] * 3))
    assert VIDEO.sites("after_block") is None
