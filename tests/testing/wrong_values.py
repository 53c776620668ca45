"""More reducers that break the contract on purpose - values of merges, restoring, ties, writes, gradients - and some
that keep it and are easily accused."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import tokred
from tokred.probe import Probe
from tokred.reducer import Capabilities, Site, keep_patches, keep_top
from tokred.reduction import Fill, Fuse, Keep, Mask, Merge, Mix, Reduction
from tokred.schedule import Schedule
from tokred.tokens import Tokens


class Plain(tokred.TokenReducer):
    """Keeps the tokens with the largest features."""

    site = "after_block"
    strength = "keep"
    capabilities = Capabilities(keeps_order=True)

    def __init__(self, keep: float = 0.5, *, at: str | tuple[int, ...] = (1,)) -> None:
        super().__init__(Schedule(at=at, keep=keep))

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return tokens.patches.detach().abs().sum(-1, dtype=torch.float32)

    def chosen(self, tokens: Tokens, probe: Probe, site: Site) -> Keep:
        return keep_top(tokens, self.score(tokens, probe), site.left(tokens.patch_count))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        return self.chosen(tokens, probe, site)


class Merges(Plain):
    """Merges all that is behind the last kept token into it: not wrong."""

    capabilities = Capabilities()
    kind: type[Merge] = Merge
    mode = "mass"

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        count = tokens.prefix + site.left(tokens.patch_count)
        assign = torch.arange(tokens.count, device=tokens.x.device).clamp_max(count - 1)
        return self.kind(assign.expand(tokens.x.shape[:2]), count, self.mode)


class SumsMerged(Merges):
    """Adds merged tokens up: five equal tokens give five times that token."""

    mode = "sum"


class MassIgnored(Merges):
    """Takes the plain mean of merged tokens: one of five patches counts as much as one of a single patch."""

    mode = "mean"


class ForgetsEarlierMerges(Merges):
    """Counts tokens instead of the patches that they stand for."""

    @dataclass(frozen=True)
    class kind(Merge):
        def masses(self, size: Tensor | None) -> Tensor | None:
            return super().masses(None)


class FusesTwice(Plain):
    """Adds the rest up with twice the weights that it states."""

    @dataclass(frozen=True)
    class Doubled(Fuse):
        def apply(self, x: Tensor, size: Tensor | None = None) -> Tensor:
            y = super().apply(x, size)
            return torch.cat([y[:, :-1], 2 * y[:, -1:]], dim=1)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        keep = keep_top(tokens, self.score(tokens, probe), site.left(tokens.patch_count) - 1)
        weights = torch.full(tokens.x.shape[:2], 1 / tokens.count).scatter(1, keep.index, 0.0)
        return self.Doubled(keep.index, weights)


class GoodMix(Plain):
    """Each output is a softmax over the inputs: not wrong, and windows refuse it."""

    capabilities = Capabilities()
    axis = -1

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        n, left, prefix = tokens.patch_count, site.left(tokens.patch_count), tokens.prefix
        if left == n:
            return None
        x = tokens.patches
        x = nn.functional.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)
        share = (4 * x[:, :left] @ x.transpose(1, 2)).softmax(dim=self.axis)
        front = torch.eye(prefix, prefix + n, dtype=share.dtype).expand(len(x), -1, -1)
        return Mix(torch.cat([front, nn.functional.pad(share, (prefix, 0))], dim=1))


class WrongMix(GoodMix):
    """Each input is a softmax over the outputs."""

    axis = 1


class RestoreGarbage(Plain):
    """Puts a thousand times the last kept token where tokens were dropped."""

    @dataclass(frozen=True)
    class Garbage(Keep):
        def restore(self, y: Tensor, fill: Fill = None) -> Tensor:
            if fill is not None:
                return super().restore(y, fill)
            out = y[:, -1:].mul(1000).repeat(1, self.n_in, 1)
            return out.scatter(1, self.index[..., None].expand_as(y), y)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        keep = self.chosen(tokens, probe, site)
        return self.Garbage(keep.index, keep.n_in)


class IgnoresFill(Plain):
    """Copies tokens to the dropped places also where a value is asked for."""

    @dataclass(frozen=True)
    class Copies(Keep):
        def restore(self, y: Tensor, fill: Fill = None) -> Tensor:
            return super().restore(y)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        keep = self.chosen(tokens, probe, site)
        return self.Copies(keep.index, keep.n_in)


class TieOrder(Plain):
    """Keeps the later of two equal tokens."""

    def chosen(self, tokens: Tokens, probe: Probe, site: Site) -> Keep:
        n, left = tokens.patch_count, site.left(tokens.patch_count)
        order = self.score(tokens, probe).flip(1).argsort(dim=1, descending=True, stable=True)[:, :left]
        return keep_patches(tokens, (n - 1 - order).sort(dim=1).values)


class Latest(Plain):
    """Keeps the last tokens, whatever they are: the later of two equal ones is not wrong here."""

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        return torch.arange(tokens.patch_count).float().expand(tokens.x.shape[0], -1)


class WritesSize(Merges):
    """Doubles the masses that it was given."""

    def __init__(self, keep: float = 0.5, *, at: str | tuple[int, ...] = (0, 1)) -> None:
        super().__init__(keep, at=at)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        if tokens.size is not None:
            tokens.size.mul_(2)
        return super().reduce(tokens, probe, site)


class WritesSeeds(Plain):
    """Counts up the seeds that it was given."""

    capabilities = Capabilities(needs=frozenset({"sample_seed"}), keeps_order=True)

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        assert tokens.sample_seed is not None
        tokens.sample_seed.add_(1)
        return super().score(tokens, probe)


class WritesKeys(Plain):
    """Turns and scales the keys of the block in place."""

    capabilities = Capabilities(needs=frozenset({"key"}), keeps_order=True)

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        with torch.no_grad():
            probe.k.mul_(-2)
        return probe.k.detach().float().mean(1).norm(dim=-1)[:, tokens.prefix :]


class WritesKeysQuietly(WritesKeys):
    """The same, only where no gradient would notice."""

    site = "after_attention"

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        if not torch.is_grad_enabled():
            probe.k.mul_(-3)
        return probe.k.detach().float().mean(1).norm(dim=-1)[:, tokens.prefix :]


class WritesQueriesAndValues(Plain):
    """Scales the queries and the values of the block in place."""

    capabilities = Capabilities(needs=frozenset({"query", "value"}), keeps_order=True)

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        with torch.no_grad():
            probe.q.mul_(2)
            probe.v.mul_(2)
        return super().score(tokens, probe)


class DetachesMerged(Merges):
    """Hands on gradients only to the first of the tokens that merge."""

    @dataclass(frozen=True)
    class kind(Merge):
        def apply(self, x: Tensor, size: Tensor | None = None) -> Tensor:
            first = torch.ones_like(self.assign, dtype=torch.bool)
            first[:, 1:] = self.assign[:, 1:] != self.assign[:, :-1]
            return super().apply(torch.where(first[..., None], x, x.detach()), size)


class Learns(Plain):
    """Scores by a scale and a bias, and masks in training, which windows refuse: not wrong."""

    capabilities = Capabilities(keeps_order=True, trainable=True)

    def __init__(self, keep: float = 0.5, *, at: str | tuple[int, ...] = (1,)) -> None:
        super().__init__(keep, at=at)
        self.scale, self.bias = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))

    def read_bias(self) -> Tensor:
        return self.bias.float()

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        n, left = tokens.patch_count, site.left(tokens.patch_count)
        if left == n:
            return None
        score = self.score(tokens, probe) * self.scale.float() + self.read_bias()
        if not self.training:
            return keep_top(tokens, score, left)
        best = score.detach().argsort(dim=1, descending=True, stable=True)[:, :left]
        soft = (score / 100).sigmoid()
        seen = torch.zeros_like(score).scatter(1, best, 1.0) + soft - soft.detach()
        return Mask(nn.functional.pad(seen, (tokens.prefix, 0), value=1.0))


class HalfLearns(Learns):
    """Reads its bias where no gradient can come back."""

    def read_bias(self) -> Tensor:
        return self.bias.detach().float()


class SparePart(Learns):
    """Has a weight for a step that does not run: not wrong."""

    def __init__(self, keep: float = 0.5, *, at: str | tuple[int, ...] = (1,)) -> None:
        super().__init__(keep, at=at)
        self.later = nn.Linear(2, 2)
