"""The video Swin against torchvision's, which is bit-identical to the official code, and what else it promises."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokred.backbones.convert import to_official
from tokred.backbones.swin_layers import WindowAttention
from tokred.backbones.videoswin import VideoSwin
from tokred.tokens import Grid

TINY: dict[str, Any] = {
    "img_size": 16,
    "frames": 8,
    "dim": 8,
    "depths": (2, 2),
    "num_heads": (2, 4),
    "window": (2, 2, 2),
    "num_classes": 5,
}


def scatter(model: nn.Module) -> None:
    """Weights away from their initial values, tables and norms too, with activations of order one."""
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.5 if parameter.ndim < 2 or parameter.shape[1] < 16 else parameter.shape[1] ** -0.5
            parameter.copy_(spread * torch.randn_like(parameter) + (parameter.ndim == 1))


def pair(patch: tuple[int, ...], window: tuple[int, ...], depths: tuple[int, ...]) -> tuple[nn.Module, VideoSwin]:
    """torchvision's model and ours with the same weights."""
    from torchvision.models.video.swin_transformer import SwinTransformer3d

    heads = [2 * 2**i for i in range(len(depths))]
    theirs = SwinTransformer3d(list(patch), 16, list(depths), heads, list(window), num_classes=7).eval()
    scatter(theirs)
    ours = VideoSwin(patch_size=patch, window=window, dim=16, depths=depths, num_heads=heads, num_classes=7).eval()
    ours.load_state_dict(to_official(theirs))
    return theirs, ours


@pytest.mark.parametrize(
    ("patch", "window", "depths", "clips", "why"),
    [
        ((2, 4, 4), (2, 4, 4), (2, 2), (1, 3, 8, 64, 64), "everything divides, shifted on every axis"),
        ((2, 4, 4), (2, 3, 3), (2, 2), (2, 3, 7, 42, 38), "odd frames, padded patches, windows and merging"),
        ((2, 4, 4), (8, 7, 7), (2, 2, 1), (1, 3, 32, 56, 56), "the published window, clipped in the last stage"),
        ((2, 4, 4), (16, 7, 7), (2, 2), (1, 3, 33, 28, 64), "17 tubelets in a window of 16, clipped rows"),
        ((2, 4, 4), (16, 7, 7), (1, 2), (1, 3, 9, 33, 57), "time clipped"),
        ((1, 2, 3), (3, 2, 5), (2, 1, 2), (3, 3, 4, 20, 20), "other patches and windows, batch of three"),
        ((2, 4, 4), (8, 7, 7), (2, 2), (2, 3, 1, 9, 9), "one frame, clipped on every axis"),
    ],
)
def test_logits_are_torchvisions(
    patch: tuple[int, ...], window: tuple[int, ...], depths: tuple[int, ...], clips: tuple[int, ...], why: str
) -> None:
    theirs, ours = pair(patch, window, depths)
    x = torch.randn(clips)
    with torch.no_grad():
        wanted, found = theirs(x), ours(x)
    assert wanted.std() > 0.1, "logits that hardly vary show nothing"
    assert (wanted - found).abs().max() < 1e-5 * max(1.0, float(wanted.abs().max())), why


def test_gradients_are_torchvisions() -> None:
    theirs, ours = pair((2, 4, 4), (2, 3, 3), (2, 1))
    x = torch.randn(2, 3, 5, 30, 26)
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    wanted = to_official({name: p.grad for name, p in theirs.named_parameters() if p.grad is not None})
    found = dict(ours.named_parameters())
    assert set(wanted) == set(found)
    for name, gradient in wanted.items():
        own = found[name].grad
        assert own is not None
        torch.testing.assert_close(own, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


def test_samples_do_not_see_each_other() -> None:
    model = VideoSwin(**TINY).eval()
    scatter(model)
    x = torch.randn(3, 3, 7, 18, 14)
    with torch.no_grad():
        alone = torch.cat([model(x[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(model(x), alone)


def test_parts_are_the_whole() -> None:
    model = VideoSwin(**TINY).eval()
    scatter(model)
    x = torch.randn(2, 3, 8, 16, 16)
    with torch.no_grad():
        tokens, grid = model.embed(x)
        assert (tuple(tokens.shape), grid) == ((2, 64, 8), Grid(4, 4, 4))
        assert grid == model.grid
        shapes = [(tuple(t.shape), g) for t, g in model.stages(x)]
        assert shapes == [((2, 64, 8), Grid(4, 4, 4)), ((2, 16, 16), Grid(4, 2, 2))]
        last, _ = model.maps(x)
        features = model.forward_features(x)
        assert torch.equal(features, model.pool(last))
        assert torch.equal(model.head(features), model(x))
    bare = VideoSwin(**{**TINY, "num_classes": 0}).eval()
    assert bare(x).shape == (2, 16)


def test_names_are_the_official_ones() -> None:
    names = set(VideoSwin(**TINY).state_dict())
    for name in (
        "patch_embed.proj.weight",
        "patch_embed.norm.bias",
        "layers.0.blocks.1.norm1.weight",
        "layers.0.blocks.1.attn.qkv.bias",
        "layers.0.blocks.1.attn.proj.weight",
        "layers.0.blocks.1.attn.relative_position_bias_table",
        "layers.0.blocks.1.mlp.fc1.weight",
        "layers.0.blocks.1.mlp.fc2.bias",
        "layers.0.downsample.norm.weight",
        "layers.0.downsample.reduction.weight",
        "norm.weight",
        "head.bias",
    ):
        assert name in names
    assert not any("relative_position_index" in name or name.startswith("layers.1.downsample") for name in names)


def test_every_second_block_shifts_and_depth_drops_linearly() -> None:
    model = VideoSwin(**{**TINY, "depths": (2, 3), "drop_path": 0.4})
    blocks = [block for stage in model.layers for block in stage.blocks]  # type: ignore[union-attr]
    assert [block.shifted for block in blocks] == [False, True, False, True, False]
    assert [block.drop_path.rate for block in blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    x = torch.randn(2, 3, 8, 16, 16)
    model.train()
    assert not torch.equal(model(x), model(x))
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(x), model(x))


def test_checkpointed_gradients_are_the_same() -> None:
    model = VideoSwin(**TINY)
    scatter(model)
    x = torch.randn(1, 3, 8, 16, 16)

    def gradients() -> list[Tensor]:
        model.zero_grad()
        model(x).sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    plain = gradients()
    model.set_grad_checkpointing()
    torch.testing.assert_close(gradients(), plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_run(dtype: torch.dtype) -> None:
    model = VideoSwin(**TINY).eval().to(dtype)
    with torch.no_grad():
        out = model(torch.randn(1, 3, 7, 18, 18).to(dtype))
    assert out.dtype == dtype
    assert out.isfinite().all()


def test_it_can_be_copied_pickled_and_compiled() -> None:
    model = VideoSwin(**TINY).eval()
    scatter(model)
    x = torch.randn(2, 3, 7, 18, 14)
    with torch.no_grad():
        wanted = model(x)
        assert torch.equal(copy.deepcopy(model)(x), wanted)
        assert torch.equal(pickle.loads(pickle.dumps(model))(x), wanted)
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), wanted)


def test_it_counts_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = VideoSwin().eval()
        out = model(torch.empty(1, 3, 32, 224, 224))
    assert out.shape == (1, 400)
    assert sum(p.numel() for p in model.parameters()) == 28_158_070


def test_a_bias_free_model_pads_with_zeros() -> None:
    model = VideoSwin(**{**TINY, "qkv_bias": False, "patch_norm": False}).eval()
    scatter(model)
    attn = model.layers[0].blocks[0].attn  # type: ignore[union-attr, index]
    assert isinstance(attn, WindowAttention)
    twin = copy.deepcopy(attn)
    twin.qkv.bias = nn.Parameter(torch.zeros(24))
    x = torch.randn(1, 27, 8)
    with torch.no_grad():
        torch.testing.assert_close(attn(x, Grid(3, 3, 3), True), twin(x, Grid(3, 3, 3), True))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"depths": (2, 2, 2)}, "one positive number per stage"),
        ({"depths": (0, 2)}, "one positive number per stage"),
        ({"num_heads": (3, 4)}, "num_heads = 3 does not divide the width 8 of stage 0"),
        ({"window": (2, 2)}, "window"),
        ({"patch_size": (0, 4, 4)}, "patch_size"),
    ],
)
def test_wrong_sizes_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        VideoSwin(**{**TINY, **changed})


@pytest.mark.parametrize("shape", [(1, 3, 8, 16), (1, 4, 8, 16, 16), (1, 3, 0, 16, 16)])
def test_wrong_clips_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="clips must be"):
        VideoSwin(**TINY)(torch.randn(shape))
