"""The adapter for transformers' ``VideoMAEForVideoClassification``.

Works from transformers 4.44 on: layers returned a tuple before 4.57, biases were parameters of the attention before 5,
and fused attention was a class of its own before 4.48.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokred.backbones.adapter import Adapter, Attended, Fed, mean_tokens
from tokred.backbones.attention import attend, shrink_pixels
from tokred.backbones.geometry import Geometry
from tokred.backbones.hf_checks import check_hf_videomae, kernel_of
from tokred.backbones.masked import attend_masked
from tokred.backbones.positions import resample
from tokred.reducer import SmallerInput
from tokred.saliency import RowStatistics, RowsWanted
from tokred.tokens import Grid, Tokens

_NOT_HONOURED = ("output_attentions", "output_hidden_states", "head_mask", "bool_masked_pos")


class HFVideoMAEAdapter(Adapter):
    """Reads ``VideoMAEForVideoClassification``. Video clips (B, T, C, H, W), as that model takes them."""

    name = "transformers.VideoMAEForVideoClassification"

    def accepts(self, model: nn.Module) -> bool:
        videomae = sys.modules.get("transformers.models.videomae.modeling_videomae")
        return videomae is not None and isinstance(model, videomae.VideoMAEForVideoClassification)

    def check(self, model: nn.Module) -> None:
        check_hf_videomae(model)

    def geometry(self, model: nn.Module) -> Geometry:
        host = _any(model)
        layer = host.videomae.encoder.layer[0]
        projection = host.videomae.embeddings.patch_embeddings.projection
        return Geometry(
            depth=len(host.videomae.encoder.layer),
            dim=host.config.hidden_size,
            heads=layer.attention.attention.num_attention_heads,
            head_dim=layer.attention.attention.attention_head_size,
            mlp_hidden=layer.intermediate.dense.out_features,
            grid=_grid(host),
            prefix=0,
            classes=getattr(host.classifier, "out_features", 0),
            kernel=projection.kernel_size,
            in_chans=projection.in_channels,
            final_norm_tokens=host.videomae.layernorm is not None,
        )

    def read_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        for name in _NOT_HONOURED:
            if kwargs.get(name) is not None and kwargs[name] is not False:
                raise TypeError(f"{name} is not possible with a reducer: the blocks differ in their numbers of tokens")

        def forward(
            pixel_values: Tensor,
            labels: Tensor | None = None,
            return_dict: bool | None = None,
            **ignored: Any,
        ) -> Tensor:
            unknown = [name for name in ignored if name not in _NOT_HONOURED]
            if unknown:
                raise TypeError(f"unknown arguments: {', '.join(unknown)}; pixel_values, labels, return_dict are taken")
            return pixel_values

        if len(args) > 1:
            raise TypeError("only pixel_values is taken by position")
        return forward(*args, **kwargs)

    def embed(self, model: nn.Module, pixels: Tensor, smaller: SmallerInput | None) -> Tokens:
        embeddings = _any(model).videomae.embeddings
        if smaller is None:
            grid = _grid(_any(model))
            x = embeddings(pixels, None)
        else:
            grid = smaller.grid
            clips, table = _shrink(_any(model), pixels, smaller)
            x = embeddings.patch_embeddings.projection(clips).flatten(2).transpose(1, 2)
            x = x + table.to(x.device, x.dtype)
        return Tokens(x, grid, prefix=0, groups=grid.t)

    def blocks(self, model: nn.Module) -> Sequence[nn.Module]:
        layers = _any(model).videomae.encoder.layer
        if "output_attentions" in inspect.signature(type(layers[0]).forward).parameters:
            return [_FirstOutput(layer) for layer in layers]
        return cast(Sequence[nn.Module], layers)

    def attend(
        self, block: nn.Module, tokens: Tokens, log_size: Tensor | None, wanted: RowsWanted | None = None
    ) -> Attended:
        x = tokens.x
        layer = _layer(block)
        attn = layer.attention.attention
        y = layer.layernorm_before(x)
        b, n, _ = y.shape
        q, k, v = (
            part.reshape(b, n, attn.num_attention_heads, attn.attention_head_size).transpose(1, 2)
            for part in _projections(attn, y)
        )
        scale = attn.attention_head_size**-0.5
        if tokens.policy is None:
            out, rows = _kernel(attn, q, k, v, scale, log_size, wanted)
        else:
            dropout = float(attn.dropout.p if hasattr(attn, "dropout") else _dropout(attn)) if attn.training else 0.0
            out, rows = attend_masked(q, k, v, scale, tokens.policy, log_size, dropout), None
        out = out.transpose(1, 2).reshape(b, n, -1)
        return Attended(layer.attention.output(out, y) + x, q, k, v, scale, rows=rows)

    def feed(self, block: nn.Module, x: Tensor) -> Fed:
        layer = _layer(block)
        branch = layer.output.dropout(layer.output.dense(layer.intermediate(layer.layernorm_after(x))))
        return Fed(branch + x, branch)

    def features(self, model: nn.Module, tokens: Tokens, pool: str) -> Tensor:
        norm = _any(model).videomae.layernorm
        return tokens.x if norm is None else norm(tokens.x)

    def classify(self, model: nn.Module, features: Tensor, tokens: Tokens, pool: str) -> Tensor:
        return _any(model).classifier(self.pooled(model, features, tokens, pool))

    def pooled(self, model: nn.Module, features: Tensor, tokens: Tokens, pool: str) -> Tensor:
        norm = _any(model).fc_norm
        return features[:, 0] if norm is None else norm(mean_tokens(features, tokens, pool))

    def write_output(self, model: nn.Module, logits: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        from transformers.modeling_outputs import ImageClassifierOutput

        host = _any(model)
        labels = kwargs.get("labels")
        loss = None if labels is None else _loss(host.config, labels, logits)
        return_dict = kwargs.get("return_dict")
        if return_dict is None:
            return_dict = getattr(host.config, "return_dict", True)
        if return_dict:
            return ImageClassifierOutput(loss=loss, logits=logits)
        return (logits,) if loss is None else (loss, logits)

    def checkpoints(self, model: nn.Module) -> bool:
        # Layers that checkpoint themselves do it only in their own call, not when taken apart.
        encoder = _any(model).videomae.encoder
        asked = any(getattr(part, "gradient_checkpointing", False) for part in (encoder, *encoder.layer))
        return asked and model.training


class _FirstOutput(nn.Module):
    """A layer of an older release, which returns a tuple, as a block that returns its tokens."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


def _projections(attn: Any, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, N, C), by the same calls as in the host."""
    if hasattr(attn, "q_bias"):
        return (
            F.linear(y, attn.query.weight, attn.q_bias),
            F.linear(y, attn.key.weight, None if attn.q_bias is None else torch.zeros_like(attn.v_bias)),
            F.linear(y, attn.value.weight, attn.v_bias),
        )
    return attn.query(y), attn.key(y), attn.value(y)


def _kernel(
    attn: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, log_size: Tensor | None, wanted: RowsWanted | None
) -> tuple[Tensor, RowStatistics | None]:
    """The host's kernel, (B, H, N, d), with an optional bias on the columns; with fused attention, row statistics."""
    dropout = float(attn.dropout.p if hasattr(attn, "dropout") else _dropout(attn)) if attn.training else 0.0
    if kernel_of(attn) == "sdpa" and dropout == 0.0:
        return attend(q, k, v, scale, log_size, wanted)
    bias = None if log_size is None else log_size[:, None, None].to(q.dtype)
    if kernel_of(attn) == "sdpa":
        mask = None if bias is None else bias.expand(-1, -1, q.shape[2], -1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale), None
    eager = getattr(sys.modules[type(attn).__module__], "eager_attention_forward", None)
    if eager is not None and bias is None:
        return eager(attn, q, k, v, None, scaling=scale, dropout=dropout)[0].transpose(1, 2), None
    logits = q @ k.transpose(-2, -1)
    logits = logits * scale if hasattr(attn, "scaling") else logits / math.sqrt(attn.attention_head_size)
    if bias is not None:
        logits = logits + bias
    return F.dropout(logits.softmax(dim=-1), p=dropout, training=attn.training) @ v, None


def _loss(config: Any, labels: Tensor, logits: Tensor) -> Tensor:
    """transformers' rule for classification heads, which moved between its releases."""
    kind = config.problem_type
    if kind is None and config.num_labels == 1:
        kind = "regression"
    elif kind is None:
        kind = "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
    if kind == "regression":
        return F.mse_loss(logits.squeeze(), labels.squeeze()) if config.num_labels == 1 else F.mse_loss(logits, labels)
    if kind == "single_label_classification":
        return F.cross_entropy(logits.view(-1, config.num_labels), labels.view(-1))
    return F.binary_cross_entropy_with_logits(logits, labels)


def _dropout(attn: Any) -> float:
    return getattr(attn, "dropout_prob", getattr(attn, "attention_probs_dropout_prob", 0.0))


def _grid(host: Any) -> Grid:
    patches = host.videomae.embeddings.patch_embeddings
    height, width = patches.image_size
    kt, kh, kw = patches.projection.kernel_size
    return Grid(host.config.num_frames // kt, height // kh, width // kw)


def _shrink(host: Any, pixels: Tensor, smaller: SmallerInput) -> tuple[Tensor, Tensor]:
    """Smaller clips (B, C, T', H', W') and the positions (1, P', C) that go with them."""
    kt, kh, kw = host.videomae.embeddings.patch_embeddings.projection.kernel_size
    full = _grid(host)
    table = resample(host.videomae.embeddings.position_embeddings, full, Grid(full.t, smaller.grid.h, smaller.grid.w))
    clips = pixels.transpose(1, 2)
    if smaller.frames is not None:
        clips = clips[:, :, [kt * t + i for t in smaller.frames for i in range(kt)]]
        table = table.reshape(1, full.t, -1, table.shape[-1])[:, list(smaller.frames)].flatten(1, 2)
    return shrink_pixels(clips, smaller.grid.h * kh, smaller.grid.w * kw), table


def _layer(block: nn.Module) -> Any:
    return block.layer if isinstance(block, _FirstOutput) else block


def _any(module: nn.Module) -> Any:
    return module
