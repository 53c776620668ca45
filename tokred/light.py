"""The light path: every token stays and attends, and in the MLPs only some tokens get all of it.

How hierarchical backbones save without losing their grid (DynamicViT's form for them, arXiv 2207.01580). Any reducer
can return ``Light``; what runs instead of the MLP is its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tokred.gather import take
from tokred.reduction import Fill, Reduction
from tokred.schedule import ScheduleError

Path = Callable[[int, Tensor], Tensor]
"""Block number and features (B, n, C) after its attention to what is added to them instead of the MLP branch."""

Half = Callable[[Tensor], tuple[Tensor, Tensor]]
"""The MLP half of a block on features (B, n, C): those after it, and its branch alone."""


@dataclass(frozen=True)
class Light(Reduction):
    """Leave every token where it is; from here to the end of the stage only some of them get the whole MLP.

    A later ``Light`` takes its place. A step that moves tokens ends it: an MLP that follows in the same stage is
    refused.

    Args:
        path: what the other tokens get instead.
        cost: multiply-adds of the path per token, its norm included.
        order: (B, N) int64, positions of all tokens, those with the whole MLP first; None in training.
        whole: number of those.
        policy: in training (B, N), 1 = whole MLP, 0 = light path. Both run on all tokens and are blended, so that
            gradients reach the decision.
        groups: equal temporal groups, which stay.
        moved: whether a later step moved the tokens.
    """

    path: Path
    cost: int
    order: Tensor | None
    whole: int
    policy: Tensor | None = None
    groups: int | None = None
    moved: bool = False

    @property
    def kept(self) -> Tensor:
        """(B, K) positions of the tokens with the whole MLP.

        Raises:
            ValueError: in training, where their number differs between samples.
        """
        if self.order is None:
            raise ValueError("in training the number of tokens with the whole MLP differs between samples: see policy")
        return self.order[:, : self.whole]

    @property
    def n_in(self) -> int:  # type: ignore[override]
        return self._places.shape[1]

    @property
    def n_out(self) -> int:  # type: ignore[override]
        return self._places.shape[1]

    def apply(self, x: Tensor, size: Tensor | None = None) -> Tensor:
        return x

    def masses(self, size: Tensor | None) -> Tensor | None:
        return size

    def positions(self) -> Tensor:
        return torch.arange(self.n_in, device=self._places.device).expand(self._places.shape)

    def restore(self, y: Tensor, fill: Fill = None) -> Tensor:
        return y

    def macs(self, count: int) -> int:
        """Multiply-adds of the light paths of one block per sample, of ``count`` tokens."""
        return self.cost * (count - (self.whole if self.order is not None else 0))

    def feed(self, run: Half, block: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """The second half of a block, each token by its own path.

        Args:
            run: the host's MLP half; x: (B, N, C) after the attention.
        Returns:
            As ``run``, for all tokens.
        Raises:
            ScheduleError: a later step moved the tokens.
        """
        if self.moved:
            raise ScheduleError(
                f"block {block}: an earlier step gave some tokens a light path instead of the MLP, and a later one "
                "moved tokens in the same stage: let that one act first, or in another stage"
            )
        if self.order is None:
            assert self.policy is not None
            (full, branch), light = run(x), self.path(block, x)
            share = self.policy[..., None].to(x.dtype)
            return share * full + (1 - share) * (x + light), share * branch + (1 - share) * light
        some, others = take(x, self.kept), take(x, self.order[:, self.whole :])
        (full, branch), light = run(some), self.path(block, others)
        back = self.order.argsort(dim=1)
        return take(torch.cat([full, others + light], dim=1), back), take(torch.cat([branch, light], dim=1), back)

    @property
    def _places(self) -> Tensor:
        known = self.policy if self.order is None else self.order
        assert known is not None
        return known
