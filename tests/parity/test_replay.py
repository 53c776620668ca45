"""Files of the golden layouts with other seeds, shapes and settings, made here from slow references, pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import parity_files as files
import parity_models as models
import pytest
from parity_files import Made
from parity_vit import Shape

from tokred.run.parity import FileReport, replay_file

VIDEO = Shape(dim=24, depth=3, heads=2, hidden=60, patch=4, pixels=12, classes=5, frames=16, learned=False)
IMAGE = Shape(dim=24, depth=3, heads=3, hidden=50, patch=4, pixels=24, classes=4, prefix=1, pool="token")


def changed(shape: Shape, **changes: object) -> Shape:
    """A shape with other sizes."""
    return Shape(**{**shape.__dict__, **changes})


RUNS = {
    "r3": {"r": 3, "r_type": "int", "r_list": [3, 3, 3], "prop_attn": True},
    "off": {"r": 4, "r_type": "int", "r_list": [4, 4, 4], "prop_attn": False},
    "falling": {"r": [3, -1.0], "r_type": "tuple", "r_list": [6, 3, 0], "prop_attn": True},
    "listed": {"r": [5, 0, 2], "r_type": "list", "r_list": [5, 0, 2], "prop_attn": False},
    "much": {"r": 30, "r_type": "int", "r_list": [30, 30, 30], "prop_attn": True},
    "none": {"r": 0, "r_type": "int", "r_list": [0, 0, 0], "prop_attn": True},
}
POOLED = {
    "a": {"r": 9, "r_list": [9, 9, 9], "prop_attn": False, "pool": "weighted"},
    "b": {"r": [6, 1.0], "r_list": [0, 6, 12], "prop_attn": True, "pool": "mean"},
    "c": {"r": [4, 1], "r_list": [4, 1, 0], "prop_attn": True, "pool": "weighted"},
}

CASES: dict[str, Callable[[int], Made]] = {
    "sta_forward": files.sta_function(batch=3, groups=8, g=7, dim=10, width=6, r=2, backward=False),
    "sta_backward": files.sta_function(batch=1, groups=4, g=13, dim=8, width=5, r=6, backward=True),
    "sta_two_groups": files.sta_function(batch=2, groups=2, g=20, dim=9, width=4, r=3, backward=False),
    "sta_three_groups": files.sta_function(batch=2, groups=3, g=9, dim=9, width=7, r=4, backward=True),
    "sta_over_half": files.sta_function(batch=2, groups=8, g=9, dim=8, width=6, r=7, backward=False),
    "sta_model": models.sta_models(shape=VIDEO, batch=2, amounts=[1, 3]),
    "sta_model_learned": models.sta_models(
        shape=changed(VIDEO, learned=True, depth=5, qkv_bias=False, eps=1e-5, in_chans=1), batch=1, amounts=[4]
    ),
    "sta_model_scaled_first_token": models.sta_models(
        shape=changed(VIDEO, gamma=True, pool="token", heads=4, frames=8, tubelet=1), batch=1, amounts=[2]
    ),
    "sta_model_sixteen_tubelets": models.sta_models(shape=changed(VIDEO, frames=32, pixels=8), batch=1, amounts=[2]),
    "sta_model_four_tubelets": models.sta_models(shape=changed(VIDEO, frames=8, pixels=16), batch=1, amounts=[3]),
    "tome_plain": files.tome_function(batch=2, n=18, dim=6, width=5, r=4, protected=0),
    "tome_odd": files.tome_function(batch=3, n=15, dim=6, width=5, r=7, protected=0),
    "tome_class": files.tome_function(batch=2, n=20, dim=4, width=6, r=5, protected=1),
    "tome_class_clamped": files.tome_function(batch=1, n=11, dim=4, width=6, r=99, protected=1),
    "tome_distilled": files.tome_function(batch=2, n=19, dim=5, width=4, r=5, protected=2),
    "tome_chain": files.tome_chain(batch=2, n=26, dim=6, width=5, amounts=[5, 7, 3, 2], cls=False),
    "tome_chain_class": files.tome_chain(batch=1, n=23, dim=6, width=5, amounts=[6, 4], cls=True),
    "tome_fourth": files.tome_kth(batch=2, n=30, dim=5, width=6, k=4),
    "tome_second": files.tome_kth(batch=1, n=17, dim=5, width=6, k=2),
    "tome_schedules": files.tome_schedules,
    "tome_cls": models.tome_models(shape=IMAGE, batch=2, model="cls", runs=RUNS),
    "tome_no_qkv_bias": models.tome_models(
        shape=changed(IMAGE, qkv_bias=False, eps=1e-5, in_chans=1), batch=1, model="cls", runs=RUNS
    ),
    "tome_nocls": models.tome_models(
        shape=changed(IMAGE, prefix=0, pool="mean"),
        batch=1,
        model="nocls",
        runs={name: RUNS[name] for name in ("r3", "falling", "listed")},
    ),
    "tome_distill": models.tome_models(shape=changed(IMAGE, prefix=2), batch=1, model="distill", runs=RUNS),
    "tome_mae": models.tome_models(shape=changed(IMAGE, pool="mean"), batch=2, model="mae", runs=RUNS),
    "tome_video": models.tome_models(shape=changed(VIDEO, frames=8), batch=1, model="video", runs=POOLED),
    "evit_fuse": files.evit_function(batch=2, n=22, dim=12, heads=3, hidden=20, rate=0.55, tokens=None, fuse=True),
    "evit_drop": files.evit_function(batch=1, n=30, dim=16, heads=2, hidden=33, rate=0.3, tokens=None, fuse=False),
    "evit_tokens": files.evit_function(batch=3, n=17, dim=12, heads=1, hidden=24, rate=1.0, tokens=5, fuse=True),
    "evit_noop": files.evit_function(batch=2, n=5, dim=12, heads=2, hidden=24, rate=0.9, tokens=None, fuse=True),
    "evit_off": files.evit_function(batch=2, n=9, dim=12, heads=2, hidden=24, rate=1.0, tokens=None, fuse=False),
    "evit_schedule": files.evit_schedule,
    "evit_model_fuse": models.evit_models(shape=IMAGE, batch=2, fuse=True, rates=[0.6, 1, 0.5]),
    "evit_model_drop": models.evit_models(
        shape=changed(IMAGE, eps=1e-5, qkv_bias=False), batch=1, fuse=False, rates=[0.9, 0.35, 0.8]
    ),
    "evit_model_runtime": models.evit_models(shape=IMAGE, batch=1, fuse=True, rates=[1, 0.5, 0.7], runtime=0.8),
    "evit_model_runtime_listed": models.evit_models(
        shape=IMAGE, batch=1, fuse=True, rates=[0.5, 0.5, 0.7], runtime=[0.7, None, 1.0]
    ),
    "evit_model_runtime_off": models.evit_models(shape=IMAGE, batch=1, fuse=True, rates=[0.5, 1, 0.7], runtime=1.0),
    "evit_model_tokens": models.evit_models(shape=IMAGE, batch=2, fuse=False, rates=[1, 1, 1], counts=[20, None, 7]),
    "evit_model_tokens_everywhere": models.evit_models(shape=IMAGE, batch=1, fuse=True, rates=[1, 1, 1], counts=9),
    "evit_model_tokens_and_rates": models.evit_models(
        shape=IMAGE, batch=1, fuse=True, rates=[0.7, 0.7, 0.6], counts=[None, 13, None]
    ),
    "videomae": models.videomae(shape=VIDEO, batch=2),
    "videomae_learned_scaled_token": models.videomae(
        shape=changed(VIDEO, learned=True, gamma=True, pool="token", eps=1e-5, frames=6), batch=1
    ),
    "videomae_half_weights": models.videomae(shape=changed(VIDEO, half=True, frames=4), batch=1),
    "videomae_no_bias": models.videomae(shape=changed(VIDEO, qkv_bias=False, in_chans=2, tubelet=4), batch=1),
    "positions": models.position_table(37, 10),
}


def passed(report: FileReport) -> None:
    assert report.status == "pass", report.line()


@pytest.mark.parametrize("name", CASES)
def test_other_seeds_shapes_and_settings_pass(name: str, tmp_path: Path) -> None:
    report = replay_file(files.write(tmp_path / f"{name}.safetensors", CASES[name], seed=len(name)))
    passed(report)
    assert (report.decisions is None) == name.startswith(("videomae", "positions", "evit_schedule"))
    assert report.tolerance is not None or name == "tome_schedules"
    if report.max_error is not None:
        assert math.isfinite(report.max_error)


def test_what_the_reference_convolution_drops_is_dropped_and_told(tmp_path: Path) -> None:
    make = models.videomae(shape=changed(VIDEO, frames=8), batch=1, extra=(1, 2))
    report = replay_file(files.write(tmp_path / "odd.safetensors", make, seed=3))
    passed(report)
    assert "cropped to 8x12x12" in report.detail


def test_images_of_another_size_get_resized_positions(tmp_path: Path) -> None:
    make = models.evit_models(shape=IMAGE, batch=1, fuse=True, rates=[0.5, 1, 1], larger=9)
    report = replay_file(files.write(tmp_path / "large.safetensors", make, seed=2))
    passed(report)
    assert "positions of 24 pixels resized to 33 x 33" in report.detail


def test_a_clip_without_eight_tubelets_runs_in_the_official_constant_groups(tmp_path: Path) -> None:
    report = replay_file(files.write(tmp_path / "f.safetensors", CASES["sta_model_sixteen_tubelets"], seed=1))
    passed(report)
    assert "constant (8, 4, 2) groups" in report.detail


def test_a_clamped_r_is_told(tmp_path: Path) -> None:
    report = replay_file(files.write(tmp_path / "f.safetensors", CASES["tome_cls"], seed=1))
    assert "much: block 0: r = 30 clamped to 18" in report.detail
