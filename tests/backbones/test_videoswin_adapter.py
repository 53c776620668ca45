"""Reading the project's own VideoSwin."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from tokred.attach import attach
from tokred.backbones import adapter_for
from tokred.backbones.adapter import Unsupported
from tokred.backbones.geometry import Stage
from tokred.backbones.swin_layers import SwinBlock
from tokred.backbones.videoswin import VideoSwin
from tokred.backbones.videoswin_adapter import VideoSwinAdapter
from tokred.methods import STA, RandomDrop
from tokred.testing import default_backbones
from tokred.tokens import Grid

CLIPS = torch.randn(2, 3, 4, 24, 20, generator=torch.Generator().manual_seed(0))


def small(**changes: Any) -> VideoSwin:
    settings: dict[str, Any] = {"img_size": (24, 20), "frames": 4, "dim": 12, "depths": (1, 2), "num_heads": (2, 3)}
    return VideoSwin(**{**settings, "window": (2, 3, 3), "num_classes": 5, **changes}).eval()


def test_sizes_are_read_from_the_modules() -> None:
    geometry = VideoSwinAdapter().geometry(small(mlp_ratio=3, in_chans=1, patch_size=(2, 4, 2)))
    assert geometry.depth == 3
    assert (geometry.dim, geometry.heads, geometry.head_dim, geometry.mlp_hidden) == (12, 2, 6, 36)
    assert geometry.grid == Grid(2, 6, 10)
    assert (geometry.prefix, geometry.class_token, geometry.classes) == (0, False, 5)
    assert (geometry.kernel, geometry.in_chans) == ((2, 4, 2), 1)
    assert geometry.stages == (Stage(1, 12, 2, (2, 3, 3)), Stage(2, 24, 3, (2, 3, 3)))
    assert geometry.final_norm_tokens
    assert geometry.embed_norm
    assert not VideoSwinAdapter().geometry(small(patch_norm=False)).embed_norm


def test_the_adapter_is_found_and_tells_shifted_blocks_apart() -> None:
    model = small()
    adapter = adapter_for(model)
    assert isinstance(adapter, VideoSwinAdapter)
    blocks = adapter.blocks(model)
    assert [adapter.variant(block) for block in blocks] == ["plain", "plain", "shifted"]
    assert cast(VideoSwinAdapter, adapter.with_form(False)).skip_replicas is False
    assert cast(VideoSwinAdapter, adapter.with_form(True)).skip_replicas is True


def test_another_scale_of_the_scores_is_honoured() -> None:
    model = small()
    with torch.no_grad():
        for block in VideoSwinAdapter().blocks(model):
            nn.init.normal_(cast(Any, block).attn.qkv.weight)
        plain = attach(model, STA(r=2))(CLIPS)
        for block in VideoSwinAdapter().blocks(model):
            cast(Any, block).attn.scale = 1.7
        found = attach(model, STA(r=2))(CLIPS)
        assert (found - plain).abs().max() > 1e-4
        torch.testing.assert_close(attach(model, STA(r=0))(CLIPS), model(CLIPS))


@pytest.mark.parametrize("at", [(0,), (1,), (2,)], ids=str)
def test_without_a_bias_padding_is_zero(at: tuple[int, ...]) -> None:
    model = small(qkv_bias=False, window=(3, 4, 4))
    with torch.no_grad():
        logits = [attach(model, STA(r=2, at=at), skip_replicas=skip)(CLIPS) for skip in (True, False)]
    torch.testing.assert_close(*logits)


class OwnForward(VideoSwin):
    def forward(self, clips: Tensor) -> Tensor:
        return 2 * super().forward(clips)


class OwnPool(VideoSwin):
    def pool(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(x)).amax(dim=1)


def test_changed_models_are_refused_with_the_part() -> None:
    host, _ = default_backbones()[-1].build()
    with pytest.raises(Unsupported, match=r"OwnForward.*forward"):
        VideoSwinAdapter().check(OwnForward(dim=12, depths=(1,), num_heads=(2,)))
    with pytest.raises(Unsupported, match=r"OwnPool.*pool"):
        VideoSwinAdapter().check(OwnPool(dim=12, depths=(1,), num_heads=(2,)))
    block: Any = VideoSwinAdapter().blocks(host)[2]
    own = block.attn
    block.attn = nn.Linear(2, 2)
    with pytest.raises(Unsupported, match=r"block 2's attn"):
        attach(host, STA(r=2))
    block.attn = own
    handle = own.register_forward_hook(lambda *_: None)
    with pytest.raises(Unsupported, match=r"block 2's attn.*hook"):
        attach(host, STA(r=2))
    handle.remove()
    block.forward = lambda x, grid: x
    with pytest.raises(Unsupported, match=r"block 2.*forward"):
        attach(host, STA(r=2))
    del block.forward
    attach(host, STA(r=2))


def test_stochastic_depth_acts_in_training_only() -> None:
    model = small(drop_path=0.9)
    fast = attach(model, STA(r=2))
    with torch.no_grad():
        assert torch.equal(fast(CLIPS), fast(CLIPS))
        fast.train()
        model.train()
        assert not torch.equal(fast(CLIPS), fast(CLIPS))


def test_checkpointing_is_read_from_the_model() -> None:
    model = small()
    assert not VideoSwinAdapter().checkpoints(model)
    model.set_grad_checkpointing()
    assert VideoSwinAdapter().checkpoints(model)


def test_whole_blocks_run_their_own_forward_and_reduced_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[SwinBlock] = []
    own = SwinBlock.forward

    def noted(self: SwinBlock, *args: Any) -> Tensor:
        ran.append(self)
        return own(self, *args)

    monkeypatch.setattr(SwinBlock, "forward", noted)
    model = small()
    blocks = list(VideoSwinAdapter().blocks(model))
    for reducer, expected in (
        (RandomDrop(1.0), blocks),
        (RandomDrop(0.5), blocks[:1]),
        (STA(r=2, at=(1,)), blocks[:1]),
    ):
        fast = attach(model, reducer)
        ran.clear()
        with torch.no_grad():
            fast(CLIPS)
        assert ran == expected, reducer.spec
