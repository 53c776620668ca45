"""What the transformers adapter understands of a VideoMAE model: everything else is refused with the reason."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from tokred.backbones.adapter import Unsupported
from tokred.backbones.guards import refuse_hooks, refuse_overrides, refuse_unknown_parts, require_type

_MODULE = "transformers.models.videomae.modeling_videomae"
_KERNELS = ("sdpa", "eager")
_LAYER_CHILDREN = {"attention", "intermediate", "output", "layernorm_before", "layernorm_after"}
_ATTENTION_CHILDREN = {"query", "key", "value", "dropout"}
_NAME = "VideoMAEForVideoClassification"


def check_hf_videomae(model: nn.Module) -> None:
    """Refuse what is not a plain ``VideoMAEForVideoClassification``, part by part.

    Raises:
        Unsupported: naming the part and the reason.
    """
    hf: Any = importlib.import_module(_MODULE)
    host: Any = model
    refuse_overrides(model, hf.VideoMAEForVideoClassification, ("forward", "__call__"), _NAME)
    refuse_unknown_parts(model, {"videomae", "fc_norm", "classifier"}, (), _NAME)
    _check_hooks(model, _NAME)
    require_type(host.videomae, (hf.VideoMAEModel,), f"{_NAME}.videomae")
    refuse_overrides(host.videomae, hf.VideoMAEModel, ("forward",), f"{_NAME}.videomae")
    refuse_unknown_parts(host.videomae, {"embeddings", "encoder", "layernorm"}, (), f"{_NAME}.videomae")
    _check_hooks(host.videomae, f"{_NAME}.videomae")
    require_type(host.videomae.embeddings, (hf.VideoMAEEmbeddings,), "embeddings")
    refuse_unknown_parts(host.videomae.embeddings, {"patch_embeddings"}, (), "embeddings")
    require_type(host.videomae.encoder, (hf.VideoMAEEncoder,), "encoder")
    refuse_overrides(host.videomae.encoder, hf.VideoMAEEncoder, ("forward",), "encoder")
    refuse_unknown_parts(host.videomae.encoder, {"layer"}, (), "encoder")
    _check_hooks(host.videomae.encoder, "encoder")
    for name in ("output_attentions", "output_hidden_states"):
        if getattr(host.config, name, False):
            raise Unsupported(f"config.{name} is on: with a reducer the blocks differ in their numbers of tokens")
    if len(host.videomae.encoder.layer) == 0:
        raise Unsupported("the encoder has no layers")
    for i, layer in enumerate(host.videomae.encoder.layer):
        _check_layer(hf, layer, f"layer {i}")
    shapes = {
        (attn.num_attention_heads, attn.attention_head_size)
        for attn in (layer.attention.attention for layer in host.videomae.encoder.layer)
    }
    if len(shapes) > 1:
        raise Unsupported(f"the layers differ in (heads, head width), {sorted(shapes)}: one is allowed")


def kernel_of(attn: nn.Module) -> str:
    """The attention kernel that a self-attention module runs: "sdpa", "eager" or another name of transformers."""
    if type(attn).__name__ == "VideoMAESdpaSelfAttention":
        return "sdpa"
    config = getattr(attn, "config", None)
    return "eager" if config is None else str(config._attn_implementation)


def _check_layer(hf: Any, layer: nn.Module, where: str) -> None:
    block: Any = layer
    require_type(layer, (hf.VideoMAELayer,), where)
    refuse_overrides(layer, hf.VideoMAELayer, ("forward",), where)
    refuse_unknown_parts(layer, _LAYER_CHILDREN, (), where)
    _check_hooks(layer, where)
    for name in ("layernorm_before", "layernorm_after"):
        require_type(getattr(block, name), (nn.LayerNorm,), f"{where}.{name}")
    outer = (hf.VideoMAEAttention, getattr(hf, "VideoMAESdpaAttention", hf.VideoMAEAttention))
    require_type(block.attention, outer, f"{where}.attention")
    refuse_overrides(block.attention, hf.VideoMAEAttention, ("forward",), f"{where}.attention")
    refuse_unknown_parts(block.attention, {"attention", "output"}, (), f"{where}.attention")
    _check_hooks(block.attention, f"{where}.attention")
    attn, place = block.attention.attention, f"{where}.attention.attention"
    inner = (hf.VideoMAESelfAttention, getattr(hf, "VideoMAESdpaSelfAttention", hf.VideoMAESelfAttention))
    require_type(attn, inner, place)
    refuse_overrides(attn, type(attn), ("forward",), place)
    refuse_unknown_parts(attn, _ATTENTION_CHILDREN, {"q_bias", "v_bias"}, place)
    _check_hooks(attn, place)
    if kernel_of(attn) not in _KERNELS:
        raise Unsupported(f"{place} runs the kernel {kernel_of(attn)!r}; understood: {', '.join(_KERNELS)}")
    require_type(block.intermediate, (hf.VideoMAEIntermediate,), f"{where}.intermediate")
    require_type(block.output, (hf.VideoMAEOutput,), f"{where}.output")
    refuse_overrides(block.output, hf.VideoMAEOutput, ("forward",), f"{where}.output")
    refuse_unknown_parts(block.output, {"dense", "dropout"}, (), f"{where}.output")
    _check_hooks(block.output, f"{where}.output")


def _check_hooks(module: nn.Module, where: str) -> None:
    # transformers leaves hooks of its own that record outputs when these are asked for, which a reducer refuses.
    refuse_hooks(module, where, inert="transformers.")
