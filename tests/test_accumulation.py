"""Temporal accumulation against the published algorithm written as loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sta_loops import reference
from torch import Tensor

from tokred.accumulation import select


def drawn(b: int, n: int, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(b, n, 6, generator=g).double(), torch.randn(b, n, 4, generator=g).double()


@given(
    st.integers(1, 2),
    st.integers(1, 6),
    st.integers(1, 9),
    st.floats(0, 1),
    st.booleans(),
    st.sampled_from(["both", "activation", "accumulation"]),
    st.integers(0, 9999),
)
def test_a_stage_is_the_published_algorithm(
    b: int, groups: int, g: int, share: float, backward: bool, score: str, seed: int
) -> None:
    r = min(round(share * g), g - 1)
    x, metric = drawn(b, groups * g, seed)
    found = select(x, metric, groups, r, backward=backward, score=score).kept
    for i in range(b):
        assert found[i].tolist() == reference(x[i], metric[i], groups, r, backward, score)


@given(st.integers(2, 5), st.integers(3, 9), st.integers(0, 9999))
def test_the_most_activated_token_of_every_later_group_survives_in_front(groups: int, g: int, seed: int) -> None:
    x, metric = drawn(1, groups * g, seed)
    kept = select(x, metric, groups, g - 1).kept[0].reshape(groups, 1)
    strongest = x[0].abs().sum(-1).reshape(groups, g).argmax(1)
    for c in range(1, groups):
        assert int(kept[c, 0]) == c * g + int(strongest[c])


@given(st.integers(0, 999))
def test_neither_channels_nor_lengths_of_keys_decide(seed: int) -> None:
    x, metric = drawn(1, 4 * 7, seed)
    plain = select(x, metric, 4, 3).kept
    assert torch.equal(select(x.flip(-1), metric.flip(-1), 4, 3).kept, plain)
    assert torch.equal(select(x, metric * torch.rand(1, 28, 1).double().add(0.5), 4, 3).kept, plain)


@pytest.mark.parametrize("spoil", ["constant activation", "zero key", "all zero", "equal frames"])
def test_degenerate_tokens_are_decided_without_nan(spoil: str) -> None:
    x, metric = drawn(2, 4 * 6, 0)
    if spoil == "constant activation":
        x[:] = 1.0
    elif spoil == "zero key":
        metric[:, 3] = 0.0
    elif spoil == "all zero":
        x[:], metric[:] = 0.0, 0.0
    else:
        x, metric = x[:, :6].repeat(1, 4, 1), metric[:, :6].repeat(1, 4, 1)
    found = select(x, metric, 4, 2)
    assert bool(found.score.isfinite().all())
    for i in range(2):
        assert len(set(found.kept[i].tolist())) == 16


def test_the_selection_is_exact_for_narrow_features_and_inside_autocast() -> None:
    x, metric = drawn(2, 4 * 30, 1)
    narrow = x.bfloat16(), metric.bfloat16()
    expected = select(narrow[0].float(), narrow[1].float(), 4, 11)
    with torch.autocast("cpu", torch.bfloat16):
        found = select(*narrow, 4, 11)
    assert torch.equal(found.kept, expected.kept)
    assert torch.equal(found.score, expected.score)
