"""Running the command line inside the test process."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from tokred.cli import main


class Done(NamedTuple):
    """What a command left: exit status, standard output, standard error."""

    status: int
    out: str
    err: str


@pytest.fixture
def tokred(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Call ``tokred WORDS...``."""

    def call(*words: object) -> Done:
        with pytest.raises(SystemExit, match=r"^\d+$") as stopped:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        status = stopped.value.code
        assert isinstance(status, int)
        return Done(status, out, err)

    return call
