"""``tokred check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tokred.cli.options import Json, print_json

if TYPE_CHECKING:
    from tokred import testing as contract


def command(
    reducers: Annotated[
        list[str] | None,
        typer.Argument(help="FILE.py:CLASS, MODULE:CLASS or a method's name, each with settings if you like."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every method that `tokred list` shows.")] = False,
    only: Annotated[str | None, typer.Option("--only", help="One check by name (check_...).")] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="One of the contract's small backbones: video, image, windows.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="How many steps are drawn: default (40), ci (300) or deep (10,000)."),
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Short for --profile deep: minutes a method.")] = False,
    json: Json = False,
) -> int:
    """Prove that reducers keep the contract: one line a check, and for each broken clause what was expected."""
    from tokred import testing as contract
    from tokred.registry import class_or_reducer, list_methods

    if bool(reducers) == every:
        raise ValueError(f"REDUCERS = {' '.join(reducers or []) or 'none'}: give reducers to check, or --all")
    budget = contract.profile_of(profile, deep)
    # One backbone by name is a close look at that one.
    drawn = budget if backbone is None or deep or profile is not None else None
    known = contract.default_backbones()
    chosen = [b for b in known if backbone in (None, b.name)]
    if not chosen:
        raise ValueError(f"--backbone {backbone!r} is not one of {', '.join(b.name for b in known)}")
    specs = list(list_methods()) if every else reducers or []
    found: list[contract.Outcome] = []
    for reducer in [class_or_reducer(spec) for spec in specs]:
        outcomes = contract.run_checks(reducer, chosen, only, profile=drawn)
        found += outcomes
        if not json:
            print("\n".join(_lines(outcomes)), flush=True)
    if json:
        print_json([outcome._asdict() for outcome in found])
    return int(any(outcome.status == "failed" for outcome in found))


def _lines(outcomes: tuple[contract.Outcome, ...]) -> list[str]:
    """The report of one reducer: one line a check with a mark per backbone, then the failures in full."""
    from tokred.testing.failures import WARNING

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
    lines += dict.fromkeys(o.detail for o in outcomes if o.status == "passed" and o.detail.startswith(WARNING))
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        lines += ["", outcome.detail]
    seen = dict.fromkeys(o.detail for o in outcomes if o.status == "passed" and o.backbone in ("steps", "shapes"))
    if any(seen):
        lines += ["", f"each drawn check saw {', '.join(seen)}"]
    count = {status: sum(o.status == status for o in outcomes) for status in ("passed", "failed", "skipped")}
    lines += ["", f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped"]
    return lines
