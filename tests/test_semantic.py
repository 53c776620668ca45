"""The parts of semantic tokens: cells, layers, generation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tokred.learned import fresh
from tokred.macs import MacCounter
from tokred.semantic import CrossLayer, LayerSize, SemanticTokens, add_scaled, own_cells, pool_cells, run_like

SIZE = LayerSize(dim=12, heads=3, head_dim=4, hidden=20)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loud(module: SemanticTokens | CrossLayer) -> None:
    """Weights at which everything matters."""
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.add_(noise(*parameter.shape, seed=i) * 0.3)


def cell(i: int, length: int, side: int) -> range:
    return range(i * length // side, -(-(i + 1) * length // side))


@given(st.integers(1, 5), st.integers(0, 9), st.integers(0, 9))
def test_a_cell_holds_the_maximum_of_its_places_and_neighbours_overlap_where_side_does_not_divide(
    side: int, more_rows: int, more_columns: int
) -> None:
    rows, columns = side + more_rows, side + more_columns
    maps = noise(2, rows, columns, 3, seed=rows)
    pooled = pool_cells(maps, side)
    for i in range(side):
        for j in range(side):
            inside = maps[:, cell(i, rows, side)][:, :, cell(j, columns, side)]
            assert torch.equal(pooled[:, i * side + j], inside.amax(dim=(1, 2)))


def test_the_published_cells() -> None:
    assert [list(cell(i, 7, 3)) for i in range(3)] == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    ramp = torch.arange(14.0)[None, :, None, None].expand(1, 14, 4, 1)
    assert pool_cells(ramp, 4)[0, ::4, 0].tolist() == [3, 6, 10, 13]


@pytest.mark.parametrize(("rows", "columns", "side"), [(8, 8, 4), (14, 14, 4), (5, 7, 3), (2, 3, 2)])
def test_exported_pooling_is_the_same_bit_for_bit(
    rows: int, columns: int, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = noise(2, rows, columns, 3)
    pooled = pool_cells(maps, side)
    monkeypatch.setattr("tokred.semantic.is_exporting", lambda: True)
    assert torch.equal(pool_cells(maps, side), pooled)


@given(st.integers(1, 6), st.integers(0, 9), st.integers(0, 9))
def test_each_patch_has_one_own_cell_that_holds_it_and_no_cell_is_empty(side: int, rows: int, columns: int) -> None:
    rows, columns = side + rows, side + columns
    own = own_cells(rows, columns, side).unflatten(0, (rows, columns))
    assert set(own.flatten().tolist()) == set(range(side * side))
    for r in range(rows):
        for c in range(columns):
            i, j = divmod(int(own[r, c]), side)
            assert r in cell(i, rows, side)
            assert c in cell(j, columns, side)


def test_keys_and_queries_pass_the_same_norm_and_only_queries_the_mlp() -> None:
    layer = fresh(lambda: CrossLayer(SIZE, scale=0.7))
    loud(layer)
    x, y = noise(2, 5, 12), noise(2, 9, 12, seed=1)
    q = layer.attn.q(layer.norm1(x)).unflatten(-1, (3, 4))
    k, v = (part.unflatten(-1, (3, 4)) for part in layer.attn.kv(layer.norm1(y)).chunk(2, -1))
    weights = (torch.einsum("bmhd,bkhd->bhmk", q, k) / 2).softmax(-1)
    middle = x + layer.layer_scale_1 * layer.attn.proj(torch.einsum("bhmk,bkhd->bmhd", weights, v).flatten(2))
    wanted = middle + layer.layer_scale_2 * layer.mlp(layer.norm2(middle))
    torch.testing.assert_close(layer(x, y), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer(x), layer(x, x))


@pytest.mark.parametrize("keys", ["clip", "frame"])
@pytest.mark.parametrize("centres", [True, False])
def test_generation_pools_looks_adds_the_centres_and_looks_at_both(keys: str, centres: bool) -> None:
    t, rows, columns, side = 3, 4, 5, 2
    made = fresh(lambda: SemanticTokens(SIZE, side, 3, t if centres else 0, keys))
    loud(made)
    frames = noise(2, t, rows, columns, 12)
    image = frames.flatten(1, 3)
    first, second, third = made.layers
    pooled = torch.stack([pool_cells(frames[:, i], side) for i in range(t)], dim=1)
    if keys == "frame":
        s1 = torch.cat([first(pooled[:, i], frames[:, i].flatten(1, 2)) for i in range(t)], dim=1)
    else:
        s1 = first(pooled.flatten(1, 2), image)
    g = made.centres.flatten(0, 1) if made.centres is not None else 0.0
    s2 = second(s1 + g, torch.cat([s1, image], 1))
    s3 = third(s2, torch.cat([s2, image], 1))
    for got, wanted in zip(made.steps(frames), [pooled.flatten(1, 2), s1, s2, s3], strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(made(frames), list(made.steps(frames))[-1])


def test_centres_of_another_number_of_frames_are_between_those_that_were_learned() -> None:
    made = SemanticTokens(SIZE, 1, 2, 4)
    with torch.no_grad():
        assert made.centres is not None
        made.centres.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None].expand(4, 1, 12))
        shift = made.shift(2)
    assert isinstance(shift, Tensor)
    assert shift[:, 0].tolist() == [1.5, 3.5]


def test_macs_are_those_that_run() -> None:
    layer = fresh(lambda: CrossLayer(SIZE))
    with MacCounter() as counter, torch.no_grad():
        layer(noise(1, 5, 12), noise(1, 9, 12))
    assert counter.macs == SIZE.macs(5, 9)


def test_layer_scale_and_residual_are_rounded_once() -> None:
    x, scale, branch = torch.tensor([2048.0]).half(), torch.tensor([1 + 2.0**-12]), torch.ones(1).half()
    assert float(x + (scale * branch).half()) == 2048.0, "the product rounded to float16 is lost in the sum"
    out = add_scaled(x, scale, branch)
    assert (float(out), out.dtype) == (2050.0, torch.float16)


def test_layers_run_in_the_number_format_of_the_features() -> None:
    layer = fresh(lambda: CrossLayer(SIZE, scale=1.0))
    x, y = noise(1, 5, 12).bfloat16(), noise(1, 9, 12).bfloat16()
    out = run_like(layer, x, y)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), layer(x.float(), y.float()), atol=0.1, rtol=0.05)
    assert next(layer.parameters()).dtype == torch.float32
