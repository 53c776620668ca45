"""The command line: ``tokred COMMAND``.

Exit status 0: done. 1: ran, and something failed; it says which. 2: bad usage, one line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status; never a traceback for bad input.

    Args:
        argv: the words after ``tokred``; default: those of the process.
    """
    import typer

    from tokred.cli.app import app

    # typer brings its own copy of click since 0.20 and used the installed one before: its exceptions are found by
    # what its own derive from.
    usage_error = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
    words = list(argv) if argv is not None else sys.argv[1:]
    try:
        status = typer.main.get_command(app).main(words, prog_name="tokred", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        status = _complain("stopped", 1)
    except typer.Exit as error:
        status = error.exit_code
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough.
        sys.stderr.close()
        status = 0
    except (ValueError, ImportError, OSError) as error:
        status = _complain(str(error) or type(error).__name__, 2)
    except Exception as error:
        if not isinstance(error, usage_error):
            raise
        status = _complain(_usage(error), 2)
    sys.exit(status if isinstance(status, int) else 0)


def _usage(error: Exception) -> str:
    """What was wrong with the words; without any, the help."""
    text = str(getattr(error, "format_message", lambda: error)())
    if type(error).__name__ != "NoArgsIsHelpError":
        return text
    print(text)
    return "give a command, for example: tokred compare"


def _complain(text: str, status: int) -> int:
    print(f"tokred: {' '.join(text.split())}", file=sys.stderr)
    return status
