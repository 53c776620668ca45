"""Names of published Swin weights, and 2-D weights made 3-D."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tokred.backbones.convert import CheckpointError, to_official
from tokred.backbones.convert.swin import inflate, is_flat, swin_layout, swin_name
from tokred.backbones.videoswin import VideoSwin


@pytest.mark.parametrize(
    ("given", "official"),
    [
        ("features.0.1.attn.qkv.weight", "layers.0.blocks.1.attn.qkv.weight"),
        ("features.4.0.mlp.0.bias", "layers.2.blocks.0.mlp.fc1.bias"),
        ("features.4.0.mlp.3.weight", "layers.2.blocks.0.mlp.fc2.weight"),
        ("features.3.reduction.weight", "layers.1.downsample.reduction.weight"),
        ("cls_head.fc_cls.bias", "head.bias"),
        ("patch_embed.proj.weight", "patch_embed.proj.weight"),
        ("layers.1.downsample.norm.weight", "layers.1.downsample.norm.weight"),
    ],
)
def test_names(given: str, official: str) -> None:
    assert swin_name(given) == official


def test_layouts_are_told_apart() -> None:
    assert swin_layout(["norm.weight", "layers.0.blocks.0.attn.qkv.weight"]) == "videoswin"
    assert swin_layout(["features.0.0.attn.qkv.weight"]) == "torchvision-swin3d"
    assert swin_layout(["blocks.0.attn.qkv.weight"]) is None


def flat_weights(heads: tuple[int, ...] = (2, 4), window: int = 4) -> dict[str, Tensor]:
    """A 2-D Swin state dict with what such files hold besides weights."""
    model = VideoSwin(dim=8, depths=(2, 2), num_heads=heads, window=(1, window, window), patch_size=(1, 4, 4))
    state = {name: torch.randn_like(value) for name, value in model.state_dict().items() if "head" not in name}
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :, 0]
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(4, window**2, window**2)
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(window**2, window**2, dtype=torch.int64)
    return state


def test_a_still_clip_embeds_as_the_image_did() -> None:
    state = flat_weights()
    assert is_flat(state)
    wide = inflate(state, (3, 4, 4), tubelet=4)
    assert not is_flat(wide)
    image, kernel, bias = torch.randn(1, 3, 8, 8), state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    clip = image[:, :, None].repeat(1, 1, 4, 1, 1)
    found = F.conv3d(clip, wide["patch_embed.proj.weight"], bias, stride=(4, 4, 4))[:, :, 0]
    torch.testing.assert_close(found, F.conv2d(image, kernel, bias, stride=4))


def test_a_table_holds_for_every_offset_in_time() -> None:
    state = flat_weights()
    name = "layers.1.blocks.0.attn.relative_position_bias_table"
    wide = inflate(state, (3, 4, 4), tubelet=2)[name]
    assert wide.shape == (5 * 49, 4)
    assert all(torch.equal(part, state[name]) for part in wide.view(5, 49, 4))
    assert not any(key.endswith(("attn_mask", "relative_position_index")) for key in inflate(state, (3, 4, 4), 2))


def test_a_table_of_another_window_is_resized_per_head() -> None:
    state = flat_weights()
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    wide = inflate(state, (2, 3, 5), tubelet=2)[name].view(3, 5, 9, 2)
    for head in range(2):
        square = state[name][:, head].view(1, 1, 7, 7)
        wanted = F.interpolate(square, size=(5, 9), mode="bicubic", align_corners=False)[0, 0]
        torch.testing.assert_close(wide[1, :, :, head], wanted)


def test_what_cannot_be_inflated_is_refused() -> None:
    with pytest.raises(CheckpointError, match="has 4 heads, the model has 3 in stage 1"):
        inflate(flat_weights(), (3, 4, 4), 2, heads=(2, 3))
    state = flat_weights()
    state["layers.0.blocks.0.attn.relative_position_bias_table"] = torch.zeros(50, 2)
    with pytest.raises(CheckpointError, match="50 rows"):
        inflate(state, (3, 3, 3), 2)


def test_torchvisions_weights_come_out_under_official_names_without_constants() -> None:
    from torchvision.models.video.swin_transformer import SwinTransformer3d

    theirs = SwinTransformer3d([2, 4, 4], 8, [1, 2], [2, 4], [2, 3, 3], num_classes=5)
    ours = VideoSwin(dim=8, depths=(1, 2), num_heads=(2, 4), window=(2, 3, 3), num_classes=5)
    assert set(to_official(theirs)) == set(ours.state_dict()) == set(to_official(ours))
