"""Attention inside windows: the bias is right, kept as long as it is, and the kernel computes what is written."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from tokred.backbones import windows
from tokred.backbones.swin_layers import WindowAttention
from tokred.backbones.windows import attend_windows, relative_bias, relative_index, window_bias, window_layout
from tokred.tokens import Grid

WINDOW = (2, 3, 3)
SHIFTED = window_layout(Grid(4, 6, 6), WINDOW, True)


@pytest.fixture
def attn() -> WindowAttention:
    return WindowAttention(8, 2, WINDOW, True).requires_grad_(False)


def test_the_bias_is_the_tables_row_of_each_offset(attn: WindowAttention) -> None:
    bias = relative_bias(attn, 18)
    assert bias.shape == (2, 18, 18)
    table = attn.relative_position_bias_table
    for query, key in ((0, 0), (3, 17), (17, 3), (5, 6)):
        assert torch.equal(bias[:, query, key], table[relative_index(WINDOW)[query, key]])


def test_the_mask_is_added_per_pattern(attn: WindowAttention) -> None:
    bias = window_bias(attn, SHIFTED)
    assert bias.shape == (8, 2, 18, 18)
    plain = relative_bias(attn, 18)
    for pattern, mask in enumerate(SHIFTED.masks):
        assert torch.equal(bias[pattern], torch.where(mask, plain - 100, plain))
    single = window_bias(attn, window_layout(Grid(4, 6, 6), WINDOW, False))
    assert torch.equal(single, plain[None])


def test_a_clipped_window_takes_the_first_rows_of_the_full_index(attn: WindowAttention) -> None:
    layout = window_layout(Grid(2, 3, 2), WINDOW, True)
    wanted = attn.relative_position_bias_table[relative_index(WINDOW)[:12, :12]].permute(2, 0, 1)
    assert torch.equal(window_bias(attn, layout)[0], wanted)


def test_the_index_may_be_flat_as_torchvision_has_it(attn: WindowAttention) -> None:
    wanted = relative_bias(attn, 12).clone()
    attn.relative_position_index = attn.relative_position_index.flatten()
    assert torch.equal(relative_bias(attn, 12), wanted)


def test_what_is_kept_is_given_again(attn: WindowAttention) -> None:
    first = window_bias(attn, SHIFTED)
    assert window_bias(attn, SHIFTED) is first
    with torch.inference_mode():
        assert window_bias(attn, SHIFTED) is first
    assert relative_bias(attn, 18) is relative_bias(attn, 18)


def changed_in_place(attn: WindowAttention) -> None:
    attn.relative_position_bias_table.add_(1)


def loaded(attn: WindowAttention) -> None:
    other = WindowAttention(8, 2, WINDOW, True)
    attn.load_state_dict(other.state_dict())


def replaced_data(attn: WindowAttention) -> None:
    attn.relative_position_bias_table.data = torch.randn_like(attn.relative_position_bias_table)


def replaced(attn: WindowAttention) -> None:
    attn.relative_position_bias_table = nn.Parameter(torch.randn(75, 2), requires_grad=False)


def other_precision(attn: WindowAttention) -> None:
    attn.double()


def there_and_back(attn: WindowAttention) -> None:
    attn.half().float()


def other_index(attn: WindowAttention) -> None:
    attn.relative_position_index.copy_(attn.relative_position_index.flip(0))


@pytest.mark.parametrize(
    "change", [changed_in_place, loaded, replaced_data, replaced, other_precision, there_and_back, other_index]
)
def test_a_change_is_seen(attn: WindowAttention, change: object) -> None:
    before = window_bias(attn, SHIFTED)
    assert callable(change)
    change(attn)
    after = window_bias(attn, SHIFTED)
    fresh = windows._gathered(attn, 18) + SHIFTED.added(after.dtype)[:, None]
    assert torch.equal(after, fresh)
    assert after.dtype == attn.relative_position_bias_table.dtype
    assert after.dtype != before.dtype or not torch.equal(after, before)


def test_a_moved_module_gets_a_bias_on_its_device(attn: WindowAttention) -> None:
    window_bias(attn, SHIFTED)
    attn.to("meta")
    assert window_bias(attn, SHIFTED.to("meta")).is_meta


def test_a_copy_has_a_bias_of_its_own(attn: WindowAttention) -> None:
    kept = window_bias(attn, SHIFTED)
    other = copy.deepcopy(attn)
    other.relative_position_bias_table.add_(1)
    assert not torch.equal(window_bias(other, SHIFTED), kept)
    assert window_bias(attn, SHIFTED) is kept


def test_what_is_kept_goes_with_the_module() -> None:
    attn = WindowAttention(8, 2, WINDOW, True).requires_grad_(False)
    kept = weakref.ref(window_bias(attn, SHIFTED))
    assert kept() is not None
    del attn
    gc.collect()
    assert kept() is None


def test_the_table_learns_where_its_gradient_is_wanted(attn: WindowAttention) -> None:
    kept = window_bias(attn, SHIFTED)
    attn.requires_grad_(True)
    window_bias(attn, SHIFTED).sum().backward()
    assert attn.relative_position_bias_table.grad is not None
    assert int(attn.relative_position_bias_table.grad.sum()) == 8 * 2 * 18 * 18
    with torch.no_grad():
        assert window_bias(attn, SHIFTED) is kept


@pytest.mark.parametrize("shifted", [False, True])
def test_a_bias_first_made_in_inference_mode_serves_training_of_other_weights(
    attn: WindowAttention, shifted: bool
) -> None:
    x = torch.randn(1, 144, 8, requires_grad=True)
    with torch.inference_mode():
        attn(x, Grid(4, 6, 6), shifted)
    assert not relative_bias(attn, 18).is_inference()
    attn(x, Grid(4, 6, 6), shifted).sum().backward()
    assert x.grad is not None


def written_out(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    weights = ((q * scale) @ k.transpose(-2, -1) + bias).softmax(-1)
    return (weights @ v).transpose(2, 3).flatten(3)


def test_attention_is_products_and_softmax_per_pattern(attn: WindowAttention) -> None:
    count, volume = SHIFTED.count, SHIFTED.volume
    q, k, v = torch.randn(3, count, 2, 2, volume, 4).unbind()
    bias = window_bias(attn, SHIFTED)
    sizes = torch.tensor([end - first for first, end in SHIFTED.ranges])
    wanted = written_out(q, k, v, bias.repeat_interleave(sizes, dim=0)[:, None], 0.3)
    kept = attend_windows(q, k, v, bias, SHIFTED.ranges, 0.3)
    added = attend_windows(
        q, k, v, relative_bias(attn, volume)[None], SHIFTED.ranges, 0.3, SHIFTED.added(torch.float32)
    )
    torch.testing.assert_close(kept, wanted)
    assert torch.equal(kept, added)


def test_fewer_queries_than_keys_with_a_bias_of_each_window() -> None:
    q, k, v = torch.randn(5, 2, 3, 4, 8), torch.randn(5, 2, 3, 6, 8), torch.randn(5, 2, 3, 6, 8)
    shared = torch.randn(5, 1, 3, 4, 6)
    torch.testing.assert_close(attend_windows(q, k, v, shared, None, 0.5), written_out(q, k, v, shared, 0.5))
    own = torch.randn(5, 2, 1, 4, 6)
    torch.testing.assert_close(attend_windows(q, k, v, own, None, 0.5), written_out(q, k, v, own, 0.5))


def test_half_precision_inputs_take_a_bias_of_full_precision() -> None:
    q, k, v = torch.randn(3, 4, 1, 2, 6, 8).bfloat16().unbind()
    bias = torch.randn(1, 2, 6, 6)
    out = attend_windows(q, k, v, bias, ((0, 4),), 0.5)
    assert out.dtype == torch.bfloat16
    wanted = written_out(q.float(), k.float(), v.float(), bias[:, None].bfloat16().float(), 0.5)
    torch.testing.assert_close(out.float(), wanted, atol=0.03, rtol=0.03)
