"""Which frames of a video make its clips. Pure arithmetic on frame numbers; nothing is random."""

from __future__ import annotations

from dataclasses import dataclass

MODES = ("dense", "uniform")


@dataclass(frozen=True)
class Sampling:
    """How clips are cut from a video.

    "dense" (Kinetics): every ``stride``-th frame of the video, L of them, and from these ``clips`` windows of
    ``frames`` in a row, starting at int(i (L - frames) / (clips - 1)); one clip is the centre window. "uniform"
    (Something-Something): ``frames`` equal segments over the whole video; clip i of n takes from every segment the
    frame at i / n of it, so two clips are the starts and the midpoints; one clip is the midpoints. Both are what
    VideoMAE's evaluation does (kinetics.py, ssv2.py of MCG-NJU/VideoMAE). Frames are counted, not timed: a variable
    frame rate has no influence.

    Args:
        frames: frames per clip.
        mode: "dense" or "uniform".
        stride: frames from one sampled frame to the next; dense only.
        clips: clips per video.
    """

    frames: int
    mode: str = "dense"
    stride: int = 4
    clips: int = 1

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode = {self.mode!r} is not one of {', '.join(MODES)}")
        for name in ("frames", "stride", "clips"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1")

    def indices(self, total: int) -> list[list[int]]:
        """Frame numbers of each clip of a video.

        A video that is too short for a clip repeats frames: its last one (dense), or evenly (uniform).

        Args:
            total: number of frames of the video.

        Returns:
            ``clips`` lists of ``frames`` non-decreasing numbers in 0..total-1.
        """
        if total < 1:
            raise ValueError(f"total = {total} frames: a video has at least one")
        if self.mode == "uniform":
            return [self._uniform(total, clip) for clip in range(self.clips)]
        strided = range(0, total, self.stride)
        slack = max(0, len(strided) - self.frames)
        if self.clips == 1:
            starts = [slack // 2]
        else:
            starts = [clip * slack // (self.clips - 1) for clip in range(self.clips)]
        return [[strided[min(start + i, len(strided) - 1)] for i in range(self.frames)] for start in starts]

    def _uniform(self, total: int, clip: int) -> list[int]:
        parts, part = (2, 1) if self.clips == 1 else (self.clips, clip)
        return [total * (segment * parts + part) // (self.frames * parts) for segment in range(self.frames)]

    def padding(self, total: int) -> str | None:
        """For a video that is too short, how many different frames its clips hold; None when all are different."""
        different = min(len(set(clip)) for clip in self.indices(total))
        if different == self.frames:
            return None
        return f"{different} {'frame' if different == 1 else 'frames'} of {self.frames}"
