"""The picture of a stream."""

from __future__ import annotations

from typing import Any

from tokred.report.canvas import png
from tokred.report.stream_plot import stream_picture


def results(calls: int) -> dict[str, Any]:
    gates = ("qkv", "projection", "mlp")
    rows = [
        {
            "frame": 2 * i,
            "flush": i == 0,
            "macs": 1e9 if i == 0 else 3e8 + i,
            "updates": None if i == 0 else dict.fromkeys(gates, float(i)),
            **({"same_top1": i % 2 == 0, "kl": 0.1, "logit_error": 0.2} if i % 3 == 0 else {}),
        }
        for i in range(calls)
    ]
    return {
        "reducer": "eventful:r=8",
        "backbone": "b\x1b[31m",
        "video": "v.mp4",
        "tokens": 20,
        "unreduced_macs": 1e9,
        "rows": rows,
    }


def test_three_panels_show_updates_cost_and_agreement() -> None:
    figure = stream_picture(results(12))
    updates, cost, agreement = figure.axes
    assert [len(line.get_xdata()) for line in updates.lines[:3]] == [11, 11, 11]
    steady, flush, _ = cost.lines
    assert list(flush.get_ydata()) == [1.0]
    assert len(steady.get_xdata()) == 11
    assert list(agreement.lines[0].get_xdata()) == [0, 6, 12, 18]
    title = figure.get_suptitle()
    assert "\x1b" not in title
    assert "eventful:r=8" in title


def test_one_call_and_many_can_be_drawn() -> None:
    assert png(stream_picture(results(1)))[:4] == b"\x89PNG"
    many = stream_picture(results(400))
    assert "mean of 25" in many.axes[2].get_legend_handles_labels()[1][1]
