"""torchvision's SwinTransformer3d: attached, it reduces as the project's own VideoSwin with the same weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tokred
from tokred.attach import attach, detach
from tokred.backbones import adapter_for
from tokred.backbones.adapter import Unsupported
from tokred.backbones.convert import to_official
from tokred.backbones.torchvision_swin import TorchvisionSwinAdapter
from tokred.backbones.videoswin import VideoSwin
from tokred.backbones.videoswin_adapter import VideoSwinAdapter
from tokred.dry import dry_run
from tokred.measure.flops import count
from tokred.methods import STA
from tokred.tokens import Grid

swin = pytest.importorskip("torchvision.models.video.swin_transformer")
CLIPS = torch.randn(2, 3, 6, 28, 40, generator=torch.Generator().manual_seed(0))


def theirs(**changes: Any) -> nn.Module:
    torch.manual_seed(1)
    settings = {"patch_size": [2, 4, 4], "embed_dim": 16, "depths": [1, 2, 1], "num_heads": [2, 2, 4]}
    model = swin.SwinTransformer3d(**{**settings, "window_size": [2, 3, 3], "num_classes": 7, **changes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def ours(model: nn.Module) -> VideoSwin:
    own = VideoSwin(
        img_size=(28, 40),
        frames=6,
        patch_size=(2, 4, 4),
        dim=16,
        depths=(1, 2, 1),
        num_heads=(2, 2, 4),
        window=(2, 3, 3),
        num_classes=7,
    )
    own.load_state_dict(to_official(model))
    return own.eval()


@pytest.mark.parametrize(
    "spec", ["none", "sta:r=5", "random_drop:keep=0.5", "tome:r=6", "evit:keep=0.6", "vid_tldr:r=4"]
)
@pytest.mark.parametrize("skip", [True, False])
@torch.no_grad()
def test_it_reduces_as_our_own_model(spec: str, skip: bool) -> None:
    model = theirs()
    runs = [
        attach(host, tokred.build(spec), skip_replicas=skip).run(CLIPS, record=True) for host in (model, ours(model))
    ]
    for (_, one), (_, other) in zip(runs[0].steps, runs[1].steps, strict=True):
        assert torch.equal(one.positions(), other.positions())
    torch.testing.assert_close(runs[0].logits, runs[1].logits, rtol=1e-5, atol=1e-5)
    if spec == "none":
        torch.testing.assert_close(runs[0].logits, model(CLIPS), rtol=1e-5, atol=1e-5)
    else:
        assert len(runs[0].steps) > 0
        assert (runs[0].logits - model(CLIPS)).abs().max() > 1e-3


@torch.no_grad()
def test_blocks_alone_are_torchvisions() -> None:
    model = theirs()
    adapter = TorchvisionSwinAdapter()
    tokens = adapter.embed(model, CLIPS, None)
    for i, block in enumerate(adapter.blocks(model)):
        wanted = adapter.own(block, tokens)
        torch.testing.assert_close(adapter.run(block, tokens), wanted, rtol=1e-5, atol=1e-5)
        tokens = tokens.with_x(wanted)
        crossed = adapter.cross(model, i, tokens)
        tokens = tokens if crossed is None else crossed.tokens
    assert tokens.grid == Grid(3, 2, 3)
    torch.testing.assert_close(
        adapter.classify(model, adapter.features(model, tokens, "mean"), tokens, "mean"), model(CLIPS)
    )


def test_its_sizes_and_costs_are_those_of_our_own_model() -> None:
    model = theirs()
    found, own = TorchvisionSwinAdapter().geometry(model), VideoSwinAdapter().geometry(ours(model))
    assert found.grid == Grid(16, 56, 56), "torchvision's model does not know the size of its clips"
    assert found.stages == own.stages
    for field in ("depth", "dim", "heads", "head_dim", "mlp_hidden", "prefix", "classes", "kernel", "in_chans"):
        assert getattr(found, field) == getattr(own, field), field
    plans = [dry_run(STA(r=5), geometry, own.grid) for geometry in (found, own)]
    assert plans[0] == plans[1]
    assert count(found, plans[0]) == count(own, plans[1])


def test_the_named_model_is_read() -> None:
    from torchvision.models.video import swin3d_t

    with torch.device("meta"):
        model = swin3d_t()
    geometry = adapter_for(model).geometry(model)
    assert [tuple(stage) for stage in geometry.stages] == [
        (2, 96, 3, (8, 7, 7)),
        (2, 192, 6, (8, 7, 7)),
        (6, 384, 12, (8, 7, 7)),
        (2, 768, 24, (8, 7, 7)),
    ]
    assert geometry.grid == Grid(16, 56, 56)
    assert count(geometry, dry_run(STA(r=0), geometry)).gmac == pytest.approx(88.06219776, abs=1e-8)


def test_gradients_reach_its_weights_and_detaching_gives_it_back() -> None:
    model = theirs()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fast = attach(model, STA(r=5))
    pixels = CLIPS.clone().requires_grad_()
    fast(pixels).square().sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.any()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    assert detach(fast) is model
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(fast)(CLIPS), fast(CLIPS))


class OwnForward(swin.SwinTransformer3d):  # type: ignore[misc,name-defined]
    def forward(self, x: Tensor) -> Tensor:
        return x


def test_what_is_not_understood_is_refused_with_the_part() -> None:
    adapter = TorchvisionSwinAdapter()
    with pytest.raises(Unsupported, match=r"OwnForward.*forward"):
        adapter.check(OwnForward([2, 2, 2], 16, [1, 1], [2, 2], [2, 3, 3]))
    with pytest.raises(Unsupported, match=r"block 0: attention_dropout = 0\.1, dropout = 0\.0 around window attention"):
        attach(theirs(attention_dropout=0.1), STA(r=2))
    with pytest.raises(Unsupported, match=r"block 0: attention_dropout = 0\.0, dropout = 0\.2 around"):
        attach(theirs(dropout=0.2), STA(r=2))
    model: Any = theirs()
    model.features[2][1].attn.shift_size = [1, 0, 1]
    with pytest.raises(
        Unsupported, match=r"block 2: shift_size = \[1, 0, 1\]; allowed are \[0, 0, 0\] and \[1, 1, 1\]"
    ):
        attach(model, STA(r=2))
    for place in ("features", "features.2", "features.2.1", "features.2.1.attn", "avgpool"):
        model = theirs()
        model.get_submodule(place).register_forward_hook(lambda *_: None)
        with pytest.raises(Unsupported, match=r"hooks"):
            attach(model, STA(r=2))
    model = theirs()
    model.features[1] = nn.Identity()
    with pytest.raises(Unsupported, match=r"features\.1 is a .*Identity; understood: PatchMerging"):
        attach(model, STA(r=2))


def test_a_hook_on_a_part_that_is_still_called_keeps_working() -> None:
    model: Any = theirs()
    seen: list[int] = []
    model.features[1].register_forward_hook(lambda *_: seen.append(1))
    model.norm.register_forward_hook(lambda *_: seen.append(2))
    with torch.no_grad():
        attach(model, STA(r=2))(CLIPS)
    assert seen[-2:] == [1, 2]
