from __future__ import annotations

from collections.abc import Callable

import pytest
from testing.zoo import Specimen, about

import tokred


@pytest.mark.parametrize(
    "wrong", about("check_decides_in_float32", "check_channel_order"), ids=lambda wrong: wrong.reducer
)
def test_decisions_on_what_does_not_matter_are_caught(caught: Callable[..., str], wrong: Specimen) -> None:
    assert wrong.says in caught(wrong.reducer, wrong.check, wrong.backbone)


def test_every_method_without_weights_that_mix_channels_declares_that_their_order_does_not_matter() -> None:
    learned_or_streaming = {"dynamicvit", "stts", "stvit", "stvit_r", "eventful"}
    methods = tokred.list_methods()
    blind = {name for name, cls in methods.items() if name == "none" or cls().capabilities.channel_blind}
    assert blind == methods.keys() - learned_or_streaming
