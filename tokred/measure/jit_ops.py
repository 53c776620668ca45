"""Handles for fvcore: operators that it lacks, or counts wrongly, in multiply-adds.

A handle gets the traced inputs and outputs of one operator and returns its MAC. fvcore has none for fused attention
(a ViT then loses a quarter of its cost in silence), fails on products with vectors, counts a matrix broadcast over a
batch once, and reads general einsums from a rounded text.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

Handle = Callable[[list[Any], list[Any]], int]

NORM_MACS = {True: 5, False: 4}


def shape_of(value: Any) -> list[int]:
    """Shape of a traced value.

    Raises:
        ValueError: the trace did not record it.
    """
    sizes = value.type().sizes() if value.isCompleteTensor() else None
    if sizes is None:
        raise ValueError(f"the trace holds no shape for {value.debugName()!r}: its operator cannot be counted")
    return list(sizes)


def attention_handle(inputs: list[Any], outputs: list[Any]) -> int:
    """Fused attention: B h N_q N_k (d_qk + d_v), as the unfused products; a mask saves nothing."""
    query, key, value = (shape_of(x) for x in inputs[:3])
    # The output's leading dimensions hold broadcasting and grouped queries already.
    lead = prod(shape_of(outputs[0])[:-2])
    return lead * query[-2] * key[-2] * (query[-1] + value[-1])


def matmul_handle(inputs: list[Any], outputs: list[Any]) -> int:
    """Any product of matrices or vectors: entries of the result times the summed length."""
    return prod(shape_of(outputs[0])) * shape_of(inputs[0])[-1]


def added_matmul_handle(inputs: list[Any], outputs: list[Any]) -> int:
    """baddbmm, addmm, addmv: the product is the second and third argument."""
    return prod(shape_of(outputs[0])) * shape_of(inputs[1])[-1]


def addbmm_handle(inputs: list[Any], outputs: list[Any]) -> int:
    """addbmm: products summed over the batch."""
    batch, rows, inner = shape_of(inputs[1])
    return batch * rows * inner * shape_of(inputs[2])[-1]


def convolution_handle(inputs: list[Any], outputs: list[Any]) -> int:
    """A convolution, also with padding given as a word; the bias is free."""
    return prod(shape_of(outputs[0])) * prod(shape_of(inputs[1])[1:])


def rms_norm_handle(inputs: list[Any], outputs: list[Any]) -> int:
    """RMS norm: per element what fvcore estimates for every norm."""
    has_weight = len(inputs) > 2 and bool(inputs[2].isCompleteTensor())
    return prod(shape_of(inputs[0])) * NORM_MACS[has_weight]


def einsum_handle(inputs: list[Any], outputs: list[Any]) -> int:
    """einsum of one or two operands: the product of all index lengths; 0 where nothing is summed.

    Raises:
        ValueError: three operands or more, whose cost depends on the order that is chosen while running.
    """
    equation = str(inputs[0].toIValue()).replace(" ", "")
    shapes = [shape_of(v) for v in inputs[1].node().inputs()]
    return einsum_macs(equation, shapes)


def einsum_macs(equation: str, shapes: list[list[int]]) -> int:
    """Multiply-adds of an einsum from its equation and operand shapes (see ``einsum_handle``)."""
    if len(shapes) > 2:
        raise ValueError(
            f"einsum {equation!r} has {len(shapes)} operands: its cost depends on the order; allowed: at most 2 "
            "(write it as several einsums)"
        )
    if len(shapes) < 2:
        return 0
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    lengths: dict[str, int] = {}
    lead: list[int] = []
    for term, shape in zip(terms, shapes, strict=True):
        front, dots, back = term.partition("...")
        extra = len(shape) - len(front) - len(back)
        if extra < 0 or (extra and not dots):
            raise ValueError(f"einsum {equation!r} does not fit operand shapes {shapes}")
        middle = shape[len(front) : len(front) + extra]
        lead = _broadcast(lead, middle)
        sizes = shape[: len(front)] + shape[len(shape) - len(back) :] if back else shape[: len(front)]
        for letter, size in zip(front + back, sizes, strict=True):
            lengths[letter] = max(size, lengths.get(letter, 1))
    kept = set(result.replace("...", "")) if arrow else {c for c in lengths if left.count(c) == 1}
    if kept == set(lengths):
        return 0
    return prod(lengths.values()) * prod(lead)


def _broadcast(a: list[int], b: list[int]) -> list[int]:
    n = max(len(a), len(b))
    return [max(x, y) for x, y in zip([1] * (n - len(a)) + a, [1] * (n - len(b)) + b, strict=True)]


#: Operator -> handle, on top of fvcore's own.
HANDLES: dict[str, Handle] = {
    "aten::scaled_dot_product_attention": attention_handle,
    "aten::_scaled_dot_product_attention_math": attention_handle,
    "aten::_scaled_dot_product_attention_math_for_mps": attention_handle,
    "aten::_scaled_dot_product_flash_attention": attention_handle,
    "aten::_scaled_dot_product_flash_attention_for_cpu": attention_handle,
    "aten::_scaled_dot_product_efficient_attention": attention_handle,
    "aten::_scaled_dot_product_cudnn_attention": attention_handle,
    "aten::_scaled_dot_product_fused_attention_overrideable": attention_handle,
    "aten::matmul": matmul_handle,
    "aten::bmm": matmul_handle,
    "aten::mm": matmul_handle,
    "aten::mv": matmul_handle,
    "aten::dot": matmul_handle,
    "aten::addmm": added_matmul_handle,
    "aten::addmv": added_matmul_handle,
    "aten::baddbmm": added_matmul_handle,
    "aten::addbmm": addbmm_handle,
    "aten::einsum": einsum_handle,
    "aten::_convolution_mode": convolution_handle,
    "aten::rms_norm": rms_norm_handle,
}

_ZERO_NAMES = """
__lshift__ __rshift__ __xor__ _upsample_bicubic2d_aa _upsample_bilinear2d_aa abs add add_ all amax amin any argmax
argmin argsort bincount bitwise_and bitwise_or bitwise_xor ceil clamp_max clamp_min clone cos count_nonzero cumprod
cumsum diff div div_ exp exp_ expand_as fill_ flip fmod gelu gelu_ hardtanh index_add index_add_ index_copy index_copy_
index_fill index_fill_ index_put index_put_ index_select isfinite isinf isnan le leaky_relu lerp lift_fresh
linalg_vector_norm log log1p log_softmax logical_and logical_not logical_or logsumexp lt masked_fill_ masked_select
maximum mean median min minimum mish movedim mul mul_ nan_to_num ne neg new_ones nonzero nonzero_numpy norm numpy_T
one_hot ones_like pad pow prod rand rand_like randn randperm reciprocal repeat repeat_interleave reshape_as rsqrt rsub
scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ searchsorted sigmoid sign silu silu_ sin
softmax softplus sort sqrt square std sub sub_ sum take take_along_dim tanh tile topk tril triu unflatten unfold var
view_as where zero_ upsample_bicubic2d adaptive_avg_pool1d adaptive_avg_pool3d adaptive_max_pool2d avg_pool1d avg_pool2d
avg_pool3d max_pool2d xlogy
"""

#: Operators that hold no multiply-add of the convention: counted 0 on purpose, listed apart from unknown ones.
ZERO_OPS = frozenset("aten::" + name for name in _ZERO_NAMES.split())
