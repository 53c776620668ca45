"""Finished runs as one pandas frame: sweeps and comparisons alike."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokred.report.table import frame
from tokred.report.text import clean, number
from tokred.run.sweep_words import said_once

if TYPE_CHECKING:
    import pandas as pd

FILES = ("sweep.json", "results.json")
KINDS = ("sweep", "compare")
SINGLE = ("agreement", "kl", "feature_distance", "gmac", "gmac_share", "full_gmac", "paper")
"""What one measure of a point knows and another may not."""

ACCURACY = ("top1", "low", "high", "n", "diff", "diff_low", "diff_high", "p")
CALIBRATION = ("ece", "ece_low", "ece_high", "brier", "brier_low", "brier_high", "confidence")
"""Columns of a label set."""


def load_run(run: str | Path) -> dict[str, Any]:
    """What a run found, from its folder or its file.

    Raises:
        ValueError: no run is there, or of another version; one line.
    """
    path = Path(run)
    if path.is_dir():
        path = next((path / name for name in FILES if (path / name).exists()), path / FILES[-1])
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{run} is not a run: {error.strerror or error}: {path}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    rows = found.get("rows") if isinstance(found, dict) else None
    if not isinstance(rows, list) or found.get("schema") != 1 or found.get("kind", "compare") not in KINDS:
        raise ValueError(f"{path} is not a results file of this version (schema 1)")
    return dict(found)


def results(*runs: str | Path) -> pd.DataFrame:
    """All points of finished or interrupted runs, one line each: ``tokred.results("results/sta_table6_order-nano")``.

    Args:
        runs: folders or files; a folder without a run of its own stands for the runs in its sub-folders.
    Returns:
        Columns ``run``, ``kind``, the axes of sweeps by their keys, method, reducer, backbone, data, seed, ``measure``
        (several are joined by spaces), ``status`` (``partly done`` where only some measures are), gmac, gmac_share,
        full_gmac; for each label set ``<name>_top1``, ``_low``, ``_high``, ``_n``, ``_diff``, ``_diff_low``,
        ``_diff_high``, ``_p``, and its calibration ``<name>_ece``, ``_ece_low``, ``_ece_high``, ``_brier``,
        ``_brier_low``, ``_brier_high``, ``_confidence``; agreement, kl; for other measures ``<value>``,
        ``<value>_low``, ``<value>_high`` (means, of curves the mean of their entries); ``full_gmac_vs_printed``;
        seconds (of all measures), reason; ``cell``: id of the first measure's cell, and ``cell_<measure>`` of each.
        Shares of one, also ECE, confidence and ``full_gmac_vs_printed`` (0.05: 5 % more than printed); Brier 0 (best)
        to 2; KL in nats; gmac in 1e9 multiply-adds.
    Raises:
        ValueError: no run is there.
    """
    import pandas as pd

    frames = [_one(path, load_run(path)) for run in runs for path in _expanded(Path(run))]
    filled = [found for found in frames if len(found)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()


def _expanded(path: Path) -> list[Path]:
    if not path.is_dir() or any((path / name).exists() for name in FILES):
        return [path]
    inside = sorted({file.parent for name in FILES for file in path.glob(f"*/{name}")})
    return list(inside) or [path]


def _one(path: Path, found: Mapping[str, Any]) -> pd.DataFrame:
    name = (path if path.is_dir() else path.parent).name or str(path)
    flat = sweep_frame(found) if found.get("kind") == "sweep" else _compare(found)
    flat.insert(0, "run", name)
    flat.insert(1, "kind", found.get("kind", "compare"))
    return flat


def _compare(found: Mapping[str, Any]) -> pd.DataFrame:
    flat = frame(found).rename(columns={"id": "cell"})
    backbone, data, settings = (found.get(part) or {} for part in ("backbone", "data", "settings"))
    flat["backbone"], flat["data"], flat["seed"] = backbone.get("name"), data.get("name"), settings.get("seed")
    return flat


def sweep_frame(found: Mapping[str, Any]) -> pd.DataFrame:
    """The points of a sweep, in the order of its grid; see `results`."""
    import pandas as pd

    return pd.DataFrame([_flat(row) for row in point_rows(found)])


def point_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a sweep with all measures of a point in one, in the order of the grid.

    Returns:
        Rows as in sweep.json with what all measures of the point found; ``measure``: their names, joined by spaces;
        ``cells``: measure -> id, ``cell``: the first of them; seconds of all. ``status`` is "partly done" where some
        measures are done and others not; ``reason`` then names these.
    """
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for row in found["rows"]:
        grouped.setdefault(json.dumps(row["point"], sort_keys=True), []).append(row)
    return [_joined(rows) for rows in grouped.values()]


def _joined(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    joined = dict(rows[0])
    for row in rows[1:]:
        for part in ("accuracy", "calibration", "values"):
            joined[part] = {**(joined.get(part) or {}), **(row.get(part) or {})}
        joined |= {key: row[key] for key in SINGLE if joined.get(key) is None and row.get(key) is not None}
    seconds = [row["seconds"] for row in rows if row.get("seconds") is not None]
    joined |= {
        "cells": {row["measure"]: row["cell"] for row in rows if row.get("measure")},
        "measure": " ".join(row["measure"] for row in rows if row.get("measure")) or None,
        "notes": said_once(note for row in rows for note in row.get("notes") or ()),
        "failures": [failure for row in rows for failure in row.get("failures") or ()],
        "seconds": sum(seconds) if seconds else None,
    }
    states = [row["status"] for row in rows]
    if len(rows) > 1:
        open_ = [f"{row['measure']}: {row.get('reason') or row['status']}" for row in rows if row["status"] != "done"]
        joined["reason"] = "; ".join(open_) or None
    if len(set(states)) > 1:
        joined["status"] = "partly done" if "done" in states else "failed"
    return joined


def full_off(row: Mapping[str, Any]) -> float | None:
    """How far the cost counted at full size is from the printed one, as a share of the printed one."""
    counted, printed = number(row.get("full_gmac")), number((row.get("paper") or {}).get("gflops"))
    return None if counted is None or not printed else counted / printed - 1


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    point = {key: _plain(value) for key, value in (row.get("point") or {}).items()}
    # An axis may vary what is a column anyway; the settled value of that column says more.
    own = ("method", "reducer", "backbone", "data", "seed", "measure", "status", "budget", "trained")
    flat: dict[str, Any] = {**point, **{key: row.get(key) for key in own}}
    flat |= {key: row.get(key) for key in ("gmac", "gmac_share", "full_gmac")}
    for part, columns in (("accuracy", ACCURACY), ("calibration", CALIBRATION)):
        for name, numbers in (row.get(part) or {}).items():
            flat |= {f"{name}_{column}": numbers.get(column) for column in columns}
    agreement = row.get("agreement") or {}
    flat |= {"agreement": agreement.get("value"), "kl": row.get("kl"), "feature_distance": row.get("feature_distance")}
    for name, numbers in (row.get("values") or {}).items():
        flat |= {name: mean(numbers.get("value")), f"{name}_low": mean(numbers.get("low"))}
        flat[f"{name}_high"] = mean(numbers.get("high"))
    paper = row.get("paper") or {}
    flat |= {"paper_value": paper.get("value"), "paper_gflops": paper.get("gflops")}
    flat |= {"full_gmac_vs_printed": full_off(row), "seconds": row.get("seconds"), "reason": row.get("reason")}
    flat |= {"cell": row.get("cell"), **{f"cell_{name}": id_ for name, id_ in (row.get("cells") or {}).items()}}
    flat["notes"] = " | ".join(row.get("notes") or ())
    return {key: clean(value) if isinstance(value, str) else value for key, value in flat.items()}


def mean(values: Any) -> float | None:
    """A number as it is; of a curve the mean of its entries, without those that are missing."""
    if isinstance(values, Iterable):
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None
    return None if values is None else float(values)


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, dict)) else value
