"""Reducers that break the contract on purpose, one clause each, and one that keeps it."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

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


class TrustsBits(Good):
    """Ranks by the last bits of the features, which differ between attention kernels."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return (tokens.patches.detach().double().sum(-1) * 1e9) % 1


class CountsItsCalls(Good):
    """Changes its decision when its block is taken apart for somebody else (it looks for the attention)."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        right = super().score(tokens, probe)
        return right if probe._qkv[0] is None else -right


class Hooks(Good):
    """Leaves a hook on every module that runs from now on: no model is as it was."""

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
        return super().reduce(tokens, probe, site)


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


class RollsDice(Good):
    """Draws from torch's global generator."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return torch.rand(tokens.patches.shape[:2])


class StirsPython(Good):
    """Draws from Python's global generator without using it."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        random.random()
        return super().score(tokens, probe)


class Remembers(Good):
    """Compares a clip with the one before, and does not declare that it keeps state."""

    last: Tensor | None = None

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        now = tokens.patches.detach().abs().sum(-1, dtype=torch.float32)
        before, self.last = self.last, now
        return now if before is None or before.shape != now.shape else now - before


class WritesInPlace(Good):
    """Scales the features that it was given to look at."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        with torch.no_grad():
            tokens.x.mul_(1.5)
        return super().score(tokens, probe)


class CountsThreads(Good):
    """Ranks the other way round when torch has two threads."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return super().score(tokens, probe) * (1 if torch.get_num_threads() < 2 else -1)


class SharesABoard(Good):
    """Writes its scores where another forward, running at the same time, writes too."""

    board: ClassVar[dict[str, Any]] = {}
    meeting: ClassVar[threading.Barrier] = threading.Barrier(3)

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        SharesABoard.board["scores"] = super().score(tokens, probe)
        if threading.current_thread() is not threading.main_thread():
            SharesABoard.meeting.wait(timeout=30)  # all have written: all but one read what is not theirs
        return SharesABoard.board["scores"]


class CarriesALambda(Good):
    """Cannot be pickled."""

    def __init__(self, keep: float = 0.5) -> None:
        super().__init__(keep)
        self.rank = lambda x: x


class HiddenSetting(Good):
    """Counts how many of it there are, so that its own settings do not make it again."""

    born: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self, keep: float = 0.5) -> None:
        super().__init__(keep)
        self.turn = next(HiddenSetting.born)

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return super().score(tokens, probe).roll(self.turn, dims=1)


class OtherWhenCompiled(Good):
    """Decides otherwise inside torch.compile."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return super().score(tokens, probe) * (-1 if torch.compiler.is_compiling() else 1)


class NeedsAutograd(Good):
    """Asks autograd for its scores, which inference mode does not have."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        with torch.enable_grad():
            x = tokens.patches.detach().float().requires_grad_()
            (slope,) = torch.autograd.grad((x**2).sum(), x)
        return slope.abs().sum(-1)


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


class BreaksTheGraph(Good):
    """Looks at a score in Python, and does not declare that this breaks a graph."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        score = super().score(tokens, probe)
        return score if score.amax().item() > 0 else -score


class DeclaresABreak(Good):
    """Declares a graph break that it does not have."""

    capabilities = Capabilities(keeps_order=True, one_graph="it looks at scores in Python")


class HonestBreak(BreaksTheGraph):
    """Looks at a score in Python, and says so: not wrong."""

    capabilities = Capabilities(keeps_order=True, one_graph="it looks at scores in Python")


class NumbersItsForwards(Good):
    """Counts its forwards in a Python number, which every graph is specialised to."""

    forwards = 0

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        self.forwards += 1
        return super().score(tokens, probe) + 0 * self.forwards


class LeavesTorch(Good):
    """Scores in NumPy, which torch.compile follows and torch.export does not."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return torch.from_numpy(super().score(tokens, probe).numpy() * 2)


class OtherWhenExported(Good):
    """Decides otherwise in what torch.export makes of it."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return super().score(tokens, probe) * (-1 if torch.compiler.is_exporting() else 1)


class NoSuchOperator(Good):
    """Ranks by a Bessel function, which ONNX does not have."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return torch.special.bessel_j0(super().score(tokens, probe))


class DeclaresNoFile(Good):
    """Declares that no ONNX file can be made of it, and one can."""

    capabilities = Capabilities(keeps_order=True, onnx="its score has no counterpart")


class MixesPrecisions(Good):
    """Writes products, which autocast narrows, into a float32 tensor."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        x = tokens.patches.detach()
        products = (x @ x.mean(dim=1)[..., None])[..., 0]  # (B, N)
        places = torch.arange(x.shape[1]).expand_as(products)
        return torch.zeros(x.shape[:2]).scatter(1, places, products)


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


class KeepsTheModel(Good):
    """Holds the model that it was attached to, where no module list shows it."""

    def prepare(self, geometry: Geometry, host: torch.nn.Module | None = None) -> None:
        self.__dict__["owner"] = [host]


class KeepsFeatures(Good):
    """Collects the features of every forward."""

    def __init__(self, keep: float = 0.5) -> None:
        super().__init__(keep)
        self.log: list[Tensor] = []

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        self.log.append(tokens.x)
        return super().reduce(tokens, probe, site)


class HoldsTheMap(Good):
    """Computes a whole attention map to read its columns, and does not declare it."""

    capabilities = Capabilities(needs=frozenset({"query", "key"}), keeps_order=True)

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        logits = probe.q.detach().float() @ probe.k.detach().float().transpose(-1, -2) * probe.scale
        return logits.softmax(dim=-1).mean(dim=(1, 2))[:, tokens.prefix :]


class EagerOnly(Good):
    """Ranks the other way round where fused attention is allowed."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return super().score(tokens, probe) * (-1 if torch.backends.cuda.flash_sdp_enabled() else 1)


class OverflowsHalf(Good):
    """Weighs features by their squared length, which float16 cannot hold."""

    @dataclass(frozen=True)
    class Weighed(Keep):
        def apply(self, x: Tensor, size: Tensor | None = None) -> Tensor:
            return super().apply(x + 0 * (100 * x).square().sum(dim=-1, keepdim=True), size)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        keep = keep_top(tokens, self.score(tokens, probe), site.left(tokens.patch_count))
        return self.Weighed(keep.index, keep.n_in)


class RanksInHalf(Good):
    """Adds features up in their own format."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return tokens.patches.detach().abs().mean(-1)


class ReadsOneChannel(Good):
    """Ranks by the first channel, and declares that their order does not matter."""

    capabilities = Capabilities(keeps_order=True, channel_blind=True)

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return tokens.patches.detach()[..., 0].float()


class NeverForgets(Good):
    """Keeps state, as it declares, and reset leaves it there."""

    capabilities = Capabilities(keeps_order=True, stateful=True)

    def __init__(self, keep: float = 0.5) -> None:
        super().__init__(keep)
        self.seen = 0

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        self.seen += 1
        return torch.sin(super().score(tokens, probe) * self.seen)


class WrongOnFewTokens(Good):
    """Fails only where three patch tokens or fewer are there: what whole models never show."""

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        if tokens.patch_count <= 3:
            return keep_patches(tokens, torch.zeros(tokens.x.shape[0], 0, dtype=torch.int64))
        return super().reduce(tokens, probe, site)
