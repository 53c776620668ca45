"""STA's selection as loops that follow the published algorithm step by step."""

from __future__ import annotations

import math

from torch import Tensor


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def reference(x: Tensor, metric: Tensor, groups: int, r: int, backward: bool = False, score: str = "both") -> list[int]:
    """Kept tokens of one sample, groups in temporal order and score order inside.

    Args:
        x: (n, D) features; metric: (n, d) similarity features; both float64.
    """
    g = len(x) // groups
    order = list(range(groups))[::-1] if backward else list(range(groups))
    place = {c: [c * g + i for i in range(g)] for c in order}

    first = place[order[0]]
    even, odd = first[0::2], first[1::2]
    likeness = {i: max((cosine(metric[i], metric[j]) for j in odd), default=0.0) for i in even}
    ranked = odd + sorted(even, key=lambda i: (likeness[i], i))
    kept = {order[0]: ranked[: g - r]}

    mass = dict.fromkeys(first, 1.0)  # every token of the first group, dropped ones too
    for c in order[1:]:
        current = place[c]
        flow = dict.fromkeys(current, 0.0)
        for source, weight in mass.items():
            e = {i: math.exp(cosine(metric[i], metric[source])) for i in current}
            total = sum(e.values())
            for i in current:
                flow[i] += weight * e[i] / total
        activation = {i: float(x[i].abs().sum()) for i in current}
        low, high = min(activation.values()), max(activation.values())
        damped = {i: 1 - (activation[i] - low) / (high - low) if high > low else 1.0 for i in current}
        z = {i: {"both": flow[i] * damped[i], "activation": damped[i], "accumulation": flow[i]}[score] for i in current}
        kept[c] = sorted(current, key=lambda i: (z[i], i))[: g - r]
        total = sum(flow[i] for i in kept[c])
        mass = {i: flow[i] / total for i in kept[c]}
    return [i for c in sorted(kept) for i in kept[c]]
