"""The end of the parent is the end of its workers, and Ctrl-C leaves no traceback of theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tokred.run.cell import Cell
from tokred.run.engine.process import on
from tokred.run.work import Task

SCRIPT = """
import sys
from tokred.run.cell import Cell
from tokred.run.engine.local import LocalEngine
from tokred.run.clips import ClipSettings
from tokred.run.work import Task, _host, opened

if __name__ == "__main__":
    tasks = []
    for spec in sys.argv[1:]:
        cell = Cell("videomae_vit_nano", spec, ClipSettings(clips=2))
        tasks.append(Task(spec, cell, _host(cell.backbone, None, None, "cpu", "float32")[2], opened(cell).digest()))
    with LocalEngine(workers=2) as engine:
        try:
            for outcome in engine.run(tasks):
                print("unexpected", outcome)
        except KeyboardInterrupt:
            print("interrupted")
"""

pytestmark = pytest.mark.xdist_group("engine_local")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(number, deadly, all_gone, tmp_path) -> None:
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    marks = tmp_path / "marks"
    specs = [deadly(f"Slow:folder={{folder}},seconds=600,nr={n}") for n in range(2)]
    parent = subprocess.Popen(
        [sys.executable, str(script), *specs],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        # A shell starts what it runs in the background deaf to Ctrl-C, and these tests with it.
        preexec_fn=hears_interrupts,
    )
    try:
        pids = wait_for_workers(marks, parent)
        if number == signal.SIGINT:
            os.killpg(parent.pid, number)  # as a terminal does: every process of the group gets it
        else:
            parent.send_signal(number)
        out, err = parent.communicate(timeout=60)
        assert all_gone(pids)
        assert (out, err) == ("interrupted\n" if number == signal.SIGINT else "", "")
    finally:
        parent.kill()
        parent.wait()


def hears_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for_workers(marks: Path, parent: subprocess.Popen[str]) -> list[int]:
    """The numbers of both workers, as soon as both compute."""
    deadline = time.monotonic() + 300
    while len(found := list(marks.iterdir())) < 2:
        assert parent.poll() is None, parent.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return [int(path.name.rpartition("-")[2]) for path in found]


def test_a_worker_puts_cells_on_its_own_gpu_and_leaves_the_others_where_they_are() -> None:
    task = Task("a", Cell("m", "none", device="cuda"), "w", "d")
    assert on(task, "cuda:1").cell.device == "cuda:1"
    for device in ("cpu", "cuda:0"):
        other = replace(task, cell=replace(task.cell, device=device))
        assert on(other, "cuda:1") is other
