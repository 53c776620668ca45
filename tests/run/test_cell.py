"""A cell's name says everything that its result depends on, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tokred.run.cell import Cell, batch_for, plain
from tokred.run.clips import ClipSettings

CELL = Cell("videomae_vit_nano", "sta:r=8")


def name(cell: Cell, weights: str = "w", data: str = "d", parameters: str | None = None) -> str:
    return cell.id(weights, data, parameters)


@pytest.mark.parametrize(
    "changed",
    [{"reducer": "sta:r=9"}, {"backbone": "other"}, {"measure": "other"}, {"batch": 4}, {"dtype": "float64"}],
)
def test_another_setting_is_another_cell(changed) -> None:
    assert name(replace(CELL, **changed)) != name(CELL)


def test_other_weights_clips_or_parameters_are_another_cell() -> None:
    assert len({name(CELL), name(CELL, weights="x"), name(CELL, data="x"), name(CELL, parameters="x")}) == 4


def test_what_the_clips_are_called_and_which_gpu_ran_is_not_part_of_it() -> None:
    assert name(replace(CELL, clips=ClipSettings("elsewhere"))) == name(CELL)
    assert name(replace(CELL, device="cuda:1")) == name(replace(CELL, device="cuda:0")) != name(CELL)


def test_it_is_paired_with_the_unreduced_answers_on_the_same_clips() -> None:
    cell = replace(CELL, clips=ClipSettings(seed=3), measure="other")
    assert cell.unreduced == replace(cell, reducer="none", measure="predict")


def test_a_cell_is_plain_json() -> None:
    found = json.loads(json.dumps(plain(CELL)))
    assert found["clips"]["views"] == [1, 1]
    assert found["reducer"] == "sta:r=8"


@pytest.mark.parametrize(("gmac", "tokens", "batch"), [(1.0, 512, 8), (180.0, 1568, 1), (2.0, 512, 4), (0.05, 65, 63)])
def test_a_batch_fits_the_cache(gmac, tokens, batch) -> None:
    assert batch_for(gmac, tokens) == batch
