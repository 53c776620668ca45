"""Mixed precision and accelerators: autocast, and graphs of CUDA kernels."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from tokred.attach import attach
from tokred.reducer import Capabilities
from tokred.reduction import Mix
from tokred.testing.case import Case, Seen, difference, same_decisions
from tokred.testing.check import check
from tokred.testing.failures import Broken, NotApplicable, expect
from tokred.testing.graphs import breaks_graph, first_line, fresh_compiler, other_clips, video
from tokred.testing.identity import KERNELS
from tokred.testing.surroundings import autocast, decide_in


@check("it runs under autocast in bfloat16, and decides there as it does without")
def check_autocast(case: Case) -> None:
    _runs_narrow(case, torch.device("cpu"), torch.bfloat16)
    # Of the same features and queries: what a host computes under autocast is the host's.
    decided, plain = (_hard(seen) for seen in (case.watch(decide=decide_in(autocast)), case.watch()))
    expect(same_decisions(decided, plain), "the same decisions under autocast to bfloat16", "other decisions")


def _hard(seen: list[Seen]) -> list[Tensor]:
    """Where each step sent each token; a soft mix sends every token everywhere, which rounding may weigh otherwise."""
    reductions = (step.reduction for step in seen)
    return [each.positions() for each in reductions if each is not None and not isinstance(each, Mix)]


@check("it runs under autocast on a GPU, in float16 and in bfloat16")
def check_cuda_autocast(case: Case) -> None:
    device = _gpu()
    for dtype in (torch.float16, torch.bfloat16):
        _runs_narrow(case, device, dtype)


def _no_cuda_graph(capabilities: Capabilities) -> str | None:
    if capabilities.stateful:
        return "it keeps state between forwards, which a recorded graph of kernels would overwrite"
    return breaks_graph(capabilities)


@check("CUDA graphs of it, as torch.compile records them, give the same logits", unless=_no_cuda_graph, once=True)
def check_cuda_graphs(case: Case) -> None:
    device = _gpu()
    fast = attach(copy.deepcopy(case.host).to(device), copy.deepcopy(case.reducer))
    clips = [clip.to(device) for clip in other_clips(case.clips)]
    want = video(fast, fast, clips)
    with fresh_compiler():
        recorded = torch.compile(fast, mode="reduce-overhead", fullgraph=True)
        for _ in range(2):  # the first call warms up, the second records, the others replay
            # Copies: a replay writes its results where the last one wrote them.
            got = [video(recorded, fast, [clip])[0].clone() for clip in clips]
    gap = max(difference(a, b) for a, b in zip(got, want, strict=True))
    expect(gap <= KERNELS, f"the same logits from replayed kernels (within {KERNELS:g})", f"a difference of {gap:.2g}")


@torch.no_grad()
def _runs_narrow(case: Case, device: torch.device, dtype: torch.dtype) -> None:
    """Finite logits of the host's own dtype and shape."""
    host, clips = copy.deepcopy(case.host).to(device), case.clips.to(device)
    fast = attach(host, copy.deepcopy(case.reducer))
    where = f"autocast to {str(dtype).removeprefix('torch.')} on {device.type}"
    with torch.autocast(device.type, dtype=dtype):
        own: Tensor = host(clips)
        fast.reset()
        try:
            got: Tensor = fast(clips)
        except RuntimeError as error:
            raise Broken(f"a forward under {where}", first_line(error)) from error
    expect(got.dtype == own.dtype, f"logits in {own.dtype} under {where}, as the host's", got.dtype)
    expect(bool(got.isfinite().all()), f"finite logits under {where}", "NaN or infinity")


def _gpu() -> torch.device:
    """Raises: NotApplicable: there is none."""
    if not torch.cuda.is_available():
        raise NotApplicable("no GPU here")
    return torch.device("cuda")
