"""Folders of pictures: which files, which labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tokred.data.lists import DataError
from tokred.data.pictures import PictureError, find_pictures
from tokred.data.pictures.finding import close_by


def test_class_folders_are_the_labels(picture_folder: Path, pixels: Callable) -> None:
    (picture_folder / "cats" / "notes.txt").write_text("x")
    (picture_folder / "cats" / ".hidden.png").write_text("x")
    found = find_pictures(picture_folder)
    assert found.names == [f"{name}/{n}.png" for name, numbers in (("cats", "024"), ("dogs", "135")) for n in numbers]
    assert found.labels == [0, 0, 0, 1, 1, 1]
    assert found.classes == ("cats", "dogs")
    assert (found.pixels(3) == pixels(1, 40, 48)).all()
    assert any("1 .txt" in note for note in found.notes)


def test_pictures_outside_class_folders_have_no_labels(
    picture_folder: Path, encoded: Callable, pixels: Callable
) -> None:
    (picture_folder / "stray.JPG").write_bytes(encoded(pixels(9)))
    found = find_pictures(picture_folder)
    assert len(found) == 7
    assert found.label_sets == ()
    assert any("stray.JPG is not directly in a class folder" in note for note in found.notes)
    assert find_pictures(picture_folder / "cats").notes == ()


def test_a_split_is_found_by_its_usual_names(
    tmp_path: Path, picture_folder: Path, write_npz: Callable[..., Path]
) -> None:
    picture_folder.rename(tmp_path / "val")
    assert find_pictures(tmp_path).classes == ("cats", "dogs")
    write_npz(tmp_path / "train.npz", [0, 1], ("a", "b"))
    assert find_pictures(tmp_path, "train").classes == ("a", "b")
    assert find_pictures(tmp_path / "train.npz", "test").classes == ("a", "b")
    write_npz(tmp_path / "alone" / "train.npz", [0, 1], ("a", "b"))
    with pytest.raises(DataError, match=r"holds train\.npz, but nothing for split=test"):
        find_pictures(tmp_path / "alone")


def test_what_holds_no_picture_is_refused(tmp_path: Path, picture_folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.mp4").write_text("x")
    with pytest.raises(DataError, match=r"no picture in the folder .*found: 1 \.mp4"):
        find_pictures(tmp_path / "empty")
    with pytest.raises(DataError, match=r"no such file or folder: .*pictures1; close: .*pictures"):
        find_pictures(tmp_path / "pictures1")
    with pytest.raises(DataError, match="unknown kind of file"):
        find_pictures(picture_folder / "cats" / "0.png")
    with pytest.raises(DataError, match="split = 'dev'"):
        find_pictures(picture_folder, "dev")


def test_a_file_that_went_away_is_a_broken_picture(picture_folder: Path) -> None:
    found = find_pictures(picture_folder)
    (picture_folder / "cats" / "0.png").unlink()
    with pytest.raises(PictureError, match="cannot be read: No such file"):
        found.pixels(0)
    assert found.sha256(0).startswith("unreadable: cannot be read")


def test_close_names_are_those_beside_the_path_or_known_words(tmp_path: Path) -> None:
    (tmp_path / "cifar10").mkdir()
    assert close_by(tmp_path / "cifr10", ("cifar100",)) == f"; close: {tmp_path / 'cifar10'}"
    assert close_by(Path("sythetic"), ("synthetic",)) == "; close: synthetic"
    assert close_by(tmp_path / "other") == ""
    assert close_by(tmp_path / "no" / "such" / "place") == ""
