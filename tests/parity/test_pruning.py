"""DynamicViT and ATS: files with other seeds, shapes and settings pass; what differs or is not understood is found."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import parity_files as files
import parity_pruning as pruning
import pytest
from parity_vit import Shape
from safetensors import safe_open
from torch import Tensor

from tokred.run.parity import FileReport, replay_file

IMAGE = Shape(dim=20, depth=4, heads=2, hidden=40, patch=4, pixels=24, classes=5, prefix=1, pool="token")


def changed(shape: Shape, **changes: object) -> Shape:
    return Shape(**{**shape.__dict__, **changes})


ATS = changed(IMAGE, depth=2, heads=3, dim=12, hidden=24)
CASES = {
    "powers": pruning.dynamicvit_model(shape=IMAGE, batch=2, stages=[1, 2, 3], shares=[0.7, 0.7**2, 0.7**3]),
    "first_block": pruning.dynamicvit_model(
        shape=changed(IMAGE, eps=1e-5, qkv_bias=False, in_chans=1), batch=1, stages=[0, 3], shares=[0.9, 0.9**2]
    ),
    "listed": pruning.dynamicvit_model(
        shape=changed(IMAGE, dim=16, heads=4, pixels=20, depth=3), batch=3, stages=[1, 2], shares=[0.6, 0.2]
    ),
    "odd_width": pruning.dynamicvit_model(
        shape=changed(IMAGE, dim=21, heads=3, pixels=16, depth=2), batch=1, stages=[1], shares=[0.5]
    ),
    "masked": pruning.policy_attention(batch=2, n=9, dim=12, heads=3, kept=0.6),
    "all_masked": pruning.policy_attention(batch=1, n=5, dim=8, heads=1, kept=0.0),
    "ats": pruning.ats_blocks(shape=ATS, side=5, frames=4, fraction=0.7, resets=[]),
    "ats_reset": pruning.ats_blocks(
        shape=changed(ATS, heads=2, depth=3), side=4, frames=5, fraction=0.85, resets=[2, 4]
    ),
    "ats_all": pruning.ats_blocks(shape=ATS, side=3, frames=2, fraction=1.0, resets=[]),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pruning")
    return {name: files.write(folder / f"{name}.safetensors", make, seed=3) for name, make in CASES.items()}


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
    assert (report.decisions is None) == name.endswith("masked")


@pytest.mark.parametrize("name", ["powers", "masked", "ats_reset"])
def test_one_changed_entry_of_any_result_is_found(name: str, good: dict[str, Path], tmp_path: Path) -> None:
    tensors, metadata = read(good[name])
    results = [key for key in tensors if not re.fullmatch(r"w\..*|x|policy|logits_in", key)]
    for key in {re.sub(r"\d+", "#", result): result for result in results}.values():
        wrong = tensors[key].clone()
        at = int(wrong.abs().double().flatten().argmax())
        wrong.view(-1)[at] += 0.01 * max(1.0, float(wrong.view(-1)[at].abs())) if wrong.is_floating_point() else 1
        report = replayed(tmp_path / "wrong.safetensors", {**tensors, key: wrong}, metadata)
        assert report.status == "fail", f"{key}: {report.line()}"


@pytest.mark.parametrize(("name", "key"), [("powers", "block2.idx"), ("ats_reset", "ats.t1.blocks.0")])
def test_the_order_of_kept_tokens_matters(name: str, key: str, good: dict[str, Path], tmp_path: Path) -> None:
    tensors, metadata = read(good[name])
    tensors[key][0, [1, 2]] = tensors[key][0, [2, 1]]
    report = replayed(tmp_path / "wrong.safetensors", tensors, metadata)
    assert report.status == "fail"
    assert "in order only" in report.detail


CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "shares": ("powers", lambda m: m.update(token_ratio=[0.7, 0.5, 0.3]), "token counts"),
    "stages": ("powers", lambda m: m.update(pruning_loc=[0, 1, 3]), "blocks with idx"),
    "a missing share": ("powers", lambda m: m.update(token_ratio=[0.7]), "do not belong together"),
    "pixels": ("powers", lambda m: m.update(img_size=28), "img_size"),
    "original tokens": ("powers", lambda m: m.update(n_init=35), "n_init"),
    "unknown setting": ("powers", lambda m: m.update(temperature=2), "not understood: temperature"),
    "leak": ("masked", lambda m: m.update(eps=1e-3), "eps"),
    "heads": ("masked", lambda m: m.update(num_heads=2), "differs by"),
    "fraction": ("ats_reset", lambda m: m["block_config"].update(ats_fraction=0.6), "has shape"),
    "resets": ("ats_reset", lambda m: m.update(reset_before_frames=[1]), "decisions differ"),
    "windows": ("ats_reset", lambda m: m.update(windowed_class="Block"), "windowed_class"),
    "other positions": ("ats_reset", lambda m: m.update(position_encoding_size=[2, 2]), "position_encoding_size"),
    "pooling": ("ats_reset", lambda m: m["block_config"].update(pool_size=2), "not understood: pool_size"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_wrong_or_unknown_setting_is_found(change: str, good: dict[str, Path], tmp_path: Path) -> None:
    name, apply, said = CHANGES[change]
    tensors, metadata = read(good[name])
    apply(metadata)
    report = replayed(tmp_path / "wrong.safetensors", tensors, metadata)
    assert report.status == "fail"
    assert said in report.detail


@pytest.mark.parametrize(("folder", "only"), [("dynamicvit", "*"), ("eventful", "e2e_ats_block*")])
def test_published_code_agrees(shared: Path, folder: str, only: str) -> None:
    from tokred.run.parity import replay_folder

    for report in replay_folder(shared / "golden" / folder, only=only):
        assert report.status == "pass", report.line()
