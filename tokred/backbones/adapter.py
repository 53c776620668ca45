"""What attach needs to know of a host model. An adapter reads modules; it never changes them.

One adapter per host family. It is a stateless object: the model is passed to every call, so an attached model can
be copied, pickled and compiled like any module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from tokred.backbones.geometry import Geometry
from tokred.backbones.parts import BlockParts
from tokred.cover import Pool
from tokred.probe import BlockStatistics
from tokred.reducer import SmallerInput
from tokred.reduction import Reduction
from tokred.saliency import Rows, RowsWanted
from tokred.tokens import Grid, Tokens


class Unsupported(ValueError):
    """A host, or a part of it, that the adapter does not fully understand; the message gives the reason."""


class Attended(NamedTuple):
    """A block after its attention: features (B, N, C) with the residual added; q, k, v (B, H, N, d) as used, after
    any normalisation and before the scale; scale on q k^T; statistics of the attention where it is not that of all
    tokens with all tokens; rows: wanted row statistics that the kernel has found already."""

    x: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    statistics: BlockStatistics | None = None
    rows: Rows | None = None


class Crossed(NamedTuple):
    """Tokens that crossed to the next stage, and the move that takes the finished stage's statistics along."""

    tokens: Tokens
    move: Reduction


class Fed(NamedTuple):
    """A block after its MLP: features (B, N, C) with the residual added; the branch's output (B, N, C)."""

    x: Tensor
    branch: Tensor


def cross_to(tokens: Tokens, x: Tensor, window: tuple[int, int, int]) -> Crossed:
    """The tokens after patch merging of a whole grid.

    Args:
        tokens: those before it, with their cover; x: (B, P', C') merged features of all groups of 2 x 2 places.
        window: lengths of the next stage's windows, before clipping.
    """
    cover = tokens.cover
    if cover is None:
        raise ValueError("only tokens on a whole grid cross to another stage")
    after = cover.halved(window)
    source = None if tokens.source is None else after.carriers()
    crossed = replace(
        tokens, x=x, grid=after.grid, groups=after.grid.t, size=None, source=source, cover=after, light=None
    )
    return Crossed(crossed, Pool(cover, tokens.count, after.grid.t))


class Adapter(ABC):
    """Reads one family of hosts."""

    name: ClassVar[str]

    def with_form(self, skip_replicas: bool) -> Adapter:
        """This adapter with or without queries of replicas, where it has both forms."""
        return self

    @abstractmethod
    def accepts(self, model: nn.Module) -> bool:
        """Whether the model is of this family (without importing the host library when it is not loaded)."""

    @abstractmethod
    def check(self, model: nn.Module) -> None:
        """Refuse what is not fully understood.

        Raises:
            Unsupported: naming the part and the reason.
        """

    @abstractmethod
    def geometry(self, model: nn.Module) -> Geometry:
        """The sizes of the model."""

    @abstractmethod
    def read_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """The pixels in the host's own call.

        Raises:
            TypeError: arguments that a reduced forward cannot honour.
        """

    @abstractmethod
    def embed(self, model: nn.Module, pixels: Tensor, smaller: SmallerInput | None) -> Tokens:
        """Pixels as the host takes them to the tokens entering block 0.

        Args:
            smaller: shrink the input first: resize the pixels to ``smaller.grid`` (bilinear, antialiased), keep the
                tubelets ``smaller.frames``, and take positions resampled to that grid.
        """

    @abstractmethod
    def blocks(self, model: nn.Module) -> Sequence[nn.Module]:
        """The transformer blocks in order."""

    def own(self, block: nn.Module, tokens: Tokens) -> Tensor:
        """The host's own block on unreduced tokens, (B, N, C)."""
        return block(tokens.x)

    def run(self, block: nn.Module, tokens: Tokens) -> Tensor:
        """A whole block that no step takes apart, (B, N, C): the host's own path where that can be."""
        return self.own(block, tokens)

    def variant(self, block: nn.Module) -> str:
        """What tells two blocks of the same modules apart, such as shifted windows."""
        return ""

    def example(self, model: nn.Module, index: int, generator: torch.Generator) -> Tokens:
        """A few random tokens as they may enter block ``index``, to prove the block understood."""
        x = torch.randn(1, 6, self.geometry(model).dim, generator=generator)
        return Tokens(x, Grid(1, 1, 6))

    @abstractmethod
    def attend(
        self, block: nn.Module, tokens: Tokens, log_size: Tensor | None, wanted: RowsWanted | None = None
    ) -> Attended:
        """The attention half of a block, with the host's own kernel.

        Args:
            tokens: features (B, N, C); log_size: (B, N) added to every logit towards a token, None = nothing.
            wanted: row statistics that a step will read: a kernel that has them for less than a second pass may give
                them (``Attended.rows``).
        """

    @abstractmethod
    def feed(self, block: nn.Module, x: Tensor) -> Fed:
        """The MLP half of a block."""

    def token_parts(self, block: nn.Module) -> BlockParts | None:
        """The block as operations on each token alone, for methods that compute only some; None = compute nothing.

        Raises:
            Unsupported: it cannot be taken apart like that.
        """
        raise Unsupported(f"the blocks of {self.name} are not computed token by token here")

    def steps(self, model: nn.Module, tokens: Tokens) -> list[Tokens]:
        """The tokens of one call as the blocks see them one after another, where the host runs its blocks several
        times over a clip; by default once."""
        return [tokens]

    def joined(self, steps: list[Tokens]) -> Tokens:
        """The tokens of all steps as one call, after the blocks: undoes ``steps``."""
        return steps[0]

    def cross(self, model: nn.Module, index: int, tokens: Tokens) -> Crossed | None:
        """Change to the next stage after block ``index`` where that is a stage's last; None elsewhere."""
        return None

    @abstractmethod
    def features(self, model: nn.Module, tokens: Tokens, pool: str) -> Tensor:
        """What the host's ``forward_features`` returns, from the tokens after the last block.

        Args:
            pool: "mean" or "mass" where the host averages tokens at this point.
        """

    @abstractmethod
    def classify(self, model: nn.Module, features: Tensor, tokens: Tokens, pool: str) -> Tensor:
        """Features to logits (B, classes), pooling by ``pool`` where the host averages tokens at this point."""

    def pooled(self, model: nn.Module, features: Tensor, tokens: Tokens, pool: str) -> Tensor:
        """The vector before the classifier, (B, C), for feature distances."""
        return features if features.ndim == 2 else mean_tokens(features, tokens, pool)

    def write_output(self, model: nn.Module, logits: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The host's own return value around the logits."""
        return logits

    def checkpoints(self, model: nn.Module) -> bool:
        """Whether the host asked for gradient checkpointing."""
        return bool(getattr(model, "grad_checkpointing", False))


def mean_tokens(x: Tensor, tokens: Tokens, pool: str) -> Tensor:
    """Mean of the patch tokens of x (B, N, C): plain, or weighted by mass (the mean over original patches)."""
    weights = token_weights(tokens, pool)
    if weights is None:
        return x[:, tokens.prefix :].mean(dim=1)
    return weighted_mean(x[:, tokens.prefix :], weights[:, tokens.prefix :])


def token_weights(tokens: Tokens, pool: str) -> Tensor | None:
    """Weight of each token (B, N) where a host averages tokens; None = all the same.

    Args:
        pool: "mean", or "mass" = by mass; masked tokens weigh nothing in both.
    """
    by_mass = tokens.size if pool == "mass" else None
    if tokens.policy is None or by_mass is None:
        return by_mass if tokens.policy is None else tokens.policy
    return by_mass * tokens.policy


def weighted_mean(x: Tensor, weights: Tensor) -> Tensor:
    """Mean of tokens x (B, N, C) with weights (B, N): (B, C); zero where no token weighs anything."""
    weights = weights.to(x.dtype)
    total = weights.sum(dim=1, keepdim=True)
    return (x * weights[..., None]).sum(dim=1) / torch.where(total > 0, total, torch.ones_like(total))
