"""Replay of the parts of Eventful Transformers: gates, buffers and the two products, frame after frame."""

from __future__ import annotations

import torch
from torch import Tensor

from tokred.run.parity.golden import Golden
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed, Settings
from tokred.streaming import AttentionValue, Chosen, Fraction, Policy, QueryKey, Threshold, TokenBuffer, TokenGate, TopR
from tokred.streaming.gates import COLUMN, ROW

OUT = 1e-4
AXES = {"row": ROW, "col": COLUMN}
GATES = ("TokenGate", "TokenDeltaGate", "SimpleSTGTGate")


def is_gate(golden: Golden) -> bool:
    """Whether a file is of one gate."""
    return golden.settings.take("cls", None) in GATES


def policy_of(settings: Settings) -> Policy:
    """The policy that a file names.

    Raises:
        Malformed: one that is not known, or without its number.
    """
    kind = settings.choice("policy", ("topk", "threshold", "topfraction"))
    given = settings.inner("policy_kwargs")
    order = float(given.number("order", 2))
    policy: Policy
    if kind == "topk":
        policy = TopR(given.whole("k"), order)
    elif kind == "threshold":
        policy = Threshold(float(given.number("threshold")), order)
    else:
        policy = Fraction(float(given.number("fraction")), order)
    given.finish()
    return policy


@torch.no_grad()
def gate(golden: Golden, ledger: Ledger) -> None:
    """A gate: which tokens are sent, their values, their change, the reference, the counted subtractions."""
    settings = golden.settings
    kind = settings.choice("cls", GATES)
    axis = AXES[settings.choice("structure", tuple(AXES))]
    frames = golden.floats("c", 4)
    t, b = frames.shape[:2]
    n, width = (frames.shape[axis], frames.shape[ROW + COLUMN - axis])
    for name, size in (("T", t), ("B", b), ("N", n), ("D", width)):
        settings.agree(name, size)
    ours = TokenGate(policy_of(settings), axis=axis, forget=kind == "SimpleSTGTGate", delta=kind == "TokenDeltaGate")
    counted = 0
    for i, frame in enumerate(frames):
        gated = ours(frame)
        assert ours.reference is not None
        ledger.value(f"t{i}.p", ours.reference, golden.floats(f"t{i}.p", 3), absolute=OUT)
        if gated.chosen is None:
            ledger.value(f"t{i}.c_tilde", gated.values, golden.floats(f"t{i}.c_tilde", 3), absolute=OUT)
        else:
            index = golden.indices(f"t{i}.index", 2)
            order = index.argsort(dim=1)
            ledger.decision(f"t{i}.index", gated.chosen.index, index.gather(1, order))
            pairs = {"c_tilde": gated.values}
            if gated.delta is not None:
                pairs["e_tilde"] = gated.delta
            for name, value in pairs.items():
                theirs = _ordered(golden.floats(f"t{i}.{name}", 3), order, axis)
                ledger.value(f"t{i}.{name}", value, theirs, absolute=OUT)
            counted += frame.numel()
        if f"t{i}.gate_flops" in golden:
            ledger.counts(f"t{i}.gate_flops", [counted], golden.indices(f"t{i}.gate_flops").flatten().tolist())


@torch.no_grad()
def buffer(golden: Golden, ledger: Ledger) -> None:
    """Buffers by rows and by columns."""
    settings = golden.settings
    settings.without_effect("N", "B", "T", "D", "r")
    for structure, axis in AXES.items():
        ours = TokenBuffer(axis)
        for i in golden.numbered(rf"{structure}\.t(\d+)\.x"):
            name = f"{structure}.t{i}"
            # In the order of the file: the rows of x follow it.
            chosen = Chosen(golden.indices(f"{name}.index", 2)) if f"{name}.index" in golden else None
            whole = ours(golden.floats(f"{name}.x", 3).clone(), chosen)
            ledger.value(f"{name}.b", whole, golden.floats(f"{name}.b", 3), absolute=OUT)


@torch.no_grad()
def query_key(golden: Golden, ledger: Ledger) -> None:
    """The incremental product of queries and keys, and its counted multiply-adds."""
    settings = golden.settings
    settings.without_effect("N", "Nk", "B", "T", "r", "rk", "heads", "head_dim")
    ours = QueryKey()
    for i in golden.numbered(r"t(\d+)\.product"):
        q, k = golden.floats(f"t{i}.q", 4), golden.floats(f"t{i}.k", 4).transpose(-2, -1)
        rows, columns = _chosen(golden, f"t{i}.index_q"), _chosen(golden, f"t{i}.index_k")
        product = ours(q, k, rows, columns).transpose(-2, -1)
        ledger.value(f"t{i}.product", product, golden.floats(f"t{i}.product", 4), absolute=OUT)
        b, heads, n, width = q.shape
        m = k.shape[2]
        macs = n * m if rows is None or columns is None else rows.width * m + n * columns.width
        if f"t{i}.matmul_flops" in golden:
            counted = golden.indices(f"t{i}.matmul_flops").flatten().tolist()
            ledger.counts(f"t{i}.matmul_flops", [b * heads * width * macs], counted)


@torch.no_grad()
def attention_value(golden: Golden, ledger: Ledger) -> None:
    """The incremental product of attention and values, the references on both sides, the counted work."""
    settings = golden.settings
    settings.without_effect("N", "Nk", "B", "T", "r", "heads", "head_dim")
    keys = settings.items("flops_keys", ["matmul_flops", "accumulator_flops"])
    ours = AttentionValue()
    sent: Tensor | None = None
    for i in golden.numbered(r"t(\d+)\.product"):
        a, v = golden.floats(f"t{i}.a", 4), golden.floats(f"t{i}.v", 4)
        chosen = _chosen(golden, f"t{i}.index")
        if sent is None or chosen is None:
            sent = v.clone()
            product = ours(a.transpose(-2, -1), v, None, None, None)
        else:
            places = chosen.index[:, None, :, None].expand(-1, v.shape[1], -1, v.shape[3])
            old, new = sent.gather(2, places), v.gather(2, places)
            sent = sent.scatter(2, places, new)
            product = ours(a.transpose(-2, -1), sent, chosen, new, old)
        assert ours.attention is not None
        for name, value in (("product", product), ("p_a", ours.attention.transpose(-2, -1)), ("p_v", sent)):
            ledger.value(f"t{i}.{name}", value, golden.floats(f"t{i}.{name}", 4), absolute=OUT)
        b, heads, n, m = a.shape
        width = v.shape[3]
        r = m if chosen is None else chosen.width
        work = {"matmul_flops": n * m * width, "accumulator_flops": 0}
        if chosen is not None:
            work = {"matmul_flops": 2 * n * r * width, "accumulator_flops": r * width + 2 * n * width}
        unknown = [key for key in keys if key not in work]
        if unknown:
            raise Malformed(f"flops_keys has {unknown[0]}: known are {', '.join(work)}")
        if f"t{i}.flops" in golden:
            counted = golden.indices(f"t{i}.flops").flatten().tolist()
            ledger.counts(f"t{i}.flops", [b * heads * work[key] for key in keys], counted)


def _chosen(golden: Golden, name: str) -> Chosen | None:
    """Positions of a file in rising order; None where it has none."""
    return Chosen(golden.indices(name, 2).sort(dim=1).values) if name in golden else None


def _ordered(values: Tensor, order: Tensor, axis: int) -> Tensor:
    """Values (B, K, D) or (B, D, K) of a file with its tokens in rising order."""
    return values.gather(axis, (order[:, :, None] if axis == ROW else order[:, None]).expand_as(values))
