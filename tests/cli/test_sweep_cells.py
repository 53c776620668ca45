"""What a dry run of a sweep prints."""

from __future__ import annotations

import pytest

from tokred.cli.sweep_cells import cost_lines, cost_values
from tokred.run.store import CellStore
from tokred.run.sweep import open_sweep
from tokred.run.sweep_cost import estimate


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "x.yaml"
    path.write_text(
        "name: x\nbase: {clips: 4, reducer: sta}\naxes:\n  - {reducer.r: [8, 16]}\n"
        "excludes:\n  - {when: {reducer.r: 16}, reason: not today}\n"
    )
    return open_sweep(path)


def test_every_cell_has_a_line_with_its_cost_and_the_sum_is_last(sweep, tmp_path) -> None:
    lines = cost_lines(sweep, estimate(sweep.plan, CellStore(tmp_path)), 1)
    assert "shared unreduced model" in lines[1]
    assert "sta:r=8" in lines[2]
    assert "left out: not today" in lines[3]
    assert lines[-1].startswith("2 cells: 2 to compute; 8 clips")


def test_the_same_for_programs(sweep, tmp_path) -> None:
    found = cost_values(sweep, estimate(sweep.plan, CellStore(tmp_path)))
    assert [cell["state"] for cell in found["cells"]] == ["to compute", "to compute", "excluded"]
    assert found["todo"] == 2
    assert found["clips"] == 8
