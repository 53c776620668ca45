"""A read-only view of one run's results: groups, order, marks. Tables, pictures and pages all draw on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tokred.measure.statistics import holm
from tokred.report.text import clean, in_units, number, percent

Row = Mapping[str, Any]
SCHEMA = 1
ALPHA = 0.05


@dataclass(frozen=True)
class Group:
    """Rows that may be compared with each other.

    Args:
        title: what they have in common; budget: share of the unreduced multiply-adds they were solved for, or None;
        rows: the finished ones, best quality first.
    """

    title: str
    budget: float | None
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Run:
    """One results.json, as a dict, with what the report derives from it.

    Args:
        results: the dict; it is not changed.

    Raises:
        ValueError: it is not a result that this version can read.
    """

    results: Mapping[str, Any]
    rows: tuple[Row, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.results, Mapping):
            raise ValueError(f"results must be a dict as read from results.json, got {type(self.results).__name__}")
        if self.results.get("schema") != SCHEMA:
            raise ValueError(f"results have schema {self.results.get('schema')!r}; this version reads schema {SCHEMA}")
        rows = self.results.get("rows")
        if not isinstance(rows, Sequence) or not all(isinstance(r, Mapping) and "method" in r for r in rows):
            raise ValueError("results['rows'] must be a list of dicts that each name their method")
        object.__setattr__(self, "rows", tuple(rows))

    def part(self, name: str) -> Mapping[str, Any]:
        """Return a section such as "backbone", "data" or "environment"; an empty one where it is missing."""
        value = self.results.get(name)
        return value if isinstance(value, Mapping) else {}

    @property
    def title(self) -> str:
        return clean(self.results.get("title") or "Comparison of token reducers")

    def words(self, text: str) -> str:
        """Text about clips, about images where the model takes images."""
        return in_units(text, str(self.part("data").get("unit") or "clip"))

    @property
    def complete(self) -> bool:
        return bool(self.results.get("complete"))

    @cached_property
    def done(self) -> tuple[Row, ...]:
        return tuple(r for r in self.rows if r.get("status") == "done")

    @cached_property
    def rest(self) -> tuple[Row, ...]:
        """Rows without a result: failed, refused, pending."""
        order = {"failed": 0, "refused": 1, "pending": 2}
        return tuple(
            sorted(
                (r for r in self.rows if r.get("status") != "done"), key=lambda r: order.get(str(r.get("status")), 3)
            )
        )

    @cached_property
    def unreduced(self) -> Row | None:
        return next((r for r in self.done if r["method"] == "none"), None)

    @cached_property
    def label_sets(self) -> tuple[str, ...]:
        """Label sets for which there is at least one accuracy, in the order of the data set."""
        measured = [name for r in self.done for name in (r.get("accuracy") or {})]
        named = [s.get("name") for s in self.part("data").get("label_sets") or () if isinstance(s, Mapping)]
        return tuple(dict.fromkeys([n for n in named if n in measured] + measured))

    @property
    def labelled(self) -> bool:
        return bool(self.label_sets)

    @property
    def failures(self) -> Sequence[Mapping[str, Any]]:
        return self.part("data").get("failures") or ()

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The unreduced model first, then budgets from large to small, then settings taken as given."""
        reduced = [r for r in self.done if r["method"] != "none"]
        groups = [Group("Unreduced", None, tuple(r for r in self.done if r["method"] == "none"))]
        budgets = sorted({b for r in reduced if (b := number(r.get("budget"))) is not None}, reverse=True)
        for b in budgets:
            title = f"{percent(b, 0 if float(100 * b).is_integer() else 1)} % of the unreduced multiply-adds"
            groups.append(Group(title, b, self._ranked([r for r in reduced if number(r.get("budget")) == b])))
        given = [r for r in reduced if number(r.get("budget")) is None]
        groups.append(Group("Settings as given (not at equal cost)", None, self._ranked(given)))
        return tuple(g for g in groups if g.rows)

    def _ranked(self, rows: list[Row]) -> tuple[Row, ...]:
        def order(row: Row) -> tuple[float, str, str]:
            quality = self.quality(row)
            return (float("inf") if quality is None else -quality, label(row), str(row.get("id")))

        return tuple(sorted(rows, key=order))

    def quality(self, row: Row) -> float | None:
        """Mean top-1 over the label sets, or agreement with the unreduced model where there are no labels."""
        if not self.labelled:
            return number(agreement(row).get("value"))
        values = [v for s in self.label_sets if (v := number(accuracy(row, s).get("top1"))) is not None]
        return sum(values) / len(values) if len(values) == len(self.label_sets) else None

    @cached_property
    def adjusted(self) -> dict[tuple[int, str], float]:
        """Holm-adjusted p of every difference in the table, by (index of the row, label set)."""
        raw = {
            (i, s): p
            for i, r in enumerate(self.rows)
            if r.get("status") == "done"
            for s in self.label_sets
            if (p := number(accuracy(r, s).get("p"))) is not None
        }
        return dict(zip(raw, holm(list(raw.values()))))

    def adjusted_p(self, row: Row, label_set: str) -> float | None:
        return self.adjusted.get((self._index(row), label_set))

    def differs(self, row: Row, label_set: str) -> bool:
        """True where the difference to the unreduced model is significant after Holm's correction."""
        p = self.adjusted_p(row, label_set)
        return p is not None and p < ALPHA

    @cached_property
    def highest(self) -> frozenset[tuple[int, str]]:
        """(index of the row, label set or "agreement") of the highest values at each budget, ties all of them.

        Settings taken as given are left out: they do not cost the same, so the highest among them says nothing.
        """
        found: set[tuple[int, str]] = set()
        for group in self.groups:
            if group.budget is None or len(group.rows) < 2:
                continue
            for name in self.label_sets or ("agreement",):
                values = {self._index(r): v for r in group.rows if (v := number(self.value(r, name))) is not None}
                if len(values) > 1:
                    found |= {(i, name) for i, v in values.items() if v == max(values.values())}
        return frozenset(found)

    def is_highest(self, row: Row, name: str) -> bool:
        return (self._index(row), name) in self.highest

    def value(self, row: Row, name: str) -> Any:
        return accuracy(row, name).get("top1") if self.labelled else agreement(row).get("value")

    def _index(self, row: Row) -> int:
        return next(i for i, r in enumerate(self.rows) if r is row)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Notes on the run as a whole: the weights, the clips, the timing."""
        timing = self.part("settings").get("timing")
        timing_notes = timing.get("notes") if isinstance(timing, Mapping) else None
        found = [self.part("backbone").get("notes"), self.part("data").get("notes"), timing_notes]
        return tuple(clean(note) for notes in found for note in notes or ())

    @cached_property
    def footnotes(self) -> tuple[str, ...]:
        """The different notes of all rows, in the order of the table."""
        rows = [r for g in self.groups for r in g.rows]
        return tuple(dict.fromkeys(clean(n) for r in rows for n in r.get("notes") or ()))


def label(row: Row) -> str:
    """Name of the row's method for people; learned ones say so, and whether they are trained."""
    name = clean(row.get("label") or row["method"])
    if not row.get("learned"):
        return name
    trained = row.get("trained")
    return f"{name} ({'learned' if trained is None else 'trained' if trained else 'untrained'})"


def setting(row: Row) -> str:
    """The reducer's setting without the method's name in front."""
    spec, method = clean(row.get("reducer") or ""), clean(row["method"])
    return spec[len(method) + 1 :] if spec.startswith(method + ":") else "" if spec == method else spec


def accuracy(row: Row, label_set: str) -> Mapping[str, Any]:
    return (row.get("accuracy") or {}).get(label_set) or {}


def agreement(row: Row) -> Mapping[str, Any]:
    return row.get("agreement") or {}


def speed(row: Row) -> Mapping[str, Any]:
    return row.get("speed") or {}


def implied(row: Row) -> float | None:
    """Speed-up that the multiply-adds alone would give."""
    measured = number(speed(row).get("implied"))
    share = number(row.get("gmac_share"))
    return measured if measured is not None else 1 / share if share else None
