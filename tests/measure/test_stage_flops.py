"""Costs of hosts with windows: all published numbers, and fvcore on small models with every kind of step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import tokred
from tokred.backbones import windowed
from tokred.backbones.geometry import Geometry, Stage
from tokred.backbones.videoswin import VideoSwin
from tokred.dry import dry_run
from tokred.measure.flops import count, unreduced_plan
from tokred.measure.handles import fvcore_macs, torch_macs
from tokred.measure.mac_report import MacReport
from tokred.measure.stage_flops import count_stages, merging_macs, window_pairs
from tokred.methods import STA
from tokred.plan import Plan
from tokred.tokens import Grid


def published(dim: int, depths: tuple[int, ...], window: tuple[int, int, int], classes: int) -> Geometry:
    stages = tuple(Stage(depth, dim * 2**i, dim * 2**i // 32, window) for i, depth in enumerate(depths))
    return Geometry(
        sum(depths),
        dim,
        dim // 32,
        32,
        4 * dim,
        Grid(16, 56, 56),
        0,
        classes,
        (2, 4, 4),
        final_norm_tokens=True,
        class_token=False,
        stages=stages,
        embed_norm=True,
    )


NORMAL, DEEP = (2, 2, 6, 2), (2, 2, 18, 2)
MODELS = {
    "T": published(96, NORMAL, (8, 7, 7), 400),
    "S": published(96, DEEP, (8, 7, 7), 400),
    "B": published(128, DEEP, (8, 7, 7), 400),
    "B, SSv2": published(128, DEEP, (16, 7, 7), 174),
}
DROPS = (0, 192, 256, 320)
#: STA, ICCV 2023, table 3: GFLOPs as printed, and as the specification derived from them computes them.
PRINTED = {"T": (88, 68, 61, 54), "S": (166, 121, 106, 91), "B": (282, 202, 176, 149), "B, SSv2": (321, 241, 215, 188)}
DERIVED = {
    "T": (88.062, 67.885, 61.049, 54.214),
    "S": (166.125, 121.433, 106.426, 91.419),
    "B": (281.923, 202.318, 175.674, 149.029),
    "B, SSv2": (320.946, 241.342, 214.697, 188.052),
}
#: The same without queries of replicas.
LEAN = {
    "T": (64.42, 56.42, 48.43),
    "S": (113.80, 96.25, 78.70),
    "B": (192.14, 162.11, 132.07),
    "B, SSv2": (220.99, 187.57, 154.14),
}


def report(name: str, r: int) -> MacReport:
    return count(MODELS[name], dry_run(STA(r=r), MODELS[name]))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("index", "r"), list(enumerate(DROPS)))
def test_sta_costs_what_the_paper_prints(name: str, index: int, r: int) -> None:
    found = report(name, r)
    assert round(found.gmac) == PRINTED[name][index]
    assert found.gmac == pytest.approx(DERIVED[name][index], abs=1e-3)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("index", "r"), list(enumerate(DROPS[1:])))
def test_without_queries_of_replicas_it_costs_less(name: str, index: int, r: int) -> None:
    found = report(name, r)
    assert found.lean_macs / 1e9 == pytest.approx(LEAN[name][index], abs=0.01)
    assert found.executed_macs < found.macs
    assert abs(found.executed_macs - found.lean_macs) < 0.01 * found.macs


@pytest.mark.parametrize(
    ("r", "gmac"), [(0, 88.06219776), (192, 67.884609406), (256, 61.049064142), (320, 54.213518878)]
)
def test_the_tiny_model_is_exact_to_the_last_digit_that_fvcore_measured(r: int, gmac: float) -> None:
    assert report("T", r).gmac == pytest.approx(gmac, abs=1e-9)


def test_nothing_is_skipped_in_the_unreduced_model() -> None:
    for name, geometry in MODELS.items():
        bare = count(geometry, unreduced_plan(geometry))
        assert bare.lean_macs == bare.executed_macs == bare.macs == report(name, 0).macs


def test_a_plan_without_a_grid_cannot_be_counted() -> None:
    with pytest.raises(ValueError, match="the plan has no grid: a hierarchical backbone cannot be counted without it"):
        count_stages(MODELS["T"], Plan(embedded=1, attention=(1,) * 12, mlp=(1,) * 12, final=1))


def test_windows_are_counted_with_their_padding_and_clipped_as_they_run() -> None:
    assert window_pairs(Grid(16, 14, 14), (8, 7, 7)) == (16 * 14 * 14 * 392, 392)
    assert window_pairs(Grid(16, 15, 13), (8, 7, 7)) == (16 * 21 * 14 * 392, 392)
    assert window_pairs(Grid(4, 5, 14), (8, 7, 7)) == (4 * 5 * 14 * 140, 140)
    assert merging_macs(Grid(2, 5, 4), 10, 20) == 2 * 3 * 2 * (8 * 10**2 + 20 * 10)


SMALL: dict[str, Any] = {
    "img_size": (28, 40),
    "frames": 5,
    "dim": 12,
    "depths": (1, 2, 2),
    "num_heads": (2, 3, 4),
    "window": (2, 3, 3),
    "mlp_ratio": 2,
    "num_classes": 7,
}
HOSTS = {
    "odd maps, padded and clipped windows": {},
    "one window": {"window": (9, 9, 9), "depths": (1, 1), "num_heads": (2, 2)},
    "no bias, no norm behind the patches": {"qkv_bias": False, "patch_norm": False},
}
SPECS = (
    "none",
    "sta:r=5",
    "sta:r=5,similarity=query",
    "sta:r=5,similarity=ffn",
    "sta_window:r=8",
    "random_drop:keep=0.6",
    "random_merge:keep=0.6",
    "grid:keep=0.6",
    "tome:r=6",
    "evit:keep=0.6",
    "evit:keep=0.6,fuse=false",
    "topk:keep=0.6",
    "vid_tldr:r=5",
    "fewer_frames:tubelets=2",
    "lower_resolution:rows=5",
)


def host(**changes: Any) -> tuple[VideoSwin, torch.Tensor]:
    return VideoSwin(**{**SMALL, **changes}).eval(), torch.randn(1, 3, 5, 28, 40)


def other_norms(geometry: Geometry, plan: Plan) -> int:
    """Norms that a report counts with the embedding and with patch merging, 5 per element as everywhere."""
    merged = [(i, geometry.stages[geometry.stage_of(i)].dim) for i in range(geometry.depth) if geometry.ends_stage(i)]
    embedded = plan.embedded * geometry.dim if geometry.embed_norm else 0
    return 5 * (embedded + sum(plan.grids[i].halved.patches * 4 * dim for i, dim in merged))


FIRST, *OTHERS = HOSTS
CASES = [
    *((FIRST, spec) for spec in SPECS),
    *((name, spec) for name in OTHERS for spec in ("sta:r=5", "topk:keep=0.6")),
]


@pytest.mark.parametrize(("name", "spec"), CASES)
def test_the_published_form_runs_what_is_counted(name: str, spec: str) -> None:
    model, pixels = host(**HOSTS[name])
    fast = tokred.attach(model, tokred.build(spec), skip_replicas=False)
    plan = dry_run(fast.reducer, fast.geometry)
    found = count(fast.geometry, plan)
    counted = fvcore_macs(fast, (pixels,))
    assert not counted.unsupported
    # What runs in this form: nothing is skipped.
    assert counted.macs == found.model + found.executed_reduction
    assert counted.norm == found.norm + other_norms(fast.geometry, plan)
    with torch.no_grad():
        assert torch_macs(fast, (pixels,)).macs == counted.macs - counted.norm


@pytest.mark.parametrize("spec", ["none", "sta:r=5", "random_drop:keep=0.6", "evit:keep=0.6,fuse=false", "tome:r=6"])
def test_the_form_without_replicas_runs_what_is_counted_as_lean(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windowed, "LOOP_VOLUME", 0)
    model, pixels = host()
    fast = tokred.attach(model, tokred.build(spec))
    found = count(fast.geometry, dry_run(fast.reducer, fast.geometry))
    assert fvcore_macs(fast, (pixels,)).macs == found.executed_macs
    assert (found.skipped > 0) == (spec not in ("none", "tome:r=6"))


def test_costs_of_another_grid_than_the_native_one() -> None:
    model, _ = host()
    fast = tokred.attach(model, STA(r=4), skip_replicas=False)
    pixels = torch.randn(1, 3, 8, 36, 24)
    found = count(fast.geometry, dry_run(fast.reducer, fast.geometry, Grid(4, 9, 6)))
    assert fvcore_macs(fast, (pixels,)).macs == found.model + found.executed_reduction
    assert count(replace(fast.geometry, grid=Grid(4, 9, 6)), dry_run(STA(r=4), fast.geometry, Grid(4, 9, 6))) == found
