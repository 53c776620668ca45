"""One process at a time computes into a store, so that two that were started at once do not do the same work twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokred.run.progress import Progress


@contextmanager
def alone_in(folder: Path, say: Progress) -> Iterator[None]:
    """Inside, no other process is here with the same folder; waits for one that is, and says so.

    The lock goes with the process, however it ends: nothing has to be cleaned up after a kill.

    Raises:
        OSError: the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # there is no such lock on Windows
        say.note(f"this system has no file locks: do not start a second run into {folder}")
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say.note(f"another run computes into {folder}: waiting for it, so that nothing is computed twice")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            say.note(f"{folder} cannot be locked ({error.strerror}): do not start a second run into it")
        yield
