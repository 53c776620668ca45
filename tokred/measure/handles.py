"""Two independent counters of what a model really runs: fvcore and torch's own. Both in MAC.

They trace or run the model on one input, so they see every operator, but they need the model in memory (or on the
meta device). ``tokred.measure.flops`` is the number that is reported; these two are its proof.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from tokred.attach import Attached
from tokred.measure.jit_ops import HANDLES, NORM_MACS, ZERO_OPS

Inputs = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class OperatorMacs:
    """Multiply-adds of one forward, over the whole batch of the input.

    Args:
        macs: total, MAC.
        by_operator: operator -> MAC.
        by_module: module name -> MAC of everything below it ("" = all); empty where the counter has none.
        zero: operator -> calls, of those that count 0 by convention (softmax, GELU, additions, ...).
        unsupported: operator -> calls, of those that the counter does not know: their cost is missing.
        counter: which counter, with its version.
        notes: what was replaced while counting.
    """

    macs: int
    by_operator: Mapping[str, int]
    by_module: Mapping[str, int]
    zero: Mapping[str, int]
    unsupported: Mapping[str, int]
    counter: str
    notes: tuple[str, ...] = field(default=())

    @property
    def flops(self) -> int:
        """The total in FLOP, 2 per multiply-add."""
        return 2 * self.macs

    @property
    def norm(self) -> int:
        """Norms, MAC; 0 for torch's counter, unless it was asked to count them."""
        return sum(n for name, n in self.by_operator.items() if name.endswith("_norm"))


def fvcore_macs(model: nn.Module, inputs: Inputs) -> OperatorMacs:
    """Count one forward with fvcore, completed by the handles of ``jit_ops``.

    Fused attention counts exactly what the unfused products count. Works on the meta device, convolutions included.

    Args:
        model: any module; left as it was, also when tracing fails.
        inputs: the positional arguments of its forward.
    Raises:
        ValueError: an operator whose cost cannot be told from its shapes.
    """
    analysis_class, version = _fvcore()
    _start(model)
    mode = _Traceable()
    with _hooks_restored(model), torch.no_grad(), warnings.catch_warnings(), mode:
        # torch announces the end of TorchScript with every trace; the user can do nothing about it.
        warnings.filterwarnings("ignore", message=".*torch.jit", category=Warning)
        analysis = analysis_class(model, inputs)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).set_op_handle(**HANDLES)
        total = int(analysis.total())
    converted = mode.convolutions
    unknown = {str(name): int(calls) for name, calls in analysis.unsupported_ops().items()}
    return OperatorMacs(
        macs=total,
        by_operator={str(name): int(n) for name, n in analysis.by_operator().items()},
        by_module={str(name): int(n) for name, n in analysis.by_module().items()},
        zero={name: calls for name, calls in unknown.items() if name in ZERO_OPS},
        unsupported={name: calls for name, calls in unknown.items() if name not in ZERO_OPS},
        counter=f"fvcore {version}",
        notes=(f"{converted} convolutions on the meta device counted as linear layers",) if converted else (),
    )


def torch_macs(model: nn.Module, inputs: Inputs, *, norms: bool = False, grad: bool = False) -> OperatorMacs:
    """Count one forward with ``torch.utils.flop_counter``: FLOP / 2.

    Some torch versions count fused attention as 0 on some devices. This is tried on a small attention first; where
    the count is wrong, the missing formula is supplied and ``notes`` says so.

    Args:
        model: any module; it really runs, unless it is on the meta device.
        inputs: the positional arguments of its forward.
        norms: also count layer norms, which torch's counter leaves out, as fvcore estimates them.
        grad: run with gradients, as in training; no backward pass is run or counted.
    """
    args = (inputs,) if isinstance(inputs, Tensor) else inputs
    mapping, notes = _attention_fix(args[0].device.type, args[0].dtype)
    if norms:
        mapping = {**mapping, torch.ops.aten.native_layer_norm: _layer_norm_flops}
    _start(model)
    with torch.set_grad_enabled(grad), FlopCounterMode(display=False, custom_mapping=mapping) as mode:
        model(*args)
    counts = mode.get_flop_counts()
    return OperatorMacs(
        macs=mode.get_total_flops() // 2,
        by_operator={str(op).removeprefix("aten."): n // 2 for op, n in counts.get("Global", {}).items()},
        # Names start with the class of the model here; fvcore's and ours do not.
        by_module={n.partition(".")[2]: sum(ops.values()) // 2 for n, ops in counts.items() if n != "Global"},
        zero={},
        unsupported={},
        counter=f"torch {torch.__version__} flop_counter",
        notes=notes,
    )


def _start(model: nn.Module) -> None:
    """A stateful method is counted on the first frame of a video."""
    if isinstance(model, Attached):
        model.reset()


def attention_count_ratio(device: str, dtype: torch.dtype, mapping: dict[Any, Any] | None = None) -> float:
    """What torch's counter reports for a small fused attention over what it costs; 1.0 = right, 0.0 = not counted."""
    q = torch.zeros(1, 2, 8, 16, device=device, dtype=dtype)
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=mapping) as mode:
        F.scaled_dot_product_attention(q, q, q)
    return mode.get_total_flops() / (2 * 2 * 8 * 8 * (16 + 16))


@cache
def _attention_fix(device: str, dtype: torch.dtype) -> tuple[dict[Any, Any], tuple[str, ...]]:
    """Formulas to add to torch's counter so that fused attention counts, and what to say about it."""
    ratio = attention_count_ratio(device, dtype)
    if ratio == 1.0:
        return {}, ()
    said = f"torch {torch.__version__} counts {ratio:g} of a fused attention on {device}"
    fixed: dict[Any, Any] = {getattr(torch.ops.aten, name): _attention_flops for name in _FUSED_ATTENTION}
    if attention_count_ratio(device, dtype, fixed) == 1.0:
        return fixed, (f"{said}: its formula was supplied",)
    return {}, (f"{said}: this total is wrong by the attention",)


_FUSED_ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
)


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *args: Any, **kwargs: Any) -> int:
    return int(2 * prod(query[:-2]) * query[-2] * key[-2] * (query[-1] + value[-1]))


def _layer_norm_flops(x: torch.Size, shape: Any, weight: torch.Size | None, *args: Any, **kwargs: Any) -> int:
    return 2 * prod(x) * NORM_MACS[weight is not None]


@cache
def _fvcore() -> tuple[Callable[..., Any], str]:
    from importlib.metadata import version

    with warnings.catch_warnings():
        # fvcore scripts functions while it is imported, which newer torch announces as deprecated.
        warnings.filterwarnings("ignore", message=".*torch.jit", category=Warning)
        from fvcore.nn import FlopCountAnalysis
    return FlopCountAnalysis, version("fvcore")


@contextmanager
def _hooks_restored(model: nn.Module) -> Iterator[None]:
    """fvcore leaves its scope hooks on every module when the forward raises: take them off again."""
    before = [(m, set(m._forward_pre_hooks), set(m._forward_hooks)) for m in model.modules()]
    try:
        yield
    finally:
        for module, pre, post in before:
            for hooks, known in ((module._forward_pre_hooks, pre), (module._forward_hooks, post)):
                for key in [key for key in hooks if key not in known]:
                    del hooks[key]


#: What a trace answers with tensors, where Python code that computes with lengths expects integers.
_LENGTHS = frozenset({Tensor.shape.__get__, Tensor.size, Tensor.numel, Tensor.nelement})  # type: ignore[attr-defined]


class _Traceable(TorchFunctionMode):
    """What tracing needs for a model that was not written for it.

    Lengths are plain integers, as they are outside of a trace. Convolutions on the meta device, where tracing them
    fails (their shape function compares a traced tensor), become linear layers with the same multiply-adds: values do
    not matter there. ``convolutions`` counts those.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.conv1d, torch.conv2d, torch.conv3d) and args and args[0].device.type == "meta":
            self.convolutions += 1
            return _conv_shape(*args, **kwargs)
        result = func(*args, **kwargs)
        if func in _LENGTHS:
            return int(result) if isinstance(result, Tensor) else _plain(result)
        return result


def _plain(lengths: Any) -> Any:
    return torch.Size(int(n) for n in lengths) if isinstance(lengths, tuple) else lengths


def _conv_shape(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    kernel = weight.shape[2:]
    steps, gaps = (tuple(v) if not isinstance(v, int) else (v,) * len(kernel) for v in (stride, dilation))
    if isinstance(padding, str):
        around = [0 if padding == "valid" else gap * (k - 1) for k, gap in zip(kernel, gaps, strict=True)]
    else:
        each = (padding,) * len(kernel) if isinstance(padding, int) else tuple(padding)
        around = [2 * p for p in each]
    sizes = [
        (int(n) + p - gap * (int(k) - 1) - 1) // step + 1
        for n, k, step, p, gap in zip(input.shape[2:], kernel, steps, around, gaps, strict=True)
    ]
    batch = int(input.shape[0])
    rows = input.new_empty(batch * prod(sizes), int(weight[0].numel()))
    flat = F.linear(rows, weight.flatten(1), bias)
    return flat.reshape(batch, *sizes, -1).movedim(-1, 1)
