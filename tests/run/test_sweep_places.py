"""Excludes and printed rows name points that there are; what follows from a refused axis is not told."""

from __future__ import annotations

from typing import Any

from tokred.run.sweep_places import of_points
from tokred.run.sweep_spec import SweepSpec


def told(written: set[str] | None = None, changed: bool = False, **content: Any) -> list[str]:
    spec = SweepSpec.model_validate({"name": "x", "axes": [{"budget": [0.5, 0.7]}], **content})
    return of_points(spec, {"budget"} if written is None else written, changed=changed)[0]


def rows(*at: dict[str, Any]) -> dict[str, Any]:
    return {"rows": [{"at": one} for one in at]}


def test_a_place_without_a_point_is_told_unless_the_axes_were_cut() -> None:
    assert told(paper=rows({"budget": 0.6})) == ["paper.rows[0].at: no point has budget = 0.6"]
    assert told(paper=rows({"budget": 0.6}), changed=True) == []
    assert told(paper=rows({"budget": 0.5}, {"budget": 0.5, "seed": 0})) == []


def test_a_key_that_no_axis_has_is_told_unless_that_axis_was_refused() -> None:
    at = {"reducer.order": "FBF"}
    assert told(paper=rows(at)) == ["paper.rows[0].at.reducer.order: no axis varies it; allowed: budget, seed"]
    assert told({"budget", "reducer.order"}, paper=rows(at)) == []
    assert told({"budget", "reducr.order"}, paper=rows(at)) == []


def test_the_excludes_of_a_profile_are_for_its_points_alone() -> None:
    left_out = [{"when": {"budget": 0.9}, "reason": "x"}]
    profiles = {"nano": {}, "full": {"axes": [{"budget": [0.9]}], "excludes": left_out}}
    assert told(profiles=profiles) == []
    assert told(profiles=profiles, excludes=left_out) == ["excludes[0].when: no point has budget = 0.9"]


def test_a_huge_grid_hides_no_unknown_key() -> None:
    axes = [{"reducer.a": list(range(300))}, {"reducer.b": list(range(300))}]
    left_out = [{"when": {"reducer.ab": 1}, "reason": "x"}, {"when": {"reducer.a": 1000}, "reason": "x"}]
    lines = told(set(), axes=axes, excludes=left_out)
    assert lines[0] == "axes: 90000 points; allowed are 10000"
    assert [line.partition(": ")[0] for line in lines[1:]] == ["excludes[0].when.reducer.ab"]
