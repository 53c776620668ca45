"""Videos as a source: rows, items, failures that cost nobody else, notes, and a digest of what was seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tokred.data import videos as module
from tokred.data.lists import Item, Listing, scan_folder
from tokred.data.sampling import Sampling
from tokred.data.source import LabelSet, Source
from tokred.data.videos import VideoSource
from tokred.data.views import Views

MakeVideo = Callable[..., Path]
VIEWS = Views((48, 48), (0.45,) * 3, (0.25,) * 3)
WIDE = Views((48, 64), (0.45,) * 3, (0.25,) * 3)  # the whole picture, so that its number can be read


def source_of(folder: Path, sampling: Sampling | None = None, views: Views = WIDE) -> VideoSource:
    return VideoSource(scan_folder(folder), sampling or Sampling(8, "uniform"), views, "test")


def rows_of(source: Source, batch_size: int = 4) -> tuple[torch.Tensor, list[int], list[str]]:
    batches = list(source.batches(batch_size))
    assert all(len(batch.items) == batch_size for batch in batches[:-1])
    items = [item for batch in batches for item in batch.items]
    return torch.cat([batch.clips for batch in batches]), items, [name for batch in batches for name in batch.names]


@pytest.fixture
def three(tmp_path: Path, make_video: MakeVideo) -> Path:
    """A folder with a good video, a broken one, and another good one."""
    folder = tmp_path / "three"
    make_video(folder / "a.mp4", 40)
    (folder / "b.mp4").write_text("broken")
    make_video(folder / "c.mkv", 20, codec="ffv1")
    return folder


def codes_in(clip: torch.Tensor, codes_of: Callable[[np.ndarray], list[int]], views: Views = WIDE) -> list[int]:
    pixels = clip * torch.tensor(views.std).view(3, 1, 1, 1) + torch.tensor(views.mean).view(3, 1, 1, 1)
    return codes_of((pixels * 255).round().to(torch.uint8).permute(1, 2, 3, 0).numpy())


def test_rows_are_the_sampled_frames(three: Path, codes_of: Callable) -> None:
    source = source_of(three)
    clips, items, names = rows_of(source)
    assert clips.shape == (2, 3, 8, 48, 64)
    assert clips.dtype == torch.float32
    assert (items, names) == ([0, 2], ["a.mp4", "c.mkv"])
    assert codes_in(clips[0], codes_of) == Sampling(8, "uniform").indices(40)[0]
    assert codes_in(clips[1], codes_of) == Sampling(8, "uniform").indices(20)[0]


def test_failures_are_collected_once_and_the_others_keep_their_index(three: Path) -> None:
    source = source_of(three)
    assert len(source) == 3
    for _ in range(2):
        assert rows_of(source)[1] == [0, 2]
        assert [(failure.path, failure.reason) for failure in source.failures] == [
            ("b.mp4", "a text file of 6 bytes, not a video")
        ]


def test_views_of_a_video_are_clips_times_crops_with_one_index(three: Path, codes_of: Callable) -> None:
    views = Views((24, 24), (0.45,) * 3, (0.25,) * 3, crops=3)
    clips, items, _ = rows_of(source_of(three, Sampling(4, "dense", 2, clips=2), views), batch_size=5)
    assert items == [0] * 6 + [2] * 6
    plain, _, _ = rows_of(source_of(three, Sampling(4, "dense", 2, clips=2)), batch_size=2)
    starts = [codes_in(clip, codes_of)[0] for clip in plain[:2]]
    assert starts == [0, 32]
    left, centre, right = clips[0], clips[1], clips[2]  # 24 x 32 pixels cut at 0, 4, 8
    assert torch.equal(left[..., 8:], right[..., :16])
    assert torch.equal(left[..., 4:], centre[..., :20])


def test_batches_do_not_depend_on_their_size_nor_on_the_pass(three: Path) -> None:
    source = source_of(three, Sampling(4, "dense", 2, clips=3))
    first = rows_of(source, 1)
    for batch_size in (2, 5, 100):
        clips, items, names = rows_of(source, batch_size)
        assert torch.equal(clips, first[0])
        assert (items, names) == first[1:]


@pytest.mark.parametrize("batch_size", [0, -3])
def test_batch_size_must_be_positive(three: Path, batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size = {batch_size}"):
        next(source_of(three).batches(batch_size))


def test_each_video_is_decoded_once_per_pass(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    true = module.read_frames
    monkeypatch.setattr(module, "read_frames", lambda path, *a, **k: opened.append(path.name) or true(path, *a, **k))
    rows_of(source_of(three, Sampling(4, "dense", 2, clips=3)))
    assert opened == ["a.mp4", "b.mp4", "c.mkv"]


def test_nothing_is_opened_before_its_turn(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    true = module.read_frames
    monkeypatch.setattr(module, "read_frames", lambda path, *a, **k: opened.append(path.name) or true(path, *a, **k))
    iterator = source_of(three).batches(1)
    assert opened == []
    next(iterator)
    assert opened == ["a.mp4"]


def test_labels_come_with_every_row(tmp_path: Path, make_video: MakeVideo) -> None:
    for place in ("run/1.mp4", "jump/1.mp4", "run/2.mp4"):
        make_video(tmp_path / place, 8)
    source = source_of(tmp_path, Sampling(4, "uniform", clips=2))
    (batch,) = source.batches(10)
    assert source.label_sets == (LabelSet("label", ("jump", "run"), 0),)
    assert batch.labels["label"].tolist() == [0, 0, 1, 1, 1, 1]
    assert batch.labels["label"].dtype == torch.int64


def test_without_labels_there_are_none(three: Path) -> None:
    source = source_of(three)
    assert source.label_sets == ()
    assert all(batch.labels == {} for batch in source.batches(4))


def test_repeated_frames_are_noted_once_per_kind_with_a_count(tmp_path: Path, make_video: MakeVideo) -> None:
    for number in range(8):
        make_video(tmp_path / f"{number}.mp4", 3 if number else 30)
    source = source_of(tmp_path, Sampling(16, "dense", 1))
    for _ in range(2):
        rows_of(source)
        (note,) = [note for note in source.notes if note.startswith("padded with repeated frames")]
        assert note.startswith("padded with repeated frames: 1.mp4 (3 frames of 16), 2.mp4 (3 frames of 16)")
        assert note.endswith(", and 2 more")


def test_digest_follows_contents_order_labels_and_settings_not_places(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video(tmp_path / "a.mp4", 8)
    make_video(tmp_path / "sub" / "b.mkv", 9)
    good, other = Item(tmp_path / "a.mp4", "a"), Item(tmp_path / "sub/b.mkv", "b")

    def digest(items: Sequence[Item], sampling: Sampling | None = None, views: Views = VIEWS) -> str:
        return VideoSource(Listing(tuple(items), None), sampling or Sampling(8), views, "x").digest()

    base = digest([good, other])
    assert len(base) == 12
    moved = Item((tmp_path / "a.mp4").rename(tmp_path / "moved.mp4"), "c")
    assert digest([moved, other]) == base
    changed = [
        digest([other, moved]),
        digest([moved]),
        digest([moved, Item(other.path, "b", 1)]),
        digest([moved, other], Sampling(8, stride=2)),
        digest([moved, other], views=Views((48, 48), (0.5,) * 3, (0.25,) * 3)),
        digest([moved, Item(tmp_path / "missing.mp4", "b")]),
    ]
    assert len({base, *changed}) == 7
    moved.path.write_bytes(moved.path.read_bytes() + b"\0")
    assert digest([moved, other]) != base


def test_video_source_is_a_source(three: Path) -> None:
    source: Source = source_of(three)
    assert source.name == "test"
