"""Results of sweeps as they stand in sweep.json, small."""

from __future__ import annotations

from typing import Any


def row(point: dict[str, Any], value: float | None, **more: Any) -> dict[str, Any]:
    """One row; ``value``: its motion top-1, None = left out."""
    accuracy = {}
    if value is not None:
        gap = value - 0.95
        ends = {"low": value - 0.03, "high": value + 0.02, "diff_low": gap - 0.02, "diff_high": gap + 0.02}
        accuracy = {"motion": {"top1": value, "n": 200, "diff": gap, "p": 0.01, **ends}}
    return {
        "point": {**point, "seed": 0},
        "cell": "c" + str(point),
        "status": "excluded" if value is None else "done",
        "reason": None,
        "method": "sta",
        "reducer": "sta:r=8",
        "backbone": "videomae_vit_nano",
        "data": "synthetic",
        "seed": 0,
        "measure": "predict",
        "budget": None,
        "gmac": 0.49,
        "gmac_share": 0.49,
        "full_gmac": 308.7,
        "trained": None,
        "accuracy": accuracy,
        "agreement": None,
        "kl": 0.1,
        "feature_distance": 0.2,
        "values": {},
        "notes": [],
        "failures": [],
        "seconds": 2.0,
        "paper": None,
        **more,
    }


def sweep(**more: Any) -> dict[str, Any]:
    """Two orders of three, one left out, with what a paper printed."""
    printed = {"value": 84.96, "gflops": 308.0, "note": ""}
    rows = [
        row({"reducer.order": "FBF"}, 0.9, paper=printed, notes=["a note"]),
        row({"reducer.order": "BBB"}, 0.86, paper={**printed, "value": 84.35}),
        row({"reducer.order": "BFF"}, None, reason="no such order"),
    ]
    effect = {
        "from": {"reducer.order": "FBF"}, "to": {"reducer.order": "BBB"}, "note": "", "paper": -0.61, "label": "motion",
        "ours": -0.04, "low": -0.08, "high": 0.01, "p": 0.2, "n": 200, "verdict": "same sign",
    }  # fmt: skip
    group = {
        "backbone": "videomae_vit_nano", "weights_sha": "abcdef0123456789", "gmac": 0.986, "items": 200, "unit": "clip",
        "data": "synthetic", "label_sets": ["motion"],
    }  # fmt: skip
    return {
        "schema": 1,
        "kind": "sweep",
        "name": "order",
        "title": "Order of the steps",
        "source": "STA (ICCV 2023), table 6b",
        "profile": "nano",
        "created": "2026-01-01T00:00:00+00:00",
        "command": "tokred sweep order.yaml",
        "complete": True,
        "environment": {"tokred": "0.1.0"},
        "axes": [["reducer.order"]],
        "seeds": [0],
        "labels": None,
        "needs": "",
        "notes": [],
        "paper": {"metric": "K400 top-1, %", "source": "table 6b"},
        "groups": [group],
        "rows": rows,
        "effects": [effect],
        **more,
    }


def curves() -> dict[str, Any]:
    """Two methods at four budgets."""
    rows = [
        row({"reducer": name, "budget": share}, 0.95 - (1 - share) * loss, method=name, gmac=share, gmac_share=share)
        for name, loss in (("sta", 0.2), ("tome", 0.3))
        for share in (0.9, 0.7, 0.5, 0.3)
    ]
    return sweep(rows=rows, effects=[], axes=[["reducer"], ["budget"]])


def over_depth() -> dict[str, Any]:
    """A measure with a value for every block, and one with a single value."""
    ends = {"low": [3.0, 2.0], "high": [5.0, 4.0], "n": [9, 9]}
    values = {
        "trajectory": {"value": [4.0, 3.0], **ends},
        "retained": {"value": 0.7, "low": 0.6, "high": 0.8, "n": 9},
    }
    rows = [row({"reducer": name}, 0.9, method=name, accuracy={}, values=values) for name in ("none", "sta")]
    return sweep(rows=rows, effects=[], axes=[["reducer"]])


def measured() -> dict[str, Any]:
    """Two points with three measures each: a line of sweep.json for every measure."""
    rows = []
    for method, share in (("sta", 0.5), ("tome", 1.0)):
        point = {"reducer": method}
        numbers = {"value": share, "low": share, "high": share, "n": 9}
        curve = {"value": [4.0, 3.0], "low": [3.0, 2.0], "high": [5.0, 4.0], "n": [9, 9]}
        sure = {"ece": 0.05, "ece_low": 0.04, "ece_high": 0.07, "brier": 0.2, "brier_low": 0.1, "brier_high": 0.3}
        rows += [
            row(point, 0.9, method=method, cell=f"{method}-p", calibration={"motion": {**sure, "confidence": 0.9}}),
            row(point, 0.9, method=method, cell=f"{method}-t", measure="trajectory", accuracy={}, kl=None,
                values={"trajectory": curve}, notes=["of the curve"]),
            row(point, 0.9, method=method, cell=f"{method}-c", measure="carried", accuracy={}, kl=None,
                values={"patches_carried": numbers}),
        ]  # fmt: skip
    pair = {"a": "sta", "b": "tome", "iou": 0.5, "rand": 0.25, "spearman": 0.75, "kendall": None, "clips": 9}
    return sweep(rows=rows, effects=[], axes=[["reducer"]], overlap=[pair], overlap_ranks="patches kept")


def with_seeds() -> dict[str, Any]:
    """One point with two seeds, and what all its clips say."""
    rows = [row({"reducer": "sta"}, value) for value in (0.9, 0.86)]
    for seed, line in enumerate(rows):
        line["point"]["seed"] = line["seed"] = seed
    numbers = {
        "top1": 0.88, "low": 0.85, "high": 0.9, "n": 400, "diff": -0.07, "diff_low": -0.1, "diff_high": -0.04,
        "p": 0.001, "top1_sd": 0.028, "diff_sd": 0.028, "seed_top1": [0.9, 0.86], "seed_diff": [-0.05, -0.09],
    }  # fmt: skip
    values = {"trajectory": {"value": [4.0, 3.0], "low": [3.0, 2.0], "high": [5.0, 4.0], "n": [9, 9], "sd": [0.5, 0.7]}}
    entry = {"label": "sta", "point": {"reducer": "sta"}, "seeds": [0, 1], "accuracy": {"motion": numbers}}
    return sweep(rows=rows, effects=[], axes=[["reducer"]], seeds=[0, 1], over_seeds=[{**entry, "values": values}])
