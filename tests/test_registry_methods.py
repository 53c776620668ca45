"""What each built-in method declares, and what it does when nobody sets anything: said twice on purpose."""

from __future__ import annotations

from typing import Any

import pytest

from tokred.backbones.geometry import Geometry
from tokred.reducer import Strength
from tokred.registry import build, list_methods
from tokred.tokens import Grid

FLAGS = (
    *("changes_length", "stateful", "trainable", "keeps_frames", "keeps_grid", "static_counts", "keeps_order"),
    "channel_blind",
)

# name: class, site, needs, flags of its capabilities that are true, what else is unusual about it.
DECLARED = {
    "ats": (
        "ATS",
        "after_attention",
        "class_row key mean_query_row query received value",
        "changes_length static_counts keeps_order channel_blind",
        "",
    ),
    "dynamicvit": ("DynamicViT", "before_block", "training_seed", "changes_length trainable static_counts", ""),
    "eventful": (
        "Eventful",
        "before_block",
        "",
        "stateful keeps_frames keeps_grid static_counts keeps_order",
        "evaluates",
    ),
    "evit": ("EViT", "after_attention", "class_row received", "changes_length static_counts channel_blind", ""),
    "fewer_frames": (
        "FewerFrames",
        "after_block",
        "",
        "changes_length keeps_frames keeps_grid static_counts keeps_order channel_blind",
        "",
    ),
    "grid": (
        "GridKeep",
        "after_block",
        "frames",
        "changes_length keeps_frames static_counts keeps_order channel_blind",
        "",
    ),
    "lower_resolution": (
        "LowerResolution",
        "after_block",
        "",
        "changes_length keeps_frames keeps_grid static_counts keeps_order channel_blind",
        "",
    ),
    "none": ("Unreduced", "after_block", "", "keeps_frames keeps_grid static_counts keeps_order channel_blind", ""),
    "random_drop": (
        "RandomDrop",
        "after_block",
        "sample_seed",
        "changes_length static_counts keeps_order channel_blind",
        "",
    ),
    "random_merge": (
        "RandomMerge",
        "after_block",
        "sample_seed",
        "changes_length static_counts keeps_order channel_blind",
        "pool=mass",
    ),
    "sta": ("STA", "after_block", "frames key", "changes_length keeps_frames static_counts channel_blind", ""),
    "sta_window": (
        "STAWindow",
        "after_block",
        "frames key",
        "changes_length keeps_frames static_counts channel_blind",
        "",
    ),
    "stts": (
        "STTS",
        "before_block",
        "frames training_seed",
        "changes_length trainable keeps_frames keeps_grid static_counts keeps_order",
        "",
    ),
    "stts_heuristic": (
        "STTSHeuristic",
        "before_block",
        "frames",
        "changes_length keeps_frames keeps_grid static_counts keeps_order channel_blind",
        "",
    ),
    "stvit": (
        "STViT",
        "before_block",
        "",
        "changes_length trainable keeps_frames keeps_grid static_counts keeps_order",
        "",
    ),
    "stvit_r": (
        "STViTR",
        "after_block",
        "",
        "changes_length trainable keeps_frames keeps_grid static_counts keeps_order",
        "",
    ),
    "tome": ("ToMe", "after_attention", "key", "changes_length static_counts channel_blind", "pool=mass"),
    "topk": (
        "TopK",
        "after_attention",
        "class_row received",
        "changes_length static_counts keeps_order channel_blind",
        "",
    ),
    "vid_tldr": ("VidTLDR", "after_attention", "entropy", "changes_length static_counts channel_blind", "proportional"),
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "ats": {"keep": 1.0, "at": "all", "score": "auto", "stable": False, "official": False},
    "dynamicvit": {
        "keep": 1.0,
        "at": "quarters",
        "weights": "shipped",
        "ratio_weight": 2.0,
        "distill_weight": 0.5,
        "gradient_bound": None,
    },
    "eventful": {
        "r": None,
        "fraction": None,
        "threshold": None,
        "variant": "full",
        "stgt": False,
        "pool_size": 1,
        "refresh": 0,
        "cast": "none",
        "gate_before_norm": False,
        "order": 2,
        "at": "all",
    },
    "evit": {
        "keep": 1.0,
        "tokens": None,
        "at": "quarters",
        "fuse": True,
        "score": "auto",
        "normalise": False,
        "order": "score",
        "pool": "mean",
    },
    "fewer_frames": {"tubelets": None},
    "grid": {"keep": 1.0, "at": "thirds"},
    "lower_resolution": {"rows": None},
    "none": {},
    "random_drop": {"keep": 1.0, "at": "thirds", "seed": 0},
    "random_merge": {"keep": 1.0, "at": "thirds", "seed": 0},
    "sta": {
        "r": 0,
        "at": "thirds",
        "schedule": "decreasing",
        "order": "FBF",
        "similarity": "key",
        "score": "both",
        "first": "tome",
        "grouping": "clip",
        "seed": 0,
    },
    "sta_window": {
        "r": 0,
        "at": "thirds",
        "schedule": "decreasing",
        "order": "FBF",
        "similarity": "key",
        "score": "both",
        "first": "tome",
        "seed": 0,
        "shifted": True,
    },
    "stts": {
        "keep": 1.0,
        "time": None,
        "space": None,
        "time_at": 0,
        "space_at": None,
        "weights": "shipped",
        "sigma": 0.1,
        "decay": True,
        "samples": 500,
        "jacobian": "diagonal",
    },
    "stts_heuristic": {
        "keep": 1.0,
        "time": None,
        "space": None,
        "time_at": 0,
        "space_at": None,
        "frames": "uniform",
        "squares": "difference",
        "seed": 0,
    },
    "stvit": {
        "side": 4,
        "at": None,
        "layers": 2,
        "centres": True,
        "keys": "clip",
        "weights": "shipped",
        "layer_scale": 1e-05,
        "distill_weight": 0.5,
    },
    "stvit_r": {
        "side": 4,
        "units": None,
        "layers": 2,
        "centres": True,
        "keys": "clip",
        "weights": "shipped",
        "layer_scale": 1e-05,
        "distill_weight": 0.5,
    },
    "tome": {"r": 0, "inflection": 0.0, "keep": None, "at": "all", "proportional": False, "pool": "mass"},
    "topk": {"keep": 1.0, "at": "thirds"},
    "vid_tldr": {"r": 0, "at": None, "weighted": "sources", "pool": "mean"},
}

# On 4 x 4 x 6 patches in 6 blocks: argument, weakest, strongest, whole numbers only.
STRENGTHS = {
    "ats": ("keep", 1.0, 1 / 96, False),
    "dynamicvit": ("keep", 1.0, 0.25, False),
    "eventful": ("r", 96, 0, True),
    "evit": ("keep", 1.0, 1 / 96, False),
    "fewer_frames": ("tubelets", 4, 1, True),
    "grid": ("keep", 1.0, 1 / 96, False),
    "lower_resolution": ("rows", 4, 1, True),
    "random_drop": ("keep", 1.0, 1 / 96, False),
    "random_merge": ("keep", 1.0, 1 / 96, False),
    "sta": ("r", 0, 12, True),
    "sta_window": ("r", 0, 0, True),
    "stts": ("keep", 1.0, 1 / 96, False),
    "stts_heuristic": ("keep", 1.0, 1 / 96, False),
    "stvit": ("side", 4, 1, True),
    "stvit_r": ("side", 4, 1, True),
    "tome": ("r", 0, 48, True),
    "topk": ("keep", 1.0, 1 / 96, False),
    "vid_tldr": ("r", 0, 48, True),
}
NO_STRENGTH = {"none"}

GEOMETRY = Geometry(
    depth=6, dim=24, heads=3, head_dim=8, mlp_hidden=48, grid=Grid(4, 4, 6), prefix=0, classes=7, kernel=(2, 4, 4)
)


def test_every_built_in_method_is_in_the_tables() -> None:
    built_in = {name for name, cls in list_methods().items() if cls.__module__.startswith("tokred.methods")}
    assert built_in == set(DECLARED) == set(DEFAULTS) == set(STRENGTHS) | NO_STRENGTH


@pytest.mark.parametrize("name", DECLARED)
def test_what_it_declares(name: str) -> None:
    kind, site, needs, flags, unusual = DECLARED[name]
    reducer = build(name)
    assert (type(reducer).__name__, type(reducer).method, reducer.site) == (kind, name, site)
    assert reducer.capabilities.needs == set(needs.split())
    assert [flag for flag in FLAGS if getattr(reducer.capabilities, flag)] == flags.split()
    found = {"evaluates": reducer.evaluates, "proportional": reducer.proportional, "pool=mass": reducer.pool == "mass"}
    assert [word for word, holds in found.items() if holds] == unusual.split()
    assert (reducer.capabilities.identity_at_zero is True) == (not name.startswith("stvit"))


@pytest.mark.parametrize("name", DEFAULTS)
def test_what_it_does_when_nobody_sets_anything(name: str) -> None:
    config = build(name).config
    assert {setting: config[setting] for setting in DEFAULTS[name]} == DEFAULTS[name]


@pytest.mark.parametrize("name", STRENGTHS)
def test_every_setting_has_a_name_and_only_the_first_may_go_without(name: str) -> None:
    method: Any = list_methods()[name]
    (first, value), *others = DEFAULTS[name].items()
    assert method(**DEFAULTS[name]).config == method(value, **dict(others)).config
    assert next(iter(method(**{first: value}).config)) == first
    if others:
        with pytest.raises(TypeError, match="positional"):
            method(value, others[0][1])


@pytest.mark.parametrize("name", STRENGTHS)
def test_the_range_of_its_strength(name: str) -> None:
    assert build(name).strength_range(GEOMETRY) == Strength(*STRENGTHS[name])  # type: ignore[arg-type]
    assert build(name).strength == STRENGTHS[name][0]
