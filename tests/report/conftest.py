from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest

METHODS = [
    ("sta", "STA", 0.010, 0.985),
    ("tome", "ToMe", 0.012, 0.97),
    ("evit", "EViT-style", 0.020, 0.95),
    ("topk", "Top-k attention", 0.030, 0.96),
    ("grid", "Grid", 0.045, 1.0),
    ("random_merge", "Random merge", 0.050, 0.98),
    ("random_drop", "Random drop", 0.080, 1.0),
    ("fewer_frames", "Fewer frames", 0.060, 1.01),
    ("lower_resolution", "Lower resolution", 0.070, 1.02),
]
BASE = {"appearance": 0.931, "motion": 0.887}


def _accuracy(rng: random.Random, loss: float, clips: int, reduced: bool) -> dict[str, Any]:
    found = {}
    for name, base in BASE.items():
        top1 = base - (loss * (1.6 if name == "motion" else 1.0) * rng.uniform(0.8, 1.2) if reduced else 0.0)
        half = 1.96 * (top1 * (1 - top1) / clips) ** 0.5
        diff = top1 - base
        found[name] = {"top1": top1, "low": top1 - half, "high": top1 + half * 0.9, "n": clips,
                       "diff": diff if reduced else None, "diff_low": diff - 0.01 if reduced else None,
                       "diff_high": diff + 0.01 if reduced else None,
                       "p": min(1.0, 2.0 ** (diff * 700)) if reduced else None}  # fmt: skip
    return found


def make_results(
    labelled: bool = True, clips: int = 1000, budgets: tuple[float, ...] = (0.75, 0.5, 0.35)
) -> dict[str, Any]:
    """Return plausible results of 9 methods; every number is made up."""
    rng, full = random.Random(0), 1.2345
    rows = []
    for method, label, loss, efficiency in [("none", "Unreduced", 0.0, 1.0), *METHODS]:
        for budget in budgets if method != "none" else (None,):
            share = budget * rng.uniform(0.985, 1.0) if budget else 1.0
            scale = (1 - share) / 0.5
            measured = efficiency * rng.uniform(0.97, 1.0) / share if budget else 1.0
            keep = round(1568 * share)
            rows.append({
                "id": f"{method}-{budget}", "method": method, "label": label, "budget": budget,
                "reducer": f"{method}:r={round(60 * scale)}" if budget else "none",
                "status": "done", "reason": None, "learned": False, "gmac": full * share, "gmac_share": share,
                "reduction_gmac": 0.01, "tokens_final": keep, "tokens_per_block": [1568, keep],
                "accuracy": _accuracy(rng, loss * scale**1.5, clips, budget is not None) if labelled else {},
                "agreement": {"value": 1 - 2 * loss * scale if budget else 1.0, "low": 0.97 - 2 * loss * scale,
                              "high": min(1.0, 1.01 - 2 * loss * scale)},
                "kl": loss * scale * 2.3, "feature_distance": loss * scale * 5,
                "speed": {"clips_per_s": 41.0 * measured, "ms_median": 24.4 / measured, "ms_iqr": 0.6,
                          "speedup": measured, "speedup_low": measured * 0.97, "speedup_high": measured * 1.02,
                          "implied": 1 / share},
                "notes": ["amount clamped in block 9: 40 asked, 31 possible"] if method == "tome" and budget else [],
                "seconds": 11.5,
            })  # fmt: skip
    return {
        "schema": 1, "kind": "compare", "title": "tokred compare: videomae_vit_nano on synthetic actions",
        "created": "2026-11-20T13:34:28+00:00", "command": "tokred compare --seed 0", "complete": True,
        "environment": {"tokred": "0.1.0", "torch": "2.13.0+cu130", "python": "3.11.2",
                        "platform": "Linux-6.1-x86_64", "processor": "AMD EPYC 9654", "threads": 2, "device": "cpu",
                        "dtype": "float32", "commit": "3f2a9c1", "dirty": True, "attention": "fused"},
        "backbone": {"name": "videomae_vit_nano", "checkpoint": None, "weights_sha": "9b1d4e0c77aa", "gmac": full,
                     "params": 1_912_345, "tokens": 1568},
        "data": {"name": "synthetic-actions", "digest": "c0ffee12", "items": clips,
                 "label_sets": [{"name": n, "classes": ["a", "b"]} for n in BASE] if labelled else [],
                 "failures": [], "notes": []},
        "settings": {"budgets": list(budgets), "seed": 0, "batch_size": 16, "clips": clips},
        "rows": rows,
    }  # fmt: skip


@pytest.fixture(scope="session")
def labelled_page() -> str:
    """The page of the labelled run, drawn once."""
    from tokred.report.html import page

    return page([make_results()])


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the drawing out, for tests of everything else."""
    from tokred.report import plots

    monkeypatch.setattr(plots, "quality", lambda *_: None)
    monkeypatch.setattr(plots, "speedup", lambda *_: None)


@pytest.fixture
def results() -> dict[str, Any]:
    """A finished, labelled run: 9 methods, 3 budgets, 2 label sets."""
    return make_results()


@pytest.fixture(scope="session")
def make() -> Callable[..., dict[str, Any]]:
    return make_results


@pytest.fixture
def unlabelled() -> dict[str, Any]:
    """A run on files without labels, some of them broken."""
    found = make_results(labelled=False, clips=23)
    found["title"], found["data"]["name"] = "tokred compare: videomae_vit_nano on data/clips", "data/clips"
    found["data"]["failures"] = [
        {"path": "data/clips/empty.mp4", "reason": "the file is empty (0 bytes)"},
        {"path": "data/clips/<b onmouseover=alert(1)>[red]x.mkv", "reason": "no video stream; found: audio (aac)"},
        {"path": "data/clips/\x1b[2Jclear\udcff.avi", "reason": "Invalid data found when processing input"},
    ]
    return found


@pytest.fixture
def refused() -> dict[str, Any]:
    """A run in which some rows could not be computed and one has no numbers for parts of its columns."""
    found = make_results(budgets=(0.5,))
    for row in found["rows"]:
        if row["method"] == "evit":
            row.update(status="refused", reason="EViT needs a class token; videomae_vit_nano has none")
        if row["method"] == "grid":
            row.update(status="failed", reason="RuntimeError: out of memory")
        if row["method"] in ("evit", "grid"):
            row.update(gmac=None, gmac_share=None, tokens_final=None, tokens_per_block=[], accuracy={}, agreement=None,
                       kl=None, feature_distance=None, speed=None, seconds=None)  # fmt: skip
        if row["method"] == "topk":
            row.update(kl=float("nan"), speed=None)
            row["accuracy"]["motion"]["p"] = None
    return found


@pytest.fixture
def incomplete() -> dict[str, Any]:
    """A run stopped by Ctrl-C after a third of its rows."""
    found = copy.deepcopy(make_results())
    found["complete"] = False
    for row in found["rows"][10:]:
        row.update(status="pending", gmac=None, gmac_share=None, accuracy={}, agreement=None, kl=None,
                   feature_distance=None, speed=None, seconds=None, tokens_final=None)  # fmt: skip
    return found
