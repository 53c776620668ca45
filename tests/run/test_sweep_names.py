"""Names that nothing has are told with their place, in the file and in every profile."""

from __future__ import annotations

from typing import Any

import pytest

from tokred.run.sweep_names import is_unknown_backbone, understood, unknown_names
from tokred.run.sweep_spec import SweepSpec


def told(**content: Any) -> list[str]:
    return unknown_names(SweepSpec.model_validate({"name": "x", **content}))


def test_names_of_the_base_of_profiles_and_of_axes_are_looked_at() -> None:
    assert told(
        base={"measures": ["predict", "predikt"], "reducer": "sta:r=8,shedule=linear"},
        profiles={
            "nano": {"base": {"reducer": {"method": "stab"}}, "axes": [{"reducer": ["tome:propotional=1", "sta"]}]}
        },
        axes=[{"backbone": ["videomae_vit_nano", "videomae_vit_nan"]}],
    ) == [
        "base.measures: 'predikt' is no measure; did you mean predict?",
        "base.reducer.shedule: sta has no such setting; did you mean schedule?",
        "profiles.nano.base.reducer: unknown method 'stab': did you mean sta or stts?",
        "axes[0].backbone[1]: no backbone is named 'videomae_vit_nan'; close: videomae_vit_nano, videomae_vit_base, "
        "videomae_vit_small",
        "profiles.nano.axes[0].reducer[0].propotional: tome has no such setting; did you mean proportional?",
    ]


def test_a_name_like_no_other_gets_the_whole_list() -> None:
    assert "known: videomae_vit_nano, " in told(base={"backbone": "zzz"})[0]
    assert "known are " in told(base={"reducer": "zzz"})[0]


def test_every_part_of_a_composition_is_looked_at() -> None:
    assert [line.partition(":")[0] for line in told(base={"reducer": "sta:a=1,r=2+tome:r=2+zzz"})] == [
        "base.reducer.a", "base.reducer",
    ]  # fmt: skip


@pytest.mark.parametrize("reducer", ["none", "sta:r=8", "no.such.module:Class", "no_file.py:Class:r=3", "module:Class"])
def test_what_is_right_or_not_ours_is_left_alone(reducer: str) -> None:
    assert told(base={"reducer": reducer, "backbone": "timm/whatever"}) == []
    assert understood(reducer) == reducer


def test_the_rest_of_a_spec_can_still_be_looked_at() -> None:
    assert understood("sta:r=8,shedule=linear+tome:q=1") == "sta:r=8+tome"
    assert understood("stab:r=8") is None
    assert understood("sta:r") is None


def test_backbones_of_other_libraries_are_not_unknown() -> None:
    assert is_unknown_backbone("videomae_vit_nan")
    assert not is_unknown_backbone("hf/folder")
