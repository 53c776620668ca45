"""Programs without Python: torch.export, and ONNX."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from tokred.reducer import Capabilities
from tokred.testing.case import Case, difference
from tokred.testing.check import check
from tokred.testing.failures import Broken, NotApplicable, expect
from tokred.testing.graphs import breaks_graph, first_line, other_clips, video
from tokred.testing.identity import EXACT

ONNX = 1e-4
"""Relative difference of logits allowed between torch and onnxruntime in float32."""

NEEDED = ("onnx", "onnxscript", "onnxruntime")

_PROGRAMS: WeakKeyDictionary[Case, Any] = WeakKeyDictionary()


def no_program(capabilities: Capabilities) -> str | None:
    """Why a forward cannot be a program of its own; None = it can."""
    if capabilities.stateful:
        return "it keeps state between forwards, which a program would not carry"
    return breaks_graph(capabilities)


def no_onnx(capabilities: Capabilities) -> str | None:
    """Why a forward cannot be an ONNX file; None = it can."""
    if capabilities.onnx is not True:
        return str(capabilities.onnx)
    return no_program(capabilities)


@check("torch.export makes a program with the same logits", unless=no_program, once=True)
def check_export(case: Case) -> None:
    program = _program(case).module()
    gap = _gap(case, program)
    expect(gap <= EXACT, f"the same logits from the program (within {EXACT:g})", f"a difference of {gap:.2g}")


@check("an ONNX file of it gives the same logits in onnxruntime", unless=no_program, once=True)
def check_onnx(case: Case) -> str:
    if not hasattr(torch.compiler, "is_exporting"):
        raise NotApplicable("torch 2.6 exports stable sorts, which ONNX does not have: 2.7 or newer is needed")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise NotApplicable(f"{', '.join(missing)} not installed: pip install 'tokred[onnx]'")
    reason = no_onnx(case.reducer.capabilities)
    program = _program(case)
    try:
        session = onnx_session(program)
    except Exception as error:
        expect(reason is not None, "an ONNX file (or Capabilities.onnx to say why not)", first_line(error))
        return f"no ONNX file: {reason}"
    expect(reason is None, f"no ONNX file, as declared ({reason})", "one: the declaration can go")
    gap = _gap(case, session)
    expect(gap <= ONNX, f"the same logits in onnxruntime (within {ONNX:g})", f"a difference of {gap:.2g}")
    return "agrees with onnxruntime"


def onnx_session(program: Any) -> Any:
    """A function that runs a program, or a model that was exported to it, in onnxruntime: pixels to logits.

    Args:
        program: what torch.export.export returned.
    """
    import onnxruntime

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notes of the exporter about its own parts
        # Without the exporter's optimiser, which takes as long as all the rest and knows nothing of reducers.
        exported = torch.onnx.export(program, dynamo=True, verbose=False, optimize=False)
    assert exported is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(exported.model_proto.SerializeToString(), options)
    (name,) = (given.name for given in session.get_inputs())
    return lambda pixels: torch.from_numpy(session.run(None, {name: pixels.numpy()})[0])


def _program(case: Case) -> Any:
    """The forward of a case as a program, made once."""
    if case not in _PROGRAMS:
        fast = case.attach()
        try:
            with torch.no_grad():
                _PROGRAMS[case] = torch.export.export(fast, (case.clips,))
        except Exception as error:
            raise Broken(
                "torch.export.export to take the forward (or Capabilities.one_graph to say why not)", first_line(error)
            ) from error
    return _PROGRAMS[case]


def _gap(case: Case, program: Any) -> float:
    """The largest difference of logits, over batches that the program was not made from, too."""
    fast, clips = case.attach(), other_clips(case.clips)
    want: list[Tensor] = video(fast, fast, clips)
    with torch.no_grad():
        return max(difference(program(clip), logits) for clip, logits in zip(clips, want, strict=True))
