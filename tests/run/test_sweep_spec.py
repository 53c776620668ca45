"""What a profile changes, and that the files of the checkout are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tokred.run.spec_file import SpecError
from tokred.run.sweep_file import load_sweep, parse_sweep
from tokred.run.sweep_spec import SweepSpec

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SWEEPS = [path for path in sorted(EXPERIMENTS.glob("*.yaml")) if "stages" not in yaml.safe_load(path.read_text())]


def spec(**changes: Any) -> SweepSpec:
    content: dict[str, Any] = {
        "name": "orders",
        "base": {"reducer": "sta:r=8", "clips": 9},
        "axes": [{"reducer.order": ["FBF", "FFF"]}, {"budget": [0.75, 0.5]}],
        "excludes": [{"when": {"budget": 0.75}, "reason": "known"}],
        "profiles": {
            "nano": {"base": {"clips": 20}},
            "full": {"base": {"backbone": "videomae_vit_large"}, "axes": [None, {"budget": [0.5, 0.3]}], "seeds": [1]},
        },
    }
    return parse_sweep({**content, **changes})


def test_a_profile_changes_what_it_names_and_keeps_the_rest() -> None:
    nano, full = spec().settled(), spec().settled("full")
    assert nano.profile == "nano"
    assert (nano.base.clips, nano.base.reducer) == (20, "sta:r=8")
    assert (full.base.clips, full.base.backbone) == (9, "videomae_vit_large")
    assert full.axes == ({"reducer.order": ["FBF", "FFF"]}, {"budget": [0.5, 0.3]})
    assert (nano.seeds, full.seeds) == ((0,), (1,))
    assert full.excludes == nano.excludes != ()


def test_a_profile_may_leave_nothing_out_and_vary_more() -> None:
    full = spec(excludes=[], profiles={"nano": {"axes": [None, {}, {"reducer.r": [1, 2]}], "excludes": []}}).settled()
    assert [list(axis) for axis in full.axes] == [["reducer.order"], ["budget"], ["reducer.r"]]


def test_a_file_without_profiles_is_its_own() -> None:
    alone = spec(profiles={})
    assert alone.settled().profile == ""
    with pytest.raises(SpecError, match="no profile is called 'full'"):
        alone.settled("full")


def test_an_unknown_profile_gets_close_matches() -> None:
    with pytest.raises(SpecError, match="did you mean full"):
        spec().settled("ful")


def test_a_wrong_setting_of_a_profile_is_told_with_its_place() -> None:
    bare = SweepSpec.model_validate({"name": "x", "profiles": {"nano": {"base": {"clips": -3, "clisp": 4}}}})
    with pytest.raises(SpecError, match="problem") as caught:
        bare.settled()
    assert caught.value.problems == (
        "profiles.nano.base.clips: -3 is not at least 1",
        "profiles.nano.base.clisp: unknown key; did you mean clips?",
    )


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_of_the_checkout_is_right(path: Path) -> None:
    sweep = load_sweep(path)
    assert sweep.title
    assert sweep.source or sweep.paper is None
    assert {"nano", "full"} <= sweep.profiles.keys()
    for name in sweep.profiles:
        sweep.settled(name)
