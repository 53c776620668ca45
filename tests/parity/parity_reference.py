"""The published methods a second time: one sample after another, dense attention, float64, nothing of tokred.

Written from the method descriptions. Each function also returns how close its closest decision was (its margin), so
that files made from it hold no decision that float32 could take differently.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

FAR = math.inf


def gap(values: list[float]) -> float:
    """The smallest difference of neighbours in a sorted list."""
    return min((abs(b - a) for a, b in pairwise(values) if math.isfinite(a) and math.isfinite(b)), default=FAR)


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def sta_stage(x: Tensor, keys: Tensor, groups: int, r: int, backward: bool) -> dict[str, Tensor | float]:
    """One STA stage on (B, n, D) features and (B, n, d) keys."""
    samples = [_sta_sample(x[b], keys[b], groups, r, backward) for b in range(len(x))]
    names = [name for name in samples[0] if name != "margin"]
    out: dict[str, Tensor | float] = {name: torch.stack([torch.as_tensor(s[name]) for s in samples]) for name in names}
    out["margin"] = min(float(s["margin"]) for s in samples)
    return out


def _sta_sample(x: Tensor, keys: Tensor, groups: int, r: int, backward: bool) -> dict[str, Tensor | list[int] | float]:
    g = len(x) // groups
    xs, ks = x.reshape(groups, g, -1), unit(keys).reshape(groups, g, -1)
    order = list(range(groups))[:: -1 if backward else 1]
    first = ks[order[0]]
    best = [max(float(first[i] @ first[j]) for j in range(1, g, 2)) for i in range(0, g, 2)]
    ranks = sorted(range(len(best)), key=best.__getitem__)
    local = {order[0]: (list(range(1, g, 2)) + [2 * i for i in ranks])[: g - r]}
    out: dict[str, Tensor | list[int] | float] = {
        "first.max_sim": torch.tensor(best, dtype=x.dtype),
        "first.order": ranks,
    }
    margin = gap([best[i] for i in ranks])
    mass, sources = torch.ones(g, dtype=x.dtype), list(range(g))
    for j in range(1, groups):
        now, before = order[j], order[j - 1]
        flow = (ks[now] @ ks[before][sources].T).softmax(dim=0)
        gathered = flow @ mass
        activation = xs[now].abs().sum(-1)
        activation = (activation - activation.min()) / (activation.max() - activation.min())
        score = gathered * (1 - activation)
        kept = sorted(range(g), key=score.tolist().__getitem__)[: g - r]
        ranked = sorted(score.tolist())
        margin = min(margin, gap(ranked[: g - r + 1]) / ranked[-1])
        out |= {f"step{j}.acc": gathered, f"step{j}.score": score, f"step{j}.kept_local": kept}
        local[now] = kept
        mass, sources = gathered[kept] / gathered[kept].sum(), kept
    out["kept"] = [group * g + i for group in range(groups) for i in local[group]]
    return out | {"margin": margin}


class Match:
    """ToMe's matching of one sequence of keys (n, d)."""

    def __init__(self, keys: Tensor, r: int, protected: int) -> None:
        n, k = len(keys), unit(keys)
        self.r = r = min(r, (n - protected) // 2)
        best, choice, second = [], [], []
        for i in range(0, n, 2):
            products = [-FAR if protected == 2 and j == 1 else float(k[i] @ k[j]) for j in range(1, n, 2)]
            ranked = sorted(products, reverse=True)
            best.append(-FAR if protected and i == 0 else ranked[0])
            choice.append(products.index(ranked[0]))
            second.append(ranked[0] - ranked[1] if len(ranked) > 1 else FAR)
        order = sorted(range(len(best)), key=lambda i: -best[i])
        self.source, self.unmerged = order[:r], order[r:]
        ranked = [best[i] for i in (order[: r + 1] if protected else order)]
        self.margin = min(gap(ranked), min((second[i] for i in self.source), default=FAR))
        if protected:
            self.unmerged.sort()
        self.destination = [choice[i] for i in self.source]
        left = [2 * i for i in self.unmerged]
        odd = list(range(1, n, 2))
        places = [left[0], odd[0], *left[1:], *odd[1:]] if protected == 2 else left + odd
        position = {token: place for place, token in enumerate(places)}
        for i, j in zip(self.source, self.destination, strict=True):
            position[2 * i] = position[2 * j + 1]
        self.assign = [position[i] for i in range(n)]
        self.n_out = n - r


def merged(x: Tensor, assign: list[int], n_out: int, mode: str = "sum") -> Tensor:
    """Rows of x (n, C) put together by place: their sum, mean or largest."""
    rows = []
    for place in range(n_out):
        members = torch.stack([x[i] for i, to in enumerate(assign) if to == place])
        rows.append({"sum": members.sum(0), "mean": members.mean(0), "amax": members.amax(0)}[mode])
    return torch.stack(rows)


def tome_step(x: Tensor, keys: Tensor, size: Tensor, r: int, protected: int) -> tuple[Tensor, Tensor, list[Match]]:
    """One merge of (B, n, C) features with masses (B, n): features, masses, the matchings."""
    matches = [Match(k, r, protected) for k in keys]
    if matches[0].r <= 0:
        return x, size, []
    sums, masses = [], []
    for features, mass, m in zip(x, size, matches, strict=True):
        masses.append(merged(mass[:, None], m.assign, m.n_out))
        sums.append(merged(features * mass[:, None], m.assign, m.n_out) / masses[-1])
    return torch.stack(sums), torch.stack(masses)[..., 0], matches


def membership(maps: list[list[list[int]]], n: int) -> Tensor:
    """Which of n tokens each final token holds: per sample a list of maps, one after the other -> (B, m, n)."""
    samples = []
    for chain in maps:
        place = list(range(n))
        for assign in chain:
            place = [assign[p] for p in place]
        matrix = torch.zeros(max(place) + 1, n)
        for token, p in enumerate(place):
            matrix[p, token] = 1.0
        samples.append(matrix)
    return torch.stack(samples)


def every_kth(keys: Tensor, k: int) -> tuple[list[int], float]:
    """For each token that is not the k-th of its run, which run's last token is most similar; margin."""
    n, u = len(keys) // k * k, unit(keys)
    choice, margin = [], FAR
    for i in range(n):
        if i % k != k - 1:
            products = [float(u[i] @ u[j]) for j in range(k - 1, n, k)]
            ranked = sorted(products, reverse=True)
            choice.append(products.index(ranked[0]))
            margin = min(margin, ranked[0] - ranked[1])
    return choice, margin


def evit_step(x: Tensor, attention: Tensor, count: int, fuse: bool) -> dict[str, Tensor | float]:
    """Keep ``count`` of the tokens behind the class token by its attention (B, H, N, N); fuse or drop the others."""
    scores = attention[:, :, 0, 1:].mean(1)
    index, others, fused, margin = [], [], [], FAR
    for features, score in zip(x, scores, strict=True):
        values = score.tolist()
        ranked = sorted(range(len(values)), key=lambda i: -values[i])
        top = [values[i] for i in ranked[: count + 1]]
        margin = min([margin, *((a - b) / a for a, b in pairwise(top))])
        index.append(ranked[:count])
        others.append(sorted(ranked[count:]))
        fused.append(sum((score[i] * features[1 + i] for i in others[-1]), torch.zeros_like(features[0])))
    rows = [torch.stack([f[0], *(f[1 + i] for i in kept)]) for f, kept in zip(x, index, strict=True)]
    out, extra = torch.stack(rows), torch.stack(fused)[:, None]
    return {
        "idx": torch.tensor(index),
        "compl": torch.tensor(others),
        "cls_attn": scores,
        "fused_token": extra,
        "x_after": torch.cat([out, extra], 1) if fuse else out,
        "margin": margin,
    }
