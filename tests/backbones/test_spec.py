from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tokred.backbones.spec import BackboneInfo, BackboneSpec, backbone_info, logits_of, set_info

CLIPS = torch.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)


def test_clips_are_arranged_as_the_model_takes_them() -> None:
    assert BackboneSpec("a", 4, (5, 6)).arrange(CLIPS) is CLIPS
    turned = BackboneSpec("a", 4, (5, 6), layout="BTCHW").arrange(CLIPS)
    assert turned.shape == (2, 4, 3, 5, 6)
    assert torch.equal(turned[:, 1, 2], CLIPS[:, 2, 1])


def test_an_image_model_takes_one_frame() -> None:
    spec = BackboneSpec("timm/a", 1, (5, 6), layout="BCHW")
    assert torch.equal(spec.arrange(CLIPS[:, :, :1]), CLIPS[:, :, 0])
    with pytest.raises(ValueError, match="timm/a takes one frame, the clips have 4"):
        spec.arrange(CLIPS)


def test_how_a_model_was_made_goes_along_with_it() -> None:
    model = nn.Linear(2, 2)
    assert backbone_info(model) is None
    before = set(model.state_dict())
    info = BackboneInfo(BackboneSpec("a", 4, (5, 6), builder={"dim": 3}), None, "random", ("note",))
    set_info(model, info)
    assert backbone_info(copy.deepcopy(model)) == info
    assert backbone_info(pickle.loads(pickle.dumps(model))) == info
    assert set(model.state_dict()) == before


def test_logits_come_out_of_tensors_and_of_output_objects() -> None:
    logits = torch.zeros(2, 3)
    assert logits_of(logits) is logits
    assert logits_of(SimpleNamespace(logits=logits)) is logits
    with pytest.raises(TypeError, match="the model returned list, which holds no logits"):
        logits_of([logits])
