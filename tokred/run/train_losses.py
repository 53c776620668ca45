"""Auxiliary losses of training on generated clips, whose truth is known: where the object is and goes, what it is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokred.data.synthetic import SHAPES, Scene
from tokred.run.train_spec import TrainSpec

# An object covers few tokens and moves little in these units; the weights bring the parts to the size of the others.
REGRESSION_WEIGHT = 5.0
OBJECT_SHARE = 0.05


class AuxHeads(nn.Module):
    """Where the object is and where it goes, per token and for the clip, and what it is; only used in training.

    Args:
        dim: width of the tokens; features: width of the pooled features; shape: whether to tell what it is.
        steps: whether the model has a feature for each tubelet, which is to tell where the object is.
    """

    def __init__(self, dim: int, features: int, shape: bool = False, steps: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.token = nn.Linear(dim, 6)  # objectness, place (2), displacement (3)
        self.clip = nn.Linear(features, 3)  # displacement
        self.shape = nn.Linear(dim, len(SHAPES)) if shape else None
        self.step = nn.Linear(features, 3) if steps else None  # place (2), logarithm of the size


def auxiliary_loss(
    heads: AuxHeads,
    tokens: Tensor,
    features: Tensor,
    scene: Scene,
    seen: Tensor,
    keep: Tensor | None,
    spec: TrainSpec,
    carrier: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """Losses of objectness per token, of the object's place at its tokens, and of its displacement over the clip.

    Tokens of a model that sees one tubelet at a time cannot tell the displacement and are not asked for it; the feature
    of each tubelet is asked for the object's place and size instead.

    Args:
        heads: their layers.
        tokens: last block's output, (B, K, C).
        features: pooled features, (B, C).
        scene: the clips' truth.
        seen: (B, P) bool, patches that show the object.
        keep: (B, K) patches that the model saw; None = all, K = P.
        spec: the recipe.
        carrier: (B, P) int64, the token that carries each patch in the end, negative = gone; None = its own. A merged
            token answers for all of its patches, and a patch that is gone for nothing.
        steps: features of the tubelets, (B, T', C), of a model that has them.
    Returns:
        scalar, float32.
    """
    tubelets = scene.rendered.clips.shape[2] // spec.model.tubelet
    patches = seen.shape[1]
    state = _states(scene, spec.data.size, tubelets)
    change = state[:, -1] - state[:, 0]  # (B, 3)
    spread = state[:, :, :2].repeat_interleave(patches // tubelets, dim=1)  # (B, P, 2)
    wanted = torch.cat([spread, change[:, None].expand(-1, patches, -1)], dim=-1)
    if keep is not None:
        seen = seen.gather(1, keep)
        wanted = wanted.gather(1, keep[..., None].expand(-1, -1, 5))
    wanted, here = wanted.to(tokens.device), seen.float().to(tokens.device)
    per_token = heads.token(heads.norm(tokens)).float()
    there = torch.ones_like(here)
    if carrier is not None:
        there = (carrier >= 0).float()
        per_token, here = _at_patches(per_token, carrier), here * there
    objectness = F.binary_cross_entropy_with_logits(per_token[..., 0], here, there, reduction="sum")
    objectness = objectness / there.sum().clamp_min(1)
    told = 2 if steps is not None else 5
    error = (per_token[..., 1 : 1 + told] - wanted[..., :told]).square().mean(-1)
    at_object = (error * here).sum() / here.sum().clamp_min(1)
    whole = (heads.clip(features).float() - change.to(tokens.device)).square().mean()
    if steps is not None:
        if heads.step is None:
            raise ValueError("these heads do not read the features of single tubelets")
        whole = whole + (heads.step(steps).float() - state.to(tokens.device)).square().mean()
    return objectness + REGRESSION_WEIGHT * (at_object + whole)


def _states(scene: Scene, size: int, tubelets: int) -> Tensor:
    """Place in [-1, 1] and logarithm of the size of the object in each tubelet, (B, T', 3)."""
    place = scene.rendered.centre / (size / 2) - 1
    state = torch.cat([place, scene.rendered.scale.log()[..., None]], dim=-1)  # (B, poses, 3)
    return state.reshape(len(state), tubelets, -1, 3).mean(2)


def shape_loss(
    heads: AuxHeads,
    tokens: Tensor,
    scene: Scene,
    seen: Tensor,
    keep: Tensor | None,
    carrier: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the object's class at each token that shows it.

    Args:
        as in ``auxiliary_loss``.
    Returns:
        scalar, float32.
    """
    if heads.shape is None:
        raise ValueError("these heads do not tell shapes")
    if keep is not None:
        seen = seen.gather(1, keep)
    here = seen.to(tokens.device)
    if carrier is not None:
        here = here & (carrier >= 0)
        tokens = _at_patches(tokens, carrier)
    wanted = scene.appearance.to(tokens.device)[:, None].expand_as(seen)[here]
    loss = F.cross_entropy(heads.shape(heads.norm(tokens[here])).float(), wanted, reduction="sum")
    return loss / max(1, len(wanted))


def _at_patches(x: Tensor, carrier: Tensor) -> Tensor:
    """What belongs to tokens (B, N, C) at the patches that they carry (B, P, C); anything where a patch is gone."""
    return x.gather(1, carrier.clamp_min(0)[..., None].expand(-1, -1, x.shape[-1]))
