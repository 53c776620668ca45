"""Reducers that are right at the sizes, in the modes and with the defaults of a first try, and wrong in others."""

from __future__ import annotations

import os
import random
from typing import ClassVar

import torch
from torch import Tensor

import tokred
from tokred.backbones.geometry import Geometry
from tokred.probe import Probe
from tokred.reducer import Capabilities, Promise, Site, keep_patches, keep_top
from tokred.reduction import Keep, Reduction
from tokred.schedule import Schedule, Step
from tokred.tokens import Tokens


class Right(tokred.TokenReducer):
    """Keeps the tokens with the largest features: what the others spoil."""

    site = "after_block"
    strength = "keep"
    capabilities = Capabilities(keeps_order=True)

    def __init__(self, keep: float = 0.5, *, at: tuple[int, ...] | str = (1,)) -> None:
        super().__init__(Schedule(at=at, keep=keep))

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return tokens.patches.detach().abs().sum(-1, dtype=torch.float32)

    def count(self, tokens: Tokens, site: Site) -> int:
        return site.left(tokens.patch_count)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep | None:
        return keep_top(tokens, self.score(tokens, probe), self.count(tokens, site))


class BigBatch(Right):
    """Compares with the mean of the batch where it is of more than four samples."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        patches = tokens.patches.detach().float()
        return (patches - (patches.mean(0) if len(patches) > 4 else 0)).abs().sum(-1)


class CountAtBatch8(Right):
    """Keeps one fewer from a batch of eight on."""

    def count(self, tokens: Tokens, site: Site) -> int:
        return super().count(tokens, site) - (len(tokens.x) >= 8)


class ByteIndex(Right):
    """Keeps its positions in eight bits."""

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep | None:
        keep = super().reduce(tokens, probe, site)
        return None if keep is None else Keep(keep.index.to(torch.uint8).long(), keep.n_in)


class BFloatPositions(Right):
    """Sorts positions in bfloat16, which counts to 256."""

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep | None:
        order = self.score(tokens, probe).argsort(dim=1, descending=True, stable=True)
        best = order[:, : self.count(tokens, site)].bfloat16().sort(dim=1).values.long()
        return keep_patches(tokens, best.clamp_max(tokens.patch_count - 1))


class ManyFrames(Right):
    """Loses one token where there are more than four frames."""

    capabilities = Capabilities(needs=frozenset({"frames"}), keeps_frames=True, keeps_order=True)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep | None:
        frames = tokens.by_frame().detach().float().norm(dim=-1)
        keep = keep_top(tokens, frames, site.left(frames.shape[2]))
        return keep if frames.shape[1] <= 4 else Keep(keep.index[:, :-1], keep.n_in)


class DeepLayers(Right):
    """Forgets its schedule from the seventh block on."""

    def __init__(self, keep: float = 0.5, *, at: str = "all") -> None:
        super().__init__(keep, at=at)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep | None:
        return super().reduce(tokens, probe, site) if site.block < 6 else None


class NearOne(Right):
    """Does nothing where nearly everything is to be kept."""

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep | None:
        return super().reduce(tokens, probe, site) if site.step.amount <= 0.95 else None


class Squeezes(Right):
    """Takes one token per sample for one sample."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        score = super().score(tokens, probe).squeeze()
        return score if score.ndim == 2 else score[None]


class ShapeCache(Right):
    """Prefers tokens by their column, and remembers the columns by the number of tokens alone."""

    columns: ClassVar[dict[int, Tensor]] = {}

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        n, (_, _, width) = tokens.patch_count, tokens.grid
        if n not in self.columns:
            self.columns[n] = torch.arange(n, dtype=torch.float32) % width / width
        return super().score(tokens, probe) + 10 * self.columns[n]


class RandomInTraining(Right):
    """Drops random tokens while it trains, one more than its schedule says, and does not declare it."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return torch.rand(tokens.patches.shape[:2]) if self.training else super().score(tokens, probe)

    def count(self, tokens: Tokens, site: Site) -> int:
        return max(1, super().count(tokens, site) - self.training)


class RaisesInTraining(Right):
    """Was never tried in training mode."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        if self.training:
            raise RuntimeError("no training here")
        return super().score(tokens, probe)


class GradModeFlips(Right):
    """Ranks the other way round where gradients are recorded."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return super().score(tokens, probe) * (-1 if torch.is_grad_enabled() else 1)


class AutocastFlips(Right):
    """Ranks the other way round under autocast."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return super().score(tokens, probe) * (-1 if torch.is_autocast_enabled("cpu") else 1)


class DefaultDtype(Right):
    """Ranks in torch's default format."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return super().score(tokens, probe).to(torch.get_default_dtype())


class PythonSeed(Right):
    """Has a generator of its own, seeded from Python's, which it only reads."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        own = torch.Generator().manual_seed(random.getstate()[1][0])
        return torch.rand(tokens.patch_count, generator=own, dtype=torch.float32).expand(tokens.patches.shape[:2])


class ProcessSeed(Right):
    """Has a generator of its own, seeded with the number of the process."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        own = torch.Generator().manual_seed(os.getpid())
        return torch.rand(tokens.patch_count, generator=own, dtype=torch.float32).expand(tokens.patches.shape[:2])


class SeedsInInit(Right):
    """Seeds torch when it is made."""

    def __init__(self, keep: float = 0.5) -> None:
        super().__init__(keep)
        torch.manual_seed(0)


class SeedsItsWeights(Right):
    """Has weights, which may be random, and seeds torch for them."""

    capabilities = Capabilities(trainable=True)

    def __init__(self, keep: float = 0.5) -> None:
        super().__init__(keep)
        torch.manual_seed(0)
        self.scorer = torch.nn.Linear(1, 1)


class RandomWeights(Right):
    """Draws random weights when it is made, as every layer of torch does: not wrong."""

    capabilities = Capabilities(trainable=True)

    def __init__(self, keep: float = 0.5) -> None:
        super().__init__(keep)
        self.scorer = torch.nn.Linear(1, 1)


class FlashOff(Right):
    """Turns switches of the whole process when it is attached."""

    def prepare(self, geometry: Geometry, host: torch.nn.Module | None = None) -> None:
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cudnn.benchmark = True


class DoubleFromNowOn(Right):
    """Makes float64 the default of everybody when it is made."""

    def __init__(self, keep: float = 0.5) -> None:
        super().__init__(keep)
        torch.set_default_dtype(torch.float64)


class MutatesSettings(Right):
    """Goes on writing on the list of blocks that it was given."""

    def __init__(self, keep: float = 0.5, *, at: list[int] | None = None) -> None:
        at = [0] if at is None else at
        super().__init__(keep, at=tuple(at))
        at.append(at[-1] + 1)


class Hoards(Right):
    """Puts a copy of the features of every forward into a list at the side."""

    board: ClassVar[list[Tensor]] = []

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        Hoards.board.append(tokens.x.detach().clone())
        return super().score(tokens, probe)


class ClaimsState(Right):
    """Says that it keeps state, which switches clauses off, and keeps none."""

    capabilities = Capabilities(keeps_order=True, stateful=True)


class ClaimsDynamic(Right):
    """Says that counts depend on the content, which switches clauses off; they are off by three, always."""

    capabilities = Capabilities(keeps_order=True, static_counts=False)

    def count(self, tokens: Tokens, site: Site) -> int:
        return max(1, super().count(tokens, site) - 3)


class TooModest(Right):
    """Says that counts depend on the content, and they are its schedule's: a clause less, and nothing wrong."""

    capabilities = Capabilities(keeps_order=True, static_counts=False)


class ByThreshold(Right):
    """Drops tokens below the mean: counts depend on the content, as it says. Not wrong for a batch of one."""

    capabilities = Capabilities(keeps_order=True, static_counts=False)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep | None:
        score = self.score(tokens, probe)
        most = int((score >= score.mean(1, keepdim=True)).sum(1).amax())
        return keep_top(tokens, score, most)


class ClaimsNoIdentity(Right):
    """Says that strength zero is not the host, and it is."""

    capabilities = Capabilities(keeps_order=True, identity_at_zero="it replaces layers")


class ClaimsGrid(Right):
    """Says that what it keeps is a grid."""

    capabilities = Capabilities(keeps_order=True, keeps_grid=True)


class EverySecondColumn(Right):
    """Keeps a grid, as it says: not wrong."""

    strength = ""
    capabilities = Capabilities(keeps_order=True, keeps_grid=True)

    def __init__(self) -> None:
        super().__init__(0.5)

    def promise(self, step: Step, count: int, groups: int | None, geometry: Geometry) -> Promise:
        _, h, w = geometry.grid
        return Promise(count // (h * w) * h * (w // 2))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep | None:
        columns = torch.arange(tokens.patch_count) % tokens.grid.w
        index = ((columns % 2 == 1).nonzero()[:, 0]).expand(len(tokens.x), -1)
        return keep_patches(tokens, index)


class OverDeclares(Right):
    """Says that it needs the whole attention map, and never looks at it."""

    capabilities = Capabilities(needs=frozenset({"attention"}), keeps_order=True)


class ReadsWithAClassToken(Right):
    """Reads received attention only behind a class token: not wrong on hosts without."""

    capabilities = Capabilities(needs=frozenset({"received"}), keeps_order=True)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:  # type: ignore[override]
        if tokens.has_class_token:
            return keep_top(tokens, probe.received[:, tokens.prefix :], self.count(tokens, site))
        return super().reduce(tokens, probe, site)
