"""Whole hosts with windows: strength zero, stages, tracing, smaller inputs, gradients, and what is refused."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import tokred
from tokred.advance import advance
from tokred.attach import attach
from tokred.backbones.adapter import Unsupported
from tokred.backbones.verify import verify_adapter
from tokred.backbones.videoswin import VideoSwin
from tokred.backbones.videoswin_adapter import VideoSwinAdapter
from tokred.compose import compose
from tokred.cover import ancestors
from tokred.gather import take
from tokred.methods import STA, ToMe, TopK
from tokred.probe import Probe
from tokred.reducer import Capabilities, Site, TokenReducer, keep_patches
from tokred.reduction import Keep, Mask, Mix, Reduction
from tokred.schedule import Schedule, ScheduleError
from tokred.testing import default_backbones
from tokred.tokens import Grid, Tokens

WINDOWS = default_backbones()[-1]


class Half(TokenReducer):
    """Keeps the first half of the patch tokens after some blocks."""

    def __init__(self, at: tuple[int, ...], site: str = "after_block") -> None:
        super().__init__(Schedule(at=at, keep=0.5))
        self.site = site  # type: ignore[misc]

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        index = torch.arange(site.left(tokens.patch_count)).expand(tokens.x.shape[0], -1)
        return keep_patches(tokens, index)


@pytest.mark.parametrize("spec", ["none", "sta:r=0", "random_drop", "tome", "evit", "vid_tldr", "grid", "topk"])
@pytest.mark.parametrize("skip", [True, False])
@torch.no_grad()
def test_strength_zero_is_the_host_bit_for_bit(spec: str, skip: bool) -> None:
    host, clips = WINDOWS.build()
    assert torch.equal(attach(host, tokred.build(spec), skip_replicas=skip)(clips), host(clips))


@pytest.mark.parametrize("spec", ["sta:r=5", "random_drop:keep=0.6", "tome:r=6", "evit:keep=0.6", "grid:keep=0.6"])
@torch.no_grad()
def test_both_forms_take_the_same_decisions_and_give_the_same_logits(spec: str) -> None:
    host, clips = WINDOWS.build()
    kept, logits = [], []
    for skip in (True, False):
        run = attach(host, tokred.build(spec), skip_replicas=skip).run(clips, record=True)
        kept.append([reduction.positions() for _, reduction in run.steps])
        logits.append(run.logits)
    assert all(torch.equal(a, b) for a, b in zip(*kept, strict=True))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-5, atol=1e-5)
    assert (logits[0] - host(clips)).abs().max() > 1e-3


@torch.no_grad()
def test_patch_merging_runs_on_the_filled_grid() -> None:
    host, clips = WINDOWS.build()
    adapter = VideoSwinAdapter()
    tokens = adapter.embed(host, clips, None)
    index = torch.rand(3, 210).argsort(1)[:, :70]
    kept = advance(tokens, Keep(index, 210))
    assert kept.cover is not None
    crossed = adapter.cross(host, 0, kept)
    assert crossed is not None
    stage: Any = cast(VideoSwin, host).layers[0]
    wanted, _ = stage.downsample(take(kept.x, kept.cover.fill), tokens.grid)
    assert torch.equal(crossed.tokens.x, wanted)
    assert crossed.tokens.grid == Grid(3, 4, 5)
    assert crossed.tokens.groups == 3
    assert crossed.tokens.size is None
    assert crossed.tokens.cover is not None
    assert crossed.tokens.cover.complete
    assert adapter.cross(host, 1, crossed.tokens) is None, "block 1 is not the last of its stage"
    assert adapter.cross(host, 3, crossed.tokens) is None, "nothing follows the last stage"


@torch.no_grad()
def test_a_step_after_the_last_block_of_a_stage_acts_on_merged_tokens_and_on_that_blocks_statistics() -> None:
    class Look(TokenReducer):
        capabilities = Capabilities(needs=frozenset({"key", "received", "ffn", "block_input"}))

        def __init__(self) -> None:
            super().__init__(Schedule(at=(0, 2), tokens=1))
            self.seen: list[tuple[int, ...]] = []

        def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
            width = probe.ffn.shape[-1]
            self.seen.append((*tokens.x.shape[1:], probe.mean_key.shape[2], width, probe.block_input.shape[2]))
            assert {x.shape[1] for x in (probe.mean_key, probe.received, probe.ffn)} == {tokens.count}
            return None

        def promise(self, step: Any, count: int, groups: int | None, geometry: Any) -> Any:
            return tokred.capabilities.Promise(count, groups)

    host, clips = WINDOWS.build()
    look = Look()
    attach(host, look)(clips)
    # tokens and their width; the widths of keys, MLP branch and block input are those of the finished stage
    assert look.seen[-2:] == [(60, 32, 8, 16, 16), (18, 64, 16, 32, 32)]


@torch.no_grad()
def test_a_class_head_averages_the_tokens_that_are_left() -> None:
    host, clips = WINDOWS.build()
    run = attach(host, Half(at=(3,))).run(clips)
    swin = cast(VideoSwin, host)
    assert run.tokens.count == 9
    torch.testing.assert_close(run.pooled, swin.norm(run.tokens.x).mean(1))
    torch.testing.assert_close(run.logits, swin.head(run.pooled))
    weighed = attach(host, ToMe(r=(0, 0, 6), at=(1, 2, 3), pool="mass")).run(clips)
    assert weighed.tokens.size is not None
    mean = (swin.norm(weighed.tokens.x) * weighed.tokens.size[..., None]).sum(1) / 18
    torch.testing.assert_close(weighed.pooled, mean)


@torch.no_grad()
def test_patches_are_traced_through_stages() -> None:
    host, clips = WINDOWS.build()
    run = attach(host, compose(Half(at=(0,)), Half(at=(3,)))).run(clips, trace=True)
    places = ancestors(Grid(3, 7, 10), Grid(3, 2, 3))
    assert run.tokens.source is not None
    # What the first step dropped is filled in again by patch merging; what the second dropped stays dropped.
    assert run.tokens.source.tolist() == [torch.where(places < 9, places, -1).tolist()] * 3


@pytest.mark.parametrize("site", ["before_block", "after_attention"])
@torch.no_grad()
def test_steps_inside_the_first_stage_and_before_blocks_work_too(site: str) -> None:
    host, clips = WINDOWS.build()
    for block, left in ((0, 18), (2, 18), (3, 9)):
        run = attach(host, Half(at=(block,), site=site)).run(clips, record=True)
        assert len(run.steps) == 1
        assert run.tokens.count == left
        assert run.logits.isfinite().all()


@torch.no_grad()
def test_fewer_frames_are_a_shorter_clip_and_fewer_rows_a_smaller_one() -> None:
    host, clips = WINDOWS.build()
    short = attach(host, tokred.build("fewer_frames:tubelets=2"))(clips)
    torch.testing.assert_close(short, host(clips[:, :, [0, 1, 4, 5]]))
    cut = clips[:, :, :5]  # the last tubelet is half a clip and half padding
    torch.testing.assert_close(attach(host, tokred.build("fewer_frames:tubelets=2"))(cut), host(cut[:, :, [0, 1, 4]]))
    small = attach(host, tokred.build("lower_resolution:rows=5")).run(clips)
    assert small.tokens.grid == Grid(3, 2, 2)
    with pytest.raises(ValueError, match="a smaller input was planned for 3 tubelets of 2 frames, the clips have 4"):
        attach(host, tokred.build("fewer_frames:tubelets=2"))(clips[:, :, :4])


def test_other_clips_than_the_native_ones_run() -> None:
    host, _ = WINDOWS.build()
    clips = torch.randn(2, 3, 5, 12, 26)
    with torch.no_grad():
        assert torch.equal(attach(host, STA(r=0))(clips), host(clips))
        run = attach(host, STA(r=(4, 1))).run(clips)
    assert run.tokens.count == 3 * (2 * 4 - 1)


def test_the_models_own_call_is_kept() -> None:
    host, clips = WINDOWS.build()
    fast = attach(host, STA(r=3))
    with torch.no_grad():
        assert torch.equal(fast(clips=clips), fast(clips))
    with pytest.raises(TypeError, match="unexpected keyword argument 'masks'"):
        fast(clips, masks=None)


def inventory(model: nn.Module) -> dict[str, object]:
    return {name: {key: id(value) for key, value in vars(module).items()} for name, module in model.named_modules()}


def test_nothing_is_left_on_the_model_or_its_parts() -> None:
    host, clips = WINDOWS.build()
    before = inventory(host)
    buffers = {name for name, _ in host.named_buffers()}
    for skip in (True, False):
        fast = attach(host, STA(r=5), skip_replicas=skip)
        fast(clips).sum().backward()
        fast.run(clips, trace=True, record=True)
    host.zero_grad()
    assert inventory(host) == before
    assert {name for name, _ in host.named_buffers()} == buffers


@pytest.mark.parametrize("spec", ["sta:r=5", "tome:r=6", "topk:keep=0.6"])
def test_gradients_reach_every_weight_and_agree_between_the_forms(spec: str) -> None:
    slopes = []
    for skip in (True, False):
        host, clips = WINDOWS.build()
        fast = attach(host.double(), tokred.build(spec), skip_replicas=skip)
        pixels = clips.double().requires_grad_()
        fast(pixels).square().sum().backward()
        assert pixels.grad is not None
        slopes.append({"pixels": pixels.grad, **{n: cast(Tensor, p.grad) for n, p in host.named_parameters()}})
    for name, gradient in slopes[0].items():
        assert gradient.any(), name
        torch.testing.assert_close(gradient, slopes[1][name], rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("evit:score=class", r"evit:.* needs a class token; tokred.VideoSwin has none here"),
        ("evit:score=mean_query", r"needs mean_query_row, which tokred.VideoSwin does not have: its attention stays"),
        ("ats:score=mean_query", r"ats:.* needs mean_query_row"),
        ("eventful:r=8", r"not computed token by token here: their windows reach over several frames"),
        ("stvit_r", r"this one has stages, whose grids differ: stvit runs here"),
    ],
)
def test_methods_that_need_what_windows_do_not_have_are_refused_with_the_reason(spec: str, message: str) -> None:
    with pytest.raises((Unsupported, ScheduleError), match=message):
        attach(WINDOWS.build()[0], tokred.build(spec))


class Needy(TokenReducer):
    """Reads the full map."""

    capabilities = Capabilities(needs=frozenset({"attention", "key"}))

    def __init__(self) -> None:
        super().__init__(Schedule(at=(1,), keep=0.5))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        return None


class Soft(Needy):
    """A soft assignment, or a mask."""

    capabilities = Capabilities()

    def __init__(self, mask: bool = False) -> None:
        super().__init__()
        self.mask = mask

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction:
        b, n = tokens.x.shape[:2]
        return Mask(torch.ones(b, n)) if self.mask else Mix(torch.ones(b, n // 2, n) / n)


def test_the_full_map_soft_assignments_and_masks_are_refused_with_the_reason() -> None:
    host = WINDOWS.build()[0]
    with pytest.raises(Unsupported, match=re.escape("needs attention, which tokred.VideoSwin does not have")):
        attach(host, Needy())
    with pytest.raises(ScheduleError, match=r"a soft assignment \(Mix\) has no places on a grid"):
        attach(host, Soft())
    with pytest.raises(ScheduleError, match="masked training needs attention of all tokens with all tokens"):
        attach(host, Soft(mask=True))


def test_a_block_that_computes_something_else_is_refused_when_attaching() -> None:
    host, _ = WINDOWS.build()
    own = VideoSwinAdapter.parts

    class Wrong(VideoSwinAdapter):
        def parts(self, block: nn.Module) -> Any:
            parts = own(self, block)
            return parts._replace(shifted=not parts.shifted)

    verify_adapter(VideoSwinAdapter(), host)
    with pytest.raises(Unsupported, match=r"block 0 .*SwinBlock.* taken apart differs from its own forward"):
        verify_adapter(Wrong(), host)
    with pytest.raises(ValueError, match="a host with windows needs to know the places of its tokens"):
        VideoSwinAdapter().attend(VideoSwinAdapter().blocks(host)[0], Tokens(torch.ones(1, 4, 16), Grid(1, 2, 2)), None)


def test_merged_tokens_weigh_in_attention_by_their_places_and_not_by_a_bias_too() -> None:
    host, clips = WINDOWS.build()
    with torch.no_grad():
        plain = attach(host, ToMe(r=(6, 6), at=(1, 2)))(clips)
        proportional = attach(host, ToMe(r=(6, 6), at=(1, 2), proportional=True))(clips)
    assert torch.equal(plain, proportional)


def test_topk_reads_attention_received_inside_windows() -> None:
    host, clips = WINDOWS.build()
    with torch.no_grad():
        run = attach(host, TopK(keep=0.5, at=(1,))).run(clips, record=True)
        adapter = VideoSwinAdapter()
        tokens = adapter.embed(host, clips, None)
        block = adapter.blocks(host)
        tokens = tokens.with_x(adapter.own(block[0], tokens))
        crossed = adapter.cross(host, 0, tokens)
        assert crossed is not None
        attended = adapter.attend(block[1], crossed.tokens, None)
        assert attended.statistics is not None
        rows = attended.statistics.rows(attended.q, attended.k, attended.scale, received=True, entropy=False)
    assert rows.received is not None
    wanted = rows.received.argsort(dim=1, descending=True, stable=True)[:, :30].sort(dim=1).values
    ((_, reduction),) = run.steps
    assert isinstance(reduction, Keep)
    assert torch.equal(reduction.index, wanted)
