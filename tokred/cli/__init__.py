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
    import click
    import typer

    from tokred.cli.app import app

    command = typer.main.get_command(app)
    try:
        status = command.main(
            list(argv) if argv is not None else sys.argv[1:], prog_name="tokred", standalone_mode=False
        )
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        status = 2
    except click.ClickException as error:
        status = _complain(error.format_message(), 2)
    except (click.Abort, KeyboardInterrupt):
        status = _complain("stopped", 1)
    except click.exceptions.Exit as error:
        status = error.exit_code
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough.
        sys.stderr.close()
        status = 0
    except (ValueError, ImportError, OSError) as error:
        status = _complain(str(error) or type(error).__name__, 2)
    sys.exit(status if isinstance(status, int) else 0)


def _complain(text: str, status: int) -> int:
    print(f"tokred: {' '.join(text.split())}", file=sys.stderr)
    return status
