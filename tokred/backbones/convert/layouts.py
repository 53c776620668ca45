"""The names that published weights go by, told apart and brought to the original ones.

The original names of a video ViT are those of MCG-NJU/VideoMAE (modeling_finetune.py), which VideoViT uses too; for
Swin see ``swin``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tokred.backbones.convert.errors import CheckpointError
from tokred.backbones.convert.swin import is_flat, swin_layout, swin_name
from tokred.backbones.convert.vivit import vivit_layout, vivit_name

LAYOUTS = {
    "videomae": "original VideoMAE",
    "videomae-pretraining": "original VideoMAE, pre-training",
    "huggingface": "Hugging Face VideoMAE (query.bias, value.bias)",
    "huggingface-old": "Hugging Face VideoMAE (q_bias, v_bias)",
    "timm": "timm VisionTransformer",
    "tokred": "tokred safetensors",
    "videoswin": "official Video Swin",
    "torchvision-swin3d": "torchvision SwinTransformer3d",
    "swin-2d": "official 2-D Swin",
    "tokred-swin": "tokred safetensors (Video Swin)",
    "vivit": "factorised ViViT of Eventful Transformers",
    "tokred-vivit": "tokred safetensors (ViViT)",
}
"""Layout name -> how it is called in messages."""

SWIN_LAYOUTS = frozenset({"videoswin", "torchvision-swin3d", "swin-2d", "tokred-swin"})

TOKRED_FORMAT = "tokred-video-vit"
TOKRED_SWIN_FORMAT = "tokred-video-swin"
"""Metadata entries ``layout`` of the files that this package writes."""

_PREFIXES = ("module.", "backbone.", "encoder.")
_PRETRAINING = re.compile(r"(decoder|encoder_to_decoder|mask_token|position_embeddings)(\.|$)")
_HF_BLOCK = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_HF_INSIDE = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_HF_BIAS = {"q_bias": "q_bias", "v_bias": "v_bias", "query.bias": "q_bias", "value.bias": "v_bias"}
_HF_OUTSIDE = {
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
    "fc_norm": "fc_norm",
    "classifier": "head",
}


@dataclass(frozen=True)
class Named:
    """Weights under the original names; keys that no layout knows keep their own.

    Args:
        layout: a key of LAYOUTS.
        state: original name -> tensor.
        pretraining: the file came from masked pre-training (no head is expected in it).
        notes: what was ignored or converted.
    """

    layout: str
    state: dict[str, Tensor]
    pretraining: bool
    notes: tuple[str, ...] = ()


def to_original(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Named:
    """Detect the layout of named tensors and rename them.

    Raises:
        CheckpointError: no known layout, two keys for one weight, or a key bias (VideoMAE has none).
    """
    vivit = vivit_layout(_bare(key) for key in tensors)
    if vivit is not None:
        return Named(vivit, {vivit_name(_bare(key)): tensor for key, tensor in tensors.items()}, False)
    if any(".attention.attention." in key for key in tensors):
        return _from_huggingface(tensors)
    names: dict[str, str] = {}
    for key in tensors:
        _claim(names, _strip(key), key)
    swin = swin_layout(list(names))
    if swin is not None:
        return _from_swin(swin, {name: tensors[key] for name, key in names.items()}, metadata)
    if not any(re.fullmatch(r"blocks\.\d+\.attn\.qkv\.weight", name) for name in names):
        first = ", ".join(list(tensors)[:4])
        raise CheckpointError(f"no known layout (first keys: {first}); known are {', '.join(LAYOUTS.values())}")
    pretraining = any(_PRETRAINING.match(name) for name in names)
    state, notes = _without_decoder({name: tensors[key] for name, key in names.items()})
    layout = "videomae-pretraining" if pretraining else "videomae"
    if any(name.endswith(".attn.qkv.bias") for name in state):
        layout, state = "timm", _split_qkv_bias(state)
    elif (metadata or {}).get("layout") == TOKRED_FORMAT:
        layout = "tokred"
    return Named(layout=layout, state=state, pretraining=pretraining, notes=notes)


def _from_swin(layout: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> Named:
    names: dict[str, str] = {}
    for key in tensors:
        _claim(names, swin_name(key), key)
    state = {name: tensors[key] for name, key in names.items()}
    if is_flat(state):
        head = [name for name in state if name.startswith("head.")]
        state = {name: tensor for name, tensor in state.items() if name not in head}
        return Named("swin-2d", state, False, ("head of the image classes, ignored",) if head else ())
    if layout == "videoswin" and (metadata or {}).get("layout") == TOKRED_SWIN_FORMAT:
        layout = "tokred-swin"
    return Named(layout, state, False)


def _bare(key: str) -> str:
    return key.removeprefix("module.")


def _strip(key: str) -> str:
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if key.startswith(prefix):
                key, stripped = key[len(prefix) :], True
    return key


def _claim(names: dict[str, str], name: str, key: str) -> None:
    if name in names:
        raise CheckpointError(f"{names[name]} and {key} are both {name}: the file holds more than one model")
    names[name] = key


def _without_decoder(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    ignored = sorted({name.split(".")[0] for name in state if _PRETRAINING.match(name)})
    kept = {name: tensor for name, tensor in state.items() if not _PRETRAINING.match(name)}
    return kept, (f"parts of pre-training, ignored: {', '.join(ignored)}",) if ignored else ()


def _split_qkv_bias(state: dict[str, Tensor]) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not name.endswith(".attn.qkv.bias") or tensor.shape[0] % 3:
            out[name] = tensor
            continue
        query, key, value = tensor.chunk(3)
        _refuse_key_bias(name, key)
        stem = name.removesuffix("qkv.bias")
        out[f"{stem}q_bias"], out[f"{stem}v_bias"] = query, value
    return out


def _refuse_key_bias(name: str, bias: Tensor) -> None:
    if bool(bias.any()):
        largest = bias.abs().max().item()
        raise CheckpointError(f"{name} has a key bias of up to {largest:.3g}; the layout has none (it must be zero)")


def _from_huggingface(tensors: Mapping[str, Tensor]) -> Named:
    names: dict[str, str] = {}
    parts: dict[str, dict[str, str]] = {}
    for key, tensor in tensors.items():
        short = key.removeprefix("videomae.")
        block = _HF_BLOCK.fullmatch(short)
        inside = block[2].removeprefix("attention.attention.") if block else ""
        stem = f"blocks.{block[1]}.attn" if block else ""
        if inside in ("query.weight", "key.weight", "value.weight"):
            parts.setdefault(f"{stem}.qkv.weight", {})[inside.split(".")[0]] = key
        elif inside == "key.bias":
            _refuse_key_bias(key, tensor)
        elif inside in _HF_BIAS:
            _claim(names, f"{stem}.{_HF_BIAS[inside]}", key)
        else:
            _claim(names, _hf_name(short), key)
    pretraining = any(_PRETRAINING.match(name) for name in names)
    state, notes = _without_decoder({name: tensors[key] for name, key in names.items()})
    for name, keys in parts.items():
        if set(keys) == {"query", "key", "value"}:
            state[name] = torch.cat([tensors[keys[part]] for part in ("query", "key", "value")])
        else:  # an incomplete triple stays under its own names, so that the comparison names it
            state.update({key: tensors[key] for key in keys.values()})
    old = any(key.endswith(("attention.attention.q_bias", "attention.attention.v_bias")) for key in tensors)
    notes += ("transformers runs these weights with LayerNorm eps 1e-12 (blocks) and 1e-5 (fc_norm), here 1e-6",)
    return Named("huggingface-old" if old else "huggingface", state, pretraining, notes)


def _hf_name(short: str) -> str:
    block = _HF_BLOCK.fullmatch(short)
    stem, _, leaf = (block[2] if block else short).rpartition(".")
    table = _HF_INSIDE if block else _HF_OUTSIDE
    if stem not in table or leaf not in ("weight", "bias"):
        return short
    return f"blocks.{block[1]}.{table[stem]}.{leaf}" if block else f"{table[stem]}.{leaf}"
