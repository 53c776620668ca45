"""Which patches the answer depends on, and how much of that the tokens that are left still carry."""

from __future__ import annotations

import torch
from torch import Tensor

from tokred.attach import Attached, attach
from tokred.measure.sources import final_source
from tokred.registry import build
from tokred.tokens import Tokens


def gradient_norms(model: Attached, clips: Tensor) -> Tensor:
    """How strongly the unreduced model's answer depends on each patch: the norm of the gradient of its largest logit
    with respect to the patch's token in front of the first block.

    Args:
        model: attached; its host is asked without the reducer.
        clips: (B, 3, T, H, W).
    Returns:
        (B, T, H, W) float32 on the patch grid.
    """
    whole = attach(model.host, build("none"))
    entering: list[Tokens] = []

    def look(block: int, tokens: Tokens) -> None:
        if block < 0:
            entering.append(tokens)

    with torch.inference_mode(False), torch.enable_grad():
        logits = whole.run(clips.detach().clone().requires_grad_(), observe=look).logits.float()
        answers = logits.amax(dim=1).sum()  # a clip's gradient is its own: batch items do not mix
        (gradient,) = torch.autograd.grad(answers, entering[0].x)
    first = entering[0]
    norms = gradient[:, first.prefix :].float().norm(dim=-1)
    return norms.detach().reshape(len(clips), *first.grid)


def retention(model: Attached, clips: Tensor) -> dict[str, Tensor]:
    """Share of the gradient norm on patches that reach the head (STA eq. 7: the meaning of the kept tokens).

    A merged patch is carried; a dropped one is not. Keeping patches at random retains the share of patches kept, so
    both are given.

    Args:
        model: attached; clips: (B, 3, T, H, W).
    Returns:
        ``retained`` (B,); ``kept`` (B,), the share of patches carried; ``retained_per_frame`` (B, T); ``gradient``
        (B, T, H, W), scaled to a sum of one for each clip. NaN where tokens cannot be traced to these patches: methods
        that make new tokens, or shrink the input.
    """
    norms = gradient_norms(model, clips)
    norms = norms / norms.sum(dim=(1, 2, 3), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    source = final_source(model, clips)
    b, t = norms.shape[:2]
    if source is None or source.shape[1] != norms[0].numel():
        lost = torch.full((b,), torch.nan)
        return {"retained": lost, "kept": lost, "retained_per_frame": lost[:, None].expand(b, t), "gradient": norms}
    kept = (source >= 0).view_as(norms).float()
    return {
        "retained": (norms * kept).sum(dim=(1, 2, 3)),
        "kept": kept.mean(dim=(1, 2, 3)),
        "retained_per_frame": (norms * kept).sum(dim=(2, 3)) / norms.sum(dim=(2, 3)).clamp_min(1e-30),
        "gradient": norms,
    }
