from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from testing.zoo import Specimen, about
from torch import Tensor, nn

from tokred.attach import Attached
from tokred.backbones.adapter import Attended, Unsupported
from tokred.backbones.timm_vit import TimmViTAdapter
from tokred.backbones.verify import verify_adapter
from tokred.methods import RandomDrop
from tokred.reducer import TokenReducer
from tokred.testing import Case, default_backbones
from tokred.testing.failures import Broken
from tokred.testing.identity import check_blocks_taken_apart, check_detach_leaves_nothing
from tokred.tokens import Tokens


@pytest.mark.parametrize(
    "wrong",
    about(
        "check_identity_at_zero", "check_fused_equals_eager", "check_neutral_composition", "check_detach_leaves_nothing"
    ),
    ids=lambda wrong: wrong.reducer,
)
def test_what_is_not_the_host_is_caught(caught: Callable[..., str], wrong: Specimen) -> None:
    assert wrong.says in caught(wrong.reducer, wrong.check, wrong.backbone)


class WithoutLayerScale(TimmViTAdapter):
    """Adds the branches as they are, as ToMe's published patch does on models with layer scale."""

    def attend(self, block: Any, tokens: Tokens, log_size: Tensor | None, wanted: Any = None) -> Attended:
        attended = super().attend(block, tokens, log_size)
        branch = (attended.x - tokens.x) / block.ls1.gamma
        return attended._replace(x=tokens.x + branch)


class WithoutQKNorm(TimmViTAdapter):
    """Runs attention on queries and keys as they come, as published patches do on models that normalise them."""

    def attend(self, block: Any, tokens: Tokens, log_size: Tensor | None, wanted: Any = None) -> Attended:
        plain = copy.deepcopy(block)
        plain.attn.q_norm = plain.attn.k_norm = nn.Identity()
        return super().attend(plain, tokens, log_size)


@pytest.mark.parametrize("adapter", [WithoutLayerScale, WithoutQKNorm])
def test_an_adapter_that_overlooks_a_part_of_the_host_is_caught(adapter: type[TimmViTAdapter]) -> None:
    class Overlooked(Case):
        def attach(self, reducer: TokenReducer | None = None, host: nn.Module | None = None) -> Attached:
            return Attached(self.host if host is None else host, reducer or self.reducer, adapter())

    image = next(b for b in default_backbones() if b.name == "image")
    with pytest.raises(Broken, match="the host's logits from blocks taken apart"):
        check_blocks_taken_apart(Overlooked(RandomDrop(keep=0.5), image))
    with pytest.raises(Unsupported, match="taken apart differs from its own forward"):
        verify_adapter(adapter(), image.build()[0])


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
