"""A sweep without what is wrong with it: the rest can still be looked at, and everything keeps its place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import ValidationError

from tokred.run.spec_file import Location
from tokred.run.sweep_spec import SweepSpec

NAME = "sweep"
NOTHING = ""
"""Key of an exclude that stands for one that cannot be read: no point has it."""


def repaired(content: dict[str, Any], refused: Iterable[Location]) -> SweepSpec:
    """The sweep that is left.

    Args:
        content: as the file has it; refused: the places of what is wrong, see ``SweepSpec``.
    """
    kept = copy.deepcopy(content)
    # From the back: a value that is taken out of a list moves those behind it.
    for place in sorted(set(refused), key=lambda place: [str(part).zfill(6) for part in place], reverse=True):
        _take_out(kept, place)
    # What is missing cannot be taken out: then the item that lacks it goes, and if that is not enough all of the part.
    for take in (_take_item, _take_part):
        places = _wrong(kept)
        if not places:
            break
        for place in places:
            take(kept, place)
    return SweepSpec.model_validate(kept)


def _wrong(content: dict[str, Any]) -> list[Location]:
    try:
        SweepSpec.model_validate(content)
    except ValidationError as error:
        return [problem["loc"] for problem in error.errors()]
    return []


def _take_out(content: dict[str, Any], place: Location) -> None:
    axis = _axis_of(place)
    if "base" in place[:3:2]:
        place = place[: place.index("base") + 2]  # a setting as a whole: half of a list may be none
    if axis is not None and len(place) > axis + 2 and isinstance(place[axis + 2], int):
        _cut_row(content, place[: axis + 1], place[axis + 1], int(place[axis + 2]))
    elif axis is not None and len(place) >= axis + 2:
        _at(content, place[: axis + 1], lambda owner: owner.pop(place[axis + 1], None))
    elif place == ("name",):
        content["name"] = NAME
    else:
        _at(content, place[:-1], lambda owner: _remove(owner, place[-1]))


def _axis_of(place: Location) -> int | None:
    """Where in a place the number of an axis stands."""
    for start in ((0, "axes"), (2, "axes")):
        at, word = start
        if len(place) > at + 1 and place[at] == word and (at == 0 or place[0] == "profiles"):
            return at + 1
    return None


def _cut_row(content: dict[str, Any], axis: Location, key: int | str, row: int) -> None:
    """One value of an axis, and those that move with it."""

    def cut(owner: Any) -> None:
        length = len(owner[key])
        for other, values in list(owner.items()):
            if isinstance(values, list) and len(values) == length and row < length:
                owner[other] = values[:row] + values[row + 1 :]
                if not owner[other]:
                    del owner[other]

    _at(content, axis, cut)


def _remove(owner: Any, part: Any) -> None:
    # Items of lists keep their places: an item that is wrong as a whole is replaced later.
    if isinstance(owner, dict) or (isinstance(owner, list) and not any(isinstance(item, dict) for item in owner)):
        del owner[part]


def _take_item(content: dict[str, Any], place: Location) -> None:
    for at in (0, 2):
        if len(place) > at + 1 and (at == 0 or place[0] == "profiles"):
            empty: dict[str, Any] = {"excludes": {"when": {NOTHING: None}, "reason": "-"}, "axes": {}}
            if place[at] in empty:
                item = content if at == 0 else content["profiles"][place[1]]
                _put(item, place[at], place[at + 1], empty[str(place[at])])
                return
    if len(place) > 2 and place[0] == "paper" and place[1] in ("rows", "effects"):
        _put(content["paper"], place[1], place[2], {"at": {}} if place[1] == "rows" else {"from": {}, "to": {}})
    elif len(place) > 1 and place[0] == "profiles":
        _put(content, "profiles", place[1], {})


def _put(owner: Any, part: int | str, at: int | str, item: Any) -> None:
    if isinstance(owner[part], (dict, list)):
        owner[part][at] = item


def _take_part(content: dict[str, Any], place: Location) -> None:
    if place[0] == "name":
        content["name"] = NAME
    else:
        content.pop(str(place[0]), None)


def _at(content: Any, place: Location, change: Callable[[Any], Any]) -> None:
    """Change what is at a place, if it is there."""
    try:
        for part in place:
            content = content[part]
        change(content)
    except (KeyError, IndexError, TypeError, AttributeError):
        return  # it has another shape: what holds it is taken out instead
