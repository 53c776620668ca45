"""``tokred check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tokred.cli.options import Json, print_json

if TYPE_CHECKING:
    from tokred import testing as contract


def command(
    reducers: Annotated[
        list[str],
        typer.Argument(help="FILE.py:CLASS, MODULE:CLASS or a method's name, each with settings if you like."),
    ],
    only: Annotated[str | None, typer.Option("--only", help="One check by name (check_...).")] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="One of the contract's small backbones: video, image, windows.")
    ] = None,
    json: Json = False,
) -> int:
    """Prove that reducers keep the contract: one line a check, and for each broken clause what was expected."""
    from tokred import testing as contract
    from tokred.registry import class_or_reducer

    known = contract.default_backbones()
    chosen = [b for b in known if backbone in (None, b.name)]
    if not chosen:
        raise ValueError(f"--backbone {backbone!r} is not one of {', '.join(b.name for b in known)}")
    found = [contract.run_checks(class_or_reducer(spec), chosen, only) for spec in reducers]
    if json:
        print_json([outcome._asdict() for outcomes in found for outcome in outcomes])
    else:
        for outcomes in found:
            print("\n".join(_lines(outcomes)))
    return int(any(outcome.status == "failed" for outcomes in found for outcome in outcomes))


def _lines(outcomes: tuple[contract.Outcome, ...]) -> list[str]:
    """The report of one reducer: one line a check with a mark per backbone, then the failures in full."""
    backbones = list(dict.fromkeys(outcome.backbone for outcome in outcomes))
    marks = {(o.check, o.backbone): {"passed": "pass", "failed": "FAIL", "skipped": "skip"}[o.status] for o in outcomes}
    names = list(dict.fromkeys(outcome.check for outcome in outcomes))
    width = max(len(name) for name in names)
    specs = dict.fromkeys(outcome.reducer for outcome in outcomes)
    lines = [", ".join(specs), f"{'':{width}}  " + "  ".join(f"{name:>7}" for name in backbones)]
    for name in names:
        lines.append(f"{name:{width}}  " + "  ".join(f"{marks.get((name, b), '-'):>7}" for b in backbones))
    reasons: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.status == "skipped":
            reasons.setdefault(outcome.detail, []).append(outcome.check)
    lines += [f"skipped, since {reason}: {', '.join(dict.fromkeys(checks))}" for reason, checks in reasons.items()]
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        lines += ["", outcome.detail]
    count = {status: sum(o.status == status for o in outcomes) for status in ("passed", "failed", "skipped")}
    lines += ["", f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped"]
    return lines
