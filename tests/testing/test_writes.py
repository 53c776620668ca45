from __future__ import annotations

import torch

from tokred.probe import Probe
from tokred.testing.writes import copied, given, written
from tokred.tokens import Grid, Tokens


def test_everything_that_a_step_can_reach_is_watched_and_named() -> None:
    x, size, seed = torch.randn(1, 4, 8), torch.ones(1, 4), torch.zeros(1, dtype=torch.int64)
    q, k, v = (torch.randn(1, 2, 4, 4) for _ in range(3))
    tokens = Tokens(x, Grid(1, 2, 2), size=size, sample_seed=seed)
    probe = Probe(torch.randn(1, 4, 8), q, k, v, log_size=size.log())
    probe.set_ffn(torch.randn(1, 4, 8))
    for name, tensor in given(tokens, probe).items():
        shown = given(tokens, probe)
        before = copied(shown)
        assert written(before, shown) == ""
        tensor.add_(1)
        assert written(before, shown) == name
    assert set(given(tokens, probe)) >= {"the masses", "the sample seeds", "the queries", "the keys", "the values"}


def test_nan_that_stays_is_not_a_change() -> None:
    x = torch.tensor([[[float("nan"), 1.0]]])
    shown = given(Tokens(x, Grid(1, 1, 1)), Probe(x))
    before = copied(shown)
    assert written(before, shown) == ""
    x[0, 0, 1] = float("nan")
    assert written(before, shown) == "the features, the block's input"
