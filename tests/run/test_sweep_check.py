"""Each part of a point is looked at for itself."""

from __future__ import annotations

from typing import Any

import pytest

from tokred.run.sweep_blame import UNKNOWN
from tokred.run.sweep_check import Checks, clip_settings
from tokred.run.sweep_file import parse_sweep
from tokred.run.sweep_hosts import Hosts
from tokred.run.sweep_spec import BaseSpec


def checks(base: dict[str, Any] | None = None, **content: Any) -> Checks:
    return Checks(parse_sweep({"name": "x", "base": base or {}, **content}).settled(), Hosts())


def test_the_base_is_taken_apart_like_the_axes() -> None:
    found = checks({"clips": 3, "reducer": "sta:r=8,order=BFB", "label": "a"}, axes=[{"reducer.r": [1, 2]}]).fixed
    assert found == {"clips": 3, "reducer": "sta", "reducer.order": "BFB"}
    assert checks({"reducer": "methods/x.py:Mine:r=8"}).fixed == {"reducer": "methods/x.py:Mine", "reducer.r": 8}
    assert checks({"reducer": "sta:r=8+tome:r=2"}).fixed == {"reducer": "sta:r=8+tome:r=2"}
    assert checks({"reducer": "sta:r=8"}, axes=[{"reducer": ["tome"]}]).fixed == {}


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"reducer": "sta", "reducer.r": 8}, {}),
        ({"reducer": "sta", "reducer.order": "XYZ"}, {"settings": "'XYZ' is not", "method": UNKNOWN}),
        ({"reducer": "stab"}, {"settings": UNKNOWN, "method": UNKNOWN}),
        ({"reducer": "sta", "reducer.r": 400}, {"method": "allowed is below 64"}),
        ({"reducer": "none", "budget": 0.5}, {"method": "no strength"}),
        ({"reducer": "sta", "reducer.r": 400, "checkpoint": "no.pth"},
         {"method": "allowed is below 64", "host": UNKNOWN, "no_checkpoint": "no such file: no.pth"}),
        ({"backbone": "videomae_vit_nan", "data": "no.txt", "reducer": "sta"},
         {"method": UNKNOWN, "host": UNKNOWN, "clips": UNKNOWN, "no_data": "no such file or folder: no.txt"}),
        ({"data": "no.txt", "checkpoint": "no.pth"},
         {"host": UNKNOWN, "no_checkpoint": "no.pth", "clips": UNKNOWN, "no_data": "no.txt"}),
        ({"animate": True}, {"clips": "--animate is for pictures"}),
        ({"backbone": "timm/no_such_model"}, {"host": "no_such_model", "method": UNKNOWN, "clips": UNKNOWN}),
    ],
)  # fmt: skip
def test_a_broken_part_is_told_by_its_own_check_alone(values: dict[str, Any], wrong: dict[str, str]) -> None:
    look = checks()
    for name in ("settings", "method", "host", "clips", "no_checkpoint", "no_data"):
        reason = getattr(look, name)(values)
        assert wrong[name] in (reason or "") if name in wrong else reason is None, name


def test_a_file_that_is_no_checkpoint_is_told_and_its_backbone_still_looked_at(tmp_path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"nothing")
    values = {"checkpoint": str(file), "reducer": "sta", "reducer.r": 400}
    assert "weights.pth" in (checks().host(values) or "")
    assert "below 64" in (checks().method(values) or "")


def test_clips_that_are_there_are_counted_although_the_weights_are_not() -> None:
    fields = {**BaseSpec(clips=7, checkpoint="no.pth").model_dump()}
    group = checks().group(fields, clip_settings(fields, 0))
    assert (group.items, group.absent, group.unit) == (7, True, "clip")
    fields |= {"data": "no.txt"}
    assert checks().group(fields, clip_settings(fields, 0)).items == 7
    assert checks().group({**fields, "clips": None}, clip_settings(fields, 0)).items == 0
