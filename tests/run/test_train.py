"""Training by a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tokred.run.train as engine
from tokred.backbones.convert import load_checkpoint, read_checkpoint
from tokred.backbones.videomae import VideoViT
from tokred.run.train import train
from tokred.run.train_export import TrainResult
from tokred.run.train_spec import SpecError, TrainSpec, parse_spec
from tokred.run.train_state import save_checkpoint

ROOT = Path(__file__).parents[2]


def recipe(**changes: Any) -> TrainSpec:
    """A recipe of six steps that takes about a second."""
    content: dict[str, Any] = {
        "name": "tiny",
        "model": {"patch_size": 8, "dim": 12, "depth": 2, "num_heads": 2},
        "data": {"size": 16, "frames": 4},
        "batch_size": 4,
        "micro_batch": 2,
        "optimizer": {"warmup": 2},
        "stages": [
            {"name": "few", "steps": 3, "lr": [0.01, 0.01], "tokens": 0.5, "hold": 0.5, "aux": 1.0},
            {"name": "all", "steps": 3, "lr": [0.01, 0.0]},
        ],
        "evaluation": {"clips": 8, "stage_clips": 4},
    }
    return parse_spec(content | changes)


def quiet(line: str) -> None:
    """Takes the lines for people."""


def state(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def plain() -> VideoViT:
    """The recipe's model without its weights."""
    return VideoViT(img_size=16, patch_size=8, frames=4, dim=12, depth=2, num_heads=2, num_classes=18, positions="grid")


def events(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "clips_per_s"} for line in lines]


def run(spec: TrainSpec, folder: Path, **options: Any) -> TrainResult:
    return train(spec, folder, say=quiet, log_every=2, checkpoint_every=1, threads=options.pop("threads", 1), **options)


def test_a_run_leaves_weights_log_and_checkpoint(tmp_path: Path) -> None:
    result = run(recipe(), tmp_path)
    assert result.step == 6
    assert result.folder == tmp_path
    assert set(result.accuracy) == {"intact", "reversed", "shuffled", "single_tubelet", "frozen"}
    assert set(result.accuracy["intact"]) == {"appearance", "motion"}
    log = events(tmp_path)
    assert [e["step"] for e in log if "loss" in e] == [2, 3, 4, 6]
    assert [e["stage"] for e in log if e.get("event") == "stage"] == ["few", "all"]
    assert log[-1]["event"] == "final"
    assert log[-1]["top1"]["intact"] == result.accuracy["intact"]
    assert not list(tmp_path.glob("*.tmp"))


def test_the_exported_file_is_the_measured_model(tmp_path: Path) -> None:
    result = run(recipe(), tmp_path)
    file = read_checkpoint(result.weights)
    fresh = plain()
    load_checkpoint(fresh, file)
    assert torch.equal(state(fresh), state(result.model))
    from safetensors import safe_open

    with safe_open(str(result.weights), "pt") as handle:
        header = handle.metadata()
    assert header["recipe"] == "tiny"
    assert header["seed"] == "0"
    assert "data_digest" in header
    assert json.loads(header["top1"]) == result.accuracy


def test_training_changes_the_weights_and_the_same_seed_repeats_them(tmp_path: Path) -> None:
    first, second = run(recipe(), tmp_path / "a"), run(recipe(), tmp_path / "b")
    other = run(recipe(seed=1), tmp_path / "c")
    assert torch.equal(state(first.model), state(second.model))
    assert not torch.equal(state(first.model), state(other.model))
    assert not torch.equal(state(first.model), state(engine.build_model(recipe())))


def test_seed_and_precision_may_be_given_instead_of_the_recipes(tmp_path: Path) -> None:
    asked = run(recipe(), tmp_path / "a", seed=1, precision="fp32")
    written = run(recipe(seed=1, precision="fp32"), tmp_path / "b")
    assert torch.equal(state(asked.model), state(written.model))
    assert asked.summary()["steps"] == 6
    with pytest.raises(SpecError, match="precision"):
        run(recipe(), tmp_path / "c", precision="int8")


def test_the_number_of_threads_does_not_change_the_weights(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    one, two = run(recipe(), tmp_path / "1", threads=1), run(recipe(), tmp_path / "2", threads=2)
    assert torch.equal(state(one.model), state(two.model))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("kill_at", [1, 3, 5])
def test_a_killed_run_continues_identically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int) -> None:
    spec = recipe(optimizer={"warmup": 2, "ema": 0.5})
    whole = run(spec, tmp_path / "whole")
    advance = engine.Run.advance

    def dies(self: engine.Run) -> dict[str, Any]:
        if self.step == kill_at:
            raise KeyboardInterrupt("killed")
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Run, "advance", dies)
        with pytest.raises(KeyboardInterrupt, match="killed"):
            run(spec, tmp_path / "cut")
    with (tmp_path / "cut" / "log.jsonl").open("a") as log:
        log.write('{"step": 99, "cut off in the mid')  # what a kill leaves of a line
    again = run(spec, tmp_path / "cut")
    assert torch.equal(state(whole.model), state(again.model))
    assert events(tmp_path / "whole") == events(tmp_path / "cut")


def test_settings_that_came_after_a_checkpoint_do_not_end_its_run(tmp_path: Path) -> None:
    started = {"backbone": "videomae_vit_nano", "lr": 1.0}
    spec = recipe(start=started, model={}, data={}, reducer=None, stages=[{"name": "s", "steps": 1, "lr": [0.01, 0]}])
    run(spec, tmp_path)
    path = tmp_path / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    del content["spec"]["start"]["weights"], content["spec"]["optimizer"]["ema"]
    torch.save(content, path)
    said: list[str] = []
    train(spec, tmp_path, say=said.append, threads=1)
    assert said[0].startswith("continuing")
    content["spec"]["start"]["speed"] = 3
    torch.save(content, path)
    with pytest.raises(ValueError, match="another recipe: start"):
        run(spec, tmp_path)


def test_a_checkpoint_that_was_being_written_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(recipe(), tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def half(content: object, file: Any) -> None:
        file.write(b"half a checkp")
        raise OSError("disk is full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="full"):
        save_checkpoint(tmp_path, {"step": 1})
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_finished_run_is_not_trained_again_and_starts_over_when_asked(tmp_path: Path) -> None:
    first = run(recipe(), tmp_path)
    log = events(tmp_path)
    said: list[str] = []
    again = train(recipe(), tmp_path, say=said.append, threads=1)
    assert "after step 6 of 6" in said[0]
    assert torch.equal(state(first.model), state(again.model))
    assert events(tmp_path) == log
    fresh = run(recipe(), tmp_path, resume=False)
    assert torch.equal(state(first.model), state(fresh.model))
    assert events(tmp_path) == log


def test_another_recipe_does_not_continue_the_folder(tmp_path: Path) -> None:
    run(recipe(), tmp_path)
    with pytest.raises(ValueError, match="batch_size"):
        run(recipe(batch_size=2), tmp_path)
    other = recipe().model_dump(mode="json")["stages"]
    other[0]["hold"] = 0.0
    with pytest.raises(ValueError, match="2 have begun"):
        run(recipe(stages=other), tmp_path)


def test_stages_that_have_not_begun_may_change(tmp_path: Path) -> None:
    run(recipe(), tmp_path)
    stages = [*recipe().model_dump(mode="json")["stages"], {"name": "more", "steps": 1, "lr": [0.001, 0.0]}]
    assert run(recipe(stages=stages), tmp_path).step == 7


def test_average_of_weights_is_used_where_asked(tmp_path: Path) -> None:
    plain = run(recipe(), tmp_path / "plain")
    averaged = run(recipe(optimizer={"warmup": 2, "ema": 0.9}), tmp_path / "ema")
    assert not torch.equal(state(plain.model), state(averaged.model))


def test_a_model_trains_with_a_reducer_attached(tmp_path: Path) -> None:
    stages = [{"name": "reduced", "steps": 2, "lr": [0.01, 0.0]}]
    result = run(recipe(reducer="tome:r=2", attention="fused", precision="fp32", stages=stages), tmp_path)
    assert not torch.equal(state(result.model), state(engine.build_model(recipe())))
    load_checkpoint(plain(), read_checkpoint(result.weights))


def test_explicit_and_fused_attention_train_alike(tmp_path: Path) -> None:
    one = run(recipe(precision="fp32", attention="explicit"), tmp_path / "a")
    two = run(recipe(precision="fp32", attention="fused"), tmp_path / "b")
    torch.testing.assert_close(state(one.model), state(two.model), atol=2e-3, rtol=0)


def test_loss_falls(tmp_path: Path) -> None:
    stages = [{"name": "all", "steps": 40, "lr": [0.01, 0.0], "hold": 0.0, "aux": 1.0, "noise": 0.05}]
    train(recipe(stages=stages, batch_size=8), tmp_path, say=quiet, threads=1, log_every=10)
    losses = [e["aux_loss"] for e in events(tmp_path) if "loss" in e]
    assert losses[-1] < 0.8 * losses[0]
