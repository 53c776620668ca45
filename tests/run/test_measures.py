"""Every measure gives values per clip that do not depend on the batch: parts join, and clips pair up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tokred
from tokred.backbones.spec import backbone_info
from tokred.run.clips import ClipSettings, open_clips
from tokred.run.evaluate import collect
from tokred.run.measures import MEASURES


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_values_are_per_clip_whatever_the_batch(name) -> None:
    host = tokred.create_backbone("videomae_vit_nano").eval()
    spec = backbone_info(host).spec
    model = tokred.attach(host, tokred.build("sta:r=22"))
    found = [
        collect(model, open_clips(ClipSettings(clips=3), spec), spec, MEASURES[name], batch_size=size)
        for size in (1, 3)
    ]
    assert found[0].keys() == found[1].keys()
    assert found[0].keys() >= {"items", "labels.motion"}
    for key, values in found[0].items():
        assert values.shape[0] == 3
        np.testing.assert_allclose(values, found[1][key], atol=2e-4)


def test_predictions_are_among_them() -> None:
    assert "predict" in MEASURES
    assert torch.is_grad_enabled()
