from __future__ import annotations

from collections.abc import Callable

import pytest

from tokred.methods import EViT, RandomMerge
from tokred.testing import Case, default_backbones
from tokred.testing.tokens import check_order_and_prefix_kept, check_restore


@pytest.mark.parametrize(
    ("name", "check", "says", "backbone"),
    [
        ("LosesMass", "check_mass_conserved", "48 in tokens and 0 dropped", "video"),
        ("DropsTheClassToken", "check_order_and_prefix_kept", "2 prefix tokens untouched in front", "image"),
        ("KeepsTwice", "check_order_and_prefix_kept", "kept twice", "video"),
        ("OutOfOrder", "check_order_and_prefix_kept", "the original order", "video"),
        ("UnevenFrames", "check_order_and_prefix_kept", "temporal group", "video"),
        ("RestoresBackwards", "check_restore", "back in their places", "video"),
    ],
)
def test_a_step_that_mistreats_tokens_is_caught(
    caught: Callable[..., str], name: str, check: str, says: str, backbone: str
) -> None:
    assert says in caught(name, check, backbone)


def test_a_merge_in_order_passes_although_members_of_a_token_lie_apart() -> None:
    check_order_and_prefix_kept(Case(RandomMerge(keep=0.5), default_backbones()[0]))


def test_a_fused_token_that_stands_for_one_need_not_be_restored_exactly() -> None:
    check_restore(Case(EViT(tokens=95, at=(1,)), default_backbones()[0]))
