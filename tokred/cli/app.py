"""The commands, one module each."""

from __future__ import annotations

import typer

from tokred.cli import check, compare, listing, parity, profile, report, show, stream, sweep, train, tune

app = typer.Typer(
    name="tokred",
    help="Compare token-reduction methods for vision and video transformers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("compare")(compare.command)
app.command("sweep")(sweep.command)
app.command("report")(report.command)
app.command("show")(show.command)
app.command("profile")(profile.command)
app.command("check")(check.command)
app.command("parity")(parity.command)
app.command("stream")(stream.command)
app.command("tune")(tune.command)
app.command("train")(train.command)
app.command("list")(listing.command)


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version.")
) -> None:
    """Compare token-reduction methods for vision and video transformers."""
    if version:
        import tokred

        print(f"tokred {tokred.__version__}")
        raise typer.Exit(0)
