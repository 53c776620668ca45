"""Memory: no attention map is held that was not asked for, and nothing of a forward stays alive."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tokred.driver import Action
from tokred.probe import Probe
from tokred.reducer import Site
from tokred.reduction import Reduction
from tokred.testing.case import Case
from tokred.testing.check import check
from tokred.testing.failures import expect
from tokred.tokens import Tokens


class Largest(TorchDispatchMode):
    """The most elements of any tensor that is made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(made, Tensor):
                # Its memory, not its shape: a small tensor expanded to a large one holds nothing.
                self.elements = max(self.elements, made.untyped_storage().nbytes() // made.element_size())
        return out


class Made(TorchDispatchMode):
    """References to the tensors of some size that are made inside."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least = least
        self.references: list[weakref.ref[Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(made, Tensor) and made.numel() >= self.least:
                self.references.append(weakref.ref(made))
        return out


@check("no step holds an attention map that it does not declare, and nothing of a forward stays alive", once=True)
def check_memory(case: Case) -> None:
    if "attention" not in case.reducer.capabilities.needs:
        _expect_no_map(case)
    _expect_nothing_alive(case)
    _expect_no_copies(case)


def _expect_no_map(case: Case) -> None:
    def look(action: Action, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        with Largest() as largest:
            reduction = action.reducer.reduce(tokens, probe, site)
        b, n = tokens.x.shape[:2]
        heads = case.geometry.at(tokens.x.shape[2], tokens.grid).heads
        allowed = max(b * heads * n * n - 1, b * n * 8 * tokens.x.shape[2])
        expect(
            largest.elements <= allowed,
            f"fewer than {b * heads * n * n} elements, a whole attention map, in any tensor of the step at block "
            f'{site.block} ("attention" is not declared)',
            largest.elements,
        )
        return reduction

    case.watch(decide=look)


def _expect_nothing_alive(case: Case) -> None:
    """Features that a forward made are gone when nobody asked to keep them; a video's after reset."""
    fast = case.attach()
    seen = case.watch(fast)
    kept = [weakref.ref(step.before.x) for step in seen] + [weakref.ref(step.after.x) for step in seen]
    pixels = case.clips.clone()
    held = weakref.ref(pixels)
    with torch.no_grad():
        fast(pixels)
    fast.reset()
    del seen, pixels
    if any(reference() is not None for reference in (*kept, held)):
        gc.collect()  # slow, and needed only where something goes round in a circle
    alive = sum(reference() is not None for reference in kept)
    expect(alive == 0, "no features alive after the forward that made them, and reset", f"{alive} tensors")
    expect(held() is None, "the input not to be kept", "it is alive")


def _expect_no_copies(case: Case) -> None:
    """What a step makes with a number for every token is gone after it, wherever it was put.

    Tables that depend on sizes alone may stay: they are there since the first forward."""
    fast = case.attach()
    case.watch(fast)
    made: list[weakref.ref[Tensor]] = []

    def look(action: Action, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        with Made(tokens.x.shape[0] * tokens.patch_count) as inside:
            reduction = action.reducer.reduce(tokens, probe, site)
        made.extend(inside.references)
        return reduction

    case.watch(fast, decide=look)
    fast.reset()
    if any(reference() is not None for reference in made):
        gc.collect()
    alive = sum(reference() is not None for reference in made)
    expect(
        alive == 0,
        "nothing alive that a step made for the tokens of one forward, after it and reset",
        f"{alive} tensors",
    )
