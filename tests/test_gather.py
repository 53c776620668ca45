"""Gathering and summing rows against loops."""

from __future__ import annotations

import torch
from drawn import SEEDS, SIZES, features, kept, partition
from hypothesis import given

from tokred.gather import nearest_in_sequence, scatter_sum, take


@given(SIZES, SEEDS)
def test_take_and_scatter_are_the_loops(shape: tuple[int, int, int], seed: int) -> None:
    b, n, c = shape
    x, index = features(b, n, c, seed), kept(b, n, seed)
    taken = take(x, index)
    for i in range(b):
        for j in range(index.shape[1]):
            assert torch.equal(taken[i, j], x[i, index[i, j]])
    assign, m = partition(b, n, seed)
    summed = scatter_sum(x, assign, m)
    expected = torch.zeros(b, m, c)
    for i in range(b):
        for j in range(n):
            expected[i, assign[i, j]] += x[i, j]
    torch.testing.assert_close(summed, expected)


@given(SIZES, SEEDS)
def test_the_nearest_of_a_sequence_is_the_loop_and_ties_go_to_the_earlier(
    shape: tuple[int, int, int], seed: int
) -> None:
    b, n, _ = shape
    index = kept(b, n, seed)
    found = nearest_in_sequence(index, n)
    for sample, row in zip(index.tolist(), found.tolist(), strict=True):
        for place, column in enumerate(row):
            assert sample[column] == min(sample, key=lambda p: (abs(p - place), p))
