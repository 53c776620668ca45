"""A tiny video ViT with every weight off its initial value, and one clip batch for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tokred.backbones.videomae import VideoViT

TINY = {"img_size": 32, "patch_size": 8, "frames": 4, "dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}

MakeModel = Callable[..., VideoViT]


@pytest.fixture
def make_model() -> MakeModel:
    """Builds a tiny model from a seed, with changes to its arguments."""

    def build(seed: int = 1, **changes: object) -> VideoViT:
        torch.manual_seed(seed)
        model = VideoViT(**{**TINY, **changes}).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return model

    return build


@pytest.fixture
def model(make_model: MakeModel) -> VideoViT:
    return make_model()


@pytest.fixture
def clips() -> Tensor:
    return torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(7))


@pytest.fixture
def to_hf() -> Callable[[dict[str, Tensor], bool], dict[str, Tensor]]:
    """Original names to Hugging Face names, written out here on its own: the other direction of the converter."""

    def rename(state: dict[str, Tensor], old: bool) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        inside = {
            "norm1": "layernorm_before",
            "norm2": "layernorm_after",
            "attn.proj": "attention.output.dense",
            "mlp.fc1": "intermediate.dense",
            "mlp.fc2": "output.dense",
        }
        bias = {"q_bias": "q_bias", "v_bias": "v_bias"} if old else {"q_bias": "query.bias", "v_bias": "value.bias"}
        outside = {"patch_embed.proj": "videomae.embeddings.patch_embeddings.projection", "head": "classifier"}
        for name, tensor in state.items():
            if not name.startswith("blocks."):
                stem, leaf = name.rsplit(".", 1)
                out[f"{outside.get(stem, stem)}.{leaf}"] = tensor
                continue
            _, number, rest = name.split(".", 2)
            layer = f"videomae.encoder.layer.{number}"
            stem, leaf = rest.rsplit(".", 1)
            if rest == "attn.qkv.weight":
                for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                    out[f"{layer}.attention.attention.{part}.weight"] = piece.clone()
            elif leaf in bias:
                out[f"{layer}.attention.attention.{bias[leaf]}"] = tensor
            else:
                out[f"{layer}.{inside[stem]}.{leaf}"] = tensor
        return out

    return rename


@pytest.fixture
def to_timm() -> Callable[[VideoViT], dict[str, Tensor]]:
    """The state dict of a timm VisionTransformer that computes what the video ViT does."""

    def rename(model: VideoViT) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {"pos_embed": model.pos_embed.detach().clone()}
        for name, tensor in model.state_dict().items():
            if name.endswith("q_bias"):
                value = model.state_dict()[name.replace("q_bias", "v_bias")]
                out[name.replace("q_bias", "qkv.bias")] = torch.cat([tensor, torch.zeros_like(tensor), value])
            elif not name.endswith("v_bias"):
                out[name] = tensor
        return out

    return rename
