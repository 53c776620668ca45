"""The predictors of an STTS model, where they act, and what is compared with a file when they do."""

from __future__ import annotations

from torch import Tensor, nn

from tokred.anchors import Anchors
from tokred.perturbed import min_max
from tokred.reduction import Reduction
from tokred.run.parity.golden import Golden
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed, Settings
from tokred.run.parity.stts import SITE, Replayed, chosen_of, close, indicator_of, load, raw_scores, replayed
from tokred.tokens import Grid, Tokens

KINDS = ("time_score_predictor", "space_score_predictor")
PLACES = (("tloc", "tr"), ("sloc", "sr"))
"""Of each kind, the settings that say where its predictors act, and what share they leave."""


class Sites:
    """The predictors of a file, where they act, and what is compared when they do."""

    def __init__(self, golden: Golden, ledger: Ledger, config: Settings, weights: dict[str, Tensor]) -> None:
        self.golden, self.ledger = golden, ledger
        self.prefix = ""
        self.told = golden.settings.inner("predictors")
        self.at: dict[int, list[str]] = {}
        self.reducers: dict[str, Replayed] = {}
        sigma = config.number("sigma")
        golden.settings.agree("sigma", sigma)
        for kind, (name, _) in zip(KINDS, PLACES, strict=True):
            for i, place in enumerate(config.take(name, None) or []):
                self.at.setdefault(int(place), []).append(f"{kind}.{i}")
                self.reducers[f"{kind}.{i}"] = _reducer(weights, f"{kind}.{i}", sigma)
        config.without_effect("tr", "sr")
        if set(self.told._values) != set(self.reducers):
            raise Malformed(f"predictors {sorted(self.told._values)}, but the config places {sorted(self.reducers)}")
        for name in self.reducers:
            noise = golden.floats(f"train.{name}.noise", dims=3) if f"train.{name}.noise" in golden else None
            if noise is not None:
                self.reducers[name].stored = {int(name.startswith(KINDS[1])): noise}
                config.agree("ns", noise.shape[1])
                golden.settings.agree("num_samples", noise.shape[1])

    def __call__(self, place: int, x: Tensor, grid: Grid, prefix: int) -> tuple[Tensor, Grid]:
        """What the predictors before a block or stage make of its tokens (B, N, C), temporal ones first."""
        for name in self.at.get(place, []):
            x, grid = self._act(name, Tokens(x, grid, prefix, groups=grid.t), grid)
        return x, grid

    def train(self) -> None:
        """Act as in training from now on, and compare with the file's training entries."""
        self.prefix = "train."
        for reducer in self.reducers.values():
            reducer.train()

    def parameters(self) -> dict[str, nn.Parameter]:
        """All scorers' parameters by their official names."""
        return {
            f"{name}.{inner}": parameter
            for name, reducer in self.reducers.items()
            for inner, parameter in _holder(reducer, name).named_parameters()
        }

    def _act(self, name: str, tokens: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        reducer, told = self.reducers[name], self.told.inner(name)
        k, side = told.whole("k", least=1), told.whole("anchor_size", least=1)
        anchors = Anchors(grid.h, grid.w, side, side) if name.startswith(KINDS[1]) else None
        reduction: Reduction
        if anchors is None:
            reduction, after = reducer.choose_frames(tokens, k, SITE), Grid(k, grid.h, grid.w)
        else:
            reduction, after = reducer.choose_squares(tokens, anchors, SITE), Grid(grid.t, side, side)
        where = f"{self.prefix}{name}"
        scores = min_max(raw_scores(reducer, tokens, anchors))
        close(self.ledger, f"{where}.scores", scores, self.golden.floats(f"{where}.scores"))
        if reducer.training:
            indicator = self.golden.floats(f"{where}.indicator")
            close(self.ledger, f"{where}.indicator", indicator_of(reduction), indicator)
        else:
            ours = chosen_of(reduction, tokens, anchors)
            self.ledger.decision(f"{where}.indices", ours, self.golden.indices(f"{where}.indices"))
        return reduction.apply(tokens.x), after


def _reducer(weights: dict[str, Tensor], name: str, sigma: float) -> Replayed:
    prefix = f"{name}."
    own = {key.removeprefix(prefix): tensor for key, tensor in weights.items() if key.startswith(prefix)}
    width = own["score_network.in_conv.1.weight"].shape[0] if own else 0
    if not width:
        raise Malformed(f"there are no weights of {name}")
    time = name.startswith(KINDS[0])
    reducer = replayed((width // 2, 4) if time else (4, width), sigma)
    load(_holder(reducer, name), own)
    return reducer.eval()


def _holder(reducer: Replayed, name: str) -> nn.Module:
    return (reducer.time_score_predictor if name.startswith(KINDS[0]) else reducer.space_score_predictor)[0]
