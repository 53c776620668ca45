from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tokred
from tokred.capabilities import Capabilities
from tokred.methods import Eventful, TopK
from tokred.registry import build
from tokred.schedule import ScheduleError
from tokred.testing import Backbone, Case, default_backbones, graphs, programs, run_checks
from tokred.testing.contract import run_check
from tokred.testing.failures import NotApplicable
from tokred.testing.programs import no_onnx, no_program

pytestmark = pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="torch 2.7 or newer is needed")
WRONG = Path(__file__).parent / "wrong.py"
VIDEO, *OTHERS = default_backbones()
METHODS = [cls for cls in tokred.list_methods().values() if cls.__module__.startswith("tokred.methods")]
THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("LeavesTorch", "expected   torch.export.export to take the forward"),
        ("OtherWhenExported", "expected   the same logits from the program"),
    ],
)
def test_what_is_no_program_is_caught(caught: Callable[..., str], name: str, says: str) -> None:
    assert says in caught(name, "check_export")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("NoSuchOperator", "expected   an ONNX file (or Capabilities.onnx to say why not)"),
        ("DeclaresNoFile", "got        one: the declaration can go"),
    ],
)
def test_what_is_no_onnx_file_is_caught(caught: Callable[..., str], name: str, says: str) -> None:
    for module in programs.NEEDED:
        pytest.importorskip(module)
    assert says in caught(name, "check_onnx")


def test_reasons_come_from_what_is_declared() -> None:
    assert no_program(Capabilities()) is None
    assert no_program(Capabilities(stateful=True)) == "it keeps state between forwards, which a program would not carry"
    assert no_program(Capabilities(one_graph="a reason")) == "a reason"
    assert no_onnx(Capabilities(one_graph="a reason")) == "a reason"
    assert no_onnx(Capabilities(onnx="another")) == "another"


def test_without_onnx_the_check_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "NEEDED", ("no_such_package",))
    (outcome,) = run_checks(build(f"{WRONG}:Good"), [VIDEO], only="check_onnx")
    assert outcome.status == "skipped"
    assert outcome.detail == "no_such_package not installed: pip install 'tokred[onnx]'"


def test_a_method_that_keeps_state_is_not_exported_without_it() -> None:
    case = Case(Eventful(r=10), VIDEO)
    fast = case.attach()
    with pytest.raises(ScheduleError, match=r"eventful:r=\d+ keeps state between forwards, which an exported program"):
        torch.export.export(fast, (case.clips,))
    assert torch.isfinite(case.logits(fast)).all(), "nothing of the attempt is left"


def test_an_attached_model_is_written_as_a_file_by_torch_itself(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    case = Case(TopK(keep=0.5), VIDEO)
    fast, file = case.attach(), tmp_path / "fast.onnx"
    with torch.no_grad():
        torch.onnx.export(fast, (case.clips,), file, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(file)
    (logits,) = session.run(None, {session.get_inputs()[0].name: case.clips.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), case.logits(fast), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not THOROUGH, reason="minutes; HYPOTHESIS_PROFILE=thorough runs it")
@pytest.mark.parametrize("backbone", OTHERS, ids=lambda backbone: backbone.name)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.method)
def test_what_is_declared_holds_on_every_backbone(method: type[tokred.TokenReducer], backbone: Backbone) -> None:
    try:
        case = Case(method, backbone)
    except NotApplicable as inapplicable:
        pytest.skip(str(inapplicable))
    checks = (graphs.check_compile, programs.check_export, programs.check_onnx)
    failed = [outcome.detail for check in checks if (outcome := run_check(check, case)).status == "failed"]
    assert failed == []
