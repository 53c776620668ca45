"""The picture of a stream: tokens updated, multiply-adds, and agreement with the full model, over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokred.report.canvas import looking, new_figure
from tokred.report.style import BLUE, FAINT, GREEN, INDIGO, INK, RED
from tokred.report.text import clean, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GATE_COLORS = {"qkv": BLUE, "projection": GREEN, "mlp": RED}
GIGA = 1e9
SMOOTH = 25  # calls in the running mean of agreement, where there are many


def stream_picture(results: Mapping[str, Any]) -> Figure:
    """Draw what `tokred stream` found.

    Args:
        results: as returned by ``tokred.run.stream.stream``.
    """
    rows = results["rows"]
    with looking():
        figure = new_figure("wide", 7.2)
        panels = figure.subplots(3, 1, sharex=True, height_ratios=[1, 1, 1.15])
        _updates(panels[0], rows, results["tokens"])
        _cost(panels[1], rows, results["unreduced_macs"])
        _agreement(panels[2], [row for row in rows if "kl" in row])
        panels[2].set_xlabel("frame of the video")
        title = f"{clean(results['reducer'])} on {clean(results['backbone'])}, {clean(results['video'])}"
        figure.suptitle(shorten(title, 110), fontsize=11)
    return figure


def _updates(panel: Axes, rows: list[dict[str, Any]], tokens: int) -> None:
    steady = [row for row in rows if row["updates"]]
    for width, (gate, color) in zip((3.6, 2.2, 1.0), GATE_COLORS.items(), strict=True):
        xs, ys = [r["frame"] for r in steady], [r["updates"][gate] for r in steady]
        # Narrower on top: with a fixed number of tokens all three run on one line.
        panel.plot(xs, ys, color=color, lw=width, label=f"{gate} gate")
    panel.axhline(tokens, color=FAINT, lw=1, ls=(0, (4, 2)), label=f"all {tokens} tokens")
    panel.set_ylim(bottom=0)
    panel.set_title("Tokens updated per frame, mean over blocks")
    panel.set_ylabel("tokens")
    panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _cost(panel: Axes, rows: list[dict[str, Any]], full: int) -> None:
    steady = [row for row in rows if not row["flush"]]
    first = [row for row in rows if row["flush"]]
    panel.plot([r["frame"] for r in steady], [r["macs"] / GIGA for r in steady], color=INDIGO, lw=1.4, label="steady")
    panel.plot(
        [r["frame"] for r in first], [r["macs"] / GIGA for r in first], "o", color=INK, ms=5, label="flush (in full)"
    )
    panel.axhline(full / GIGA, color=FAINT, lw=1, ls=(0, (4, 2)), label="full model")
    panel.set_ylim(bottom=0)
    panel.set_title("Multiply-adds per frame")
    panel.set_ylabel("GMAC")
    panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _agreement(panel: Axes, rows: list[dict[str, Any]]) -> None:
    xs = [r["frame"] for r in rows]
    panel.plot(xs, [r["logit_error"] for r in rows], color=INDIGO, lw=1.2, label="relative error of the logits")
    window = SMOOTH if len(rows) >= 4 * SMOOTH else 1
    same = [float(r["same_top1"]) for r in rows]
    running = [sum(same[max(0, i - window + 1) : i + 1]) / min(window, i + 1) for i in range(len(same))]
    label = "same top-1" if window == 1 else f"same top-1, mean of {window}"
    panel.plot(xs, running, color=GREEN, lw=1.4, label=label)
    panel.set_ylim(bottom=0)
    panel.set_title("Agreement with the full model")
    panel.set_ylabel("share, error")
    panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
