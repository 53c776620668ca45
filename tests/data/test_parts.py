"""Parts of a data set: the clips of the whole under their own numbers, in the batches of the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokred.data.corrupt import Corrupted
from tokred.data.opening import open_source
from tokred.data.parts import aligned, part_of
from tokred.data.source import Batch, Divisible, Source

SHAPE = {"frames": 4, "size": 16, "mean": (0.5,) * 3, "std": (0.25,) * 3}


class Rows:
    """Item i has as many rows as its number says, each of value i, with a label."""

    name, label_sets, failures, notes = "rows", (), [], []

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def digest(self) -> str:
        return "rows"

    def batches(self, batch_size: int) -> Iterator[Batch]:
        items = [item for item, count in enumerate(self.rows) for _ in range(count)]
        for start in range(0, len(items), batch_size):
            some = items[start : start + batch_size]
            yield Batch(torch.tensor(some), some, {"own": torch.tensor(some)}, [f"#{item}" for item in some])


@given(st.lists(st.integers(0, 4), max_size=12), st.integers(1, 5))
def test_every_row_comes_once_and_no_batch_crosses_a_border(rows: list[int], size: int) -> None:
    batches = list(aligned(Rows(rows), size))
    found = [item for batch in batches for item in batch.items]
    assert found == [item for item, count in enumerate(rows) for _ in range(count)]
    for batch in batches:
        assert 0 < len(batch.items) <= size
        assert len({item // size for item in batch.items}) == 1
        assert batch.clips.tolist() == batch.labels["own"].tolist() == batch.items
        assert batch.names == [f"#{item}" for item in batch.items]


@given(st.integers(0, 12), st.integers(1, 4), st.integers(1, 5))
def test_where_nothing_fails_these_are_the_batches_of_the_source(items: int, views: int, size: int) -> None:
    source = Rows([views] * items)
    assert [b.items for b in aligned(source, size)] == [b.items for b in source.batches(size)]


@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 4), st.data())
def test_an_item_that_fails_moves_no_other_into_another_block(items: int, views: int, size: int, data) -> None:
    broken = data.draw(st.integers(0, items - 1))
    whole = [b.items for b in aligned(Rows([views] * items), size)]
    left = [b.items for b in aligned(Rows([0 if i == broken else views for i in range(items)]), size)]
    same = [b for b in whole if b[0] // size != broken // size]
    assert [b for b in left if b[0] // size != broken // size] == same


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    from PIL import Image

    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return f"images:{tmp_path}"


@pytest.fixture
def videos(tmp_path: Path, make_video: Callable[..., Path]) -> str:
    for number in range(6):
        if number == 3:
            (tmp_path / "3.mp4").touch()
        else:
            make_video(tmp_path / f"{number}.mp4", 4 + number)
    return str(tmp_path)


@pytest.fixture(params=["generated", "renormalised", "videos", "pictures", "animated", "damaged"])
def opened(request) -> Callable[[], Source]:
    def given(name: str) -> str:
        return request.getfixturevalue(name)

    if request.param == "damaged":
        return lambda: Corrupted(open_source("synthetic", **SHAPE, clips=6), "noise:0.5")
    spec, settings = {
        "generated": lambda: ("synthetic", {"clips": 6, "std": (0.5,) * 3}),
        "renormalised": lambda: ("synthetic", {"clips": 6}),
        "videos": lambda: (given("videos"), {"views": (2, 1), "sampling": "uniform"}),
        "pictures": lambda: (given("pictures"), {"frames": 1, "views": (1, 3)}),
        "animated": lambda: (given("pictures"), {"animate": True}),
    }[request.param]()
    return lambda: open_source(spec, **{**SHAPE, **settings})


def rows(source: Source, size: int) -> dict[tuple[int, int], tuple[torch.Tensor, str, dict[str, int]]]:
    """Every clip by its item and view, with its name and labels."""
    found: dict[tuple[int, int], tuple[torch.Tensor, str, dict[str, int]]] = {}
    for batch in source.batches(size):
        for row, item in enumerate(batch.items):
            view = sum(known == item for known, _ in found)
            labels = {name: int(values[row]) for name, values in batch.labels.items()}
            found[item, view] = (batch.clips[row], batch.names[row], labels)
    return found


def test_parts_hold_the_clips_of_the_whole_and_their_own_failures(opened) -> None:
    whole = opened()
    assert isinstance(whole, Divisible)
    expected = rows(whole, 4)
    part_rows, failures = {}, []
    for items in (range(2), range(2, 5), range(5, 6)):
        part = part_of(opened(), items)
        assert len(part) == len(items)
        found = rows(part, 2)
        assert {item for item, _ in found} <= set(items)
        part_rows |= found
        failures += part.failures
    assert part_rows.keys() == expected.keys()
    for place, (clip, name, labels) in expected.items():
        assert torch.equal(part_rows[place][0], clip), place
        assert part_rows[place][1:] == (name, labels)
    assert failures == whole.failures


def test_opening_a_part_changes_nothing_in_the_whole(opened) -> None:
    whole, other = opened(), opened()
    part = part_of(whole, range(2, 5))
    part.digest()
    list(part.batches(2))
    assert len(whole) == 6
    assert (whole.digest(), whole.failures, whole.notes) == (other.digest(), other.failures, other.notes)


def test_the_digest_of_a_part_is_that_of_its_own_files(videos) -> None:
    def digests() -> list[str]:
        source = open_source(videos, **SHAPE)
        return [part_of(source, items).digest() for items in (range(3), range(3, 6))] + [source.digest()]

    before = digests()
    (Path(videos) / "5.mp4").write_bytes(b"another")
    after = digests()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, False]
    assert len({*before, *after}) == 5


@pytest.mark.parametrize("items", [range(0), range(4, 7), range(-1, 2), range(0, 4, 2)])
def test_what_is_no_part_is_refused(opened, items: range) -> None:
    with pytest.raises(ValueError, match="are no part of a set of 6"):
        part_of(opened(), items)


def test_a_source_without_parts_says_so() -> None:
    with pytest.raises(ValueError, match="rows cannot be divided into parts"):
        part_of(Rows([1]), range(1))
