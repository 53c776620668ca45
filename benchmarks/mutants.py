"""Seeded samples of mutants of a file, by cosmic-ray's operators."""

from __future__ import annotations

import ast
import hashlib
import random
from collections.abc import Iterator
from typing import NamedTuple


class Mutant(NamedTuple):
    """One change: its operator and occurrence for cosmic-ray, its line and function, the text before and after."""

    operator: str
    occurrence: int
    line: int
    inside: str
    before: str
    after: str

    @property
    def id(self) -> str:
        """The same wherever the line moves to inside its function."""
        return hashlib.sha256(f"{self.inside}\n{self.before}\n{self.after}".encode()).hexdigest()[:12]


def code_of(source: str, mutant: Mutant) -> str:
    """The source with one change."""
    return _changed(source, mutant.operator, mutant.occurrence)


def _changed(source: str, operator: str, occurrence: int) -> str:
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    changed = mutate_code(source, get_operator(f"core/{operator}")(), occurrence)
    assert isinstance(changed, str)
    return changed


def sample(source: str, count: int, seed: int) -> list[Mutant]:
    """Mutants of a source: places first, each with one of its changes, so that no place takes more than its share."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    quiet = list(_annotations(source))
    places: dict[tuple[str, tuple[int, int]], list[tuple[str, int]]] = {}
    nodes = list(ast_nodes(get_ast(source)))
    for name in sorted(operator_names()):
        if name.startswith("core/Variable"):
            continue  # these need names to put in
        operator, occurrence = get_operator(name)(), 0
        for node in nodes:
            for start, _ in operator.mutation_positions(node):
                if not any(low <= start < high for low, high in quiet):
                    places.setdefault((name.rpartition("_")[0] or name, start), []).append((name, occurrence))
                occurrence += 1
    chance = random.Random(seed)
    order = sorted(places)
    chance.shuffle(order)
    found: dict[str, Mutant] = {}
    for place in order:
        name, occurrence = chance.choice(places[place])
        mutant = _mutant(source, name.removeprefix("core/"), occurrence, place[1][0])
        try:
            compile(_changed(source, name.removeprefix("core/"), occurrence), "a mutant", "exec")
        except SyntaxError:
            continue  # the star in front of keyword arguments is no product
        found.setdefault(mutant.id, mutant)
        if len(found) == count:
            break
    return sorted(found.values(), key=lambda mutant: mutant.line)


def _mutant(source: str, operator: str, occurrence: int, line: int) -> Mutant:
    old, new = source.splitlines(), _changed(source, operator, occurrence).splitlines()
    front = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    shorter = min(len(old), len(new)) - front
    back = next((i for i in range(shorter) if old[-1 - i] != new[-1 - i]), shorter)
    before, after = (" ".join(" ".join(text[front : len(text) - back]).split()) for text in (old, new))
    return Mutant(operator, occurrence, line, _inside(source, line), before, after)


def _inside(source: str, line: int) -> str:
    """The innermost function or class that a line is in."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    around = [
        n for n in ast.walk(ast.parse(source)) if isinstance(n, kinds) and n.lineno <= line <= (n.end_lineno or 0)
    ]
    return ".".join(node.name for node in sorted(around, key=lambda node: node.lineno))


def _annotations(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """From where to where annotations go: they are not evaluated."""
    for node in ast.walk(ast.parse(source)):
        for name in ("annotation", "returns"):
            hint = getattr(node, name, None)
            if hint is not None:
                yield (hint.lineno, hint.col_offset), (hint.end_lineno, hint.end_col_offset)


def function_of(source: str, mutant: Mutant) -> str | None:
    """The outermost function in whose body a mutant lies; None = it lies outside of bodies."""
    names: list[str] = []
    body: list[ast.stmt] = ast.parse(source).body
    while True:
        node = next((n for n in body if n.lineno <= mutant.line <= (n.end_lineno or 0)), None)
        if isinstance(node, ast.FunctionDef):
            return ".".join([*names, node.name]) if mutant.line >= node.body[0].lineno else None
        if not isinstance(node, ast.ClassDef):
            return None
        names.append(node.name)
        body = node.body
