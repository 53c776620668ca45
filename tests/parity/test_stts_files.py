"""STTS's golden layouts: other seeds, shapes and settings from slow code pass, and whatever differs is found."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import parity_files as files
import parity_stts as slow
import pytest
import torch
from parity_files import Made
from test_detection import one_of_each, read, replayed

from tokred.run.parity import replay_file

CASES: dict[str, Callable[[int], Made]] = {
    "perturbed": slow.perturbed([(2, 7, 3, 20, 0.05), (3, 4, 1, 30, 0.2), (1, 5, 5, 8, 0.1), (2, 6, 2, 8, 0.0)]),
    "predictor": slow.predictor([(2, 5, 16), (1, 9, 28)]),
    "time": slow.stage(time=True, swin=False, grid=(6, 2, 2), k=4, dim=6),
    "time_swin": slow.stage(time=True, swin=True, grid=(5, 3, 3), k=1, dim=10, sigma=0.03),
    "time_all": slow.stage(time=True, swin=False, grid=(3, 2, 2), k=3),
    "space": slow.stage(time=False, swin=False, grid=(2, 7, 7), k=25),
    "space_sixteen_squares": slow.stage(time=False, swin=True, grid=(2, 6, 6), k=11),
    "space_whole": slow.stage(time=False, swin=True, grid=(2, 3, 3), k=9),
    "space_strided": slow.stage(time=False, swin=False, grid=(1, 6, 6), k=4, stride=2),
    "space_uncovered": slow.stage(time=False, swin=False, grid=(1, 8, 8), k=9, batch=1, dim=4),
}


@pytest.mark.parametrize("name", CASES)
def test_other_seeds_shapes_and_settings_pass(name: str, tmp_path: Path) -> None:
    report = replay_file(files.write(tmp_path / f"{name}.safetensors", CASES[name], seed=len(name)))
    assert report.status == "pass", report.line()
    assert (report.decisions is None) == (name in ("perturbed", "predictor"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stts")
    chosen = ("perturbed", "predictor", "time", "space")
    return {name: files.write(folder / f"{name}.safetensors", CASES[name], seed=3) for name in chosen}


@pytest.mark.parametrize("name", ["perturbed", "predictor", "time", "space"])
def test_one_changed_entry_of_any_result_is_found(name: str, good: dict[str, Path], tmp_path: Path) -> None:
    tensors, metadata = read(good[name])
    inputs = r"(c\d\.)?(w\..*|x|noise|grad_output)|train\.(noise|grad_out)"
    for result in one_of_each([n for n in tensors if not re.fullmatch(inputs, n)]):
        wrong = tensors[result].clone()
        # The last bias moves all scores alike: its gradient is rounding of the size of the layer's.
        slack = float(tensors[result.removesuffix("bias") + "weight"].abs().max()) if result.endswith("bias") else 0.0
        added = 3e-3 * max(1.0, float(wrong.abs().max()), slack)
        wrong.view(-1)[0] += added if wrong.is_floating_point() else 1
        report = replayed(tmp_path / "wrong.safetensors", {**tensors, result: wrong}, metadata)
        assert report.status == "fail", result
        assert result in report.detail, report.line()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("perturbed", {"cases": []}, "lists no cases"),
        ("predictor", {"cases": [{"B": 3, "N": 5, "embed_dim": 16}]}, "B = 3"),
        ("time", {"k": 3}, "indices has shape"),
        ("time", {"sigma": 0.3}, "train.indicator differs"),
        ("time", {"num_samples": 100}, "num_samples = 100"),
        ("time", {"T": 12}, "tokens, not T H W"),
        ("time", {"layout": "channels"}, "layout = 'channels'"),
        ("space", {"stride": 2}, "candidates"),
        ("space", {"type": "patch"}, "type = 'patch'"),
        ("space", {"temperature": 2}, "temperature = 2"),
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
    tensors, metadata = read(good["time"])
    for name in ("w.score_network.extra", "train.grad.score_network.extra", "mask"):
        report = replayed(tmp_path / "more.safetensors", {**tensors, name: torch.ones(2)}, metadata)
        assert report.status == "fail", name
