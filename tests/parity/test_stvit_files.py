"""STViT: files with other seeds, shapes and settings pass; what differs or is not understood is found."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import parity_files as files
import parity_stvit as stvit
import pytest
from safetensors import safe_open
from torch import Tensor

from tokred.run.parity import FileReport, replay_file

CASES = {
    "pool": stvit.pool_file(windows=2, dim=3, window=9, side=4),
    "step2": stvit.layer_file(dim=12, heads=3, hidden=30, role="step2"),
    "recovery": stvit.layer_file(dim=8, heads=1, hidden=8, role="recovery", bias=False),
    "local": stvit.layer_file(dim=8, heads=2, hidden=16, role="local"),
    "full": stvit.layer_file(dim=8, heads=4, hidden=32, role="full"),
    "window": stvit.window_file(dim=8, heads=2, side=2, shortcut=False, conv=True, given=False),
    "window_given": stvit.window_file(dim=6, heads=1, side=3, shortcut=True, conv=False, given=True),
    "unit": stvit.stage_file(dim=8, heads=2, side=2, units=1, shortcut=True, conv=False, relative=True, centres=False),
    "two_units": stvit.stage_file(
        dim=6, heads=1, side=3, units=2, shortcut=False, conv=True, relative=False, centres=True
    ),
    "columnar": stvit.columnar_file(grid=(6, 8), dim=12, heads=3, side=3, base=1, stgm=3, tail=1, centres=True),
    "columnar_no_base": stvit.columnar_file(grid=(5, 5), dim=8, heads=2, side=2, base=0, stgm=2, tail=2, centres=False),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("timm")
    folder = tmp_path_factory.mktemp("stvit")
    return {name: files.write(folder / f"{name}.safetensors", make, seed=5) for name, make in CASES.items()}


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, {name: json.loads(text) for name, text in (file.metadata() or {}).items()}


def replayed(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> FileReport:
    files.save(path, tensors, metadata)
    return replay_file(path)


@pytest.mark.parametrize("name", CASES)
def test_other_seeds_shapes_and_settings_pass(name: str, good: dict[str, Path]) -> None:
    report = replay_file(good[name])
    assert report.status == "pass", report.line()


@pytest.mark.parametrize("name", ["pool", "step2", "local", "window", "two_units", "columnar"])
def test_one_changed_entry_of_any_result_is_found(name: str, good: dict[str, Path], tmp_path: Path) -> None:
    tensors, metadata = read(good[name])
    results = [key for key in tensors if re.fullmatch(r"out|logits|block\.\d+|s\d|tokens_.*|.*_normed", key)]
    assert results
    for key in results:
        wrong = tensors[key].clone()
        wrong.view(-1)[-1] += 0.01 * float(wrong.abs().max())
        report = replayed(tmp_path / "wrong.safetensors", {**tensors, key: wrong}, metadata)
        assert report.status == "fail", f"{key}: {report.line()}"


CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "samples": ("pool", lambda m: m.update(samples_per_side=3), "has shape"),
    "window": ("pool", lambda m: m.update(window=8), "window"),
    "keys": ("step2", lambda m: m.update(concat_x_before_y=False), "differs by"),
    "heads": ("recovery", lambda m: m["config"].update(num_heads=2), "differs by"),
    "heads that do not divide": ("recovery", lambda m: m["config"].update(num_heads=3), "num_heads = 3"),
    "bias": ("recovery", lambda m: m["config"].update(qkv_bias=True), "qkv_bias"),
    "hidden": ("recovery", lambda m: m["config"].update(mlp_ratio=4.0), "mlp_ratio"),
    "groups": ("local", lambda m: m["config"].update(local=False), "must match"),
    "other groups": ("local", lambda m: m["config"].update(window_size=4), "do not fit"),
    "no bias": ("full", lambda m: m["config"].update(relative_pos=False), "do not fit"),
    "unknown setting": ("full", lambda m: m["config"].update(temperature=2), "not understood: temperature"),
    "residual": ("window", lambda m: m["config"].update(shortcut=True), "differs by"),
    "position": ("window", lambda m: m["config"].update(use_conv_pos=False), "use_conv_pos"),
    "side": ("window", lambda m: m["config"].update(sample_window_size=3), "has shape"),
    "centres": ("two_units", lambda m: m["config"].update(use_global=False), "use_global"),
    "relative": ("two_units", lambda m: m["config"].update(relative_pos=True), "relative_pos"),
    "counts": ("two_units", lambda m: m["tokens_per_block"].pop(), "tokens per block"),
    "map": ("two_units", lambda m: m["config"].update(input_resolution=[7, 28]), "input_resolution"),
    "merging": ("two_units", lambda m: m.update(patch_merging_after=True), "patch_merging_after"),
    "grid": ("columnar", lambda m: m.update(grid=[8, 6]), "differs by"),
    "a wrong grid": ("columnar", lambda m: m.update(grid=7), "grid = 7"),
    "layers": ("columnar", lambda m: m.update(base_layers=2), "base_layers"),
    "epsilon": ("columnar", lambda m: m.update(layer_norm_eps=0.01), "differs by"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_wrong_or_unknown_setting_is_found(change: str, good: dict[str, Path], tmp_path: Path) -> None:
    name, apply, said = CHANGES[change]
    tensors, metadata = read(good[name])
    apply(metadata)
    report = replayed(tmp_path / "wrong.safetensors", tensors, metadata)
    assert report.status == "fail"
    assert said in report.detail


def test_weights_that_do_not_belong_are_found(good: dict[str, Path], tmp_path: Path) -> None:
    tensors, metadata = read(good["recovery"])
    spare = {**tensors, "w.attn.extra": tensors["w.layer_scale_1"]}
    assert "do not fit" in replayed(tmp_path / "a.safetensors", spare, metadata).detail
    missing = {name: tensor for name, tensor in tensors.items() if name != "w.norm2.bias"}
    assert "do not fit" in replayed(tmp_path / "b.safetensors", missing, metadata).detail
