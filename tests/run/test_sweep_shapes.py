"""Sizes of a backbone without its weights."""

from __future__ import annotations

import pytest

from tokred.backbones.zoo import UnknownBackbone
from tokred.run.sweep_hosts import host_of
from tokred.run.sweep_shapes import shapes_of


def test_the_sizes_are_those_of_the_model_itself() -> None:
    host, shapes = host_of("videomae_vit_nano", None, None, "float32"), shapes_of("videomae_vit_nano", None)
    assert shapes.unreduced.macs == host.unreduced.macs
    assert shapes.params == host.params
    assert (shapes.spec.frames, shapes.spec.size) == (host.info.spec.frames, host.info.spec.size)
    assert shapes.geometry.tokens == host.geometry.tokens


def test_what_is_no_backbone_has_no_sizes() -> None:
    with pytest.raises(UnknownBackbone, match="no backbone is named"):
        shapes_of("videomae_vit_nan", None)
