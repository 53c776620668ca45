"""Which token carries which patch at the head."""

from __future__ import annotations

import pytest
import torch

import tokred
from tokred.measure.sources import carried, final_source


def clips() -> torch.Tensor:
    return torch.randn(2, 3, 16, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return tokred.create_backbone("videomae_vit_nano")


def test_as_many_patches_are_carried_as_the_plan_says(model) -> None:
    fast = tokred.attach(model, tokred.build("random_drop:keep=0.5"))
    source = carried(fast, clips())["source"]
    assert source.shape == (2, 512)
    assert source.dtype == torch.int32
    left = fast.plan.counts[-1] if hasattr(fast.plan, "counts") else (source >= 0).sum(1)[0].item()
    assert ((source >= 0).sum(1) == left).all()


def test_merging_carries_every_patch(model) -> None:
    source = carried(tokred.attach(model, tokred.build("tome:r=20")), clips())["source"]
    assert (source >= 0).all()
    assert source.max() == 512 - 9 * 20 - 1


def test_windows_are_traced_to_the_first_grid() -> None:
    fast = tokred.attach(tokred.create_backbone("videoswin_nano"), tokred.build("random_drop:keep=0.6"))
    source = final_source(fast, clips())
    assert source is not None
    assert source.shape[1] % 8 == 0


def test_tokens_that_layers_make_carry_no_particular_patch(model) -> None:
    fast = tokred.attach(model, tokred.build("stvit:side=4"))
    if final_source(fast, clips()) is None:
        with pytest.raises(ValueError, match="nothing can be traced"):
            carried(fast, clips())
