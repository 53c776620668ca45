"""Predictions cover every view of every usable item, in the source's order, whatever the batch size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tokred
from tokred.backbones.spec import backbone_info
from tokred.backbones.zoo import create_backbone
from tokred.data.synthetic import SyntheticActions
from tokred.run.evaluate import collect, predict


@pytest.fixture(scope="module")
def attached():
    return tokred.attach(create_backbone("videomae_vit_nano", pretrained=False), tokred.build("sta:r=12"))


def test_the_batch_size_changes_nothing_but_rounding(attached) -> None:
    spec = backbone_info(attached.host).spec
    source = SyntheticActions(clips=5, seed=3, split="test")
    seen: list[int] = []
    one = predict(attached, source, spec, batch_size=1, advance=seen.append)
    three = predict(attached, source, spec, batch_size=3)
    assert sum(seen) == 5
    assert one.items.tolist() == three.items.tolist() == list(range(5))
    np.testing.assert_allclose(one.logits, three.logits, atol=1e-5)
    assert set(one.labels) == {"appearance", "motion"}
    assert one.logits.shape == (5, 18)
    assert one.features.shape == (5, 96)


def test_a_source_without_clips_is_an_error(attached) -> None:
    class Empty(SyntheticActions):
        def batches(self, batch_size: int):
            return iter(())

    with pytest.raises(ValueError, match="no clip"):
        predict(attached, Empty(clips=1), backbone_info(attached.host).spec, batch_size=2)


@pytest.mark.parametrize("spec", ["sta:r=12", "eventful"])
def test_the_number_of_threads_changes_no_bit(spec) -> None:
    model = tokred.attach(create_backbone("videomae_vit_nano", pretrained=False), tokred.build(spec))
    source = SyntheticActions(clips=7, seed=1)
    found = {}
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            found[threads] = predict(model, source, backbone_info(model.host).spec, batch_size=2)
        finally:
            torch.set_num_threads(1)
    for name, values in found[1].arrays.items():
        np.testing.assert_array_equal(found[3].arrays[name], values)


def test_an_item_that_fails_moves_no_other_to_another_batch(attached) -> None:
    class Broken(SyntheticActions):
        def batches(self, batch_size: int):
            for batch in super().batches(1):
                if batch.items != [1]:
                    yield batch

    def sizes(model, clips):
        return {"size": torch.full((len(clips),), len(clips))}

    spec = backbone_info(attached.host).spec
    found = collect(attached, Broken(clips=5), spec, sizes, batch_size=2)
    assert found["items"].tolist() == [0, 2, 3, 4]
    assert found["size"].tolist() == [1, 2, 2, 1]
