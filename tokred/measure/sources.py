"""Which token carries each patch in the end: what overlaps and pictures are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from tokred.attach import Attached


def final_source(model: Attached, clips: Tensor) -> Tensor | None:
    """The token (B, P) int64 that carries each patch of the original grid at the head, -1 = dropped; None for methods
    whose tokens carry no particular patches.

    On a hierarchical host the patches are those of its first stage. The methods that shrink the input itself are
    traced on the grid that is left.
    """
    with torch.inference_mode():
        return model.run(clips, trace=True).tokens.source


def carried(model: Attached, clips: Tensor) -> dict[str, Tensor]:
    """``source`` (B, P) int32 of `final_source`, for every clip.

    Raises:
        ValueError: the method's tokens carry no particular patches.
    """
    source = final_source(model, clips)
    if source is None:
        raise ValueError(f"{model.reducer.spec} makes tokens that carry no particular patches: nothing can be traced")
    return {"source": source.to(torch.int32)}
