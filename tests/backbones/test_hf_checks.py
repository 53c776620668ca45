from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tokred import TokenReducer, attach
from tokred.backbones.adapter import Unsupported
from tokred.backbones.hf_checks import check_hf_videomae, kernel_of

transformers = pytest.importorskip("transformers", reason="transformers is an optional extra")
from transformers.models.videomae import modeling_videomae as hf  # noqa: E402 (only where transformers is)

Part = Callable[[Any], Any]


def build(cls: type = transformers.VideoMAEForVideoClassification, **changes: Any) -> Any:
    config = transformers.VideoMAEConfig(
        image_size=16,
        patch_size=8,
        num_frames=2,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        **changes,
    )
    return cls(config).eval()


def refused(model: nn.Module, pattern: str) -> None:
    with pytest.raises(Unsupported, match=pattern) as caught:
        check_hf_videomae(model)
    assert "\n" not in str(caught.value)


PARTS: dict[str, Part] = {
    "VideoMAEForVideoClassification": lambda m: m,
    "VideoMAEForVideoClassification.videomae": lambda m: m.videomae,
    "encoder": lambda m: m.videomae.encoder,
    "layer 1": lambda m: m.videomae.encoder.layer[1],
    "layer 1.attention": lambda m: m.videomae.encoder.layer[1].attention,
    "layer 1.attention.attention": lambda m: m.videomae.encoder.layer[1].attention.attention,
    "layer 1.output": lambda m: m.videomae.encoder.layer[1].output,
}


def test_a_plain_model_passes() -> None:
    check_hf_videomae(build())
    check_hf_videomae(build(use_mean_pooling=False))


@pytest.mark.parametrize("where", PARTS)
def test_hooks_where_they_would_not_run_are_refused(where: str) -> None:
    model = build()
    PARTS[where](model).register_forward_hook(lambda *_: None)
    refused(model, rf"^{where} has hooks")


@pytest.mark.parametrize("where", PARTS)
def test_a_forward_set_on_an_instance_is_refused(where: str) -> None:
    model = build()
    PARTS[where](model).forward = lambda *_: None
    refused(model, rf"^{where} has a forward of its own")


@pytest.mark.parametrize("where", [*PARTS, "embeddings"])
def test_unknown_children_are_refused(where: str) -> None:
    model = build()
    part = model.videomae.embeddings if where == "embeddings" else PARTS[where](model)
    part.add_module("rope", nn.Identity())
    refused(model, rf"^{where} \(.*\) has parts that are not understood: rope")


def test_unknown_parameters_are_refused() -> None:
    model = build()
    attn = model.videomae.encoder.layer[0].attention.attention
    attn.register_parameter("relative_bias", nn.Parameter(torch.zeros(1)))
    refused(model, "has parts that are not understood: relative_bias")


class OwnModel(transformers.VideoMAEForVideoClassification):  # type: ignore[misc]
    def forward(self, pixel_values: Any, **kwargs: Any) -> Any:
        return super().forward(pixel_values, **kwargs)


class OwnName(transformers.VideoMAEForVideoClassification):  # type: ignore[misc]
    """Changes nothing that a forward runs."""


class Odd(nn.Identity):
    pass


def test_a_subclass_that_changes_the_forward_is_refused(watch: TokenReducer) -> None:
    refused(build(OwnModel), r"overrides VideoMAEForVideoClassification\.forward; attach would not run it")
    with pytest.raises(Unsupported, match="overrides"):
        attach(build(OwnModel), watch)
    check_hf_videomae(build(OwnName))


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (lambda m: m, "videomae"),
        (lambda m: m.videomae, "embeddings"),
        (lambda m: m.videomae, "encoder"),
        (lambda m: m.videomae.encoder.layer, "0"),
        (lambda m: m.videomae.encoder.layer[0], "layernorm_before"),
        (lambda m: m.videomae.encoder.layer[0], "layernorm_after"),
        (lambda m: m.videomae.encoder.layer[0], "attention"),
        (lambda m: m.videomae.encoder.layer[0].attention, "attention"),
        (lambda m: m.videomae.encoder.layer[0], "intermediate"),
        (lambda m: m.videomae.encoder.layer[0], "output"),
    ],
)
def test_parts_of_an_unknown_kind_are_refused(owner: Part, name: str) -> None:
    model = build()
    owner(model)._modules[name] = Odd()
    refused(model, rf"{name} is a .*Odd; understood: ")


def test_subclasses_of_parts_are_refused() -> None:
    class OwnAttention(hf.VideoMAESelfAttention):  # type: ignore[misc]
        pass

    model = build()
    model.videomae.encoder.layer[1].attention.attention = OwnAttention(model.config)
    refused(model, r"layer 1\.attention\.attention is a .*OwnAttention; understood: ")


def test_other_kernels_are_refused() -> None:
    model = build()
    attn = model.videomae.encoder.layer[0].attention.attention
    if not hasattr(attn, "config"):
        pytest.skip("in this transformers the kernel is the class")
    model.config._attn_implementation = "flex_attention"
    refused(model, "runs the kernel 'flex_attention'; understood: sdpa, eager")
    assert kernel_of(attn) == "flex_attention"


@pytest.mark.parametrize("name", ["output_attentions", "output_hidden_states"])
def test_outputs_per_layer_are_refused_in_the_config_too(name: str) -> None:
    model = build()
    setattr(model.config, name, True) if name == "output_hidden_states" else model.config.__dict__.update({name: True})
    if not getattr(model.config, name):
        model.config._output_attentions = True
    refused(model, rf"config\.{name} is on")


def test_models_without_layers_and_with_uneven_layers_are_refused() -> None:
    model = build()
    model.videomae.encoder.layer[1].attention.attention.num_attention_heads = 1
    refused(model, r"the layers differ in \(heads, head width\)")
    model.videomae.encoder.layer = nn.ModuleList()
    refused(model, "the encoder has no layers")
