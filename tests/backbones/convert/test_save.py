from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from tokred.backbones.convert import CheckpointError, load_checkpoint, save_weights, to_official, weights_digest
from tokred.backbones.convert.save import CONVERTER
from tokred.backbones.positions import sincos_flat
from tokred.backbones.videomae import VideoViT

ToHF = Callable[[dict[str, Tensor], bool], dict[str, Tensor]]
ToTimm = Callable[[VideoViT], dict[str, Tensor]]


def test_every_layout_comes_out_under_the_original_names(model: VideoViT, to_hf: ToHF, to_timm: ToTimm) -> None:
    state = dict(model.state_dict())
    for weights in (model, state, to_hf(state, True), to_hf(state, False), to_timm(model)):
        official = to_official(weights)
        assert official.keys() == state.keys(), "the fixed table is not written back"
        assert all(torch.equal(official[name], state[name]) for name in state)


def test_learned_positions_are_kept(make_model: Callable[..., VideoViT], to_timm: ToTimm) -> None:
    model = make_model(positions="learned")
    assert torch.equal(to_official(model)["pos_embed"], model.pos_embed)
    assert torch.equal(to_official(to_timm(model))["pos_embed"], model.pos_embed)
    with torch.no_grad():
        model.pos_embed.copy_(sincos_flat(32, 24))
    assert "pos_embed" in to_official(model), "a parameter of ours is a parameter, whatever its values"


def test_other_models_are_refused() -> None:
    with pytest.raises(CheckpointError, match="no known layout"):
        to_official(nn.Linear(2, 2))


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_the_header_says_where_the_weights_come_from(
    tmp_path: Path, model: VideoViT, to_timm: ToTimm, dtype: torch.dtype | None
) -> None:
    path = tmp_path / "w.safetensors"
    digest = save_weights(to_timm(model), path, source="https://host/file.pth", dtype=dtype, metadata={"seed": "3"})
    with safe_open(str(path), "pt") as stream:
        header = stream.metadata()
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a dict)
    assert header["source"] == "https://host/file.pth"
    assert header["converter"] == CONVERTER
    assert header["seed"] == "3"
    assert header["sha256"] == digest == weights_digest(tensors)
    assert {tensor.dtype for tensor in tensors.values()} == {dtype or torch.float32}
    assert tensors.keys() == model.state_dict().keys()


def test_saving_replaces_a_file_at_once_and_leaves_nothing_else(tmp_path: Path, model: VideoViT) -> None:
    path = tmp_path / "w.safetensors"
    path.write_text("old")
    save_weights(model, path, source="a test")
    load_checkpoint(model, path)
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, model: VideoViT) -> None:
    path = tmp_path / "w.safetensors"
    path.write_text("old")
    with pytest.raises(TypeError, match=r"metadata|str|PyString"):
        save_weights(model, path, source=3)  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]
