"""What a Swin checkpoint needs before it fits a ``VideoSwin``: inflation, and a check of the constant indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from tokred.backbones.convert.swin import INDEX, TABLE, inflate, is_flat
from tokred.backbones.swin_layers import Stage, SwinBlock
from tokred.backbones.videoswin import VideoSwin


def fit_swin(model: VideoSwin, state: dict[str, Tensor], notes: list[str], hints: list[str]) -> None:
    """Change the state in place towards the model's; what cannot be is left for the comparison of keys.

    Args:
        model: the model to fill.
        state: weights under official names; constant indices are taken out of it.
        notes: what was converted; hints: what may be done where something does not fit.
    Raises:
        CheckpointError: 2-D weights with other heads.
    """
    stages = cast(Sequence[Stage], model.layers)
    blocks = {f"layers.{i}.blocks.{j}": block for i, stage in enumerate(stages) for j, block in enumerate(stage.blocks)}
    if is_flat(state):
        heads = [cast(SwinBlock, stage.blocks[0]).attn.num_heads for stage in stages]
        tubelet = model.patch_embed.proj.kernel_size[0]
        inflated = inflate(state, model.window, tubelet, heads)
        state.clear()
        state.update(inflated)
        notes.append(f"2-D Swin weights inflated to tubelets of {tubelet} frames and window {model.window}")
        return
    for name in [name for name in state if name.endswith(f".attn.{INDEX}")]:
        block = blocks.get(name.removesuffix(f".attn.{INDEX}"))
        if block is None:
            continue  # one more block than the model has: the comparison of keys says so
        own = cast(SwinBlock, block).attn.relative_position_index.cpu()
        given = state.pop(name)
        if given.numel() == own.numel() and not torch.equal(given.reshape(own.shape).long(), own):
            state[name] = given
            hints.append(f"{name} is not the index of window {model.window}")
    if any(name.endswith("attn_mask") for name in state):
        hints.append("attn_mask is no parameter of a 3-D model")
    for name, block in blocks.items():
        table = state.get(f"{name}.attn.{TABLE}")
        own = cast(SwinBlock, block).attn.relative_position_bias_table
        if table is not None and table.shape[0] != own.shape[0]:
            hints.append(
                f"window {model.window} has {own.shape[0]} relative offsets, the file {table.shape[0]}: "
                f"build the model with the file's window=(t, h, w){_window(model, table.shape[0])}"
            )
            break


def _window(model: VideoSwin, rows: int) -> str:
    """The window that differs in time alone, the published case, as a proposal."""
    _, h, w = model.window
    times, rest = divmod(rows, (2 * h - 1) * (2 * w - 1))
    return f", perhaps ({(times + 1) // 2}, {h}, {w})" if not rest and times % 2 else ""
