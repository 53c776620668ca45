"""Everything that is wrong with a sweep is told at once, with its place."""

from __future__ import annotations

from typing import Any

import pytest

from tokred.run.spec_file import SpecError
from tokred.run.sweep_file import draft_sweep, load_sweep, parse_sweep

GOOD: dict[str, Any] = {
    "name": "orders",
    "base": {"reducer": "sta:r=8"},
    "axes": [{"reducer.order": ["FBF", "BFB"]}, {"budget": [0.75, 0.5]}],
}


def told(**changes: Any) -> tuple[str, ...]:
    with pytest.raises(SpecError, match="problem") as caught:
        parse_sweep({**GOOD, **changes})
    return caught.value.problems


def test_everything_is_told_at_once() -> None:
    problems = told(
        titel="x",
        base={"clips": 0, "bakbone": "x", "backbone": "videomae_vit_nan"},
        axes=[{"bugdet": [0.5]}, {"budget": [0.5, 1.5]}, {"clips": [4, 8], "batch_size": [2]}, {"dtype": []}],
        seeds=[0, -1],
        profiles={"nano": {"base": {"clisp": 3, "measures": ["predikt"]}}},
    )
    for start in (
        "titel: unknown key; did you mean title?",
        "base.clips: ",
        "base.bakbone: unknown key; did you mean backbone?",
        "base.backbone: no backbone is named 'videomae_vit_nan'; close: videomae_vit_nano",
        "axes[0].bugdet: nothing that can be varied; did you mean budget?",
        "axes[1].budget[1]: ",
        "axes[2]: keys of one axis move together and need as many values each; clips has 2, batch_size has 1",
        "axes[3].dtype: no value is given",
        "seeds[1]: ",
        "profiles.nano.base.clisp: unknown key; did you mean clips?",
    ):
        assert any(line.startswith(start) for line in problems), start


def test_an_unknown_measure_gets_close_matches() -> None:
    assert told(base={"measures": ["predikt"]}) == ("base.measures: 'predikt' is no measure; did you mean predict?",)


def test_values_are_not_converted() -> None:
    assert told(base={"clips": "20"})[0].startswith("base.clips: ")
    assert told(base={"animate": 1})[0].startswith("base.animate: ")
    assert told(axes=[{"clips": [True]}])[0].startswith("axes[0].clips[0]: ")


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ([{"budget": [0.5]}, {"budget": [0.7]}], "axes[1].budget: axes[0].budget varies it already"),
        ([{"budget": [0.5, 0.5]}], "axes[0].budget[1]: 0.5 is given twice"),
        ([{"seed": [0, 1]}], "axes[0].seed: nothing"),
        ([{"reducer.": [1]}], "axes[0].reducer.: nothing that can be varied"),
        ([{"budget": 0.5}], "axes[0].budget: 0.5 is not a list"),
        ([["budget"]], "axes[0]: ['budget'] is not a mapping (KEY: VALUE)"),
    ],
)
def test_axes_that_mean_nothing_are_refused(axes: Any, said: str) -> None:
    if "seed" in said:
        said = "axes[0].seed: seeds have a list of their own: seeds: [0, 1]"
    assert any(line.startswith(said) for line in told(axes=axes))


def test_a_profile_may_have_one_value_for_several() -> None:
    full = {"axes": [None, {"budget": [None, None]}]}
    assert parse_sweep({**GOOD, "profiles": {"nano": {}, "full": full}}).settled("full").axes[1] == full["axes"][1]


def test_what_names_no_point_is_an_error() -> None:
    problems = told(
        excludes=[
            {"when": {"reducer.order": "BBB"}, "reason": "x"},
            {"when": {"reducer.odrer": "FBF"}, "reason": "x"},
            {"when": {"budget": 0.5}, "reason": "fine"},
        ],
        paper={"rows": [{"at": {"budget": 0.4}}, {"at": {"budget": 0.5, "reducer": "none"}}]},
    )
    assert problems == (
        "excludes[0].when: no point has reducer.order = BBB",
        "excludes[1].when.reducer.odrer: no axis varies it; did you mean reducer.order?",
        "paper.rows[0].at: no point has budget = 0.4",
    )


def test_a_cut_axis_makes_no_error_of_what_names_the_rest() -> None:
    content = {**GOOD, "excludes": [{"when": {"budget": 0.75}, "reason": "x"}]}
    assert parse_sweep(content, sets=["axes.budget=[0.5]"]).axes[1] == {"budget": [0.5]}


def test_a_name_that_is_no_file_name_is_refused() -> None:
    assert told(name="../up")[0].startswith("name: ")


def test_a_huge_grid_is_refused() -> None:
    values = list(range(300))
    assert told(axes=[{"reducer.a": values}, {"reducer.b": values}]) == ("axes: 90000 points; allowed are 10000",)


@pytest.mark.parametrize("content", [[1], "words"])
def test_what_is_no_mapping_is_refused(content: Any) -> None:
    with pytest.raises(SpecError, match="must be a mapping"):
        parse_sweep(content)


@pytest.mark.parametrize("content", [None, {}])
def test_an_empty_file_is_called_empty(content: Any) -> None:
    with pytest.raises(SpecError, match="is empty; a sweep has at least"):
        parse_sweep(content)


def test_a_bad_value_of_a_profile_is_told_with_its_path_and_hides_nothing() -> None:
    assert told(profiles={"nano": {"base": {"clips": -3, "reducer": 5}}}, titel="x", excludes=[{"when": {"x": 1}}]) == (
        "profiles.nano.base.clips: -3 is not at least 1",
        "profiles.nano.base.reducer: 5 is not text or a mapping (KEY: VALUE)",
        "excludes[0].reason: missing",
        "titel: unknown key; did you mean title?",
    )


def test_shapes_names_and_places_are_told_in_one_go() -> None:
    assert told(
        base={"reducer": "sta:shedule=linear", "corrupt": "nose:0.5", "data": "nope.txt"},
        seeds=[0, 0, -1],
        excludes=[
            {"when": {"reducer.ordr": "FBF"}, "reason": "x"},
            {"reason": "x"},
            {"when": {"budgt": 1}, "reason": ""},
        ],
        paper={"rows": [{"at": {}, "value": "x"}, {"at": {"reducer.ordr": "FBF"}}]},
    ) == (
        "seeds[1]: 0 is given twice",
        "base.corrupt: 'nose:0.5' is not known; did you mean noise? " + DAMAGE,
        "excludes[1].when: missing",
        "excludes[2].reason: is empty; allowed is at least 1",
        "seeds[2]: -1 is not at least 0",
        "paper.rows[0].value: 'x' is not a number",
        "base.reducer.shedule: sta has no such setting; did you mean schedule?",
        "excludes[0].when.reducer.ordr: no axis varies it; did you mean reducer.order?",
        "paper.rows[1].at.reducer.ordr: no axis varies it; did you mean reducer.order?",
    )


DAMAGE = (
    "allowed: noise:NUMBER (Gaussian noise, its deviation as a share of the clip's own); frames:NUMBER (share of "
    "frames lost, the last one that came is shown instead); resolution:NUMBER (share of the side length that is lost: "
    "scaled down and up again)"
)


@pytest.mark.parametrize("order", [[], ["FBF", "FBF"], "FBF"])
def test_what_follows_from_a_wrong_axis_is_not_told(order: Any) -> None:
    paper = {"rows": [{"at": {"reducer.order": order}} for order in ("FBF", "BFB")], "effects": [
        {"from": {"reducer.order": "FBF"}, "to": {"reducer.order": "BFB"}}
    ]}  # fmt: skip
    left_out = [{"when": {"reducer.order": "BFB"}, "reason": "x"}]
    draft = draft_sweep({**GOOD, "axes": [{"reducer.order": order}], "paper": paper, "excludes": left_out})
    assert len(draft.problems) == 1
    assert draft.problems[0].startswith("axes[0].reducer.order")


def test_what_follows_from_a_misspelled_axis_is_not_told() -> None:
    rows = [{"at": {"budget": 0.5, "reducer.order": "FBF"}}]
    axes = [{"reducr.order": ["FBF"]}, {"bugdet": [0.5]}]
    left_out = [{"when": {"budget": 0.5}, "reason": "x"}]
    assert told(axes=axes, paper={"rows": rows}, excludes=left_out) == (
        "axes[0].reducr.order: nothing that can be varied; did you mean reducer?",
        "axes[1].bugdet: nothing that can be varied; did you mean budget?",
    )


def test_the_rest_of_an_axis_is_kept_where_it_is() -> None:
    axes = [{"label": ["a", "b", "c"], "budget": [0.5, 2, 0.7]}, {"clips": [4, 5], "reducer.r": [1, 2, 3]}]
    draft = draft_sweep({**GOOD, "axes": axes})
    assert draft.problems == (
        "axes[0].budget[1]: 2 is not at most 1",
        "axes[1]: keys of one axis move together and need as many values each; clips has 2, reducer.r has 3",
    )
    assert draft.spec is not None
    assert draft.spec.axes == [{"label": ["a", "c"], "budget": [0.5, 0.7]}, {"clips": [4, 5]}]


def test_an_exclude_that_is_half_known_leaves_out_what_it_may_mean() -> None:
    left_out = [
        {"when": {"budget": 0.5, "reducer.ordr": "FBF"}, "reason": "x"},
        {"when": {"nothing": 1}, "reason": "y"},
    ]
    draft = draft_sweep({**GOOD, "excludes": left_out})
    assert len(draft.problems) == 2
    assert draft.spec is not None
    assert [exclude.when for exclude in draft.spec.excludes] == [{"budget": 0.5}, {"nothing": 1}]


def test_the_settings_of_a_broken_file_are_those_that_are_right() -> None:
    content = {
        "base": 3, "profiles": {"nano": 4, "full": {"axes": [7, {"budget": [0.5]}], "seeds": [-1, 2]}}, "seeds": "x",
        "axes": "x", "excludes": {"when": 1}, "paper": [1], "title": ["x"],
    }  # fmt: skip
    draft = draft_sweep(content)
    assert draft.spec is not None
    assert draft.spec.profiles["full"].seeds == [2]
    assert draft.spec.profiles["full"].axes == [{}, {"budget": [0.5]}]
    starts = [line.partition(": ")[0] for line in draft.problems]
    assert sorted(starts) == [
        "axes", "base", "excludes", "name", "paper", "profiles.full.axes[0]", "profiles.full.seeds[0]",
        "profiles.nano", "seeds", "title",
    ]  # fmt: skip


def test_the_rest_of_a_wrong_file_can_still_be_looked_at() -> None:
    draft = draft_sweep({**GOOD, "axes": [{"bugdet": [1]}, {"reducer.r": [4]}], "base": {"clips": 0}})
    assert draft.spec is not None
    assert draft.spec.axes == [{}, {"reducer.r": [4]}]
    assert len(draft.problems) == 2


def test_a_file_is_named_in_its_errors(tmp_path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("name: x\nbsae: {}\n")
    with pytest.raises(SpecError, match=r"wrong\.yaml: 1 problem\(s\)\n  bsae: unknown key; did you mean base"):
        load_sweep(file)
