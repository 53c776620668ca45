"""A cell in parts is the cell: where a part begins, what is joined, what is kept when a run stops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
import pytest

from tokred.run.clips import ClipSettings
from tokred.run.engine import EngineError, InParts
from tokred.run.engine.base import Closing
from tokred.run.engine.parts import join, name, split
from tokred.run.store import CellStore
from tokred.run.work import Done, Failed, Task, opened, work


@dataclass
class Here(Closing):
    """Computes in this process, in reverse order, and remembers what; stops after so many."""

    most: int = 1000
    computed: list[Task] = field(default_factory=list)
    workers: int = 1

    def run(self, tasks: Sequence[Task], advance=None) -> Iterator[Done | Failed]:
        for task in reversed(tasks):
            if len(self.computed) == self.most:
                raise KeyboardInterrupt("the user")
            self.computed.append(task)
            yield work(task, advance)

    def close(self) -> None:
        self.most = 0

    def __enter__(self) -> Here:
        return self


@pytest.fixture(scope="module")
def broken_videos(tmp_path_factory) -> str:
    """Seven videos, of which the second and the fifth are empty files."""
    import av

    folder = tmp_path_factory.mktemp("videos")
    for number in range(7):
        path = folder / f"{number}.mp4"
        if number in (1, 4):
            path.touch()
            continue
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.height, stream.width, stream.pix_fmt, stream.time_base = 64, 80, "yuv420p", Fraction(1, 25)
            for frame in range(8 if number == 5 else 20):
                picture = np.random.default_rng([number, frame]).integers(0, 255, (64, 80, 3), dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    return str(folder)


@pytest.fixture(scope="module")
def broken_pictures(tmp_path_factory) -> str:
    """Nine pictures, of which the first and the last are empty files."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    for number in range(9):
        path = folder / f"{number}.png"
        if number in (0, 8):
            path.touch()
        else:
            pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return f"images:{folder}"


@pytest.fixture
def task(request, task_of, broken_videos, broken_pictures) -> Task:
    return {
        "generated": lambda: task_of("sta:r=3", ClipSettings(clips=7)),
        "videos, two clips of three crops": lambda: task_of(
            "sta:r=3", ClipSettings(broken_videos, views=(2, 3), sampling="uniform")
        ),
        "pictures, three crops": lambda: task_of(
            "random_drop:keep=0.5", ClipSettings(broken_pictures, views=(1, 3)), backbone="vit_nano"
        ),
        "animated pictures": lambda: task_of("eventful", ClipSettings(broken_pictures, animate=True)),
        "damaged clips": lambda: task_of("none", ClipSettings(clips=5, corrupt="noise:0.5")),
    }[request.param]()


KINDS = (
    "generated",
    "videos, two clips of three crops",
    "pictures, three crops",
    "animated pictures",
    "damaged clips",
)


@pytest.mark.parametrize("task", KINDS, indirect=True)
@pytest.mark.parametrize("parts", [2, 3, 100])
def test_parts_are_the_whole_bit_for_bit(task, parts, tmp_path) -> None:
    whole = work(task)
    assert isinstance(whole, Done), whole
    engine = Here()
    (joined,) = InParts(engine, parts, CellStore(tmp_path)).run([task])
    assert isinstance(joined, Done), joined
    assert len(engine.computed) == min(parts, -(-len(opened(task.cell)) // 2))
    assert joined.task == task
    assert joined.arrays.keys() == whole.arrays.keys()
    for key, values in whole.arrays.items():
        assert joined.arrays[key].dtype == values.dtype
        np.testing.assert_array_equal(joined.arrays[key], values, err_msg=key)
    assert joined.record["failures"] == whole.record["failures"]
    assert joined.record["parts"] == len(engine.computed)
    assert {key: joined.record[key] for key in ("reducer", "clips")} == {
        key: whole.record[key] for key in ("reducer", "clips")
    }


def test_parts_are_contiguous_and_begin_where_a_batch_begins(task_of) -> None:
    task = task_of(clips=ClipSettings(clips=11), batch=3)
    pieces = [piece.items for piece in split(task, 3, opened(task.cell))]
    assert pieces == [(0, 3), (3, 6), (6, 11)]
    assert split(task, 1, opened(task.cell)) == [task]
    assert len(split(task, 100, opened(task.cell))) == 4


def test_a_part_reads_no_other_items(broken_videos, task_of, monkeypatch) -> None:
    task = task_of("none", ClipSettings(broken_videos))
    read: list[str] = []
    import tokred.data.videos as videos

    before = videos.read_frames
    monkeypatch.setattr(
        videos, "read_frames", lambda path, *rest, **kw: read.append(path.name) or before(path, *rest, **kw)
    )
    part = split(task, 3, opened(task.cell))[1]
    found = work(part)
    assert isinstance(found, Done)
    assert read == ["2.mp4", "3.mp4"]
    assert found.arrays["items"].tolist() == [2, 3]


def test_a_part_of_other_clips_is_refused(broken_videos, task_of) -> None:
    part = split(task := task_of("none", ClipSettings(broken_videos)), 3, opened(task.cell))[1]
    found = work(replace(part, part="0" * 12))
    assert isinstance(found, Failed)
    assert "are not those that this run was planned with" in found.reason


def test_a_part_without_usable_clips_is_empty_and_the_whole_is_not(tmp_path, broken_videos, task_of) -> None:
    task = task_of("none", ClipSettings(broken_videos), batch=1)
    (joined,) = InParts(engine := Here(), 7, CellStore(tmp_path)).run([task])
    assert len(engine.computed) == 7
    assert isinstance(joined, Done)
    assert joined.arrays["items"].tolist() == [0, 2, 3, 5, 6]
    assert [failure["path"] for failure in joined.record["failures"]] == ["1.mp4", "4.mp4"]


def test_no_usable_clip_at_all_is_a_failure(tmp_path, task_of) -> None:
    for number in range(2):
        (tmp_path / f"{number}.mp4").touch()
    task = task_of("none", ClipSettings(str(tmp_path)), batch=1)
    (found,) = InParts(Here(), 2, CellStore(tmp_path)).run([task])
    assert isinstance(found, Failed)
    assert "gave no clip that can be used" in found.reason


def test_finished_parts_are_kept_until_their_cell_is(tmp_path, task_of) -> None:
    store, task = CellStore(tmp_path), task_of("sta:r=2", ClipSettings(clips=8))
    with pytest.raises(KeyboardInterrupt, match="the user"):
        list(InParts(Here(most=3), 4, store).run([task]))
    kept = sorted(path.name for path in store.folder.glob("*.json"))
    assert kept == [f"{task.id}.{first}-{first + 2}.json" for first in (2, 4, 6)]
    seen: list[int] = []
    engine = Here()
    for outcome in InParts(engine, 4, store).run([task], seen.append):
        assert isinstance(outcome, Done)
        store.write(task.id, outcome.record, outcome.arrays)
    assert [part.items for part in engine.computed] == [(0, 2)]
    assert sum(seen) == 8
    assert sorted(path.name for path in store.folder.iterdir()) == [f"{task.id}.json", f"{task.id}.npz"]


def test_a_cell_fails_once_with_the_first_reason_of_its_parts(tmp_path, task_of) -> None:
    (found,) = InParts(Here(), 4, CellStore(tmp_path)).run([task_of("sta:r=100000")])
    assert isinstance(found, Failed)
    assert found.task.items is None
    assert "100000" in found.reason


def test_data_that_is_not_there_fails_its_own_cell_only(tmp_path, task_of) -> None:
    good = task_of("none")
    lost = replace(good, id="lost", cell=replace(good.cell, clips=ClipSettings(str(tmp_path / "nowhere"))))
    found = {o.task.id: o for o in InParts(Here(), 2, CellStore(tmp_path)).run([lost, good])}
    assert "no such file or folder" in found["lost"].reason
    assert isinstance(found[good.id], Done)


def test_no_parts_are_refused(tmp_path) -> None:
    with pytest.raises(EngineError, match="parts = 0 must be at least 1"):
        InParts(Here(), 0, CellStore(tmp_path))


def test_closing_closes_the_engine_inside(tmp_path) -> None:
    engine = Here()
    with InParts(engine, 2, CellStore(tmp_path)):
        pass
    assert engine.most == 0


def test_a_part_is_named_after_its_items(task_of) -> None:
    task = task_of("none")
    assert name(task) == task.id
    pieces = split(task, 2, opened(task.cell))
    assert [name(piece) for piece in pieces] == [f"{task.id}.0-4", f"{task.id}.4-8"]
    assert isinstance(join(task, [work(piece) for piece in pieces]), Done)
