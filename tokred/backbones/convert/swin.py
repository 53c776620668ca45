"""The names that published Swin weights go by, brought to the official ones, and 2-D Swin weights made 3-D.

The official names are those of SwinTransformer/Video-Swin-Transformer without ``backbone.``; ``VideoSwin`` uses them,
with the classification layer as ``head``. ``relative_position_index`` is a constant that follows from the window: it
may be in a file or not, and is compared where it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tokred.backbones.convert.errors import CheckpointError

INDEX = "relative_position_index"
TABLE = "relative_position_bias_table"
_QKV = re.compile(r"(layers\.\d+\.blocks|features\.\d+)\.\d+\.attn\.qkv\.weight")
_TORCHVISION = re.compile(r"features\.(\d+)\.(.+)")
_HEAD = {"cls_head.fc_cls": "head"}
_MLP = {"mlp.0": "mlp.fc1", "mlp.3": "mlp.fc2"}


def swin_layout(names: Sequence[str]) -> str | None:
    """The layout of names without wrapper prefixes: "videoswin", "torchvision-swin3d", or None for no Swin."""
    found = next((match[1] for name in names if (match := _QKV.fullmatch(name))), None)
    if found is None:
        return None
    return "torchvision-swin3d" if found.startswith("features.") else "videoswin"


def is_flat(state: Mapping[str, Tensor]) -> bool:
    """Whether the weights are those of a 2-D Swin Transformer: its patch embedding has no time."""
    kernel = state.get("patch_embed.proj.weight")
    return kernel is not None and kernel.ndim == 4


def swin_name(name: str) -> str:
    """The official name of a weight, from the official or torchvision's (``features.(2i)`` and ``features.(2i+1)``)."""
    match = _TORCHVISION.fullmatch(name)
    if match:
        number = int(match[1])
        name = f"layers.{number // 2}.{'downsample' if number % 2 else 'blocks'}.{match[2]}"
        for theirs, official in _MLP.items():
            name = name.replace(f".{theirs}.", f".{official}.")
    stem, _, leaf = name.rpartition(".")
    return f"{_HEAD[stem]}.{leaf}" if stem in _HEAD else name


def inflate(
    state: Mapping[str, Tensor], window: Sequence[int], tubelet: int, heads: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """2-D Swin weights as 3-D ones (``SwinTransformer3D.inflate_weights``): a still clip gives what the image gave.

    The patch embedding is repeated over the tubelet and divided by its length; the bias tables are resized bicubically
    where the window's rows and columns differ, and repeated for every offset in time. Indices and masks are dropped,
    they follow from the window.

    Args:
        state: 2-D weights under official names.
        window: lengths (t, h, w) of the 3-D model; tubelet: frames per patch.
        heads: heads per stage of the 3-D model, None to take those of the tables.
    Raises:
        CheckpointError: a stage with another number of heads (the original only warns, and fails later); a table that
            is not of a square window.
    """
    t, h, w = window
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith((INDEX, "attn_mask")):
            continue
        if name == "patch_embed.proj.weight":
            tensor = tensor[:, :, None].repeat(1, 1, tubelet, 1, 1) / tubelet
        elif name.endswith(TABLE):
            stage = int(name.split(".")[1])
            if heads is not None and stage < len(heads) and heads[stage] != tensor.shape[1]:
                raise CheckpointError(
                    f"{name} has {tensor.shape[1]} heads, the model has {heads[stage]} in stage {stage}: "
                    "a bias cannot be moved to other heads"
                )
            tensor = _resized(name, tensor, (2 * h - 1, 2 * w - 1)).repeat(2 * t - 1, 1)
        out[name] = tensor
    return out


def _resized(name: str, table: Tensor, size: tuple[int, int]) -> Tensor:
    rows, heads = table.shape
    if rows == size[0] * size[1]:
        return table
    side = round(rows**0.5)
    if side * side != rows:
        raise CheckpointError(f"{name} has {rows} rows, which is no square window's (2w-1)^2")
    square = table.t().reshape(1, heads, side, side)
    square = square if square.dtype in (torch.float32, torch.float64) else square.float()
    resized = F.interpolate(square, size=size, mode="bicubic", align_corners=False)
    return resized.reshape(heads, size[0] * size[1]).t().to(table.dtype)
