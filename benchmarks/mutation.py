"""Do the tests notice when a line of a method is wrong? Seeded samples of mutants (cosmic-ray's operators).

    python benchmarks/mutation.py                              # every file, about 15 minutes on one core
    python benchmarks/mutation.py tokred/schedule.py --seed 1  # another sample of one file
    python benchmarks/mutation.py --again                      # survivors once more, also against the contract

Each mutant runs in a fork of a process that has everything loaded, where it takes the place of the function or of the
module that it changes: no file is ever written. A mutant is killed when a test of its file fails or the tests take far
too long. Finished mutants are kept in benchmarks/results/mutation.json (mutation_seed1.json with --seed 1) as they
come; the same command goes on from there. Annotations are left alone.
Those that cannot be noticed are in benchmarks/mutation_equivalent.json, each with its reason, and do not count.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import inspect
import json
import os
import resource
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

from mutants import Mutant, code_of, function_of, sample

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
EQUIVALENT = ROOT / "benchmarks" / "mutation_equivalent.json"
LOADED = ("torch._dynamo", "timm.models.vision_transformer", "torchvision", "scipy.stats", "hypothesis.strategies")
"""What tests import besides the code under test: loaded once."""

CHECKS = tuple(
    f"check_{name}]"
    for name in (
        *("identity_at_zero", "token_count_is_scheduled", "strength_is_monotone", "impossible_is_refused"),
        *("mass_conserved", "order_and_prefix_kept", "restore", "batch_independence", "degenerate_inputs"),
    )
)
"""Clauses of the contract that look behind a file's own tests: those that are quick."""

MEMORY = 12 << 30
"""A mutant may ask for absurd tensors: address space in bytes before it is refused."""

COLLECTING = 30
"""Processor seconds for importing and collecting."""

BROKEN = 9
"""Exit status of a fork that failed before or beside the tests: nothing is known of its mutant."""


class Target(NamedTuple):
    """How many mutants of a file, its tests, and the methods whose contract survivors meet with ``--again``."""

    mutants: int
    tests: tuple[str, ...]
    contract: tuple[str, ...] = ()


def _method(name: str, *more: str) -> Target:
    tests = tuple(f"tests/methods/test_{test}.py" for test in (name, *more))
    return Target(25, (*tests, "tests/test_registry_methods.py"), (name,))


TARGETS = {
    "tokred/schedule.py": Target(40, ("tests/test_schedule.py",), ("topk", "tome")),
    "tokred/matching.py": Target(40, ("tests/test_matching.py",), ("tome", "random_merge")),
    "tokred/reduction.py": Target(40, ("tests/test_reduction.py", "tests/test_advance.py"), ("evit", "tome")),
    "methods/tome.py": _method("tome"),
    "methods/sta.py": _method("sta", "sta_settings", "sta_videoswin"),
    "methods/evit.py": _method("evit"),
    "methods/vid_tldr.py": _method("vid_tldr"),
    "methods/baselines.py": _method("baselines")._replace(contract=("random_drop", "random_merge", "grid", "topk")),
    "methods/sta_window.py": _method("sta_window"),
    "methods/stts_heuristic.py": _method("stts_heuristic"),
    "methods/stts.py": _method("stts", "stts_costs"),
    "methods/ats.py": _method("ats"),
    "methods/eventful.py": _method("eventful", "eventful_costs"),
    "methods/stvit.py": _method("stvit", "stvit_steps")._replace(contract=("stvit", "stvit_r")),
    "methods/dynamicvit.py": _method("dynamicvit", "dynamicvit_windows"),
}


class Result(NamedTuple):
    """ "survived" (all tests pass), "killed" or "timeout"; the test that failed; processor seconds."""

    id: str
    outcome: str
    by: str
    seconds: float


def runs(path: str, target: Target, mutants: list[Mutant]) -> Iterator[Result]:
    """What the tests of a file say: first as it is, then of each mutant.

    A mutant inside a function takes the place of the function in a fork of a process that has collected the tests. The
    others change what is imported: their fork starts before that.
    """
    source = (ROOT / path).read_text()
    inside = [mutant for mutant in mutants if function_of(source, mutant) is not None]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _session(path, target, source, inside, writer, None)
    os.close(writer)
    limit = 0
    with os.fdopen(reader) as pipe:
        for line in pipe:
            result = Result(*json.loads(line))
            limit = limit or _limit(result)
            yield result
    os.waitpid(child, 0)
    for mutant in mutants:
        if mutant not in inside:
            yield _from_the_start(path, target, source, mutant, limit)


def _from_the_start(path: str, target: Target, source: str, mutant: Mutant, limit: int) -> Result:
    """A mutant that is imported in the place of the file."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _replace(path, code_of(source, mutant))
        _session(path, target, source, [], writer, limit + COLLECTING)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        lines = pipe.read().splitlines()
    _, status, used = os.wait4(child, 0)
    if lines:
        return Result(*json.loads(lines[0]))._replace(id=mutant.id)
    return Result(mutant.id, "killed" if os.waitstatus_to_exitcode(status) > 0 else "timeout", "import", used.ru_utime)


def _session(path: str, target: Target, source: str, mutants: list[Mutant], writer: int, limit: int | None) -> None:
    """Collects the tests and runs them as they are, and for each mutant; never returns."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    status = 3
    try:
        import pytest

        contract = ("tests/testing/test_contract.py",) if target.contract else ()
        words = [*("-q", "-p", "no:cacheprovider", "-p", "no:xdist"), *target.tests, *contract]
        status = int(pytest.main(words, plugins=[_Plugin(path, target, source, mutants, writer, limit or 600)]))
    finally:
        os._exit(status)


class _Plugin:
    """Takes the place of pytest's own loop: all tests until the first failure, once in a fork for each mutant."""

    def __init__(self, path: str, target: Target, source: str, mutants: list[Mutant], writer: int, limit: int) -> None:
        self.path, self.target, self.source, self.mutants, self.writer = path, target, source, mutants, writer
        self.limit = limit
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        def wanted(item: Any) -> bool:
            if item.path.name != "test_contract.py":
                return True
            about = any(f"[{method}-video-" in item.name for method in self.target.contract)
            return about and item.name.endswith(CHECKS)

        items[:] = [item for item in items if wanted(item)]

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed = report.nodeid

    def pytest_runtestloop(self, session: Any) -> bool:
        if session.testsfailed:
            raise session.Interrupted("collecting failed")
        importlib.import_module("tokred.registry").list_methods()  # imports every method, which no fork then has to
        limit = self.limit
        for mutant in (None, *self.mutants):
            told, tell = os.pipe()
            child = os.fork()
            if child == 0:
                self._child(session.items, mutant, limit, tell)
            os.close(tell)
            with os.fdopen(told) as pipe:
                by = pipe.read()
            _, status, used = os.wait4(child, 0)
            outcome = {0: "survived", 1: "killed", BROKEN: "error"}.get(os.waitstatus_to_exitcode(status), "timeout")
            result = Result("" if mutant is None else mutant.id, outcome, by, round(used.ru_utime + used.ru_stime, 2))
            if mutant is None:
                limit = _limit(result)
            os.write(self.writer, (json.dumps(result) + "\n").encode())
        return True

    def _child(self, items: list[Any], mutant: Mutant | None, limit: int, tell: int) -> None:
        """Never returns: exit status 0 = all tests pass, 1 = one fails, BROKEN = the mutant never met the tests."""
        status = BROKEN
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            if mutant is not None:
                _patch(self.path, code_of(self.source, mutant), function_of(self.source, mutant) or "")
            for item, following in zip(items, [*items[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if self.failed:
                    break
            os.write(tell, self.failed.encode())
            status = int(bool(self.failed))
        finally:
            os._exit(status)


def _limit(baseline: Result) -> int:
    """Processor seconds after which a mutant counts as killed; other work on the machine does not matter to it."""
    return int(3 * baseline.seconds) + 5


def _module(path: str) -> str:
    return f"tokred.{path.removeprefix('tokred/').removesuffix('.py').replace('/', '.')}"


def _patch(path: str, source: str, function: str) -> None:
    """Put the code of one function of the changed source into the imported module."""
    code = compile(source, str(ROOT / path), "exec", dont_inherit=True)
    live: Any = importlib.import_module(_module(path))
    for name in function.split("."):
        code = next(c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == name)
        live = inspect.getattr_static(live, name)
    while not inspect.isfunction(live) or hasattr(live, "__wrapped__"):
        if hasattr(live, "cache_clear"):
            live.cache_clear()
        live = next(getattr(live, name) for name in ("fget", "__wrapped__", "__func__") if hasattr(live, name))
    live.__code__ = code


def _replace(path: str, source: str) -> None:
    """From now on the file's module is made from this source."""
    as_it_is = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        if fullname != _module(path):
            return as_it_is(self, fullname)
        return compile(source, str(ROOT / path), "exec", dont_inherit=True)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign,assignment]


def study(path: str, target: Target, known: dict[str, Any], seed: int, again: bool) -> Iterator[dict[str, Any]]:
    """The record of a file after each mutant that runs."""
    source = (ROOT / path).read_text()
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    kept = known.get("mutants", []) if (known.get("source"), known.get("seed")) == (digest, seed) else []
    kept = [m for m in kept if not (again and m["outcome"] == "survived")]
    finished = {m["id"]: m for m in kept}
    chosen = sample(source, target.mutants, seed)
    todo = [mutant for mutant in chosen if mutant.id not in finished]
    record = {"source": digest, "seed": seed, "mutants": kept}
    if not todo:
        yield record
        return
    results = runs(path, target if again else target._replace(contract=()), todo)
    asis = next(results, None)
    if asis is None or asis.outcome != "survived":
        sys.exit(f"{path}: the tests do not pass as they are")
    named = {mutant.id: mutant for mutant in todo}
    for result in results:
        mutant = named[result.id]
        if result.outcome == "error":
            sys.exit(f"{path}:{mutant.line}: the mutant could not be put in place: {mutant.after}")
        print(
            f"{path}:{mutant.line} {result.outcome:8} {result.seconds:5.1f}s  {mutant.before}  ->  {mutant.after}",
            flush=True,
        )
        finished[mutant.id] = {**mutant._asdict(), **result._asdict()}
        record["mutants"] = [finished[m.id] for m in chosen if m.id in finished]
        yield record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"of {', '.join(TARGETS)}; default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="run survivors again, also against the contract")
    arguments = parser.parse_args()
    unknown = [path for path in arguments.files if path not in TARGETS]
    if unknown:
        parser.error(f"{unknown[0]} is not one of {', '.join(TARGETS)}")
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    os.environ["HYPOTHESIS_PROFILE"] = "ci"  # the same examples every time
    for name in LOADED:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    place = RESULTS / (f"mutation_seed{arguments.seed}.json" if arguments.seed else "mutation.json")
    results = json.loads(place.read_text()) if place.exists() else {}
    for path in arguments.files or TARGETS:
        for record in study(path, TARGETS[path], results.get(path, {}), arguments.seed, arguments.again):
            results[path] = record
            _write(place, results)
    print("\n".join(table(results)))


def table(results: dict[str, Any]) -> list[str]:
    """One line a file, and all together: mutants, equivalent, killed, score."""
    equivalent = json.loads(EQUIVALENT.read_text())
    lines, total = [f"{'':28}{'mutants':>9}{'equivalent':>12}{'killed':>8}{'score':>8}"], [0, 0, 0]
    for path in (path for path in TARGETS if path in results):
        mutants = results[path]["mutants"]
        same = sum(m["outcome"] == "survived" and m["id"] in equivalent.get(path, {}) for m in mutants)
        killed = sum(m["outcome"] != "survived" for m in mutants)
        row = [len(mutants), same, killed]
        total = [a + b for a, b in zip(total, row, strict=True)]
        lines.append(_line(path, row))
    return [*lines, _line("all", total)]


def _line(name: str, row: list[int]) -> str:
    mutants, same, killed = row
    return f"{name:28}{mutants:>9}{same:>12}{killed:>8}{killed / max(1, mutants - same):>8.1%}"


def _write(place: Path, results: dict[str, Any]) -> None:
    temporary = place.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=1) + "\n")
    temporary.replace(place)


if __name__ == "__main__":
    main()
