"""Reducers that break the contract where a forward is compiled, exported or computed in another precision."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from testing.wrong import Good
from torch import Tensor

from tokred.probe import Probe
from tokred.reducer import Capabilities, Site, keep_top
from tokred.reduction import Keep, Reduction
from tokred.tokens import Tokens


class TrustsBits(Good):
    """Ranks by the last bits of the features, which differ between attention kernels."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return (tokens.patches.detach().double().sum(-1) * 1e9) % 1


class EagerOnly(Good):
    """Ranks the other way round where fused attention is allowed."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return super().score(tokens, probe) * (-1 if torch.backends.cuda.flash_sdp_enabled() else 1)


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
