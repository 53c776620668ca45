"""vid-TLDR's golden layouts: other seeds, shapes and settings from slow code pass, and whatever differs is found."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import parity_files as files
import parity_vid_tldr as slow
import pytest
import torch
from parity_files import Made
from parity_vit import Shape
from test_detection import one_of_each, read, replayed

from tokred.run.parity import replay_file

SMALL: dict[str, Any] = {"dim": 24, "depth": 3, "heads": 2, "hidden": 60, "patch": 4, "classes": 5}
SHAPE = Shape(pixels=16, frames=4, tubelet=1, **SMALL)
ODD = Shape(pixels=12, frames=6, **SMALL)
FUNCTION: dict[str, Any] = {"batch": 2, "n": 26, "dim": 10, "heads": 3, "width": 6, "sized": False, "traced": False}

CASES: dict[str, Callable[[int], Made]] = {
    "number": slow.function(**FUNCTION, r=9),
    "masses_and_source": slow.function(**{**FUNCTION, "sized": True, "traced": True, "n": 31}, r=11),
    "share": slow.function(**{**FUNCTION, "batch": 1, "heads": 1}, r=0.29),
    "clamped": slow.function(**{**FUNCTION, "n": 15, "sized": True}, r=400),
    "one": slow.function(**FUNCTION, r=1),
    "nothing": slow.function(**FUNCTION, r=0),
    "below_zero": slow.function(**FUNCTION, r=-3),
    "share_of_nothing": slow.function(**{**FUNCTION, "n": 9}, r=0.1),
    "model": slow.model(shape=SHAPE, batch=2, r=[20, 0, 5]),
    "model_shares": slow.model(shape=SHAPE, batch=1, r=[0.3, 2, 0.15]),
    "model_every_block": slow.model(shape=ODD, batch=2, r=[4, 3, 30]),
    "model_off": slow.model(shape=ODD, batch=1, r=[4, 3, 2], use=False),
    "model_longer_list": slow.model(shape=ODD, batch=1, r=[4, -1, 0.2, 8, 8]),
    "model_cropped": slow.model(shape=ODD, batch=1, r=[6, 0, 0], extra=3),
    "model_scaled_without_bias": slow.model(
        shape=Shape(**{**SHAPE.__dict__, "gamma": True, "qkv_bias": False, "in_chans": 1, "eps": 1e-5}),
        batch=1,
        r=[9, 5, 0],
    ),
}
TOLD = {"below_zero": "below zero", "model_longer_list": "beyond 3 blocks ignored", "model_cropped": "clip cropped to"}


@pytest.mark.parametrize("name", CASES)
def test_other_seeds_shapes_and_settings_pass(name: str, tmp_path: Path) -> None:
    report = replay_file(files.write(tmp_path / f"{name}.safetensors", CASES[name], seed=len(name)))
    assert report.status == "pass", report.line()
    assert report.decisions is not None
    assert TOLD.get(name, "") in report.detail


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("vid_tldr")
    chosen = ("masses_and_source", "model")
    return {name: files.write(folder / f"{name}.safetensors", CASES[name], seed=3) for name in chosen}


@pytest.mark.parametrize("name", ["masses_and_source", "model"])
def test_one_changed_entry_of_any_result_is_found(name: str, good: dict[str, Path], tmp_path: Path) -> None:
    tensors, metadata = read(good[name])
    inputs = r"w\..*|x|q|k|size_in|pos_embed|extra\..*"
    for result in one_of_each([n for n in tensors if not re.fullmatch(inputs, n)]):
        wrong = tensors[result].clone()
        wrong.view(-1)[0] += 1 if not wrong.is_floating_point() else 3e-3
        report = replayed(tmp_path / "wrong.safetensors", {**tensors, result: wrong}, metadata)
        assert report.status == "fail", result
        assert result in report.detail, report.line()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("masses_and_source", {"r": 10}, "r_effective"),
        ("masses_and_source", {"r": 2.5}, "r = 2.5 is neither a share below one nor a whole number"),
        ("masses_and_source", {"r": True}, "r = True is neither"),
        ("masses_and_source", {"num_heads": 4}, "num_heads = 4"),
        ("masses_and_source", {"scale": 1.0}, "attn differs"),
        ("masses_and_source", {"size_in_given": False}, "size_in_given"),
        ("masses_and_source", {"n_background_sources": [0, 0]}, "n_background_sources"),
        ("masses_and_source", {"temperature": 2}, "temperature = 2"),
        ("model", {"r": [20, 0]}, "r has 2 entries for 3 blocks"),
        ("model", {"r": [20, 1, 5]}, "reducing_blocks"),
        ("model", {"use": False}, "reducing_blocks"),
        ("model", {"pool": "max"}, "pool = 'max'"),
        ("model", {"qkv_bias": "all"}, "qkv_bias = 'all' is not understood"),
        ("model", {"num_heads": 3}, "decisions differ"),
        ("model", {"keep_temporal": True}, "keep_temporal = True"),
    ],
)
def test_wrong_settings_are_found(
    name: str, changes: dict[str, Any], message: str, good: dict[str, Path], tmp_path: Path
) -> None:
    tensors, metadata = read(good[name])
    report = replayed(tmp_path / "wrong.safetensors", tensors, {**metadata, **changes})
    assert report.status == "fail", report.line()
    assert message in report.detail, report.line()


def test_tensors_that_are_not_understood_are_found(good: dict[str, Path], tmp_path: Path) -> None:
    tensors, metadata = read(good["model"])
    for name in ("w.text.weight", "w.encoder.cls_token", "block1.src_idx", "block7.out", "grad.x"):
        report = replayed(tmp_path / "more.safetensors", {**tensors, name: torch.ones(1, 2, 3)}, metadata)
        assert report.status == "fail", name
