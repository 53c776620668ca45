"""The report on a data set: what can be used, how the classes are filled, and a hash of the list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tokred.data.check import check_data, list_sha256
from tokred.data.lists import Item, Listing, read_list, scan_folder
from tokred.data.source import LabelSet


def test_report_counts_videos_classes_and_failures(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    make_video(tmp_path / "a.mp4", 7)
    make_video(tmp_path / "b.mkv", 9)
    (tmp_path / "c.mp4").write_text("broken")
    (tmp_path / "list.txt").write_text("a.mp4 0\nb.mkv 3\nc.mp4 3\nd.mp4 1\na.mp4 0\n")
    seen: list[tuple[int, int]] = []
    report = check_data(read_list(tmp_path / "list.txt"), progress=lambda done, total: seen.append((done, total)))
    assert (report.items, report.usable, report.ok) == (5, 3, False)
    assert report.frames == (7, 9)
    assert [(failure.path, failure.reason) for failure in report.failures] == [
        ("c.mp4", "a text file of 6 bytes, not a video"),
        ("d.mp4", "no such file"),
    ]
    assert (report.classes, report.labels, report.per_class, report.unused) == (4, (0, 3), (1, 2), ("2",))
    assert "1 videos are listed more than once, a.mp4 first" in report.notes
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_report_without_labels(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    make_video(tmp_path / "a.mp4", 7)
    report = check_data(scan_folder(tmp_path))
    assert report.ok
    assert (report.classes, report.labels, report.per_class, report.unused) == (0, None, None, ())


def test_hash_ignores_the_order_and_notices_labels_and_names() -> None:
    a, b = Item(Path("x/a"), "a", 0), Item(Path("x/b"), "b", 1)
    label_set = LabelSet("label", ("0", "1"))
    base = list_sha256(Listing((a, b), label_set))
    assert len(base) == 64
    assert list_sha256(Listing((b, a), label_set)) == base
    assert list_sha256(Listing((Item(Path("elsewhere/a"), "a", 0), b), label_set)) == base
    assert list_sha256(Listing((Item(a.path, "a", 1), b), label_set)) != base
    assert list_sha256(Listing((a,), label_set)) != base


def test_odd_sizes_of_well_known_sets_are_remarked() -> None:
    listing = Listing((Item(Path("gone"), "gone", 0),), LabelSet("label", tuple(map(str, range(400)))))
    assert any("Kinetics-400 validation has 19796 to 19881 videos, not 1" in note for note in check_data(listing).notes)
