from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from testing.zoo import Specimen, about

from tokred.methods import EViT, RandomMerge
from tokred.probe import Probe
from tokred.reducer import Capabilities, Site, TokenReducer, keep_patches
from tokred.reduction import Keep
from tokred.schedule import Schedule
from tokred.testing import Case, default_backbones
from tokred.testing.failures import Broken
from tokred.testing.tokens import check_order_and_prefix_kept, check_restore
from tokred.tokens import Tokens


@pytest.mark.parametrize(
    "wrong",
    about("check_mass_conserved", "check_order_and_prefix_kept", "check_restore"),
    ids=lambda wrong: wrong.reducer,
)
def test_a_step_that_mistreats_tokens_is_caught(caught: Callable[..., str], wrong: Specimen) -> None:
    assert wrong.says in caught(wrong.reducer, wrong.check, wrong.backbone)


def test_a_merge_in_order_passes_although_members_of_a_token_lie_apart() -> None:
    check_order_and_prefix_kept(Case(RandomMerge(keep=0.5), default_backbones()[0]))


def test_a_fused_token_that_stands_for_one_need_not_be_restored_exactly() -> None:
    check_restore(Case(EViT(tokens=95, at=(1,)), default_backbones()[0]))


class WholeFrames(TokenReducer):
    """Keeps whole frames of four, in the given order."""

    capabilities = Capabilities(needs=frozenset({"frames"}), keeps_frames=True)

    def __init__(self, frames: tuple[int, ...]) -> None:
        super().__init__(Schedule(at=(0,), keep=0.5))
        self.frames = frames

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep:
        size = tokens.patch_count // 4
        index = torch.cat([torch.arange(size) + frame * size for frame in self.frames])
        return keep_patches(tokens, index.expand(tokens.x.shape[0], -1), groups=len(self.frames))


def test_dropping_whole_frames_keeps_frames_if_the_others_stay_in_order() -> None:
    video = default_backbones()[0]
    check_order_and_prefix_kept(Case(WholeFrames((0, 1)), video))
    check_order_and_prefix_kept(Case(WholeFrames((1, 3)), video))
    with pytest.raises(Broken, match="temporal group"):
        check_order_and_prefix_kept(Case(WholeFrames((3, 1)), video))
