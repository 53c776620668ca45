"""One graph for torch.compile, traced once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tokred.attach import Attached
from tokred.reducer import Capabilities
from tokred.testing.case import Case, difference
from tokred.testing.check import check
from tokred.testing.failures import Broken, expect
from tokred.testing.identity import EXACT

BACKEND = "eager"
"""Traces as every backend does and generates no code: what a reducer can break is the tracing."""


def breaks_graph(capabilities: Capabilities) -> str | None:
    """Why a forward is not one graph; None = it is one."""
    if capabilities.one_graph is not True:
        return str(capabilities.one_graph)
    return None if capabilities.static_counts else "its token counts depend on the content"


@check("torch.compile takes a forward as one graph, traces it once, and gives the same logits", once=True)
def check_compile(case: Case) -> str:
    reason = breaks_graph(case.reducer.capabilities)
    fast, clips = case.attach(), other_clips(case.clips)
    # Where state is kept, a first frame finds none, a second one that of a whole frame, later ones that of an update.
    warm_up = 3 if case.reducer.capabilities.stateful else 1
    want = video(fast, fast, clips)
    with fresh_compiler():
        whole = torch.compile(fast, backend=BACKEND, fullgraph=True)
        try:
            got = video(whole, fast, clips[:warm_up])
        except _broken_graph() as error:
            expect(reason is not None, "one graph (or Capabilities.one_graph to say why not)", first_line(error))
        else:
            expect(reason is None, f"a graph break, as declared ({reason})", "one graph: the declaration can go")
            got += _again(whole, fast, clips, warm_up)
            _compare(got, want)
            return "in one graph"
    with fresh_compiler():
        _compare(video(torch.compile(fast, backend=BACKEND), fast, clips), want)
    return f"with graph breaks: {reason}"


def other_clips(clips: Tensor) -> tuple[Tensor, ...]:
    """Batches of one shape and different content, the given one first."""
    return (clips, clips.flip(0) * 1.5, clips.flip(-1), clips * 0.5 + 0.1)


@torch.no_grad()
def video(model: Any, fast: Attached, clips: Sequence[Tensor]) -> list[Tensor]:
    """Logits of one batch after another, for methods that keep state those of the frames of one video.

    Args:
        model: what runs: the attached model or something made from it; fast: the attached model.
    """
    fast.reset()
    return [model(clip) for clip in clips]


@contextmanager
def fresh_compiler() -> Iterator[None]:
    """Inside, nothing is compiled yet; after it, nothing any more."""
    torch._dynamo.reset()
    try:
        yield
    finally:
        torch._dynamo.reset()


def first_line(error: BaseException) -> str:
    """An error in one line: the class of its first cause and the first line of what that says."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


@torch.no_grad()
def _again(whole: nn.Module | Any, fast: Attached, clips: Sequence[Tensor], warm_up: int) -> list[Tensor]:
    """Logits of the batches behind the first ones, and then of the first ones again: nothing may be traced for them."""
    with torch.compiler.set_stance("fail_on_recompile"):
        try:
            later = [whole(clip) for clip in clips[warm_up:]]
            video(whole, fast, clips[:warm_up])
        except RuntimeError as error:
            if "recompile" not in str(error):
                raise
            raise Broken("no recompilation for other clips of the same shape", first_line(error)) from error
    return later


def _compare(got: Sequence[Tensor], want: Sequence[Tensor]) -> None:
    gap = max(difference(a, b) for a, b in zip(got, want, strict=True))
    expect(gap <= EXACT, f"the same logits under torch.compile (within {EXACT:g})", f"a difference of {gap:.2g}")


def _broken_graph() -> type[Exception]:
    """What torch.compile raises where it cannot go on; its module is loaded with the compiler."""
    kind: type[Exception] = torch._dynamo.exc.TorchDynamoException
    return kind
