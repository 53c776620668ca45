"""Loading a checkpoint into the video ViT or Swin: strict, and every conversion recorded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, isqrt

import torch
from torch import Tensor

from tokred.backbones.convert.digest import weights_digest
from tokred.backbones.convert.errors import CheckpointError
from tokred.backbones.convert.fit import check_fit
from tokred.backbones.convert.fit_swin import fit_swin
from tokred.backbones.convert.layouts import LAYOUTS, SWIN_LAYOUTS, to_original
from tokred.backbones.convert.read import read_file
from tokred.backbones.convert.vivit import VIVIT_LAYOUTS, fit_vivit
from tokred.backbones.positions import resample, sincos_flat
from tokred.backbones.videomae import VideoViT
from tokred.backbones.videoswin import VideoSwin
from tokred.backbones.vivit import ViViT
from tokred.tokens import Grid

_HEAD = ("head.weight", "head.bias")
_FC_NORM = ("fc_norm.weight", "fc_norm.bias")
# The table's entries are at most 1; float32 evaluations of it differ by up to 1e-4, the rest is rounding.
_TABLE_TOLERANCE = {torch.float64: 2e-4, torch.float32: 2e-4, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@dataclass(frozen=True)
class Checkpoint:
    """A file's weights under the original names.

    Args:
        path: the file; layout: a key of LAYOUTS; pretraining: from masked pre-training.
        state: original name -> tensor.
        metadata: text that the file carries.
        notes: what was ignored or converted so far.
    """

    path: str
    layout: str
    pretraining: bool
    state: dict[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> int | None:
        """Number of classes of the head in the file; None without a head."""
        head = self.state.get("head.weight")
        return None if head is None else head.shape[0]


@dataclass(frozen=True)
class Loaded:
    """What was loaded into a model.

    Args:
        path: the file; layout: a key of LAYOUTS.
        digest: sha256 of the model's weights afterwards.
        notes: every conversion: ignored parts, resampled positions, a new head, another precision.
        metadata: text that the file carries.
    """

    path: str
    layout: str
    digest: str
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint of any known layout.

    Raises:
        CheckpointError: unreadable or unsafe file, unknown layout, or a file of ours whose content was changed.
    """
    raw = read_file(path)
    if "sha256" in raw.metadata and raw.metadata["sha256"] != weights_digest(raw.tensors):
        raise CheckpointError(f"{raw.path}: its tensors do not have the sha256 that its header names: it was damaged")
    try:
        named = to_original(raw.tensors, raw.metadata)
    except CheckpointError as error:
        raise CheckpointError(f"{raw.path}: {error}") from None
    return Checkpoint(raw.path, named.layout, named.pretraining, named.state, raw.metadata, raw.notes + named.notes)


def load_checkpoint(
    model: VideoViT | VideoSwin | ViViT, checkpoint: str | os.PathLike[str] | Checkpoint, *, new_head: bool = False
) -> Loaded:
    """Fill a video ViT or Swin with the weights of a checkpoint; the model is unchanged if anything does not fit.

    Args:
        model: the model to fill.
        checkpoint: a file, or what ``read_checkpoint`` gave.
        new_head: keep the model's own head where the file's has another number of classes or is missing
            (``fc_norm`` too, which pre-training files lack); noted in the result.
    Raises:
        CheckpointError: missing, unexpected and wrongly shaped keys, all in one message; positions of another kind.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = read_checkpoint(checkpoint)
    if any(parameter.is_meta for parameter in model.parameters()):
        raise CheckpointError(f"{checkpoint.path}: the model is on the meta device, which has no memory to load into")
    where = f"{checkpoint.path}: {LAYOUTS[checkpoint.layout]} checkpoint"
    kind = VideoSwin if checkpoint.layout in SWIN_LAYOUTS else ViViT if checkpoint.layout in VIVIT_LAYOUTS else VideoViT
    if not isinstance(model, kind):
        raise CheckpointError(f"{where} is not for a {type(model).__name__}")
    state, expected = dict(checkpoint.state), dict(model.state_dict())
    notes = list(checkpoint.notes)
    hints: list[str] = []
    _fit_head(checkpoint, model, state, expected, new_head, notes, hints)
    if checkpoint.pretraining and "norm.weight" not in expected:
        for name in ("norm.weight", "norm.bias"):  # the encoder's last norm; fine-tuned models pool before fc_norm
            state.pop(name, None)
    if isinstance(model, VideoSwin):
        try:
            fit_swin(model, state, notes, hints)
        except CheckpointError as error:
            raise CheckpointError(f"{where} does not fit the model: {error}") from None
    elif isinstance(model, ViViT):
        fit_vivit(model, state, notes, hints)
    else:
        _fit_positions(where, model, state, notes, hints)
    if any(name.endswith("gamma_1") for name in state) and not any(name.endswith("gamma_1") for name in expected):
        hints.append("the file has layer scale: build the model with init_values > 0")
    check_fit(where, state, expected, hints)
    stored = {tensor.dtype for tensor in state.values()}
    if any(not dtype.is_floating_point for dtype in stored):
        raise CheckpointError(f"{where} holds {_names(stored)}: only floating types are loaded")
    wanted = {tensor.dtype for tensor in expected.values()}
    if stored != wanted:
        notes.append(f"stored as {_names(stored)}, loaded as {_names(wanted)}")
    model.load_state_dict(state, strict=False)
    return Loaded(checkpoint.path, checkpoint.layout, weights_digest(model), tuple(notes), checkpoint.metadata)


def _fit_head(
    checkpoint: Checkpoint,
    model: VideoViT | VideoSwin | ViViT,
    state: dict[str, Tensor],
    expected: dict[str, Tensor],
    new_head: bool,
    notes: list[str],
    hints: list[str],
) -> None:
    given = checkpoint.classes
    if given is not None and given != model.num_classes:
        if not new_head:
            hints.append(f"{given} classes there, {model.num_classes} in the model: num_classes=N asks for a new head")
            return
        notes.append(f"head of {given} classes dropped, new head of {model.num_classes} classes not trained")
        for name in _HEAD:
            state.pop(name, None)
            expected.pop(name, None)
    if given is None and model.num_classes:
        if not new_head:
            why = "a pre-training file has no head" if checkpoint.pretraining else "the file has no head"
            hints.append(f"{why}: num_classes=N asks for a new one")
            return
        absent = [name for name in (*_FC_NORM, *_HEAD) if name in expected and name not in state]
        notes.append(f"not in the file, not trained: {', '.join(absent)}")
        for name in absent:
            del expected[name]


def _fit_positions(where: str, model: VideoViT, state: dict[str, Tensor], notes: list[str], hints: list[str]) -> None:
    given = state.get("pos_embed")
    if given is None:
        return
    own = model.pos_embed.detach()
    if given.ndim != 3 or given.shape[0] != 1 or given.shape[2] != own.shape[2]:
        return  # another width: the comparison of shapes says so
    if not isinstance(model.pos_embed, torch.nn.Parameter):
        table = _fixed_table(own, given.shape[1])
        difference = inf if table is None else (given.double() - table.double()).abs().max().item()
        if difference <= _TABLE_TOLERANCE.get(given.dtype, 0.0):
            del state["pos_embed"]
            notes.append("pos_embed is the model's fixed table, which is no parameter here")
        else:
            hints.append(
                f"pos_embed is not the model's fixed table (largest difference {difference:.3g}): "
                'positions that were learned need positions="learned"'
            )
        return
    if given.shape != own.shape:
        old = _grid_of(given.shape[1], model.grid)
        if old is None:
            hints.append(f"pos_embed of {given.shape[1]} patches is no square grid of {model.grid.t} tubelets")
            return
        state["pos_embed"] = resample(given, old, model.grid)
        notes.append(f"pos_embed resampled bicubically per tubelet from {_grid(old)} to {_grid(model.grid)}")


def _fixed_table(own: Tensor, patches: int) -> Tensor | None:
    # Rows of the flat table do not depend on their number, so a file for another grid can be compared with it.
    own = own.cpu()
    if own.shape[1] == patches:
        return own
    flat = torch.equal(own.float(), sincos_flat(own.shape[1], own.shape[2]))
    return sincos_flat(patches, own.shape[2]) if flat else None


def _grid_of(patches: int, own: Grid) -> Grid | None:
    # As in the original loader: the number of tubelets is the model's, and the map is square.
    side = isqrt(patches // own.t)
    return Grid(own.t, side, side) if side and own.t * side * side == patches else None


def _grid(grid: Grid) -> str:
    return "x".join(str(length) for length in grid)


def _names(dtypes: set[torch.dtype]) -> str:
    return " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
