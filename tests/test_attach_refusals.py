"""What attach refuses, and what it notes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

from tokred.attach import attach
from tokred.backbones import Unsupported
from tokred.methods import STA, EViT, FewerFrames, LowerResolution, ToMe
from tokred.reducer import TokenReducer
from tokred.schedule import ScheduleError
from tokred.testing import default_backbones

VIDEO, IMAGE, *_ = default_backbones()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: STA(r=24), r"r = 24 per frame at block 0 drops 24 of 24 tokens per group of 1 frame\(s\)"),
        (lambda: STA(r=2, at=(0, 3)), r"at = \(0, 3\): block 3 is not in 0..2"),
        (lambda: EViT(tokens=97, at=(0,)), r"tokens = 97 at block 0 is impossible with 96 tokens: allowed is 1..96"),
        (lambda: FewerFrames(5), r"tubelets = 5 is not in 1..4"),
        (lambda: LowerResolution(5), r"rows = 5 is not in 1..4"),
        (lambda: ToMe(r=(1, 2, 3, 4)), r"drop has 4 entries for 3 steps"),
    ],
)
def test_impossible_settings_are_refused_at_attach_with_the_numbers(
    make: Callable[[], TokenReducer], message: str
) -> None:
    host, _ = VIDEO.build()
    with pytest.raises(ScheduleError, match=message):
        attach(host, make())


def test_what_cannot_be_attached_is_refused_with_the_reason() -> None:
    host, _ = VIDEO.build()
    with pytest.raises(
        TypeError, match=r"must be a tokred.TokenReducer, got .* \(an instance is needed, not the class\)"
    ):
        attach(host, STA)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"must be a tokred\.TokenReducer, got 'sta'"):
        attach(host, "sta")  # type: ignore[arg-type]
    with pytest.raises(
        Unsupported, match=r"has a reducer attached: detach it first, or combine both with tokred\.compose"
    ):
        attach(attach(host, STA(r=1)), STA(r=1))
    with pytest.raises(Unsupported, match=r"torch\.nn\.modules\.linear\.Linear is not a model that tokred reads"):
        attach(nn.Linear(2, 2), STA(r=1))
    with pytest.raises(Unsupported, match=r"evit:keep=0.5,score=class needs a class token"):
        attach(host, EViT(0.5, score="class"))


def test_notes_say_what_was_corrected_and_what_ran() -> None:
    host, _ = VIDEO.build()
    assert attach(host, ToMe(r=60, at=(0,))).notes[0].startswith("block 0: r = 60 clamped to 48")
    assert attach(host, EViT(0.5, at=(1,))).notes == ("EViT-style (received attention), rest fused",)


def test_hooks_that_would_not_run_are_refused() -> None:
    host, _ = VIDEO.build()
    handle = host.blocks[2].attn.register_forward_hook(lambda *_: None)  # type: ignore[index,union-attr,operator]
    with pytest.raises(Unsupported, match="block 2's attn has hooks"):
        attach(host, ToMe(r=3))
    handle.remove()
    attach(host, ToMe(r=3))


def test_a_block_with_a_forward_of_its_own_is_refused() -> None:
    host, _ = VIDEO.build()
    block = host.blocks[1]  # type: ignore[index]
    block.forward = lambda x: x  # type: ignore[union-attr,method-assign]
    with pytest.raises(Unsupported, match="block 1 has a forward of its own"):
        attach(host, ToMe(r=3))
