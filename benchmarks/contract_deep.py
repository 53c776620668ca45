"""The contract's deep run: 10,000 drawn steps of every method, each looked at by every clause that a step can show.

    nice python benchmarks/contract_deep.py                 all methods that are not done yet
    python benchmarks/contract_deep.py sta tome             some
    python benchmarks/contract_deep.py --summary            what there is so far, as JSON and as a table

A method's examples come in parts of 250, each with a seed of its own and one line of results/contract_deep.jsonl: a
run that is stopped loses one part, and a second start goes on behind the last. A part counts for the code that it ran
on: ``code`` is a hash of the methods and of everything that a step runs through.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

import tokred
from tokred.testing import CHECKS, PROFILES, Profile
from tokred.testing.search import search_steps

RESULTS = Path(__file__).parent / "results"
LINES = RESULTS / "contract_deep.jsonl"
SUMMARY = RESULTS / "contract_deep.json"
PART = 250


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="default: all")
    parser.add_argument("--examples", type=int, default=PROFILES["deep"].steps, help="per method")
    parser.add_argument("--summary", action="store_true", help="run nothing, write the summary")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    names = args.methods or list(tokred.list_methods())
    if not args.summary:
        # Part by part through all methods, so that a run that is stopped has seen all of them.
        for number in range(-(-args.examples // PART)):
            for name in names:
                if (name, number) not in {(line["method"], line["part"]) for line in lines()}:
                    run(name, number)
    summary = summarise(lines())
    SUMMARY.write_text(json.dumps(summary, indent=1) + "\n")
    print(table(summary))
    return int(any(row["failed"] for row in summary["methods"].values()))


def run(name: str, number: int) -> None:
    """One part of one method, and its line."""
    started = time.process_time()
    outcomes = search_steps(tokred.build(name), CHECKS, Profile("part", PART, seed=number))
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    passed = [outcome for outcome in outcomes if outcome.status == "passed"]
    line = {
        "method": name,
        "part": number,
        "examples": int(passed[0].detail.split()[0]) if passed else 0,
        "passed": [outcome.check for outcome in passed],
        "failed": {outcome.check: outcome.detail for outcome in failed},
        "skipped": {outcome.check: outcome.detail for outcome in outcomes if outcome.status == "skipped"},
        "cpu_s": round(time.process_time() - started, 1),
        "torch": torch.__version__,
        "code": code_of(),
    }
    with LINES.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(f"{name} part {number}: {line['examples']} examples, {len(failed)} failed, {line['cpu_s']} s", flush=True)


def lines() -> list[dict[str, Any]]:
    """All parts so far."""
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []


def code_of() -> str:
    """A hash of the files that decide what a step does."""
    root = Path(tokred.__file__).parent
    files = [
        *sorted(root.glob("*.py")),
        *sorted((root / "methods").glob("*.py")),
        *sorted((root / "testing").glob("*.py")),
    ]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def summarise(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Examples, clauses and failures of each method."""
    methods: dict[str, Any] = {}
    for name in sorted({part["method"] for part in parts}):
        own = [part for part in parts if part["method"] == name]
        failed = {check: detail for part in own for check, detail in part["failed"].items()}
        methods[name] = {
            "examples": sum(part["examples"] for part in own),
            "clauses": sorted({check for part in own for check in part["passed"]} - failed.keys()),
            "failed": failed,
            "skipped": {check: detail for part in own for check, detail in part["skipped"].items()},
            "cpu_s": round(sum(part["cpu_s"] for part in own), 1),
            "code": sorted({part["code"] for part in own}),
        }
    return {"torch": sorted({part["torch"] for part in parts}), "part": PART, "methods": methods}


def table(summary: dict[str, Any]) -> str:
    """The summary for a page, in Markdown."""
    rows = ["| method | examples | clauses on each | broken | CPU s |", "|---|---:|---:|---|---:|"]
    for name, row in summary["methods"].items():
        broken = ", ".join(row["failed"]) or ("none" if row["examples"] else "takes no step on tokens")
        rows.append(f"| {name} | {row['examples']:,} | {len(row['clauses'])} | {broken} | {row['cpu_s']:g} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
