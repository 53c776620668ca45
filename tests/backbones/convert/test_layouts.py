from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tokred.backbones.convert.errors import CheckpointError
from tokred.backbones.convert.layouts import LAYOUTS, TOKRED_FORMAT, to_original
from tokred.backbones.videomae import VideoViT

ToHF = Callable[[dict[str, Tensor], bool], dict[str, Tensor]]
ToTimm = Callable[[VideoViT], dict[str, Tensor]]
State = dict[str, Tensor]


def same(got: State, want: State) -> bool:
    return got.keys() == want.keys() and all(torch.equal(got[name], want[name]) for name in want)


@pytest.fixture
def state(model: VideoViT) -> State:
    return model.state_dict()


@pytest.mark.parametrize("prefix", ["", "encoder.", "backbone.", "module.", "module.backbone.", "backbone.encoder."])
def test_original_names_with_any_prefix(state: State, prefix: str) -> None:
    named = to_original({prefix + name: tensor for name, tensor in state.items()})
    assert named.layout == "videomae"
    assert same(named.state, state)
    assert named.notes == ()


def test_prefixes_may_be_on_some_keys_only(state: State) -> None:
    mixed = {(name if name.startswith("head") else f"encoder.{name}"): tensor for name, tensor in state.items()}
    assert same(to_original(mixed).state, state)


def test_two_models_in_one_file_are_refused(state: State) -> None:
    with pytest.raises(CheckpointError, match=r"head\.bias and encoder\.head\.bias are both head\.bias"):
        to_original({**state, "encoder.head.bias": state["head.bias"]})


def test_pre_training_files_lose_their_decoder(state: State) -> None:
    encoder = {f"encoder.{name}": t for name, t in state.items() if not name.startswith(("head", "fc_norm"))}
    decoder = {"decoder.blocks.0.attn.qkv.weight": torch.zeros(3), "decoder.norm.weight": torch.zeros(3)}
    more = {"encoder_to_decoder.weight": torch.zeros(2), "mask_token": torch.zeros(1)}
    named = to_original({**encoder, **decoder, **more})
    assert named.layout == "videomae-pretraining"
    assert named.pretraining
    assert set(named.state) == {name.removeprefix("encoder.") for name in encoder}
    assert named.notes == ("parts of pre-training, ignored: decoder, encoder_to_decoder, mask_token",)


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("prefix", ["videomae.", ""])
def test_hugging_face_names(state: State, to_hf: ToHF, old: bool, prefix: str) -> None:
    renamed = {name.replace("videomae.", prefix, 1): tensor for name, tensor in to_hf(state, old).items()}
    named = to_original(renamed)
    assert named.layout == ("huggingface-old" if old else "huggingface")
    assert same(named.state, state)
    assert any("LayerNorm eps" in note for note in named.notes)


def test_a_hugging_face_pre_training_file_loses_its_decoder(state: State, to_hf: ToHF) -> None:
    tensors = {n: t for n, t in to_hf(state, True).items() if not n.startswith(("fc_norm", "classifier"))}
    tensors |= {"decoder.decoder_layers.0.output.dense.weight": torch.zeros(2), "mask_token": torch.zeros(1)}
    named = to_original(tensors)
    assert named.pretraining
    assert "blocks.1.mlp.fc2.weight" in named.state
    assert not any("decoder" in name for name in named.state)


def test_keys_that_no_layout_knows_keep_their_names(state: State, to_hf: ToHF) -> None:
    tensors = to_hf(state, False)
    tensors["videomae.encoder.layer.0.adapter.weight"] = torch.zeros(1)
    del tensors["videomae.encoder.layer.1.attention.attention.key.weight"]
    named = to_original(tensors)
    assert "encoder.layer.0.adapter.weight" in named.state
    assert "blocks.1.attn.qkv.weight" not in named.state
    assert "videomae.encoder.layer.1.attention.attention.query.weight" in named.state


def test_both_spellings_of_one_bias_are_refused(state: State, to_hf: ToHF) -> None:
    with pytest.raises(CheckpointError, match=r"are both blocks\.0\.attn\.q_bias"):
        to_original({**to_hf(state, False), **to_hf(state, True)})


def test_timm_names_split_the_bias(model: VideoViT, state: State, to_timm: ToTimm) -> None:
    named = to_original(to_timm(model))
    assert named.layout == "timm"
    assert torch.equal(named.state.pop("pos_embed"), model.pos_embed)
    assert same(named.state, state)


def test_a_key_bias_is_refused(model: VideoViT, state: State, to_timm: ToTimm, to_hf: ToHF) -> None:
    timm = to_timm(model)
    timm["blocks.1.attn.qkv.bias"] = timm["blocks.1.attn.qkv.bias"] + 0.5
    with pytest.raises(CheckpointError, match=r"blocks\.1\.attn\.qkv\.bias has a key bias of up to 0\.5"):
        to_original(timm)
    hf = to_hf(state, False)
    hf["videomae.encoder.layer.0.attention.attention.key.bias"] = torch.full((24,), -2.0)
    with pytest.raises(CheckpointError, match=r"key\.bias has a key bias of up to 2"):
        to_original(hf)
    hf["videomae.encoder.layer.0.attention.attention.key.bias"] = torch.zeros(24)
    assert same(to_original(hf).state, state)


def test_our_own_files_are_told_by_their_header(state: State) -> None:
    assert to_original(state, {"layout": TOKRED_FORMAT}).layout == "tokred"


def test_every_layout_has_words() -> None:
    assert all(LAYOUTS.values())


def test_other_models_are_refused_with_their_first_keys() -> None:
    with pytest.raises(CheckpointError, match=r"no known layout \(first keys: conv1\.weight, bn1\.weight\); known are"):
        to_original({"conv1.weight": torch.zeros(1), "bn1.weight": torch.zeros(1)})
