"""Token gates and buffers.

Unlike the official code (WISION-Lab/eventful-transformer, ``modules.py``), references are copied once at the flush, so
that a caller's tensor is never written on, and a forced choice reads only the tokens that it names.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from tokred.streaming.places import keep, read, write
from tokred.streaming.policies import Chosen, Policy, change

ROW, COLUMN = -2, -1


class Gated(NamedTuple):
    """What a gate lets through.

    Args:
        values: the current values of the tokens that are sent, (B, K, D) or (B, D, K); everything at a flush.
        chosen: which tokens; None at a flush.
        delta: by how much they changed since they were last sent; None at a flush and where it was not asked for.
    """

    values: Tensor
    chosen: Chosen | None
    delta: Tensor | None = None


class TokenGate:
    """Sends the tokens that changed most since they were last sent, and remembers what was sent.

    Args:
        policy: decides; None where every call forces the choice.
        axis: ROW: tokens along dimension -2; COLUMN: along dimension -1.
        forget: the reference becomes the current frame for all tokens, sent or not (STGT): changes that were not sent
            are lost. Otherwise slow drift adds up until it is sent.
        delta: also return by how much the sent tokens changed.
    """

    def __init__(self, policy: Policy | None, *, axis: int = ROW, forget: bool = False, delta: bool = False) -> None:
        self.policy = policy
        self.axis = axis
        self.forget = forget
        self.delta = delta
        self.reference: Tensor | None = None

    def __call__(self, current: Tensor, chosen: Chosen | None = None) -> Gated:
        """One frame.

        Args:
            current: (B, N, D), or (B, ..., N) for columns; chosen: forces the choice and bypasses the policy.
        Raises:
            ValueError: no policy and no choice.
        """
        if self.reference is None:
            self.reference = current.detach().clone()
            return Gated(current, None)
        if chosen is None:
            if self.policy is None:
                raise ValueError("a gate without a policy needs its choice forced")
            features = COLUMN if self.axis == ROW else ROW
            chosen = self.policy.choose(change(current.detach(), self.reference, self.policy.order, features))
        values = read(current, chosen.index, self.axis)
        delta = values - read(self.reference, chosen.index, self.axis) if self.delta else None
        if self.forget:
            self.reference = current.detach().clone()
        else:
            self.reference = write(self.reference, chosen, values.detach(), self.axis)
        return Gated(values, chosen, delta)


class TokenBuffer:
    """Holds the last result of every token; new ones replace theirs."""

    def __init__(self, axis: int = ROW) -> None:
        self.axis = axis
        self.value: Tensor | None = None

    def __call__(self, fresh: Tensor, chosen: Chosen | None) -> Tensor:
        """All tokens, with the fresh ones in their places.

        Args:
            fresh: (B, K, D), or (B, D, K) for columns; chosen: their places, None = all of them.
        """
        if chosen is None or self.value is None:
            self.value = keep(fresh)
            return fresh
        whole = write(self.value, chosen, fresh, self.axis)
        self.value = keep(whole)
        return whole
