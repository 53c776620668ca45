"""STA on VideoSwin: files of other seeds, shapes and settings from slow code pass, and whatever differs is found."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import parity_files as files
import parity_swin_files as slow
import pytest
import torch
from parity_files import Made
from parity_swin import Swin
from test_detection import one_of_each, read, replayed

from tokred.run.parity import replay_file

SMALL = Swin(8, (1, 2), (2, 2), window=(2, 3, 3), patch=(1, 2, 2), clip=(3, 20, 14))
DEEP = Swin(8, (2, 2, 1), (1, 2, 4), window=(2, 2, 3), patch=(2, 2, 4), clip=(7, 15, 40), qkv_bias=False)
THREE = ("forward", "backward", "forward")

CASES: dict[str, Callable[[int], Made]] = {
    "nearest": slow.nearest_file(batch=2, t=3, h=6, w=5, k=7),
    "nearest_one_row": slow.nearest_file(batch=1, t=1, h=1, w=9, k=2),
    "nearest_all": slow.nearest_file(batch=3, t=2, h=3, w=4, k=12),
    "block_plain": slow.block_file(batch=2, grid=(4, 6, 6), k=11, dim=12, heads=3, window=(2, 3, 3), shift=(0, 0, 0)),
    "block_shifted": slow.block_file(batch=2, grid=(4, 6, 6), k=11, dim=12, heads=3, window=(2, 3, 3), shift=(1, 1, 1)),
    "block_padded": slow.block_file(batch=1, grid=(3, 5, 7), k=9, dim=8, heads=2, window=(2, 3, 4), shift=(1, 1, 2)),
    "block_clipped_time": slow.block_file(
        batch=2, grid=(2, 5, 4), k=6, dim=8, heads=4, window=(8, 2, 2), shift=(4, 1, 1)
    ),
    "block_clipped_rows": slow.block_file(
        batch=1, grid=(3, 2, 6), k=5, dim=8, heads=1, window=(2, 7, 4), shift=(1, 3, 2)
    ),
    "block_clipped_all": slow.block_file(
        batch=1, grid=(2, 3, 3), k=4, dim=8, heads=2, window=(4, 4, 5), shift=(2, 2, 2)
    ),
    "block_odd_shift": slow.block_file(batch=2, grid=(4, 7, 5), k=9, dim=8, heads=2, window=(3, 4, 4), shift=(2, 1, 3)),
    "block_one_token": slow.block_file(batch=2, grid=(2, 4, 4), k=1, dim=8, heads=2, window=(2, 2, 2), shift=(1, 1, 1)),
    "block_without_bias": slow.block_file(
        batch=1, grid=(3, 5, 5), k=7, dim=8, heads=2, window=(2, 3, 3), shift=(1, 1, 1), bias=False
    ),
    "given": slow.model_file(shape=SMALL, batch=2, drops=[9], directions=None),
    "given_odd": slow.model_file(shape=DEEP, batch=2, drops=[6, 3], directions=None),
    "given_one_left": slow.model_file(shape=SMALL, batch=1, drops=[19], directions=None),
    "given_nothing_dropped": slow.model_file(shape=DEEP, batch=1, drops=[5, 0], directions=None),
    "score": slow.model_file(shape=SMALL, batch=2, drops=[7], directions=["forward"]),
    "score_backward": slow.model_file(shape=SMALL, batch=1, drops=[5], directions=["backward"]),
    "score_odd": slow.model_file(shape=DEEP, batch=1, drops=[7, 2], directions=["backward", "forward"]),
    "score_over_half": slow.model_file(shape=SMALL, batch=1, drops=[14], directions=["forward"]),
    "score_nothing_dropped": slow.model_file(shape=DEEP, batch=1, drops=[0, 2], directions=["forward", "backward"]),
    "score_one_frame": slow.model_file(
        shape=replace(SMALL, clip=(1, 20, 14)), batch=2, drops=[6], directions=["forward"]
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_other_seeds_shapes_and_settings_pass(name: str, tmp_path: Path) -> None:
    report = replay_file(files.write(tmp_path / f"{name}.safetensors", CASES[name], seed=len(name)))
    assert report.status == "pass", report.line()


def test_both_forms_are_compared(tmp_path: Path) -> None:
    report = replay_file(files.write(tmp_path / "a.safetensors", CASES["given"], seed=1))
    assert "keep.# x2, stage.#.block.# x4, logits x2" in report.detail


CHOSEN = ("nearest", "block_padded", "given_odd", "score")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sta_videoswin")
    return {name: files.write(folder / f"{name}.safetensors", CASES[name], seed=3) for name in CHOSEN}


@pytest.mark.parametrize("name", CHOSEN)
def test_one_changed_entry_of_any_result_is_found(name: str, good: dict[str, Path], tmp_path: Path) -> None:
    tensors, metadata = read(good[name])
    inputs = r"w\..*|x" if name != "nearest" else "keep"
    for result in one_of_each([n for n in tensors if not re.fullmatch(inputs, n)]):
        wrong = tensors[result].clone()
        wrong.view(-1)[-1] += -1 if not wrong.is_floating_point() else 3e-3
        report = replayed(tmp_path / "wrong.safetensors", {**tensors, result: wrong}, metadata)
        assert report.status == "fail", result


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("nearest", {"grid": [5, 6]}, "decisions differ"),
        ("nearest", {"grid": [3, 6, 5]}, "grid = [3, 6, 5] is not two whole numbers"),
        ("nearest", {"metric": "city block"}, "metric = 'city block'"),
        ("block_padded", {"grid": [3, 7, 5]}, "decisions differ"),
        ("block_padded", {"kept_per_frame": 8}, "kept_per_frame = 8"),
        ("block_padded", {"config": {"shift_size": [0, 0, 0]}}, "out differs"),
        ("block_padded", {"config": {"shift_size": [1, 1, 4]}}, "impossible"),
        ("block_padded", {"config": {"window_size": [2, 4, 3]}}, "out differs"),
        ("block_padded", {"config": {"window_size": [3, 3, 4]}}, "the weights do not fit"),
        ("block_padded", {"config": {"num_heads": 3}}, "impossible"),
        ("block_padded", {"config": {"num_heads": 4}}, "the weights do not fit"),
        ("block_padded", {"config": {"dim": 16}}, "config.dim = 16"),
        ("block_padded", {"config": {"eps": 1e-6}}, "eps = 1e-06"),
        ("given_odd", {"dropped_per_frame": [6, 2]}, "kept_per_frame"),
        ("given_odd", {"dropped_per_frame": [6]}, "1 drops for a model that merges patches 2 times"),
        ("given_odd", {"dropped_per_frame": [6, -1]}, "dropped_per_frame = [6, -1]"),
        ("given_odd", {"grids_at_drop": [[4, 5], [3, 2]]}, "grids_at_drop"),
        ("given_odd", {"directions": list(THREE)}, "only a score needs directions"),
        ("given_odd", {"config": {"window_size": [2, 3, 2]}}, "differs by"),
        ("given_odd", {"config": {"norm_eps": 1e-2}}, "differs by"),
        ("given_odd", {"config": {"qk_scale": 0.1}}, "differs by"),
        ("given_odd", {"pool": "mass"}, "pool = 'mass'"),
        ("score", {"directions": ["backward"]}, "decisions differ"),
        ("score", {"directions": ["sideways"]}, "directions = ['sideways']"),
        ("score", {"directions": list(THREE)}, "is not forward or backward for each of 1 drops"),
        ("score", {"kept_per_frame": [12]}, "kept_per_frame = [12]"),
        ("score", {"config": {"depths": [1, 1]}}, "config.depths"),
        ("score", {"similarity": "query"}, "similarity = 'query'"),
    ],
)
def test_wrong_settings_are_found(
    name: str, changes: dict[str, Any], message: str, good: dict[str, Path], tmp_path: Path
) -> None:
    tensors, metadata = read(good[name])
    if "config" in changes:
        changes = {**changes, "config": {**metadata["config"], **changes["config"]}}
    report = replayed(tmp_path / "wrong.safetensors", tensors, {**metadata, **changes})
    assert report.status == "fail", report.line()
    assert message in report.detail, report.line()


def test_what_is_not_understood_or_missing_is_found(good: dict[str, Path], tmp_path: Path) -> None:
    tensors, metadata = read(good["given_odd"])
    for name in ("w.backbone.pos_embed", "stage.3.block.0", "keep.2", "stage.1.merged", "grad.x"):
        report = replayed(tmp_path / "more.safetensors", {**tensors, name: torch.ones(1, 2, 3)}, metadata)
        assert report.status == "fail", name
    for name in ("keep.1", "logits", "w.backbone.norm.bias", "w.backbone.layers.1.blocks.0.attn.proj.weight"):
        report = replayed(
            tmp_path / "less.safetensors", {n: tensor for n, tensor in tensors.items() if n != name}, metadata
        )
        assert report.status == "fail", name
        assert name.removeprefix("w.backbone.") in report.detail
    without = {n: tensor for n, tensor in tensors.items() if not n.startswith("stage.")}
    assert "no tensor stage.I.block.J" in replayed(tmp_path / "bare.safetensors", without, metadata).detail


@pytest.mark.parametrize("name", ["nearest", "block_padded", "given_odd", "score"])
def test_kept_places_must_be_sorted_places_of_the_frame(name: str, good: dict[str, Path], tmp_path: Path) -> None:
    tensors, metadata = read(good[name])
    keep = "keep" if "keep" in tensors else "keep.0"
    for wrong, message in (
        (tensors[keep].flip(-1), "not sorted"),
        (tensors[keep] + 10**6, "not places of the frames"),
        (torch.zeros_like(tensors[keep]), "not sorted, each once"),
    ):
        report = replayed(tmp_path / "wrong.safetensors", {**tensors, keep: wrong}, metadata)
        assert report.status == "fail"
        assert message in report.detail, report.line()
