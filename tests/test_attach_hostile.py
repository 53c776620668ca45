"""Every method on hosts and inputs that nobody plans for: each works as documented or is refused in one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn

import tokred
from tokred.attach import Attached, attach
from tokred.backbones import adapter_for
from tokred.backbones.videomae import VideoViT
from tokred.backbones.videoswin import VideoSwin
from tokred.dry import dry_run
from tokred.registry import build

NAN, INF = float("nan"), float("inf")

# One line a method: a setting at which it acts on the smallest of the hosts below that have anything to reduce.
ACTING = {
    "ats": "ats:keep=0.7",
    "dynamicvit": "dynamicvit:keep=0.7",
    "eventful": "eventful:r=2",
    "evit": "evit:keep=0.6",
    "fewer_frames": "fewer_frames:tubelets=1",
    "grid": "grid:keep=0.6",
    "lower_resolution": "lower_resolution:rows=1",
    "none": "none",
    "random_drop": "random_drop:keep=0.6",
    "random_merge": "random_merge:keep=0.6",
    "sta": "sta:r=2",
    "sta_window": "sta_window:r=2",
    "stts": "stts:keep=0.4",
    "stts_heuristic": "stts_heuristic:keep=0.4",
    "stvit": "stvit:side=1",
    "stvit_r": "stvit_r:side=1,units=1",
    "tome": "tome:r=2",
    "topk": "topk:keep=0.6",
    "vid_tldr": "vid_tldr:r=2",
}


def video(frames: int, rows: int, columns: int) -> tuple[nn.Module, tuple[int, ...]]:
    """A video ViT of frames x rows x columns tokens, three blocks deep."""
    size = (4 * rows, 4 * columns)
    model = VideoViT(img_size=size, patch_size=4, frames=2 * frames, dim=24, depth=3, num_heads=3, num_classes=5)
    return model, (3, 2 * frames, *size)


def windows(frames: int, rows: int, columns: int) -> tuple[nn.Module, tuple[int, ...]]:
    """A VideoSwin of frames x rows x columns tokens, halved once."""
    model = VideoSwin(
        img_size=(2 * rows, 2 * columns), patch_size=(2, 2, 2), frames=2 * frames, dim=16, depths=(1, 2),
        num_heads=(2, 2), window=(2, 3, 3), num_classes=5,
    )  # fmt: skip
    return model, (3, 2 * frames, 2 * rows, 2 * columns)


def image() -> tuple[nn.Module, tuple[int, ...]]:
    """A timm ViT of 3 x 5 patches behind a class token."""
    timm = pytest.importorskip("timm.models.vision_transformer")
    model = timm.VisionTransformer(
        img_size=(12, 20), patch_size=4, embed_dim=24, depth=4, num_heads=3, num_classes=5, mlp_ratio=2
    )
    return model, (3, 12, 20)


HOSTS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "odd_video": lambda: video(3, 3, 5),
    "one_frame": lambda: video(1, 3, 4),
    "one_token": lambda: video(1, 1, 1),
    "odd_windows": lambda: windows(3, 5, 7),
    "image": image,
}

# Host -> method -> what its refusal says. Everything that is not here attaches.
NO_WINDOWS = {"sta_window": "needs a backbone with window attention"}
REFUSED: dict[str, dict[str, str]] = {
    "odd_video": NO_WINDOWS,
    "one_frame": NO_WINDOWS,
    "one_token": {
        **NO_WINDOWS,
        "dynamicvit": r"leaves int\(1 \* 0.7\) = 0 patches",
        "eventful": "r = 2 at block 0 is impossible with 1 tokens: allowed is 0..1",
        "sta": "drops 2 of 1 tokens",
        "stvit": "side = 1 makes 1 tokens of a frame of 1 x 1",
        "stvit_r": "side = 1 makes 1 tokens of a frame of 1 x 1",
    },
    "odd_windows": {
        "eventful": "are not computed token by token here",
        "stvit_r": "brings patches back on backbones of one grid",
    },
    "image": NO_WINDOWS,
}


@lru_cache
def made(host: str) -> tuple[nn.Module, Tensor]:
    """A host and three inputs for it."""
    torch.manual_seed(0)
    model, shape = HOSTS[host]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape) * 0.2)
    return model.eval(), torch.randn(3, *shape)


def accepted() -> list[tuple[str, str]]:
    return [(host, name) for host in HOSTS for name in ACTING if name not in REFUSED.get(host, {})]


def fast(host: str, name: str) -> tuple[Attached, Tensor]:
    model, clips = made(host)
    return attach(model, build(ACTING[name])), clips


@torch.no_grad()
def logits(model: Attached, clips: Tensor) -> Tensor:
    """Those of a first frame, for methods that keep state."""
    model.reset()
    found = model(clips)
    assert isinstance(found, Tensor)
    return found


EVERY = pytest.mark.parametrize(("host", "name"), accepted())


def test_every_built_in_method_is_in_the_table() -> None:
    known = {name for name, cls in tokred.list_methods().items() if cls.__module__.startswith("tokred.methods")}
    assert known == set(ACTING)


@pytest.mark.parametrize(("host", "name"), [(host, name) for host in REFUSED for name in REFUSED[host]])
def test_what_a_host_does_not_allow_is_refused_in_one_line(host: str, name: str) -> None:
    model, _ = made(host)
    with pytest.raises(ValueError, match=REFUSED[host][name]) as caught:
        attach(model, build(ACTING[name]))
    assert "\n" not in str(caught.value)


@EVERY
def test_empty_and_single_batches(host: str, name: str) -> None:
    model, clips = fast(host, name)
    together = logits(model, clips)
    assert together.isfinite().all()
    assert logits(model, clips[:0]).shape == (0, 5)
    torch.testing.assert_close(logits(model, clips[1:2]), together[1:2], rtol=1e-4, atol=1e-5)


@EVERY
def test_inputs_in_which_everything_is_tied(host: str, name: str) -> None:
    model, clips = fast(host, name)
    first = clips[:, :, :1] if clips.ndim == 5 else clips[..., :1]
    for tied in (torch.zeros_like(clips), torch.full_like(clips, 3.0), first.expand_as(clips)):
        found = logits(model, tied)
        assert found.isfinite().all()
        assert torch.equal(logits(model, tied), found)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@EVERY
def test_nan_and_infinity_stay_in_their_sample_and_show_in_it(host: str, name: str, bad: float) -> None:
    model, clips = fast(host, name)
    whole, single = clips.clone(), clips.clone()
    whole[1] = bad
    single[1].view(-1)[0] = bad
    good = logits(model, clips)
    for broken in (whole, single):
        found = logits(model, broken)
        assert torch.equal(found[[0, 2]], good[[0, 2]])
        if broken is whole or made(host)[0](broken)[1].isfinite().logical_not().all():
            hidden = bool(found[1].isfinite().any())
            assert not hidden or (broken is single and name in NEVER_LOOKED_AT)


# Methods that may leave out the frames in which a bad value lies, without looking at them.
NEVER_LOOKED_AT = {"fewer_frames", "stts_heuristic"}


@pytest.mark.parametrize("name", [name for name in ACTING if name not in REFUSED.get("one_frame", {})])
def test_a_huge_batch_is_its_samples(name: str) -> None:
    model, clips = fast("one_frame", name)
    many = clips.repeat(700, 1, 1, 1, 1)
    torch.testing.assert_close(logits(model, many)[-3:], logits(model, clips), rtol=1e-4, atol=1e-5)


# Settings that no host takes, or not the odd video of 3 blocks and 3 x 3 x 5 tokens; and what the refusal names.
IMPOSSIBLE = [
    ("sta:r=15", "r = 15 .*drops 15 of 15"),
    ("sta:r=400", "r = 400 .*drops 400 of 15"),
    ("sta:r=-1", "-1 is not a whole number of at least 0"),
    ("sta:r=2.5", "r = 2.5 is not"),
    ("sta:r=[1,2,3,4]", "drop has 4 entries for 3 steps"),
    ("sta:at=[0,3],r=1", "block 3 is not in 0..2"),
    ("sta:at=[-1],r=1", "block -1 is not in 0..2"),
    ("sta:at=[1,1],r=1", "must rise and not repeat"),
    ("sta:at=[2,1],r=1", "must rise and not repeat"),
    ("sta:schedule=2.0,r=1", "2.0 is not an inflection"),
    ("sta_window:r=2", "needs a backbone with window attention"),
    ("tome:r=-1", "-1 is not a whole number of at least 0"),
    ("tome:r=0.5", "r = 0.5 is not"),
    ("tome:r=[1,1,1,1]", "drop has 4 entries for 3 steps"),
    ("tome:keep=0.4", r"keep = 0.4 is not in \[0.5, 1\]"),
    ("tome:at=[7],r=1", "block 7 is not in 0..2"),
    ("tome:inflection=1.5,r=1", "1.5 is not in"),
    ("vid_tldr:r=-3", "-3 is not a whole number of at least 0"),
    ("vid_tldr:r=1.5", r"1.5 is not a whole number of at least 0, or a share in \(0, 1\)"),
    ("vid_tldr:r=[1,1,1,1]", "drop has 4 entries for 3 steps"),
    ("evit:tokens=46,at=[0]", "tokens = 46 .*impossible with 45 tokens: allowed is 1..45"),
    ("evit:tokens=0", "tokens = 0 is not a whole number of at least 1"),
    ("evit:keep=0", r"keep = 0 is not in \(0, 1\]"),
    ("evit:keep=1.0001,at=[1]", r"1.0001 is not in \(0, 1\]"),
    ("evit:keep=-0.5", r"-0.5 is not in \(0, 1\]"),
    ("evit:keep=[0.5,0.5],at=[1]", "keep has 2 entries for 1 steps"),
    ("evit:keep=nan", "keep = nan is not a number"),
    ("evit:keep=[0.5,nan]", r"keep = \(0.5, nan\) is not a number or a list of numbers"),
    ("evit:score=class,at=[1],keep=0.5", "needs a class token"),
    ("topk:keep=0", r"keep = 0 is not in \(0, 1\]"),
    ("topk:keep=0.5,at=[0,0]", "must rise and not repeat"),
    ("grid:keep=2", r"keep = 2 is not in \(0, 1\]"),
    ("grid:keep=0.5,at=[3]", "block 3 is not in 0..2"),
    ("random_drop:keep=-1", r"keep = -1 is not in \(0, 1\]"),
    ("random_merge:keep=0.5,at=[1.5]", "at = .*1.5"),
    ("ats:keep=0", r"keep = 0 is not in \(0, 1\]"),
    ("ats:keep=0.5,at=[3]", "block 3 is not in 0..2"),
    ("dynamicvit:keep=0.01,at=[0]", "= 0 patches: allowed is what leaves at least 1"),
    ("dynamicvit:keep=[0.5,0.7],at=[0,1]", "rises"),
    ("dynamicvit:keep=[0.5,0.4],at=[0]", "keep has 2 entries for 1 steps"),
    ("eventful:r=46", "r = 46 .*impossible with 45 tokens: allowed is 0..45"),
    ("eventful:r=-1", "r = -1 is not a whole number of at least 0"),
    ("eventful:fraction=1.5", r"fraction = 1.5 is not in \[0, 1\]"),
    ("eventful:threshold=nan", "threshold = nan is not a number"),
    ("eventful:r=1,at=[5]", "block 5 is not in 0..2"),
    ("fewer_frames:tubelets=4", "tubelets = 4 is not in 1..3"),
    ("fewer_frames:tubelets=0", "tubelets = 0"),
    ("lower_resolution:rows=4", "rows = 4 is not in 1..3"),
    ("lower_resolution:rows=-2", "rows = -2"),
    ("stts:keep=0", r"keep = 0 is not in \(0, 1\]"),
    ("stts:time=0.1", "time = 0.1 leaves none of 3 frames"),
    ("stts:space=0.01", "space = 0.01 leaves none of 3 x 5"),
    ("stts:keep=0.5,time_at=3", "time_at = 3 is not in 0..2"),
    ("stts_heuristic:keep=1.5", r"keep = 1.5 is not in \(0, 1\]"),
    ("stts_heuristic:keep=0.5,space_at=-1", "space_at = -1 is not in 0..2"),
    ("stvit:side=0", "side = 0"),
    ("stvit:side=4", "side = 4"),
    ("stvit:side=1,at=3", "at = 3 is not in 0..2"),
    ("stvit_r:side=1,units=2", "units = 2 of a backbone of 3 blocks"),
    ("stvit_r:side=1,units=0", "units = 0"),
]


@pytest.mark.parametrize(("spec", "message"), IMPOSSIBLE, ids=[spec for spec, _ in IMPOSSIBLE])
def test_impossible_settings_are_refused_before_any_compute(spec: str, message: str) -> None:
    """On sizes alone, where nothing could be computed, and by attach: in the same line."""
    model, _ = made("odd_video")
    said = []
    for refuse in (
        lambda: dry_run(build(spec), adapter_for(model).geometry(model)),
        lambda: attach(model, build(spec)),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            refuse()
        said.append(str(caught.value))
    assert all("\n" not in line and re.search(r"\d|class token|window|nan", line) for line in said)


def test_the_strongest_possible_settings_run() -> None:
    for spec in (
        "sta:r=14,at=[0]", "tome:r=22,at=[0]", "vid_tldr:r=22,at=[0]", "evit:tokens=1,at=[0]", "topk:keep=0.0001",
        "grid:keep=0.0001", "random_drop:keep=0.0001", "random_merge:keep=0.0001", "ats:keep=0.0001",
        "dynamicvit:keep=0.03,at=[0]", "eventful:r=0", "stts:keep=0.0001", "stts_heuristic:keep=0.0001",
    ):  # fmt: skip
        model, clips = made("odd_video")
        reduced = attach(model, build(spec))
        assert logits(reduced, clips).isfinite().all(), spec
