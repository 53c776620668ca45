"""Layers of semantic tokens inside windows; against the official code and independent loops in tests/parity."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from tokred.learned import fresh
from tokred.macs import MacCounter
from tokred.semantic import CrossLayer, LayerSize
from tokred.semantic_windows import WindowLayer, biased_layer, enlarged, from_windows, in_groups, to_windows

SIZE = LayerSize(dim=8, heads=2, head_dim=4, hidden=16)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_windows_are_blocks_of_the_map_row_by_row_and_come_back(h: int, w: int, rows: int, columns: int) -> None:
    maps = torch.arange(2 * h * rows * w * columns * 2.0).reshape(2, h * rows, w * columns, 2)
    windows = to_windows(maps, h, w)
    for i in range(h):
        for j in range(w):
            block = maps[:, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
            assert torch.equal(windows[:, i * w + j], block)
    assert torch.equal(from_windows(windows, h, w), maps)


def test_enlarged_windows_of_the_published_map() -> None:
    places = enlarged(14, 14, 7)
    assert places.shape == (4, 100)
    rows, columns = places // 14, places % 14
    assert [(int(r.min()), int(r.max())) for r in rows] == [(0, 9), (0, 9), (4, 13), (4, 13)]
    assert [(int(c.min()), int(c.max())) for c in columns] == [(0, 9), (4, 13), (0, 9), (4, 13)]


@given(st.integers(1, 4), st.integers(1, 4), st.integers(2, 6))
def test_enlarged_windows_hold_their_window_and_stay_on_the_map(h: int, w: int, window: int) -> None:
    rows, columns = h * window, w * window
    places = enlarged(rows, columns, window)
    assert places.shape[0] == h * w
    for number, found in enumerate(places.tolist()):
        i, j = divmod(number, w)
        own = {(i * window + a) * columns + j * window + b for a in range(window) for b in range(window)}
        assert own <= set(found)
        assert len(set(found)) == len(found)
        assert min(found) >= 0
        assert max(found) < rows * columns


def test_a_window_looks_no_further_than_its_surroundings() -> None:
    layer = fresh(lambda: WindowLayer(SIZE, 3, 7, scale=1.0))
    maps = torch.randn(1, 14, 14, 8, generator=torch.Generator().manual_seed(0))
    far = maps.clone()
    far[:, 10:, :, 0] += 1.0  # below the enlarged windows of the upper row
    before, after = (layer(x).unflatten(1, (6, 6)) for x in (maps, far))
    assert torch.equal(before[:, :3], after[:, :3])
    assert bool((before[:, 3:] != after[:, 3:]).any(-1).all())


def test_keys_and_values_of_the_map_are_projected_once() -> None:
    layer = fresh(lambda: WindowLayer(SIZE, 3, 7))
    with MacCounter() as counter, torch.no_grad():
        layer(torch.zeros(1, 14, 14, 8))
    windows, own = 4, 9
    projected = (196 + windows * own) * 8 * 16  # instead of 4 windows of 109
    others = SIZE.macs(windows * own, 0) + 2 * windows * own * 109 * 8 + 5 * 8 * 196
    assert counter.macs == projected + others


def test_groups_do_not_see_each_other_and_a_bias_tells_offsets_apart() -> None:
    layer = fresh(lambda: biased_layer(SIZE, 2, scale=1.0))
    x = torch.randn(1, 16, 8, generator=torch.Generator().manual_seed(1))
    moved = x.clone()
    moved[:, 15, 0] += 1.0  # in the last group of 4 x 4 tokens
    before, after = in_groups(layer, x, 4, 2), in_groups(layer, moved, 4, 2)
    changed = (before != after).any(-1)[0].nonzero().flatten().tolist()
    assert changed == [10, 11, 14, 15]
    plain = CrossLayer(SIZE, scale=1.0)
    plain.load_state_dict(layer.state_dict(), strict=False)
    with torch.no_grad():
        table = layer.get_parameter("attn.relative_position_bias_table")
        table.fill_(3.0)
        torch.testing.assert_close(layer(x[:, :4]), plain(x[:, :4]), atol=1e-5, rtol=1e-5)
        table[0] = 9.0
        assert not torch.allclose(layer(x[:, :4]), plain(x[:, :4]), atol=1e-5)
