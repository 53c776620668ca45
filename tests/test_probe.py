from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tokred import saliency
from tokred.probe import STATISTICS, Probe, UndeclaredNeed
from tokred.reduction import Keep, Merge

B, H, N, D, PREFIX = 2, 3, 7, 4, 1


def parts(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(B, H, N, D, generator=g).to(dtype) for _ in range(3))
    return torch.randn(B, N, H * D, generator=g).to(dtype), q, k, v


def probe(**known: Any) -> Probe:
    x, q, k, v = parts()
    return Probe(x, q, k, v, scale=0.5, prefix=PREFIX, **known)


READ = {
    "block_input": lambda p: p.block_input,
    "query": lambda p: p.q,
    "key": lambda p: p.mean_key,
    "value": lambda p: p.head_mean("value"),
    "ffn": lambda p: p.ffn,
    "class_row": lambda p: p.class_row,
    "mean_query_row": lambda p: p.mean_query_row,
    "received": lambda p: p.received,
    "entropy": lambda p: (p.sharpness, p.negative_entropy)[1],
    "attention": lambda p: p.attention,
}


@pytest.mark.parametrize("name", STATISTICS)
def test_a_statistic_can_be_read_exactly_when_it_is_declared(name: str) -> None:
    allowed = probe(needs=frozenset({name}))
    allowed.set_ffn(torch.zeros(B, N, 2))
    assert isinstance(READ[name](allowed), Tensor)
    refused = probe(needs=frozenset(STATISTICS) - {name})
    refused.set_ffn(torch.zeros(B, N, 2))
    with pytest.raises(UndeclaredNeed, match=f"{name} is not declared in the reducer's needs"):
        READ[name](refused)


def test_statistics_are_those_of_the_dense_map() -> None:
    _, q, k, _ = parts()
    one = probe()
    full = saliency.attention_map(q, k, 0.5)
    assert torch.equal(one.attention, full)
    torch.testing.assert_close(one.class_row, full[:, :, 0].mean(1))
    torch.testing.assert_close(one.received, full.mean((1, 2)))
    mean = full.mean(1)
    torch.testing.assert_close(one.negative_entropy, torch.special.xlogy(mean, mean).sum(-1))
    torch.testing.assert_close(one.sharpness, one.negative_entropy + torch.tensor(float(N)).log())
    row = saliency.attention_row(q[:, :, PREFIX:].mean(2), k, 0.5)
    torch.testing.assert_close(one.mean_query_row, row)
    torch.testing.assert_close(one.mean_key, k.mean(1))


def test_masses_bias_the_attention_and_weight_the_rows_but_not_the_entropy() -> None:
    _, q, k, _ = parts()
    size = torch.arange(1.0, N + 1).expand(B, N)
    one = probe(size=size, log_size=size.log())
    full = saliency.attention_map(q, k, 0.5, size.log())
    torch.testing.assert_close(one.attention, full)
    torch.testing.assert_close(one.class_row, full[:, :, 0].mean(1))
    expected = (full.mean(1) * size[:, :, None]).sum(1) / size.sum(1, keepdim=True)
    torch.testing.assert_close(one.received, expected)
    assert torch.equal(one.negative_entropy, probe().negative_entropy)
    assert torch.equal(one.sharpness, probe().sharpness)


def test_a_statistic_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("attention_row", "attention_map", "row_statistics"):
        original = getattr(saliency, name)
        monkeypatch.setattr(saliency, name, lambda *a, f=original, n=name, **k: (calls.append(n), f(*a, **k))[1])
    one = probe()
    for _ in range(2):
        for read in ("class_row", "mean_query_row", "received", "negative_entropy", "attention"):
            getattr(one, read)
    assert sorted(calls) == ["attention_map", "attention_row", "attention_row", "row_statistics"]


def test_only_declared_row_statistics_are_computed() -> None:
    assert probe(needs=frozenset({"received"}))._rows(None, "entropy").negative_entropy is None
    assert probe(needs=frozenset({"entropy"}))._rows(None, "received").received is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_scores_are_float32_or_wider(dtype: torch.dtype) -> None:
    x, q, k, v = parts(dtype)
    one = Probe(x, q, k, v, scale=0.5, prefix=PREFIX)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for name in ("class_row", "mean_query_row", "received", "negative_entropy", "sharpness", "attention", "mean_key"):
        assert getattr(one, name).dtype == wide, name


def test_the_mean_key_carries_no_gradient_and_the_class_row_does() -> None:
    x, q, k, v = parts()
    q.requires_grad_()
    one = Probe(x, q, k.requires_grad_(), v, prefix=PREFIX)
    assert not one.mean_key.requires_grad
    assert one.class_row.requires_grad
    assert one.mean_query_row.requires_grad


def test_before_the_block_there_is_no_attention_to_read() -> None:
    early = Probe(parts()[0], prefix=PREFIX)
    for name in ("q", "k", "v", "mean_key", "class_row", "received", "attention"):
        with pytest.raises(UndeclaredNeed, match="do not exist at site before_block"):
            getattr(early, name)
    with pytest.raises(UndeclaredNeed, match="only at site after_block"):
        _ = early.ffn


def test_a_backbone_without_class_token_has_no_class_row() -> None:
    x, q, k, v = parts()
    with pytest.raises(UndeclaredNeed, match="without a class token"):
        _ = Probe(x, q, k, v, prefix=0).class_row


def test_after_a_step_in_the_same_block_statistics_are_those_of_the_tokens_that_are_left() -> None:
    x, q, k, v = parts()
    index = torch.tensor([[0, 2, 3, 6], [0, 1, 4, 5]])
    keep = Keep(index, N)
    left = Probe(x, q, k, v, scale=0.5, prefix=PREFIX, moves=((keep, None),))
    for i in range(B):
        mine = [part[i : i + 1, :, index[i]] for part in (q, k, v)]
        alone = Probe(x[i : i + 1, index[i]], *mine, scale=0.5, prefix=PREFIX)
        for name in ("q", "k", "v", "mean_key", "received", "class_row", "mean_query_row", "block_input", "attention"):
            torch.testing.assert_close(getattr(left, name)[i : i + 1], getattr(alone, name), msg=name)


def test_merged_tokens_have_the_mean_of_their_keys_by_mass() -> None:
    x, q, k, v = parts()
    assign = torch.tensor([[0, 1, 1, 2, 3, 3, 3]]).expand(B, N)
    size = torch.arange(1.0, N + 1).expand(B, N)
    moved = Probe(x, q, k, v, moves=((Merge(assign, 4), size),))
    expected = (2 * k[:, :, 1] + 3 * k[:, :, 2]) / 5
    torch.testing.assert_close(moved.k[:, :, 1], expected)
