"""Pictures as clips of one frame: pixels, labels, failures, digest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tokred.data.cache import PixelSource, materialise
from tokred.data.pictures import PictureSource, find_pictures
from tokred.data.views import Views

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def source(folder: Path, size: tuple[int, int] = (20, 24), crops: int = 1) -> PictureSource:
    return PictureSource(find_pictures(folder), Views(size, MEAN, STD, crops))


def test_pictures_of_the_right_size_are_shown_as_they_are(picture_folder: Path, pixels: Callable) -> None:
    (batch,) = source(picture_folder, (40, 48)).batches(10)
    assert batch.clips.shape == (6, 3, 1, 40, 48)
    for row, number in enumerate((0, 2, 4, 1, 3, 5)):
        picture = torch.from_numpy(pixels(number, 40, 48)).permute(2, 0, 1)
        wanted = (picture / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        torch.testing.assert_close(batch.clips[row, :, 0], wanted)
    assert batch.labels["class"].tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.names[3] == "dogs/1.png"


def test_batch_size_changes_nothing(picture_folder: Path) -> None:
    one = list(source(picture_folder).batches(4))
    assert [len(batch.items) for batch in one] == [4, 2]
    (whole,) = source(picture_folder).batches(6)
    assert torch.equal(torch.cat([batch.clips for batch in one]), whole.clips)
    assert [item for batch in one for item in batch.items] == whole.items == list(range(6))
    with pytest.raises(ValueError, match="batch_size = 0"):
        next(source(picture_folder).batches(0))


def test_crops_are_rows_of_one_item(picture_folder: Path) -> None:
    (batch,) = source(picture_folder, (24, 20), crops=3).batches(50)
    assert batch.items == [i for i in range(6) for _ in range(3)]
    assert not torch.equal(batch.clips[0], batch.clips[2])


def test_a_broken_picture_is_recorded_and_left_out(picture_folder: Path) -> None:
    (picture_folder / "cats" / "2.png").write_bytes(b"text")
    found = source(picture_folder)
    assert isinstance(found, PixelSource)
    kept = materialise(found, batch_size=2)
    assert kept.rows == 5
    assert len(kept) == 6
    (batch,) = kept.batches(10)
    assert batch.items == [0, 2, 3, 4, 5]
    assert batch.labels["class"].tolist() == [0, 0, 1, 1, 1]
    assert [f.path for f in kept.failures] == ["cats/2.png"]
    list(found.batches(3))
    assert len(found.failures) == 1, "a second pass does not record it again"


def test_the_digest_follows_content_labels_and_views(picture_folder: Path, encoded: Callable, pixels: Callable) -> None:
    digest = source(picture_folder).digest()
    assert digest == source(picture_folder).digest()
    assert digest != source(picture_folder, (24, 24)).digest()
    (picture_folder / "cats" / "2.png").write_bytes(encoded(pixels(77, 40, 48)))
    assert digest != source(picture_folder).digest()
