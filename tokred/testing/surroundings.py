"""What is around a reducer and none of its business: generators, modes, defaults, switches of torch."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

from tokred.driver import Action
from tokred.probe import Probe
from tokred.reducer import Capabilities, Site, TokenReducer
from tokred.reduction import Reduction
from tokred.testing.case import Decide
from tokred.tokens import Tokens

Around = Callable[[TokenReducer], AbstractContextManager[object]]
Switch = tuple[Callable[[], bool], Callable[[bool], object]]


def decide_in(around: Around) -> Decide:
    """How ``Case.watch`` asks a reducer, so that the surroundings are other ones for its decision alone."""

    def decide(action: Action, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        with around(action.reducer):
            return action.reducer.reduce(tokens, probe, site)

    return decide


@contextmanager
def training(reducer: TokenReducer) -> Iterator[None]:
    """The reducer in training mode."""
    was = reducer.training
    reducer.train()
    try:
        yield
    finally:
        reducer.train(was)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Another format of tensors whose format nobody says."""
    was = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(was)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global generators of torch, Python and (where it is loaded) NumPy at a seed, and where they were after it."""
    numpy = sys.modules.get("numpy")
    python, other = random.getstate(), None if numpy is None else numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            random.seed(seed)
            random.random()  # the first word of the state is the same for every seed, until one number is drawn
            if numpy is not None:
                numpy.random.seed(seed)
                numpy.random.random()
            yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(other)


def autocast(_: TokenReducer) -> AbstractContextManager[object]:
    """A user's autocast to bfloat16."""
    return torch.autocast("cpu", dtype=torch.bfloat16)


def other_surroundings(capabilities: Capabilities) -> dict[str, Around]:
    """Surroundings in which the same has to be decided, by words for messages.

    A method whose training form is another one declares parameters, or that it needs "training_seed".
    """
    found: dict[str, Around] = {
        "where gradients are recorded": lambda _: torch.enable_grad(),
        "under a default dtype of float64": lambda _: default_dtype(torch.float64),
        "under a default dtype of bfloat16": lambda _: default_dtype(torch.bfloat16),
    }
    if not (capabilities.trainable or "training_seed" in capabilities.needs):
        found["in training mode (it declares no parameters and no training_seed)"] = training
    return found


def _sdp(name: str) -> Switch:
    return getattr(torch.backends.cuda, f"{name}_sdp_enabled"), getattr(torch.backends.cuda, f"enable_{name}_sdp")


def _cudnn(name: str) -> Switch:
    return lambda: bool(getattr(torch.backends.cudnn, name)), lambda value: setattr(torch.backends.cudnn, name, value)


SWITCHES: dict[str, tuple[Switch, bool]] = {
    "flash attention": (_sdp("flash"), True),
    "memory-efficient attention": (_sdp("mem_efficient"), True),
    "cudnn.benchmark": (_cudnn("benchmark"), False),
    "cudnn.deterministic": (_cudnn("deterministic"), False),
}
"""Switches of torch that change no result on a CPU: how to read and set each, and how torch has it at first."""


@contextmanager
def switched(*, flipped: bool) -> Iterator[None]:
    """All switches as torch has them at first, or all the other way round, with its first defaults; after it, as they
    were."""
    was = {name: read() for name, ((read, _), _) in SWITCHES.items()}
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    precision = torch.get_float32_matmul_precision()
    try:
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision("highest")
        for (_, write), first in SWITCHES.values():
            write(first is not flipped)
        with default_dtype(torch.float32):
            yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warns)
        torch.set_float32_matmul_precision(precision)
        for name, ((_, write), _) in SWITCHES.items():
            write(was[name])


def global_state() -> dict[str, Any]:
    """Global states of Python and torch that a reducer has no business with, by names for messages."""
    found: dict[str, Any] = {
        "torch's random state": torch.get_rng_state(),
        "Python's random state": hash(random.getstate()),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": torch.get_default_device(),
        "gradient mode": torch.is_grad_enabled(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "autocast's dtype": torch.get_autocast_dtype("cpu"),
        "autocast's cache": torch.is_autocast_cache_enabled(),
        "number of threads": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "warnings about deterministic algorithms": torch.is_deterministic_algorithms_warn_only_enabled(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "unfused attention": torch.backends.cuda.math_sdp_enabled(),
        "cudnn.enabled": torch.backends.cudnn.enabled,
        "environment variables": hash(tuple(sorted(os.environ.items()))),
    }
    found.update({name: read() for name, ((read, _), _) in SWITCHES.items()})
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        kind, keys, *rest = numpy.random.get_state()
        found["NumPy's random state"] = (kind, keys.tobytes(), *rest)
    for name in ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks"):
        found[f"torch's {name}"] = len(getattr(torch.nn.modules.module, name))
    return found


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The names of global states that are not what they were."""
    return [name for name, value in now.items() if not _same(value, before.get(name))]


def _same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else bool(a == b)
