from __future__ import annotations

from typing import Any

from tokred.report.columns import columns
from tokred.report.view import Run

Results = dict[str, Any]


def _cells(results: Results, identity: str) -> dict[str, str]:
    run = Run(results)
    row = next(r for r in run.rows if r["id"] == identity)
    return {c.key: f"{c.cell(row).text}|{c.cell(row).sub or ''}" for c in columns(run)}


def test_a_row_says_all_it_knows(results: Results) -> None:
    row = next(r for r in results["rows"] if r["id"] == "tome-0.5")
    row["accuracy"]["motion"] |= {"top1": 0.8123, "low": 0.79, "high": 0.83, "diff": -0.0747, "p": 1e-9}
    row |= {"gmac": 0.6172, "gmac_share": 0.5, "kl": 0.0271, "tokens_final": 783}
    row["speed"] |= {"clips_per_s": 79.61, "speedup": 1.94, "speedup_low": 1.9, "speedup_high": 1.98, "implied": 2.0}
    cells = _cells(results, "tome-0.5")
    assert cells["method"] == "ToMe|"
    assert cells["setting"] == "r=60|"
    assert cells["gmac"] == "0.617|(50 %)"
    assert cells["top1:motion"] == "81.2|[79.0, 83.0]"
    assert cells["diff:motion"] == "-7.5*|p<0.001"
    assert cells["kl"] == "0.027|"
    assert cells["clips"] == "79.6|"
    assert cells["speedup"] == "1.94x|[1.90, 1.98]"
    assert cells["implied"] == "2.00x|"
    assert cells["tokens"] == "783|"
    assert cells["notes"] == "1|"


def test_the_unreduced_row_has_no_difference_to_itself(results: Results) -> None:
    assert _cells(results, "none-None")["diff:motion"] == "–|"


def test_without_labels_outputs_are_compared_instead(unlabelled: Results) -> None:
    keys = [c.key for c in columns(Run(unlabelled))]
    assert {"agreement", "kl", "feature_distance"} <= set(keys)
    assert not [k for k in keys if k.startswith(("top1", "diff"))]


def test_with_labels_there_is_no_feature_distance(results: Results) -> None:
    assert "feature_distance" not in [c.key for c in columns(Run(results))]


def test_a_column_that_nobody_filled_is_left_out(results: Results) -> None:
    for row in results["rows"]:
        row |= {"speed": None, "notes": []}
    keys = [c.key for c in columns(Run(results))]
    assert not {"clips", "speedup", "notes"} & set(keys)
    assert "implied" in keys
