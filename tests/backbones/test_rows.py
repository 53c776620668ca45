"""Attention and row statistics in one pass: the same numbers as fused attention and a second pass, and no map."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import tokred.backbones.attention as kernels
from tokred.attach import attach
from tokred.backbones.attention import attend, attend_fused
from tokred.backbones.rows import LEAST_TOKENS, attend_rows, one_pass
from tokred.backbones.videomae import VideoViT
from tokred.compose import compose
from tokred.methods import EViT, RandomDrop, TopK, VidTLDR
from tokred.reducer import TokenReducer
from tokred.saliency import RowsWanted, row_statistics
from tokred.tokens import Grid, Tokens

BOTH = RowsWanted(received=True, entropy=True)


def qkv(b: int = 2, h: int = 3, n: int = 150, d: int = 8, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    drawn = torch.randn(b, n, 3, h, d, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return drawn.permute(2, 0, 3, 1, 4).unbind(0)


def masses(b: int = 2, n: int = 150, least: float = 1.0) -> Tensor:
    return torch.randint(1, 9, (b, n), generator=torch.Generator().manual_seed(1)).float().clamp_min(1) * least


def host() -> VideoViT:
    torch.manual_seed(0)
    model = VideoViT(img_size=32, patch_size=4, frames=8, tubelet_size=2, dim=24, depth=3, num_heads=3, num_classes=5)
    with torch.no_grad():  # initial weights attend evenly everywhere: no decision would be far from a tie
        for name, weight in model.named_parameters():
            if "qkv" in name and weight.ndim == 2:
                weight.mul_(20)
    return model.eval()


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("rows", "block"), [(128, 1 << 20), (128, 1), (40, 2 * 40 * 150), (1000, 3 * 150 * 150)])
def test_one_pass_gives_what_fused_attention_and_a_second_pass_give(
    biased: bool, weighted: bool, rows: int, block: int
) -> None:
    q, k, v = qkv()
    mass = masses()
    log_size = mass.log() if biased else None
    weight = mass if weighted else None
    out, found = attend_rows(q, k, v, 0.3, log_size, RowsWanted(True, True, weight), rows=rows, block=block)
    torch.testing.assert_close(out, attend_fused(q, k, v, 0.3, log_size), rtol=1e-5, atol=1e-5)
    received = row_statistics(q, k, 0.3, log_size=log_size, row_mass=weight).received
    entropy = row_statistics(q, k, 0.3, received=False, entropy=True)
    torch.testing.assert_close(found.received, received, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.negative_entropy, entropy.negative_entropy, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.sharpness, entropy.sharpness, rtol=1e-5, atol=1e-6)


def test_float64_stays_exact_beside_float32_masses() -> None:
    q, k, v = qkv(dtype=torch.float64)
    log_size = masses().log()
    out, _ = attend_rows(q, k, v, 0.3, log_size, BOTH)
    torch.testing.assert_close(out, attend_fused(q, k, v, 0.3, log_size), rtol=1e-12, atol=1e-12)


def test_masses_next_to_nothing_do_not_lose_the_row() -> None:
    """Background of mass 2^-40 that takes nearly all attention before the masses count."""
    q, k, v = qkv(d=4)
    mass = masses()
    mass[:, :75] = 2.0**-40
    k = k.clone()
    k[:, :, :75] = 6 * q[:, :, :75].mean(2, keepdim=True)
    out, _ = attend_rows(q, k, v, 2.0, mass.log(), BOTH)
    torch.testing.assert_close(out, attend_fused(q, k, v, 2.0, mass.log()), rtol=1e-5, atol=1e-5)


def test_only_what_is_wanted_is_computed() -> None:
    q, k, v = qkv()
    assert attend_rows(q, k, v, 1.0, None, RowsWanted(True, False))[1].sharpness is None
    assert attend_rows(q, k, v, 1.0, None, RowsWanted(False, True))[1].received is None


class Largest(TorchDispatchMode):
    """Remembers the number of entries of the largest result."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.numel = max(self.numel, out.numel())
        return out


def test_no_map_is_ever_held() -> None:
    q, k, v = qkv(b=1, n=600)
    with Largest() as seen:
        attend_rows(q, k, v, 1.0, masses(1, 600).log(), BOTH, block=1)
    assert seen.numel <= 128 * 600


def test_the_rule() -> None:
    q, k, v = qkv()
    assert one_pass(q, k, v, None)
    assert one_pass(q.double(), k.double(), v.double(), masses().log())
    few = slice(LEAST_TOKENS - 1)
    assert not one_pass(q[:, :, few], k[:, :, few], v[:, :, few], None)
    assert not one_pass(q.bfloat16(), k.bfloat16(), v.bfloat16(), None)
    assert not one_pass(q, k, v.half(), None)
    assert not one_pass(q.to("meta"), k.to("meta"), v.to("meta"), None)
    assert not one_pass(q, k, v, torch.tensor([[0.0, -100.0]]))
    assert not one_pass(q, k, v, torch.tensor([[0.0, -torch.inf]]))
    with torch.autocast("cpu", torch.bfloat16):
        assert not one_pass(q, k, v, None)
    v = v.clone().requires_grad_()
    assert not one_pass(q, k, v, None)
    with torch.no_grad():
        assert one_pass(q, k, v, None)


def test_where_gradients_are_wanted_they_flow() -> None:
    q, k, v = (part.clone().requires_grad_() for part in qkv())
    out, found = attend(q, k, v, 1.0, None, BOTH)
    assert found is None
    out.sum().backward()
    assert v.grad is not None


@pytest.mark.parametrize(
    "reducer",
    [
        VidTLDR(r=(60, 40)),
        TopK(0.8),
        EViT(0.7, at=(0, 1), score="received"),
        compose(RandomDrop(0.8, at=(0,)), VidTLDR(r=30, at=(1, 2))),
    ],
    ids=lambda reducer: reducer.spec,
)
@torch.no_grad()
def test_a_host_with_one_pass_is_the_host_with_two(reducer: TokenReducer, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    fast = attach(host(), reducer)
    with monkeypatch.context() as patch:
        patch.setattr("tokred.saliency.row_statistics", _never)
        one = fast.run(clips, trace=True)
    monkeypatch.setattr(kernels, "one_pass", lambda *_: False)
    two = fast.run(clips, trace=True)
    assert one.tokens.source is not None
    assert two.tokens.source is not None
    assert torch.equal(one.tokens.source, two.tokens.source)
    torch.testing.assert_close(one.logits, two.logits, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr("tokred.saliency.row_statistics", _never)
    with pytest.raises(AssertionError, match="second pass"):
        fast(clips)


@torch.no_grad()
def test_behind_an_earlier_step_of_the_same_block_rows_are_those_of_the_tokens_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clips = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    fast = attach(host(), compose(TopK(0.9, at=(1,)), VidTLDR(r=30, at=(1,))))
    one = fast.run(clips, trace=True).tokens.source
    monkeypatch.setattr(kernels, "one_pass", lambda *_: False)
    two = fast.run(clips, trace=True).tokens.source
    assert one is not None
    assert two is not None
    assert torch.equal(one, two)


def test_rows_are_not_asked_for_where_the_class_token_answers() -> None:
    from tokred.driver import Action, _rows_wanted
    from tokred.schedule import Step

    x = torch.ones(1, 5, 4)
    with_class, without = Tokens(x, Grid(1, 2, 2), prefix=1), Tokens(x, Grid(1, 1, 5))
    actions = (Action(TopK(0.5), Step(0, 0, "keep", 0.5)),)
    assert _rows_wanted(actions, with_class) is None
    wanted = _rows_wanted(actions, without)
    assert wanted is not None
    assert (wanted.received, wanted.entropy) == (True, False)


def _never(*_: object, **__: object) -> None:
    raise AssertionError("a second pass ran")
