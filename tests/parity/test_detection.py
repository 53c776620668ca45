"""A file that differs anywhere fails, a file that is not understood is refused or fails, and nothing is ever raised."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import parity_files as files
import parity_models as models
import pytest
import torch
from parity_vit import Shape
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tokred.run.parity import FileReport, find_files, replay_file, replay_folder

VIDEO = Shape(dim=16, depth=3, heads=2, hidden=40, patch=4, pixels=12, classes=5, frames=16, learned=False)
IMAGE = Shape(dim=18, depth=3, heads=3, hidden=50, patch=4, pixels=20, classes=4, prefix=1, pool="token")
RUNS = {"a": {"r": 3, "r_type": "int", "r_list": [3, 3, 3], "prop_attn": True, "pool": "weighted"}}

MAKERS = {
    "sta_function": files.sta_function(batch=2, groups=4, g=9, dim=8, width=6, r=3, backward=True),
    "sta_model": models.sta_models(shape=VIDEO, batch=1, amounts=[2]),
    "tome_function": files.tome_function(batch=2, n=17, dim=6, width=5, r=4, protected=1),
    "tome_chain": files.tome_chain(batch=1, n=20, dim=6, width=5, amounts=[4, 3], cls=False),
    "tome_kth": files.tome_kth(batch=2, n=14, dim=5, width=6, k=3),
    "tome_schedules": files.tome_schedules,
    "tome_model": models.tome_models(shape=IMAGE, batch=1, model="cls", runs={"a": {**RUNS["a"], "pool": "mean"}}),
    "tome_video": models.tome_models(shape=Shape(**{**VIDEO.__dict__, "frames": 4}), batch=1, model="video", runs=RUNS),
    "evit_function": files.evit_function(batch=2, n=15, dim=12, heads=3, hidden=20, rate=0.5, tokens=None, fuse=True),
    "evit_schedule": files.evit_schedule,
    "evit_model": models.evit_models(shape=IMAGE, batch=1, fuse=True, rates=[0.6, 1, 0.5]),
    "videomae": models.videomae(shape=Shape(**{**VIDEO.__dict__, "frames": 4}), batch=1),
    "positions": models.position_table(20, 8),
}


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One good file of each kind."""
    folder = tmp_path_factory.mktemp("good")
    return {name: files.write(folder / f"{name}.safetensors", make, seed=5) for name, make in MAKERS.items()}


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, {name: json.loads(text) for name, text in (file.metadata() or {}).items()}


def replayed(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> FileReport:
    files.save(path, tensors, metadata)
    report = replay_file(path)
    assert "\n" not in report.line()
    return report


def one_of_each(names: list[str]) -> list[str]:
    """The last name of those that differ in their numbers only."""
    return list({re.sub(r"\d+", "#", name): name for name in names}.values())


@pytest.mark.parametrize("kind", MAKERS)
def test_the_good_file_passes(kind: str, good: dict[str, Path]) -> None:
    report = replay_file(good[kind])
    assert report.status == "pass", report.line()


@pytest.mark.parametrize("kind", MAKERS)
def test_one_changed_entry_of_any_tensor_is_found(kind: str, good: dict[str, Path], tmp_path: Path) -> None:
    tensors, metadata = read(good[kind])
    inputs = r"w\..*|x|ints|rates|(step\d+\.)?metric|size_in"
    for name in one_of_each([name for name in tensors if not re.fullmatch(inputs, name)]):
        wrong = tensors[name].clone()
        at = int(wrong.abs().double().flatten().argmax())
        flat = wrong.view(-1)
        flat[at] += 1 if not wrong.is_floating_point() else 0.01 * max(1.0, float(flat[at].abs()))
        report = replayed(tmp_path / "wrong.safetensors", {**tensors, name: wrong}, metadata)
        assert report.status == "fail", f"{name}: {report.line()}"


@pytest.mark.parametrize("kind", MAKERS)
def test_two_swapped_decisions_are_found(kind: str, good: dict[str, Path], tmp_path: Path) -> None:
    tensors, metadata = read(good[kind])
    order = r".*(kept|kept_local|order|unm_idx|src_idx|idx|orig_idx|assign)"
    for name in one_of_each([name for name in tensors if re.fullmatch(order, name)]):
        wrong = tensors[name].clone()
        other = int((wrong[0] != wrong[0, 0]).nonzero()[0])
        wrong[0, [0, other]] = wrong[0, [other, 0]]
        report = replayed(tmp_path / "wrong.safetensors", {**tensors, name: wrong}, metadata)
        assert report.status == "fail", f"{name}: {report.line()}"
        assert "decisions differ (in order only)" in report.detail
        assert report.decisions is not None
        assert report.decisions[1] - report.decisions[0] == 2


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind != "tome_schedules"])
def test_not_a_number_is_found(kind: str, good: dict[str, Path], tmp_path: Path) -> None:
    tensors, metadata = read(good[kind])
    results = {"logits", "out", "wavg.x", "step1.x", "keep_rate", "x_out", "table"}
    name = sorted(results & set(tensors))[0]
    wrong = tensors[name].clone()
    wrong.view(-1)[0] = float("nan")
    report = replayed(tmp_path / "wrong.safetensors", {**tensors, name: wrong}, metadata)
    assert report.status == "fail"
    assert f"{name} differs by inf" in report.detail


CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "sta r": ("sta_function", lambda m: m.update(r=2), "kept"),
    "sta direction": ("sta_function", lambda m: m.update(direction="sideways"), "forward, backward"),
    "sta order": ("sta_function", lambda m: m.update(processing_order=[0, 2, 1, 3]), "processing_order"),
    "sta block": ("sta_model", lambda m: m["per_r"]["2"].update(block_index=[0, 1, 3]), "block_index"),
    "sta values": ("sta_model", lambda m: m.update(r_values=[2, 3]), "r_values"),
    "heads": ("videomae", lambda m: m["config"].update(num_heads=4), "differs by"),
    "heads that do not divide": ("videomae", lambda m: m["config"].update(num_heads=3), "num_heads"),
    "no heads": ("videomae", lambda m: m["config"].pop("num_heads"), "config has no num_heads"),
    "true heads": ("videomae", lambda m: m["config"].update(num_heads=True), "whole number"),
    "epsilon": ("videomae", lambda m: m["config"].update(norm_eps=1e-2), "differs by"),
    "depth": ("videomae", lambda m: m["config"].update(depth=4), "config.depth = 4"),
    "pixels": ("videomae", lambda m: m["config"].update(img_size=16), "config.img_size = 16"),
    "frames": ("videomae", lambda m: m["config"].update(all_frames=8), "config.all_frames = 8"),
    "ratio": ("videomae", lambda m: m["config"].update(mlp_ratio=3), "config.mlp_ratio"),
    "layer scale": ("videomae", lambda m: m["config"].update(init_values=0.1), "init_values"),
    "pooling": ("videomae", lambda m: m["config"].update(use_mean_pooling=False), "use_mean_pooling"),
    "unknown argument": ("videomae", lambda m: m["config"].update(rope=True), "not understood: rope"),
    "unknown setting": ("sta_function", lambda m: m.update(temperature=2), "not understood: temperature"),
    "proportional": ("tome_model", lambda m: m["runs"]["a"].update(prop_attn=False), "a.logits differs"),
    "pool of a run": ("tome_video", lambda m: m["runs"]["a"].update(pool="mean"), "a.logits differs"),
    "list of r": ("tome_model", lambda m: m["runs"]["a"].update(r_list=[3, 3, 2]), "a.r_list"),
    "r of a run": ("tome_model", lambda m: m["runs"]["a"].update(r=2), "a.r_list"),
    "no runs": ("tome_model", lambda m: m.update(runs={}), "runs has no a"),
    "host": ("tome_model", lambda m: m.update(model="swag"), "cls, distill, nocls, mae"),
    "k": ("tome_kth", lambda m: m.update(k=2), "tokens_out"),
    "class token": ("tome_function", lambda m: m.update(class_token=False), "decisions differ"),
    "case": ("tome_schedules", lambda m: m["cases"]["case0"].update(r=8), "case0"),
    "layers": ("tome_schedules", lambda m: m["cases"]["case0"].update(layers=10**9), "layers"),
    "rate": ("evit_function", lambda m: m.update(keep_rate=0.6), "left_tokens"),
    "fuse": ("evit_function", lambda m: m.update(fuse_token=False), "n_tokens_out"),
    "scale": ("evit_function", lambda m: m.update(scale="1"), "scale"),
    "rates": ("evit_model", lambda m: m.update(keep_rate=[0.6, 1]), "2 entries for 3 blocks"),
    "run-time rate": ("evit_model", lambda m: m.update(runtime_keep_rate=0.9), "token counts"),
    "too many": ("evit_model", lambda m: m.update(runtime_tokens=99), "impossible"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_wrong_or_unknown_setting_is_found(change: str, good: dict[str, Path], tmp_path: Path) -> None:
    kind, apply, said = CHANGES[change]
    tensors, metadata = read(good[kind])
    apply(metadata)
    report = replayed(tmp_path / "wrong.safetensors", tensors, metadata)
    assert report.status == "fail"
    assert said in report.detail


def test_tensors_that_are_not_understood_or_missing_are_named(good: dict[str, Path], tmp_path: Path) -> None:
    tensors, metadata = read(good["evit_model"])
    strange = replayed(tmp_path / "a.safetensors", {**tensors, "block1.gate": torch.ones(2)}, metadata)
    missing = {name: tensor for name, tensor in tensors.items() if name != "w.blocks.1.norm2.bias"}
    without = replayed(tmp_path / "b.safetensors", missing, metadata)
    scaled = replayed(tmp_path / "c.safetensors", {**tensors, "w.blocks.0.ls1.gamma": torch.ones(18)}, metadata)
    beyond = replayed(tmp_path / "d.safetensors", {**tensors, "block7.out": torch.ones(2)}, metadata)
    assert {report.status for report in (strange, without, scaled, beyond)} == {"fail"}
    assert "not understood: block1.gate" in strange.detail
    assert "blocks.1.norm2.bias" in without.detail
    assert "blocks.0.ls1.gamma" in scaled.detail
    assert "block7.out" in beyond.detail


def test_files_that_cannot_be_read_fail_with_one_line(good: dict[str, Path], tmp_path: Path) -> None:
    whole = good["sta_function"].read_bytes()
    contents = {"empty": b"", "text": b"no vectors here", "cut": whole[: len(whole) // 2], "noise": bytes(range(256))}
    contents["huge"] = (2**62).to_bytes(8, "little") + b"{}"
    for name, content in contents.items():
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    save_file({"x": torch.ones(2)}, tmp_path / "words.safetensors", {"kind": "not quoted"})
    deep = "[" * 100_000
    save_file({"x": torch.ones(2)}, tmp_path / "deep.safetensors", {"kind": deep})
    reports = {report.path.stem: report for report in replay_folder(tmp_path)}
    assert set(reports) == {*contents, "words", "deep"}
    assert all(r.status == "fail" and "\n" not in r.line() and r.decisions is None for r in reports.values())
    assert all("not a readable safetensors file" in reports[name].detail for name in contents)
    assert "metadata kind is not JSON" in reports["words"].detail
    assert "metadata kind is not JSON" in reports["deep"].detail


def test_an_unknown_kind_is_refused_and_says_which_are_known(tmp_path: Path) -> None:
    files.save(tmp_path / "a.safetensors", {"x": torch.ones(2)}, {"kind": "magic", "method": "new"})
    files.save(tmp_path / "b.safetensors", {"x": torch.ones(2)}, {})
    unknown, none = replay_folder(tmp_path)
    assert [report.status for report in (unknown, none)] == ["refused"] * 2
    assert "unknown kind: new magic" in unknown.detail
    assert "sta end to end" in unknown.detail
    assert "unknown kind: none given" in none.detail


def test_folders_are_searched_and_filtered(good: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("videomae", "positions"):
        (tmp_path / "inner" / f"{name}.safetensors").write_bytes(good[name].read_bytes())
    (tmp_path / "notes.txt").write_text("not a golden file")
    assert [report.path.stem for report in replay_folder(tmp_path)] == ["positions", "videomae"]
    assert [report.path.stem for report in replay_folder(tmp_path, only="video*")] == ["videomae"]
    assert find_files(good["positions"]) == [good["positions"]]
    with pytest.raises(ValueError, match="none of the 2 golden files"):
        find_files(tmp_path, "sta*")
    with pytest.raises(ValueError, match="no such folder"):
        find_files(tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="holds no golden vectors"):
        find_files(tmp_path / "bare")


def test_replaying_leaves_the_random_state_alone(good: dict[str, Path]) -> None:
    before = torch.random.get_rng_state()
    for kind in ("sta_model", "evit_model", "evit_function"):
        assert replay_file(good[kind]).status == "pass"
    assert torch.equal(before, torch.random.get_rng_state())
