"""A search as a picture: what every trial reached, and the two schedules block by block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokred.report.canvas import looking, new_figure
from tokred.report.style import BLUE, FAINT, INK, RED

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def tune_picture(found: Mapping[str, Any]) -> Figure:
    """The losses of all trials with the best so far, and the tokens that enter each block.

    Args:
        found: as read from tune.json.
    """
    with looking():
        figure = new_figure("wide", 4.2)
        left, right = figure.subplots(1, 2)
        tried = [(t["number"], t["loss"]) for t in found["trials"] if t["loss"] is not None]
        left.plot([n for n, _ in tried], [loss for _, loss in tried], ls="none", marker="o", ms=4, color=FAINT)
        best = [min(loss for _, loss in tried[: i + 1]) for i in range(len(tried))]
        left.plot([n for n, _ in tried], best, color=RED, lw=1.6, label="best so far")
        left.axhline(found["own"]["loss"], color=BLUE, lw=1.6, label="the method's own schedule")
        left.set(xlabel="trial", ylabel="loss on the clips it is tuned on, nats")
        left.set_title("search")
        left.legend(loc="upper right")
        for name, color in (("own", BLUE), ("tuned", RED)):
            if found[name] is not None:
                tokens = found[name]["tokens"]
                right.step(range(len(tokens)), tokens, where="mid", color=color, lw=1.8, label=found[name]["spec"])
        right.set(xlabel="block", ylabel="tokens that enter it", ylim=(0, None))
        right.set_title("schedule", color=INK)
        right.legend(loc="lower left", fontsize=7.5)
    return figure
