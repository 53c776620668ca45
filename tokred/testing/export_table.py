"""Which methods can be compiled, exported and written as ONNX: the table of the documentation."""

from __future__ import annotations

from collections.abc import Iterable

from tokred.reducer import TokenReducer
from tokred.testing.case import construct
from tokred.testing.graphs import breaks_graph
from tokred.testing.programs import no_onnx, no_program

HEAD = ("method", "`torch.compile`, one graph", "`torch.export`", "ONNX")


def export_table(methods: Iterable[type[TokenReducer]]) -> str:
    """A Markdown table: a row for each method, "yes" or a number in each column; the reasons by number under it.

    Args:
        methods: registered classes; what they declare at their defaults is what the contract holds them to.
    """
    reasons: dict[str, int] = {}
    rows = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for method in methods:
        capabilities = construct(method).capabilities
        cells = [f"`{method.method}`"]
        for reason in (breaks_graph(capabilities), no_program(capabilities), no_onnx(capabilities)):
            number = None if reason is None else reasons.setdefault(reason, len(reasons) + 1)
            cells.append("yes" if number is None else f"no [{number}]")
        rows.append("| " + " | ".join(cells) + " |")
    notes = [f"[{number}] {reason}" for reason, number in reasons.items()]
    return "\n".join([*rows, "", *notes]).rstrip() + "\n"
