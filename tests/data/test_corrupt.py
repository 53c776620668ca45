"""Clips made worse on purpose: the same damage for the same clip, and no other."""

from __future__ import annotations

import pytest
import torch

from tokred.data.corrupt import Corrupted, parse
from tokred.data.lists import DataError
from tokred.data.synthetic import SyntheticActions


def source(clips: int = 5) -> SyntheticActions:
    return SyntheticActions(clips=clips, seed=0, size=32, frames=8)


def all_clips(spoilt, batch: int) -> torch.Tensor:
    return torch.cat([b.clips for b in spoilt.batches(batch)])


@pytest.mark.parametrize("spec", ["noise:0.5", "frames:0.5", "resolution:0.5"])
def test_damage_does_not_depend_on_the_batch_and_is_the_same_again(spec) -> None:
    spoilt = Corrupted(source(), spec)
    assert torch.equal(all_clips(spoilt, 1), all_clips(spoilt, 3))
    assert torch.equal(all_clips(spoilt, 2), all_clips(Corrupted(source(), spec), 2))
    assert not torch.equal(all_clips(spoilt, 5), all_clips(source(), 5))


@pytest.mark.parametrize("kind", ["noise", "frames", "resolution"])
def test_strength_zero_changes_nothing(kind) -> None:
    torch.testing.assert_close(
        all_clips(Corrupted(source(), f"{kind}:0"), 5), all_clips(source(), 5), atol=1e-5, rtol=0
    )


def test_lost_frames_show_the_last_one_that_came() -> None:
    whole, lossy = all_clips(source(), 5), all_clips(Corrupted(source(), "frames:0.5"), 5)
    torch.testing.assert_close(lossy[:, :, 0], whole[:, :, 0])
    for clip, before in zip(lossy, whole, strict=True):
        lost = [not torch.equal(clip[:, t], before[:, t]) for t in range(8)]
        assert sum(lost) <= 4
        for t in range(1, 8):
            if lost[t]:
                assert torch.equal(clip[:, t], clip[:, t - 1])
    assert not torch.equal(lossy, whole)


def test_noise_is_measured_in_the_clips_own_deviation() -> None:
    whole, noisy = all_clips(source(), 5), all_clips(Corrupted(source(), "noise:0.5"), 5)
    ratio = (noisy - whole).flatten(1).std(1) / whole.flatten(1).std(1)
    torch.testing.assert_close(ratio, torch.full((5,), 0.5), atol=0.02, rtol=0)


def test_labels_stay_and_the_digest_changes() -> None:
    spoilt = Corrupted(source(), "noise:0.5")
    assert spoilt.digest() != source().digest() != Corrupted(source(), "noise:0.6").digest()
    ours, theirs = next(iter(spoilt.batches(5))), next(iter(source().batches(5)))
    assert all(torch.equal(ours.labels[k], theirs.labels[k]) for k in theirs.labels)
    assert len(spoilt) == 5


@pytest.mark.parametrize(
    "spec", ["noise", "noise:-1", "frames:1", "frames:x", "resolution:2", "noize:1", "", "noise:nan"]
)
def test_what_is_not_known_is_refused_with_what_is(spec) -> None:
    with pytest.raises(DataError, match="allowed"):
        parse(spec)


def test_a_near_miss_is_named() -> None:
    with pytest.raises(DataError, match="did you mean noise"):
        parse("noize:0.2")
