"""The same decisions in another process: hashes of strings, process numbers and start-up are no input."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import torch

from tokred.reducer import TokenReducer
from tokred.schedule import ScheduleError
from tokred.testing.case import at_share
from tokred.testing.claims import HOSTS
from tokred.testing.failures import NotApplicable, expect
from tokred.testing.report import _made
from tokred.testing.trial import Refused, Trial

SECONDS = 300


def digest(reducer: TokenReducer) -> str:
    """A hash of what a reducer decides on small hosts, as it is and at half of its strength; "" = nothing."""
    found = hashlib.sha256()
    decided = False
    for example in HOSTS:
        for share in (None, 0.5):
            try:
                chosen = reducer if share is None else at_share(reducer, example.geometry, share)
                decisions = [] if chosen is None else Trial(chosen, example).run().decisions
            except (Refused, ScheduleError):
                continue
            for went in decisions:
                decided = True
                found.update(str(went.tolist()).encode())
    return found.hexdigest() if decided else ""


def expect_same_elsewhere(reducer: TokenReducer) -> None:
    """A new process, with strings hashed otherwise, decides the same.

    Raises:
        NotApplicable: it cannot be made or compared there, with the reason.
    """
    if any(True for _ in reducer.parameters()) or reducer.capabilities.trainable:
        raise NotApplicable("its weights may be drawn anew in another process")
    imports, call = _made(reducer)
    here = digest(reducer)
    if not imports or not here:
        raise NotApplicable(
            "another process cannot make it" if here else "it decides nothing on the small hosts that are compared"
        )
    code = f"{imports}from tokred.testing.process import digest; print(digest({call}))"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "PYTHONHASHSEED": "random",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=SECONDS, env=environment
    )
    expect(run.returncode == 0, "it to be made in another process", run.stderr.strip().splitlines()[-1:])
    expect(run.stdout.strip() == here, "the same decisions in another process", "other decisions")
