"""Eventful on hosts: exact where it must be, state per video, streams in lockstep, refusals, cost, inside ViViT."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import tokred
from tokred.attach import attach, detach
from tokred.backbones.adapter import Unsupported
from tokred.backbones.vivit import ViViT
from tokred.budget import BudgetError, solve
from tokred.compose import compose
from tokred.measure.flops import count
from tokred.measure.handles import fvcore_macs
from tokred.methods import ATS, Eventful, TopK
from tokred.methods.eventful import StreamError
from tokred.registry import build
from tokred.schedule import ScheduleError
from tokred.testing import default_backbones

BACKBONES = {backbone.name: backbone for backbone in default_backbones()}
HOSTS = [name for name in BACKBONES if name in ("video", "image")]


def frames_of(host: str, count: int = 4) -> tuple[nn.Module, list[Tensor]]:
    """A host and frames of three streams of which a corner changes."""
    model, x = BACKBONES[host].build()
    g = torch.Generator().manual_seed(3)
    frames = [x]
    for _ in range(count - 1):
        x = x.clone()
        x[..., :8, :8] = torch.randn(x[..., :8, :8].shape, generator=g)
        frames.append(x)
    return model, frames


def vivit() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "frames": 8, "dim": 24, "depth": 3, "temporal_depth": 2, "num_heads": 3}
    model = ViViT(**sizes, num_classes=7)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval(), torch.randn(2, 3, 8, 32, 32)


@torch.no_grad()
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("spec", ["eventful", "eventful:threshold=-1", "eventful:fraction=1,variant=qk"])
def test_every_token_sent_is_the_full_model_on_every_frame(host: str, spec: str) -> None:
    model, frames = frames_of(host)
    fast = attach(model, build(spec))
    for x in frames:
        torch.testing.assert_close(fast(x), model(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("host", HOSTS)
def test_reset_makes_the_next_frame_a_first_one(host: str) -> None:
    model, frames = frames_of(host)
    fast = attach(model, Eventful(8))
    first = fast(frames[0])
    fast(frames[1])
    assert not torch.allclose(fast(frames[2]), model(frames[2]), atol=1e-5), "gating should show in this test"
    fast.reset()
    assert torch.equal(fast(frames[0]), first)
    assert fast.reducer.updates()[0] == {}


@torch.no_grad()
@pytest.mark.parametrize("spec", ["eventful:r=8", "eventful:threshold=0.3", "eventful:r=8,pool_size=2"])
def test_streams_in_lockstep_do_not_feel_each_other(spec: str) -> None:
    model, frames = frames_of("image")
    together = attach(model, build(spec))
    alone = [attach(model, build(spec)) for _ in range(3)]
    for x in frames:
        out = together(x)
        for i, one in enumerate(alone):
            torch.testing.assert_close(out[i : i + 1], one(x[i : i + 1]), atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_another_batch_without_reset_is_refused_with_both_shapes() -> None:
    model, frames = frames_of("image")
    fast = attach(model, Eventful(8))
    fast(frames[0])
    with pytest.raises(StreamError, match=r"\(3, 66, 24\), this frame is \(2, 66, 24\): reset\(\) starts a new video"):
        fast(frames[1][:2])


@torch.no_grad()
def test_a_copy_carries_its_streams_on_by_itself_and_weights_hold_no_state() -> None:
    model, frames = frames_of("image")
    fast = attach(model, Eventful(8))
    fast(frames[0])
    twin = copy.deepcopy(fast)
    ours = [fast(x) for x in frames[1:]]
    assert all(torch.equal(twin(x), y) for x, y in zip(frames[1:], ours, strict=True))
    assert not fast.reducer.state_dict()
    assert fast.reducer.state_bytes() > 0
    assert detach(fast) is model
    assert fast.reducer.state_bytes() == 0


@torch.no_grad()
def test_the_amount_can_change_between_frames() -> None:
    model, frames = frames_of("image")
    fast = attach(model, Eventful(8))
    fast(frames[0])
    fast(frames[1])
    assert fast.reducer.updates()[2]["mlp"].counts.tolist() == [8, 8, 8]
    fast.reducer.change(r=3)
    fast(frames[2])
    assert fast.reducer.updates()[2]["mlp"].counts.tolist() == [3, 3, 3]
    assert fast.reducer.spec == "eventful:r=3"
    fast.reducer.change(fraction=1.0)
    fast(frames[3])
    with pytest.raises(ScheduleError, match="give one of"):
        fast.reducer.change(r=3, fraction=0.5)


def test_no_cast_is_fine_with_every_variant_however_the_word_was_made() -> None:
    word = "".join(["no", "ne"])  # as a command line makes it: equal to the constant, and another object
    assert Eventful(variant="qk", cast=word).config["cast"] == "none"


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("eventful", "each gate computes 66 of 66 tokens"),
        ("eventful:r=5", "each gate computes 5 of 66 tokens"),
        ("eventful:fraction=0.5", "each gate computes 33 of 66 tokens"),
        ("eventful:threshold=0.5", "later ones as their content asks for"),
    ],
)
def test_notes_say_how_many_tokens_a_later_frame_computes(spec: str, told: str) -> None:
    model, _ = frames_of("image", 1)
    assert told in " ".join(attach(model, build(spec)).notes)


@torch.no_grad()
def test_chosen_blocks_alone_are_gated() -> None:
    model, frames = frames_of("image")
    fast = attach(model, Eventful(8, at=(1, 3)))
    fast(frames[0])
    fast(frames[1])
    assert set(fast.reducer.updates()) == {1, 3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": -1}, "r = -1"),
        ({"r": 3, "threshold": 1.0}, "give one of r, fraction and threshold; given: r = 3, threshold = 1.0"),
        ({"fraction": 1.5}, "fraction = 1.5"),
        ({"variant": "half"}, "one of tokenwise, qk, full"),
        ({"stgt": True}, "needs variant = tokenwise"),
        ({"refresh": 2, "variant": "qk"}, "needs variant = full"),
        ({"cast": "bfloat16", "variant": "qk"}, "needs variant = full"),
        ({"cast": "int8"}, "one of none, float16, bfloat16"),
        ({"pool_size": 0}, "pool_size = 0"),
        ({"order": 0.0}, "order = 0"),
        ({"order": -2.0}, "order = -2.0 is not a positive number"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        Eventful(**settings)  # type: ignore[arg-type]


def test_what_a_host_cannot_do_is_refused_when_attaching() -> None:
    model, _ = frames_of("image")
    with pytest.raises(ScheduleError, match=r"r = 67 .* 66 tokens"):
        attach(model, Eventful(67))
    with pytest.raises(ScheduleError, match="pool_size = 3 does not divide"):
        attach(model, Eventful(8, pool_size=3))
    with pytest.raises(ScheduleError, match="pool_size = 3 does not divide"):
        attach(model, Eventful(threshold=0.5, pool_size=3))
    with pytest.raises(ScheduleError, match="runs block 0 itself, so topk"):
        attach(model, compose(TopK(0.5, at=(0,)), Eventful(8)))
    with pytest.raises(ValueError, match="both keep state"):
        compose(ATS(0.5, stable=True), Eventful(8))
    windows, _ = BACKBONES["windows"].build()
    with pytest.raises(Unsupported, match="not computed token by token"):
        attach(windows, Eventful(8))


@torch.no_grad()
def test_vivit_is_gated_over_the_steps_of_each_clip() -> None:
    model, clips = vivit()
    fast = attach(model, Eventful(5))
    with fast.reducer.recorded() as log:
        out = fast(clips)
    assert [(work.block, work.flush) for work in log] == [(b, t == 0) for t in range(4) for b in range(3)]
    assert not torch.allclose(out, model(clips), atol=1e-4)
    assert torch.equal(fast(clips), out), "each call is a video of its own"
    torch.testing.assert_close(fast(clips[:1]), out[:1])
    torch.testing.assert_close(attach(model, Eventful(17))(clips), model(clips), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spec", ["eventful:r=5", "eventful:fraction=0.5", "eventful:r=3,variant=qk", "eventful:r=0"])
def test_what_is_reused_inside_a_clip_is_counted(spec: str) -> None:
    model, clips = vivit()
    fast = attach(model, build(spec))
    assert fast.plan is not None
    report = count(fast.geometry, fast.plan)
    assert report.reused > 0
    assert fvcore_macs(fast, (clips[:1],)).macs == report.executed_macs == report.macs


def test_nothing_is_promised_where_the_content_decides() -> None:
    model, _ = vivit()
    fast = attach(model, build("eventful:threshold=0.5"))
    assert fast.plan is not None
    assert fast.plan.reused == 0


def test_budgets_are_solved_inside_clips_and_refused_for_single_frames() -> None:
    model, _ = vivit()
    solution = solve(Eventful(), tokred.attach(model, Eventful()).geometry, 0.7)
    assert abs(solution.share - 0.7) < 0.02
    image, _ = frames_of("image")
    with pytest.raises(BudgetError, match=r"eventful saves over time alone: .* tokred stream"):
        solve(Eventful(), tokred.attach(image, Eventful()).geometry, 0.7)


@torch.no_grad()
def test_work_of_a_frame_is_recorded_only_when_asked_for() -> None:
    model, frames = frames_of("image", 2)
    fast = tokred.attach(model, Eventful(8))
    fast(frames[0])
    with fast.reducer.recorded() as log:
        fast(frames[1])
    fast(frames[1])
    assert len(log) == 4
    assert all(work.sent == {"qkv": 24, "projection": 24, "mlp": 24, "value": 24, "attention": 24} for work in log)
    assert all(0 < work.macs < sum(work.official.values()) for work in log)
