"""Writing weights: original names, safetensors, with where they came from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tokred.backbones.convert.digest import weights_digest
from tokred.backbones.convert.layouts import SWIN_LAYOUTS, TOKRED_FORMAT, TOKRED_SWIN_FORMAT, Named, to_original
from tokred.backbones.convert.swin import INDEX
from tokred.backbones.convert.vivit import TOKRED_VIVIT_FORMAT, VIVIT_LAYOUTS
from tokred.backbones.positions import sincos_flat

CONVERTER = "tokred convert 1"
"""Version of the rules by which names are converted; written into every file."""


def to_official(weights: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a video ViT (ours, Hugging Face, timm) or Swin (ours, torchvision) under the original names.

    A timm parameter ``pos_embed`` that equals the fixed table is left out, as are Swin's relative position indices:
    both are constants. The tensors are on the CPU.

    Raises:
        CheckpointError: no known layout, or a key bias.
    """
    return _constants_dropped(_named(weights))


def _named(weights: nn.Module | Mapping[str, Tensor]) -> Named:
    return to_original(weights.state_dict() if isinstance(weights, nn.Module) else weights)


def _constants_dropped(named: Named) -> dict[str, Tensor]:
    official = {name: tensor.detach().cpu() for name, tensor in named.state.items()}
    if named.layout == "timm" and _is_fixed_table(official.get("pos_embed")):
        del official["pos_embed"]
    return {name: tensor for name, tensor in official.items() if not name.endswith(f".{INDEX}")}


def save_weights(
    weights: nn.Module | Mapping[str, Tensor],
    path: str | os.PathLike[str],
    *,
    source: str,
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Write a safetensors file that ``load_checkpoint`` reads, in one step (a reader never sees half of it).

    Args:
        weights: a video ViT or Swin, or its state dict, in any known layout.
        path: the file.
        source: where the weights come from: a URL, a file name, a training recipe.
        dtype: floating type to store; default: as they are.
        metadata: more text for the header.
    Returns:
        sha256 of the stored tensors, which the header carries too.
    """
    from safetensors.torch import save_file

    named = _named(weights)
    state = {
        # A clone, because safetensors refuses tensors that share memory, as the biases cut from one timm bias do.
        name: tensor.to(dtype or tensor.dtype).clone(memory_format=torch.contiguous_format)
        for name, tensor in _constants_dropped(named).items()
    }
    digest = weights_digest(state)
    layout = TOKRED_SWIN_FORMAT if named.layout in SWIN_LAYOUTS else TOKRED_FORMAT
    layout = TOKRED_VIVIT_FORMAT if named.layout in VIVIT_LAYOUTS else layout
    header = {**(metadata or {}), "layout": layout, "source": source, "sha256": digest, "converter": CONVERTER}
    file = Path(path)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        save_file(state, str(partial), metadata=header)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
    return digest


def _is_fixed_table(positions: Tensor | None) -> bool:
    if positions is None or positions.ndim != 3:
        return False
    table = sincos_flat(positions.shape[1], positions.shape[2])
    return torch.allclose(positions.float(), table, rtol=0.0, atol=2e-4)
