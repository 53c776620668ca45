"""A second run waits for the first, however that one ends."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tokred.run.progress import Silent
from tokred.run.store_lock import alone_in

HOLD = """
import sys, time
from pathlib import Path
from tokred.run.progress import Silent
from tokred.run.store_lock import alone_in
with alone_in(Path(sys.argv[1]), Silent()):
    print("held", flush=True)
    time.sleep(600)
"""


class Told(Silent):
    """Notes, and a moment at which the first one came."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.came = threading.Event()

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.came.set()


def test_a_second_run_waits_until_the_first_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    told, entered = Told(), threading.Event()

    def second() -> None:
        with alone_in(tmp_path, told):
            entered.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert told.came.wait(60)
    assert not entered.is_set()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert entered.wait(60)
    thread.join()
    assert len(told.notes) == 1
    assert "waiting for it" in told.notes[0]


def test_one_after_the_other_says_nothing(tmp_path: Path) -> None:
    told = Told()
    for _ in range(2):
        with alone_in(tmp_path / "new", told):
            pass
    assert told.notes == []


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    told = Told()
    with alone_in(tmp_path, told):
        pass
    assert "cannot be locked (No locks available)" in told.notes[0]
