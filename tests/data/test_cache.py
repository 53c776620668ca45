"""Clips prepared once: the same bits, the same failures and notes, whatever the room they get."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tokred.data.cache import MaterialisedSource, PixelSource, materialise
from tokred.data.lists import scan_folder
from tokred.data.sampling import Sampling
from tokred.data.source import Batch, Failure, LabelSet
from tokred.data.videos import VideoSource
from tokred.data.views import Views


class Counted:
    """A source of float clips that counts how often it is read."""

    def __init__(self, clips: int = 10, spoilt: str = "") -> None:
        self.name = "counted"
        self.label_sets = (LabelSet("parity", ("even", "odd")),)
        self.failures: list[Failure] = []
        self.notes: list[str] = []
        self.clips, self.spoilt, self.passes = clips, spoilt, 0

    def __len__(self) -> int:
        return self.clips

    def digest(self) -> str:
        return f"counted {self.clips}"

    def batches(self, batch_size: int) -> Iterator[Batch]:
        self.passes += 1
        self.notes.append(f"pass {self.passes}")
        for start in range(0, self.clips, batch_size):
            items = list(range(start, min(start + batch_size, self.clips)))
            clips = torch.stack([torch.full((3, 2, 4, 4), 1 / (1 + i)) for i in items])
            if self.spoilt and start:
                clips = clips.double() if self.spoilt == "dtype" else clips[..., :2]
            yield Batch(clips, items, {"parity": torch.tensor([i % 2 for i in items])}, [f"clip {i}" for i in items])


def same(left: MaterialisedSource | Counted | VideoSource, right: MaterialisedSource, batch_size: int) -> None:
    for a, b in zip(left.batches(batch_size), right.batches(batch_size), strict=True):
        assert a.clips.dtype == b.clips.dtype == torch.float32
        assert torch.equal(a.clips, b.clips)
        assert (a.items, a.names) == (b.items, b.names)
        assert {name: label.tolist() for name, label in a.labels.items()} == {
            name: label.tolist() for name, label in b.labels.items()
        }


@pytest.mark.parametrize("max_bytes", [0, 1000, 1 << 20])
@pytest.mark.parametrize("batch_size", [1, 3, 10, 64])
def test_stored_clips_are_the_clips_of_the_source(max_bytes: int, batch_size: int) -> None:
    source = Counted()
    kept = materialise(source, max_bytes, batch_size=4)
    assert source.passes == 1
    assert kept.on_disk == kept._store._rolled == (max_bytes < 1 << 20)
    assert (kept.rows, kept.nbytes) == (10, 10 * 96 * 4)
    same(source, kept, batch_size)
    same(source, kept, batch_size)
    assert (len(kept), kept.digest(), kept.name, kept.label_sets) == (10, "counted 10", "counted", source.label_sets)


def test_reading_twice_leaves_the_source_alone() -> None:
    source = Counted()
    kept = materialise(source)
    for _ in range(3):
        assert sum(len(batch.items) for batch in kept.batches(4)) == 10
    assert source.passes == 1
    assert kept.notes == ["pass 1"]


def test_changing_a_batch_does_not_change_the_store() -> None:
    kept = materialise(Counted())
    next(kept.batches(4)).clips.zero_()
    same(Counted(), kept, 4)


def test_two_readers_do_not_disturb_each_other() -> None:
    kept = materialise(Counted(), 100)
    pairs = zip(kept.batches(3), kept.batches(3), strict=True)
    assert all(torch.equal(a.clips, b.clips) for a, b in pairs)


def test_videos_take_a_byte_per_pixel_and_come_back_bit_for_bit(
    tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    make_video(tmp_path / "a.mp4", 20)
    (tmp_path / "b.mp4").touch()
    make_video(tmp_path / "c.mp4", 3)
    views = Views((32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crops=3)
    source = VideoSource(scan_folder(tmp_path), Sampling(8, "uniform", clips=2), views, "videos")
    assert isinstance(source, PixelSource)
    kept = materialise(source, batch_size=4)
    assert (kept.rows, kept.nbytes) == (12, 12 * 3 * 8 * 32 * 32)
    assert [failure.path for failure in kept.failures] == ["b.mp4"]
    assert any(note.startswith("padded") for note in kept.notes)
    assert (len(kept), kept.digest()) == (3, source.digest())
    same(source, kept, 5)


def test_a_source_in_which_everything_fails_gives_no_batch(tmp_path: Path) -> None:
    (tmp_path / "b.mp4").touch()
    source = VideoSource(scan_folder(tmp_path), Sampling(8), Views((8, 8), (0.5,) * 3, (0.5,) * 3), "videos")
    kept = materialise(source)
    assert list(kept.batches(4)) == []
    assert (kept.rows, kept.nbytes, len(kept), len(kept.failures)) == (0, 0, 1, 1)


def test_progress_ends_at_the_number_of_items() -> None:
    seen: list[tuple[int, int]] = []
    materialise(Counted(), batch_size=4, progress=lambda done, total: seen.append((done, total)))
    assert [total for _, total in seen] == [10] * len(seen)
    done = [count for count, _ in seen]
    assert done == sorted(done)
    assert done[-1] == 10


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        ("shape", r"clips of \(3, 2, 4, 2\) torch.float32 after clips of \(3, 2, 4, 4\) torch.float32"),
        ("dtype", r"clips of \(3, 2, 4, 4\) torch.float64 after clips of \(3, 2, 4, 4\) torch.float32"),
    ],
)
def test_clips_of_different_kinds_are_refused(spoilt: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        materialise(Counted(spoilt=spoilt), batch_size=4)


def test_batch_size_must_be_positive() -> None:
    with pytest.raises(ValueError, match="batch_size = 0"):
        next(materialise(Counted()).batches(0))


def test_closing_frees_the_store() -> None:
    kept = materialise(Counted(), 100)
    kept.close()
    with pytest.raises(ValueError, match="closed file"):
        next(kept.batches(2))
