"""Reducers that break the contract on purpose, one clause each, and one that keeps it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import tokred
from tokred.backbones.geometry import Geometry
from tokred.probe import Probe
from tokred.reducer import Capabilities, Promise, Site, Strength, keep_patches, keep_top
from tokred.reduction import Fill, Keep, Merge, Reduction
from tokred.schedule import Schedule, Step
from tokred.tokens import Tokens


class Good(tokred.TokenReducer):
    """Keeps the tokens with the largest features: what a user writes after reading the README."""

    site = "after_block"
    strength = "keep"
    capabilities = Capabilities(keeps_order=True)

    def __init__(self, keep: float = 0.5, *, at: tuple[int, ...] = (1,)) -> None:
        super().__init__(Schedule(at=at, keep=keep))

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return tokens.patches.detach().abs().sum(-1, dtype=torch.float32)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        return keep_top(tokens, self.score(tokens, probe), site.left(tokens.patch_count))


class NeverWhole(Good):
    """Drops a token even at strength zero."""

    def __init__(self, keep: float = 0.5) -> None:
        super().__init__(keep)
        if keep == 1:
            self.schedule = Schedule(at=(1,), drop=1)


class OneTooMany(Good):
    """Keeps one token more than its schedule promises."""

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        return keep_top(tokens, self.score(tokens, probe), site.left(tokens.patch_count) + 1)


class ContentDecides(Good):
    """Drops more where the clip is dark, and declares static counts."""

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        spare = int(self.score(tokens, probe)[0, 0] > 5.0)
        return keep_top(tokens, self.score(tokens, probe), site.left(tokens.patch_count) - spare)


class Backwards(Good):
    """A larger strength that keeps more."""

    def strength_range(self, geometry: Geometry) -> Strength:
        return Strength("keep", 0.1, 0.9, whole=False)


class SwallowsNonsense(Good):
    """Corrects impossible settings in silence."""

    def __init__(self, keep: float = 0.5) -> None:
        super().__init__(min(max(keep, 0.01), 1.0))


class KnowsTheCount(Good):
    """Takes the number of tokens to be what it was when nothing ran before."""

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        left = site.left(tokens.grid.patches)
        return keep_top(tokens, self.score(tokens, probe), left)


class LosesMass(Good):
    """Merges, and then says that every token weighs one patch."""

    @dataclass(frozen=True)
    class Weightless(Merge):
        def masses(self, size: Tensor | None) -> Tensor | None:
            return None

    capabilities = Capabilities()

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        left = site.left(tokens.patch_count)
        assign = torch.arange(tokens.count).clamp_max(tokens.prefix + left - 1).expand(tokens.x.shape[:2])
        return self.Weightless(assign, tokens.prefix + left)


class DropsTheClassToken(Good):
    """Ranks the prefix tokens with the others."""

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        left = tokens.prefix + site.left(tokens.patch_count)
        index = tokens.x.detach().abs().sum(-1).argsort(dim=1, descending=True)[:, :left].sort(dim=1).values
        return Keep(index, tokens.count)


class KeepsTwice(Good):
    """Keeps its best token twice."""

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        order = self.score(tokens, probe).argsort(dim=1, descending=True, stable=True)
        index = order[:, : site.left(tokens.patch_count)].clone()
        index[:, 1] = index[:, 0]
        return keep_patches(tokens, index.sort(dim=1).values)


class OutOfOrder(Good):
    """Declares the original order and returns the order of the scores."""

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        return keep_top(tokens, self.score(tokens, probe), site.left(tokens.patch_count), order="score")


class UnevenFrames(Good):
    """Declares frames and keeps what is best in the whole clip."""

    capabilities = Capabilities(needs=frozenset({"frames"}), keeps_frames=True)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        assert tokens.groups is not None
        left = tokens.groups * site.left(tokens.patch_count // tokens.groups)
        return keep_top(tokens, self.score(tokens, probe), left, groups=tokens.groups)


class RestoresBackwards(Good):
    """Restores the kept tokens in reverse."""

    @dataclass(frozen=True)
    class Reversed(Keep):
        def restore(self, y: Tensor, fill: Fill = None) -> Tensor:
            return super().restore(y.flip(1), fill)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        keep = keep_top(tokens, self.score(tokens, probe), site.left(tokens.patch_count))
        return self.Reversed(keep.index, keep.n_in)


class LooksAtTheBatch(Good):
    """Scores a token against the mean of the batch."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        patches = tokens.patches.detach().float()
        return (patches - patches.mean(0, keepdim=True)).abs().sum(-1)


class CutsTheGradient(Good):
    """Hands on features that no gradient passes."""

    @dataclass(frozen=True)
    class Detached(Keep):
        def apply(self, x: Tensor, size: Tensor | None = None) -> Tensor:
            return super().apply(x.detach(), size)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        keep = keep_top(tokens, self.score(tokens, probe), site.left(tokens.patch_count))
        return self.Detached(keep.index, keep.n_in)


class OnlyFloat32(Good):
    """Multiplies features with a float32 vector, which fails for every other format."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return tokens.patches.detach() @ torch.ones(tokens.x.shape[-1])


class DividesByZero(Good):
    """Scales the features by their spread: 0 / 0 where all tokens are equal."""

    @dataclass(frozen=True)
    class Scaled(Keep):
        def apply(self, x: Tensor, size: Tensor | None = None) -> Tensor:
            return super().apply(x / x.float().std(dim=1, keepdim=True).to(x.dtype), size)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        keep = keep_top(tokens, self.score(tokens, probe), site.left(tokens.patch_count))
        return self.Scaled(keep.index, keep.n_in)


class WritesInPlace(Good):
    """Scales the features that it was given to look at."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        with torch.no_grad():
            tokens.x.mul_(1.5)
        return super().score(tokens, probe)


class ReadsInSecret(Good):
    """Reads the keys without declaring them."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return probe.mean_key.norm(dim=-1)[:, tokens.prefix :]


class AssumesFrames(Good):
    """Uses the temporal groups without declaring them."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        frames = tokens.by_frame().detach().float()
        return (frames - frames.mean(2, keepdim=True)).abs().sum(-1).flatten(1)


class LearnsInSecret(Good):
    """Has a parameter and declares none."""

    def __init__(self, keep: float = 0.5) -> None:
        super().__init__(keep)
        self.scale = torch.nn.Parameter(torch.ones(1))


class Sleeps(Good):
    """Does nothing with its defaults and declares no strength: nobody can see it work."""

    strength = ""

    def __init__(self, keep: float = 1.0) -> None:
        super().__init__(keep)


class NeedsASetting(Good):
    """Has no default."""

    def __init__(self, keep: float) -> None:
        super().__init__(keep)


class CheapOnPaper(Good):
    """Compares all tokens with all tokens, and says that this costs nothing."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        x = tokens.patches.detach().float()
        return (x @ x.transpose(1, 2)).amax(dim=-1)

    def macs(self, tokens: int, geometry: Geometry, step: Step) -> int | None:
        return 0


class CheapWhenPlanned(Good):
    """Compares all tokens with all tokens only where they differ: not in the dry run that counts."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        x = tokens.patches.detach().float()
        return x.sum(-1) if bool((x == x[:, :1]).all()) else (x @ x.transpose(1, 2)).amax(dim=-1)


class PruneRatioAsKeepRatio(Good):
    """Takes the share to keep for the share to drop."""

    def __init__(self, keep: float = 0.25) -> None:
        super().__init__(keep)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        left = tokens.patch_count - site.left(tokens.patch_count)
        return keep_top(tokens, self.score(tokens, probe), max(1, left))


class SilentClamp(Good):
    """Drops r tokens per block, or half of them where r is more, without a word."""

    strength = "r"

    def __init__(self, r: int = 8) -> None:
        tokred.TokenReducer.__init__(self, Schedule(at=(1,), drop=r))

    def promise(self, step: Step, count: int, groups: int | None, geometry: Geometry) -> Promise:
        return Promise(count - min(int(step.amount), count // 2))

    def strength_range(self, geometry: Geometry) -> Strength:
        return Strength("r", 0, geometry.grid.patches // 2, whole=True)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        left = tokens.patch_count - min(int(site.step.amount), tokens.patch_count // 2)
        return keep_top(tokens, self.score(tokens, probe), left)


class WrongOnFewTokens(Good):
    """Fails only where three patch tokens or fewer are there: what whole models never show."""

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        if tokens.patch_count <= 3:
            return keep_patches(tokens, torch.zeros(tokens.x.shape[0], 0, dtype=torch.int64))
        return super().reduce(tokens, probe, site)
