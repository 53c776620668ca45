"""Reducers that break the contract by what they keep, share or draw from."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from testing.wrong import Good
from torch import Tensor

from tokred.backbones.geometry import Geometry
from tokred.probe import Probe
from tokred.reducer import Capabilities, Site
from tokred.reduction import Reduction
from tokred.tokens import Tokens


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


class NeverForgets(Good):
    """Keeps state, as it declares, and reset leaves it there."""

    capabilities = Capabilities(keeps_order=True, stateful=True)

    def __init__(self, keep: float = 0.5) -> None:
        super().__init__(keep)
        self.seen = 0

    def score(self, tokens: Tokens, probe: Probe) -> Tensor:
        self.seen += 1
        return torch.sin(super().score(tokens, probe) * self.seen)
