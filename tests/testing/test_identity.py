from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tokred.attach import Attached
from tokred.methods import RandomDrop
from tokred.reducer import TokenReducer
from tokred.testing import Case, default_backbones
from tokred.testing.failures import Broken
from tokred.testing.identity import check_detach_leaves_nothing


def test_a_method_that_reduces_at_strength_zero_is_caught(caught: Callable[..., str]) -> None:
    assert "a difference of" in caught("NeverWhole", "check_identity_at_zero")


def test_a_method_that_depends_on_the_attention_kernel_is_caught(caught: Callable[..., str]) -> None:
    assert "the same decisions with unfused attention" in caught("TrustsBits", "check_fused_equals_eager")


def test_a_method_that_notices_its_neighbours_is_caught(caught: Callable[..., str]) -> None:
    assert "beside a part that does nothing" in caught("CountsItsCalls", "check_neutral_composition")


def attribute(host: nn.Module) -> None:
    host.blocks[0].attn.reduced = True


def hook(host: nn.Module) -> None:
    host.blocks[1].mlp.register_forward_hook(lambda *_: None)


def mode(host: nn.Module) -> None:
    host.blocks[2].training = True


def swapped_class(host: nn.Module) -> None:
    host.blocks[0].__class__ = type("Patched", (type(host.blocks[0]),), {})


def weight(host: nn.Module) -> None:
    with torch.no_grad():
        host.head.bias.add_(1e-7)


def buffer(host: nn.Module) -> None:
    host.blocks[0].register_buffer("sizes", torch.zeros(1))


@pytest.mark.parametrize("leave", [attribute, hook, mode, swapped_class, weight, buffer])
def test_whatever_stays_on_the_host_is_caught(leave: Callable[[nn.Module], None]) -> None:
    class Leaky(Case):
        def attach(self, reducer: TokenReducer | None = None, host: nn.Module | None = None) -> Attached:
            fast = super().attach(reducer, host)
            leave(fast.host)
            return fast

    case = Leaky(RandomDrop(keep=0.5), default_backbones()[0])
    with pytest.raises(Broken, match=r"as it was|as they were"):
        check_detach_leaves_nothing(case)
