"""Finding videos and labels in folders and lists. No file is opened, so empty ones do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokred.data.lists import DataError, read_list, scan_folder, thinned


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def write(folder: Path, text: str, name: str = "list.txt") -> Path:
    (folder / name).write_text(text)
    return folder / name


def pairs(listing) -> list[tuple[str, int | None]]:
    return [(item.name, item.label) for item in listing.items]


def test_folder_is_searched_to_the_bottom_in_a_fixed_order_without_labels(tmp_path: Path) -> None:
    folder = touch(tmp_path, "b.mp4", "a.MKV", "deep/er/c.webm", ".hidden.mp4", ".git/x.mp4", "notes.md", "LICENSE")
    listing = scan_folder(folder)
    assert pairs(listing) == [("a.MKV", None), ("b.mp4", None), ("deep/er/c.webm", None)]
    assert listing.label_set is None
    assert listing.notes[0] == "not videos by their suffix, left out: 1 .md, 1 no suffix"
    assert "no labels: a.MKV is not directly in a class folder" in listing.notes[1]


def test_class_folders_give_labels_in_sorted_order(tmp_path: Path) -> None:
    listing = scan_folder(touch(tmp_path, "run/1.mp4", "run/2.avi", "jump high/1.mp4"))
    assert pairs(listing) == [("jump high/1.mp4", 0), ("run/1.mp4", 1), ("run/2.avi", 1)]
    assert listing.label_set is not None
    assert listing.label_set.classes == ("jump high", "run")
    assert listing.notes == ("labels are the 2 folders in sorted order",)


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (("run/1.mp4", "run/2.mp4"), "no labels: run is the only class folder"),
        (("run/1.mp4", "jump/1.mp4", "stray.mp4"), "no labels: stray.mp4 is not directly in a class folder"),
        (("train/run/1.mp4", "val/run/1.mp4"), "no labels: train/run/1.mp4 is not directly in a class folder"),
    ],
)
def test_no_labels_are_guessed_where_folders_are_not_classes(tmp_path: Path, names: tuple[str, ...], note: str) -> None:
    listing = scan_folder(touch(tmp_path, *names))
    assert listing.label_set is None
    assert {item.label for item in listing.items} == {None}
    assert listing.notes == (note,)


def test_folder_without_a_video_is_refused_and_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no video in the folder .* \(found: nothing\)"):
        scan_folder(tmp_path)
    with pytest.raises(DataError, match=r"\(found: 2 \.jpg, 1 \.txt\)"):
        scan_folder(touch(tmp_path, "a.jpg", "b.JPG", "c.txt"))


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    folder = touch(tmp_path / "set", "run/1.mp4", "jump/1.mp4")
    (folder / "run" / "again").symlink_to(folder, target_is_directory=True)
    (folder / "walk").symlink_to(touch(tmp_path / "elsewhere", "2.mp4"), target_is_directory=True)
    assert pairs(scan_folder(folder)) == [("jump/1.mp4", 0), ("run/1.mp4", 1), ("walk/2.mp4", 2)]


@pytest.mark.parametrize("separator", [" ", "\t", ",", "   ", ", ", " \t"])
def test_list_takes_spaces_commas_and_tabs(tmp_path: Path, separator: str) -> None:
    touch(tmp_path, "a.mp4", "sub/b c.mp4")
    listing = read_list(write(tmp_path, f"a.mp4{separator}3\n\nsub/b c.mp4{separator}0\r\n"))
    assert pairs(listing) == [("a.mp4", 3), ("sub/b c.mp4", 0)]
    assert listing.items[1].path == tmp_path / "sub/b c.mp4"
    assert listing.label_set is not None
    assert listing.label_set.classes == ("0", "1", "2", "3")


def test_list_survives_awkward_paths(tmp_path: Path) -> None:
    touch(tmp_path, "a,b 1.mp4", "two, three.mp4", "q.mp4")
    listing = read_list(write(tmp_path, '\ufeffa,b 1.mp4 1\n"two, three.mp4",0\nmissing,x.mp4 2\nq.mp4 2\n'))
    assert pairs(listing) == [("a,b 1.mp4", 1), ("two, three.mp4", 0), ("missing,x.mp4", 2), ("q.mp4", 2)]


def test_names_are_classes_in_sorted_order_or_in_the_given_one(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    path = write(tmp_path, "a.mp4\trun fast\nb.mp4\tjump\n")
    assert pairs(read_list(path)) == [("a.mp4", 1), ("b.mp4", 0)]
    assert read_list(path).notes == ("labels are 2 class names, numbered in sorted order",)
    given = read_list(path, classes=["run fast", "sit", "jump"])
    assert pairs(given) == [("a.mp4", 0), ("b.mp4", 2)]
    assert given.label_set is not None
    assert given.label_set.classes == ("run fast", "sit", "jump")


def test_relative_paths_start_from_the_list_or_the_root(tmp_path: Path) -> None:
    touch(tmp_path / "videos", "a.mp4")
    touch(tmp_path, "c.mp4")
    path = write(tmp_path, f"a.mp4 0\n{tmp_path / 'c.mp4'} 1\n")
    assert [item.path.exists() for item in read_list(path).items] == [False, True]
    assert [item.path.exists() for item in read_list(path, root=tmp_path / "videos").items] == [True, True]


def test_all_wrong_lines_are_named_at_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "d.mp4")
    path = write(tmp_path, "a.mp4 0\nlonely.mp4\nb.mp4 one\n\nd.mp4 100000\n")
    with pytest.raises(DataError, match="3 wrong lines") as caught:
        read_list(path)
    message = str(caught.value)
    assert "line 2: no label in 'lonely.mp4'" in message
    assert "line 3: label 'one' is not a class number from 0, as others are" in message
    assert "line 5: label 100000 is too large, the limit is 99999" in message
    assert "\n" not in message


def test_long_lists_of_wrong_lines_are_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has 30 wrong lines: line 1: .*; line 8: .*; and 22 more$"):
        read_list(write(tmp_path, "word\n" * 30))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("gone.mp4 0\nlost.mp4 1\n", "none of the 2 files of the list .* exists; the first is .*gone.mp4"),
        ("a.mp4 -1\nb.mp4 0\n", "1 wrong line: line 1: label '-1' is not a class number"),
    ],
)
def test_useless_lists_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_list(write(tmp_path, text))


def test_labels_outside_the_given_classes_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    path = write(tmp_path, "a.mp4 swim\n")
    with pytest.raises(DataError, match="line 1: label 'swim' is not one of the 2 classes"):
        read_list(path, classes=["run", "jump"])
    with pytest.raises(DataError, match="2 given class names are not all different"):
        read_list(path, classes=["run", "run"])


def test_binary_file_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="cannot be read"):
        read_list(tmp_path / "list.txt")


def test_thinning_is_even_over_the_listing_and_noted(tmp_path: Path) -> None:
    listing = scan_folder(touch(tmp_path, *[f"{c}/{i}.mp4" for c in "abcd" for i in range(5)]))
    thin = thinned(listing, 4)
    assert [item.label for item in thin.items] == [0, 1, 2, 3]
    assert thin.label_set == listing.label_set
    assert thin.notes[-1] == "4 of 20 videos, evenly spaced"
    assert thinned(listing, None) == thinned(listing, 20) == thinned(listing, 99) == listing
    with pytest.raises(DataError, match="clips = 0"):
        thinned(listing, 0)
