"""The adapter for timm's image ``VisionTransformer``, read module by module.

Works from timm 1.0.3 on: attention moved between modules and gained scale norms and gates since, so parts that may
be absent are looked for, and parts that are not known are refused.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from tokred.backbones.adapter import Adapter, Attended, Fed, Unsupported, token_weights, weighted_mean
from tokred.backbones.attention import attend, shrink_pixels
from tokred.backbones.geometry import Geometry
from tokred.backbones.masked import attend_masked
from tokred.backbones.parts import BlockParts
from tokred.backbones.timm_checks import check_timm_vit
from tokred.reducer import SmallerInput
from tokred.saliency import RowStatistics, RowsWanted
from tokred.tokens import Grid, Tokens


class TimmViTAdapter(Adapter):
    """Reads timm's ``VisionTransformer`` and ``VisionTransformerDistilled``. Images (B, 3, H, W)."""

    name = "timm.VisionTransformer"

    def accepts(self, model: nn.Module) -> bool:
        # Every timm model, so that check can say what is wrong with those that are not understood.
        timm = sys.modules.get("timm.models.vision_transformer")
        return timm is not None and (
            isinstance(model, timm.VisionTransformer) or type(model).__module__.startswith("timm.")
        )

    def check(self, model: nn.Module) -> None:
        check_timm_vit(model)

    def geometry(self, model: nn.Module) -> Geometry:
        vit = _any(model)
        attn = vit.blocks[0].attn
        rows, columns = vit.patch_embed.grid_size
        return Geometry(
            depth=len(vit.blocks),
            dim=vit.embed_dim,
            heads=attn.num_heads,
            head_dim=attn.head_dim,
            mlp_hidden=_mlp_weights(vit.blocks[0].mlp) // (2 * vit.embed_dim),
            grid=Grid(1, rows, columns),
            prefix=vit.num_prefix_tokens,
            class_token=bool(vit.has_class_token),
            classes=vit.num_classes,
            kernel=(1, *vit.patch_embed.proj.kernel_size),
            in_chans=vit.patch_embed.proj.in_channels,
            qk_norm=not isinstance(attn.q_norm, nn.Identity),
            inner_norms=0 if isinstance(getattr(attn, "norm", None), (nn.Identity, type(None))) else 1,
            final_norm_tokens=not isinstance(vit.norm, nn.Identity),
            heads_out=2 if hasattr(vit, "head_dist") else 1,
            video=False,
        )

    def read_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        def forward(x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
            if attn_mask is not None or is_causal:
                raise TypeError("attn_mask and is_causal are not possible with a reducer: they name tokens that go")
            return x

        return forward(*args, **kwargs)

    def embed(self, model: nn.Module, pixels: Tensor, smaller: SmallerInput | None) -> Tokens:
        vit = _any(model)
        if smaller is None:
            x = vit.patch_embed(pixels)
            rows, columns = x.shape[1:3] if x.ndim == 4 else vit.patch_embed.grid_size
            x = vit._pos_embed(x)
        else:
            rows, columns = _image_grid(smaller)
            x = _embed_smaller(vit, pixels, rows, columns)
        x = vit.norm_pre(vit.patch_drop(x))
        return Tokens(
            x,
            Grid(1, rows, columns),
            prefix=vit.num_prefix_tokens,
            groups=1,
            class_token=bool(vit.has_class_token),
        )

    def blocks(self, model: nn.Module) -> Sequence[nn.Module]:
        return cast(Sequence[nn.Module], _any(model).blocks)

    def attend(
        self, block: nn.Module, tokens: Tokens, log_size: Tensor | None, wanted: RowsWanted | None = None
    ) -> Attended:
        x = tokens.x
        blk = _any(block)
        attn = blk.attn
        b, n, _ = x.shape
        y = blk.norm1(x)
        gate = getattr(attn, "gate", None)
        opened = None if gate is None else gate(y).sigmoid()
        q, k, v = attn.qkv(y).reshape(b, n, 3, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = attn.q_norm(q), attn.k_norm(k)
        # Fused attention scales by the head width whatever attn.scale says, as in the host.
        scale = attn.head_dim**-0.5 if attn.fused_attn else attn.scale
        if tokens.policy is None:
            y, rows = _kernel(attn, q, k, v, log_size, wanted)
        else:
            dropout = attn.attn_drop.p if attn.training else 0.0
            y, rows = attend_masked(q, k, v, scale, tokens.policy, log_size, dropout), None
        y = y.transpose(1, 2).flatten(2)
        if hasattr(attn, "norm"):
            y = attn.norm(y)
        if opened is not None:
            y = y * opened
        y = attn.proj_drop(attn.proj(y))
        return Attended(x + blk.drop_path1(blk.ls1(y)), q, k, v, scale, rows=rows)

    def feed(self, block: nn.Module, x: Tensor) -> Fed:
        blk = _any(block)
        branch = blk.mlp(blk.norm2(x))
        return Fed(x + blk.drop_path2(blk.ls2(branch)), branch)

    def token_parts(self, block: nn.Module) -> BlockParts:
        blk = _any(block)
        attn = blk.attn
        if getattr(attn, "gate", None) is not None:
            raise Unsupported("the attention has a gate that reads the tokens entering it: not computed token by token")

        def qkv(y: Tensor) -> Tensor:
            out = attn.qkv(y)
            if isinstance(attn.q_norm, nn.Identity) and isinstance(attn.k_norm, nn.Identity):
                return out
            q, k, v = out.unflatten(2, (3, attn.num_heads, attn.head_dim)).unbind(2)
            return torch.stack([attn.q_norm(q), attn.k_norm(k), v], dim=2).flatten(2)

        def project(y: Tensor) -> Tensor:
            y = attn.norm(y) if hasattr(attn, "norm") else y
            return blk.drop_path1(blk.ls1(attn.proj_drop(attn.proj(y))))

        return BlockParts(
            norm1=blk.norm1,
            qkv=qkv,
            project=project,
            norm2=blk.norm2,
            feed=lambda y: blk.drop_path2(blk.ls2(blk.mlp(y))),
            heads=attn.num_heads,
            head_dim=attn.head_dim,
            scale=attn.head_dim**-0.5 if attn.fused_attn else attn.scale,
        )

    def features(self, model: nn.Module, tokens: Tokens, pool: str) -> Tensor:
        return _any(model).norm(tokens.x)

    def classify(self, model: nn.Module, features: Tensor, tokens: Tokens, pool: str) -> Tensor:
        vit = _any(model)
        mean = _mean_by_mass(vit, features, tokens, pool)
        return vit.forward_head(features) if mean is None else vit.head(mean)

    def pooled(self, model: nn.Module, features: Tensor, tokens: Tokens, pool: str) -> Tensor:
        vit = _any(model)
        mean = _mean_by_mass(vit, features, tokens, pool)
        return vit.forward_head(features, pre_logits=True) if mean is None else mean


def _kernel(
    attn: Any, q: Tensor, k: Tensor, v: Tensor, log_size: Tensor | None, wanted: RowsWanted | None
) -> tuple[Tensor, RowStatistics | None]:
    """timm's own two kernels, with an optional bias on the columns; the same calls, so the same bits. Where row
    statistics are wanted of fused attention, one pass for both."""
    dropout = attn.attn_drop.p if attn.training else 0.0
    if attn.fused_attn and dropout == 0 and wanted is not None:
        return attend(q, k, v, attn.head_dim**-0.5, log_size, wanted)
    bias = None if log_size is None else log_size[:, None, None].to(q.dtype)
    if attn.fused_attn:
        mask = None if bias is None else bias.expand(-1, -1, q.shape[2], -1)
        attention = torch.nn.functional.scaled_dot_product_attention
        return attention(q, k, v, attn_mask=mask, dropout_p=dropout), None
    logits = (q * attn.scale) @ k.transpose(-2, -1)
    if bias is not None:
        logits = logits + bias
    return attn.attn_drop(logits.softmax(dim=-1)) @ v, None


def _embed_smaller(vit: Any, pixels: Tensor, rows: int, columns: int) -> Tensor:
    """Resized pixels with resampled positions: what ``_pos_embed`` does at the native size, on another grid."""
    height, width = vit.patch_embed.proj.kernel_size
    x = vit.patch_embed.proj(shrink_pixels(pixels, rows * height, columns * width))
    x = vit.patch_embed.norm(x.flatten(2).transpose(1, 2))
    front = [getattr(vit, name, None) for name in ("cls_token", "dist_token", "reg_token")]
    prefix = [token.expand(x.shape[0], -1, -1) for token in front if token is not None]
    if vit.pos_embed is None:
        return torch.cat([*prefix, x], dim=1)
    positions = importlib.import_module("timm.layers").resample_abs_pos_embed(
        vit.pos_embed,
        new_size=[rows, columns],
        old_size=list(vit.patch_embed.grid_size),
        num_prefix_tokens=0 if vit.no_embed_class else vit.num_prefix_tokens,
    )
    if vit.no_embed_class:
        x = torch.cat([*prefix, x + positions], dim=1)
    else:
        x = torch.cat([*prefix, x], dim=1) + positions
    return vit.pos_drop(x)


def _image_grid(smaller: SmallerInput) -> tuple[int, int]:
    if smaller.grid.t != 1 or smaller.frames not in (None, (0,)):
        raise ValueError(f"an image has one frame; asked for grid {tuple(smaller.grid)}, frames {smaller.frames}")
    return smaller.grid.h, smaller.grid.w


def _mean_by_mass(vit: Any, features: Tensor, tokens: Tokens, pool: str) -> Tensor | None:
    """The vector before the classifier with a weighted mean; None where the host's own pooling holds."""
    weights = token_weights(tokens, pool)
    if weights is None or vit.attn_pool is not None or vit.global_pool not in ("avg", "avgmax"):
        return None
    start = 0 if getattr(vit, "pool_include_prefix", False) else tokens.prefix
    x = features[:, start:]
    mean = weighted_mean(x, weights[:, start:])
    if tokens.policy is not None:
        x = x.masked_fill(tokens.policy[:, start:, None] == 0, float("-inf"))
    if vit.global_pool == "avgmax":
        mean = 0.5 * (x.amax(dim=1) + mean)
    return vit.head_drop(vit.fc_norm(mean))


def _mlp_weights(mlp: nn.Module) -> int:
    """Weights of the linear layers, so that gated MLPs (three matrices) count what they cost."""
    return sum(m.in_features * m.out_features for m in mlp.modules() if isinstance(m, nn.Linear))


def _any(module: nn.Module) -> Any:
    return module
