"""A host without weights that hands drawn content to the driver: steps run through the same code as in a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokred import saliency
from tokred.backbones.adapter import Attended, Crossed, Fed, cross_to
from tokred.backbones.parts import BlockParts
from tokred.cover import Cover
from tokred.dry import DryAdapter
from tokred.probe import BlockStatistics
from tokred.testing.content import HALF, HUGE, features, generator, masses, queries_and_keys
from tokred.testing.example import WINDOW, StepExample
from tokred.tokens import Tokens

Content = TypeVar("Content")
HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class View:
    """How the content of an example is shown.

    Args:
        dtype: of features, queries, keys and values.
        through: first rounded to this format, so that two views hold equal numbers in different formats.
        sample: one of the samples alone; None = all.
        turned: whether the channels are in another order.
        frame: which frame of a video, for methods that remember; another frame is other content of the same kinds.
        order: of the patch tokens, in pairs of neighbours: "" = as they are, "swapped" = each pair turned round,
            "twins" = the second is the first again, bit for bit, in whole numbers, whose sums are exact.
    """

    dtype: torch.dtype = torch.float32
    through: torch.dtype | None = None
    sample: int | None = None
    turned: bool = False
    frame: int = 0
    order: str = ""


class StandIn(DryAdapter):
    """Blocks that leave features as they are, with drawn queries, keys and values."""

    name = "drawn content"

    def __init__(self, example: StepExample, view: View, drawn: dict[Any, Any] | None = None) -> None:
        """Args: drawn: what other views of the same example have drawn already; it is added to."""
        super().__init__(example.geometry, "cpu")
        self.numbers = example
        self.view = view
        self._drawn = {} if drawn is None else drawn
        self._call = 0
        self._huge = HALF if view.dtype in HALVES or view.through in HALVES else HUGE

    def tokens(self) -> Tokens:
        """The tokens that enter, with masses and groups as the example says."""
        e, g = self.numbers, self._geometry
        x = self._features(e.prefix + e.patches, e.dim)
        size = masses(e.masses, e.batch, e.prefix, e.patches, generator(e.seed, 2))
        seed = torch.arange(e.batch) * 7919 + e.seed
        if self.view.sample is not None:
            pick = slice(self.view.sample, self.view.sample + 1)
            size, seed = None if size is None else size[pick], seed[pick]
        cover = Cover.whole(g.grid, x.shape[0], self.device, WINDOW) if g.stages else None
        return Tokens(
            x,
            g.grid,
            e.prefix,
            size=size,
            groups=g.grid.t if e.frames else None,
            sample_seed=seed,
            class_token=e.class_token,
            cover=cover,
        )

    def blocks(self, model: nn.Module) -> Sequence[nn.Module]:
        return [nn.Identity()] * self._geometry.depth

    def attend(self, block: nn.Module, tokens: Tokens, log_size: Tensor | None, wanted: Any = None) -> Attended:
        g = self._geometry.at(tokens.x.shape[2], tokens.grid)
        shape = (self.numbers.batch, g.heads, tokens.count, g.head_dim)

        def make(random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
            q, k = queries_and_keys(self.numbers.attention, shape, random, huge=self._huge)
            return q, k, torch.randn(shape, generator=random, dtype=torch.float64)

        q, k, v = (self._shown(part) for part in self._content(1, shape, make))
        statistics: BlockStatistics | None = _OneWindow() if g.stages else None
        return Attended(tokens.x, q, k, v, 1 / math.sqrt(g.head_dim), statistics=statistics)

    def cross(self, model: nn.Module, index: int, tokens: Tokens) -> Crossed | None:
        g = self._geometry
        if not g.ends_stage(index):
            return None
        stage = g.stages[g.stage_of(index + 1)]
        return cross_to(tokens, self._features(tokens.grid.halved.patches, stage.dim), stage.window)

    def feed(self, block: nn.Module, x: Tensor) -> Fed:
        return Fed(x, x)

    def token_parts(self, block: nn.Module) -> Any:
        e = self.numbers
        random = generator(e.seed, 3)

        def linear(inner: int, outer: int) -> Tensor:
            return torch.randn(outer, inner, generator=random).div_(inner**0.5).to(self.view.dtype)

        qkv, project, feed = linear(e.dim, 3 * e.dim), linear(e.dim, e.dim), linear(e.dim, e.dim)
        head_dim = e.dim // e.heads
        norm = lambda x: F.layer_norm(x, (e.dim,))  # noqa: E731
        return BlockParts(
            norm1=norm,
            qkv=lambda x: F.linear(x, qkv),
            project=lambda x: F.linear(x, project),
            norm2=norm,
            feed=lambda x: F.gelu(F.linear(x, feed)),
            heads=e.heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
        )

    def _content(self, purpose: int, shape: tuple[int, ...], make: Callable[[torch.Generator], Content]) -> Content:
        """The next piece of content: equal in all views of an example."""
        self._call += 1
        key = (purpose, self._call, self.view.frame, shape, self._huge)
        if key not in self._drawn:
            self._drawn[key] = make(generator(self.numbers.seed, purpose, self._call, self.view.frame))
        return self._drawn[key]

    def _features(self, n: int, width: int) -> Tensor:
        shape = (self.numbers.batch, n, width)
        kind = self.numbers.features
        return self._shown(self._content(0, shape, lambda random: features(kind, shape, random, huge=self._huge)))

    def _shown(self, content: Tensor) -> Tensor:
        view = self.view
        if view.sample is not None:
            content = content[view.sample : view.sample + 1]
        if view.turned:
            content = content.roll(1, dims=-1).flip(-1)
        if view.order:
            content = self._paired(content)
        if view.through is not None:
            content = content.to(view.through)
        return content.to(view.dtype, copy=True)

    def _paired(self, content: Tensor) -> Tensor:
        """Content (..., N, d) with its patch tokens in another order of pairs; a last one without a pair stays."""
        prefix, n = self.numbers.prefix, content.shape[-2]
        places = torch.arange(n - prefix)
        twins = self.view.order == "twins"
        partner = places // 2 * 2 if twins else torch.where((places ^ 1) < n - prefix, places ^ 1, places)
        content = (4 * content).round() if twins else content
        return torch.cat([content[..., :prefix, :], content[..., prefix:, :][..., partner, :]], dim=-2)


class _OneWindow:
    """Attention statistics as if all tokens were in one window: what a step reads, not what a host computes."""

    def rows(self, q: Tensor, k: Tensor, scale: float, *, received: bool, entropy: bool) -> saliency.RowStatistics:
        return saliency.row_statistics(q, k, scale, received=received, entropy=entropy)
