"""What attach needs to know of a host model. An adapter reads modules; it never changes them.

One adapter per host family. It is a stateless object: the model is passed to every call, so an attached model can
be copied, pickled and compiled like any module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from tokred.backbones.geometry import Geometry
from tokred.reducer import SmallerInput
from tokred.tokens import Tokens


class Unsupported(ValueError):
    """A host, or a part of it, that the adapter does not fully understand; the message gives the reason."""


class Attended(NamedTuple):
    """A block after its attention: features (B, N, C) with the residual added; q, k, v (B, H, N, d) as used, after
    any normalisation and before the scale; scale on q k^T."""

    x: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    scale: float


class Fed(NamedTuple):
    """A block after its MLP: features (B, N, C) with the residual added; the branch's output (B, N, C)."""

    x: Tensor
    branch: Tensor


class Adapter(ABC):
    """Reads one family of hosts."""

    name: ClassVar[str]

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
        """The transformer blocks in order. Calling one on (B, N, C) is the host's own path."""

    @abstractmethod
    def attend(self, block: nn.Module, x: Tensor, log_size: Tensor | None) -> Attended:
        """The attention half of a block, with the host's own kernel.

        Args:
            x: (B, N, C); log_size: (B, N) added to every logit towards a token, None = nothing.
        """

    @abstractmethod
    def feed(self, block: nn.Module, x: Tensor) -> Fed:
        """The MLP half of a block."""

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
    patches = x[:, tokens.prefix :]
    if pool == "mean" or tokens.size is None:
        return patches.mean(dim=1)
    weight = tokens.size[:, tokens.prefix :].to(patches.dtype)
    return (patches * weight[..., None]).sum(dim=1) / weight.sum(1, keepdim=True)
