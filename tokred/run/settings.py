"""What a comparison compares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokred.run.clips import ClipSettings
from tokred.run.store import cell_id


@dataclass(frozen=True)
class CompareSettings:
    """What to compare; every field is an option of ``tokred compare``.

    Args:
        backbone: name for ``create_backbone``; checkpoint: its weights.
        data: "synthetic", a folder, a list, a video, "cifar10:PATH" or "images:PATH"; clips: at most so many items.
        reducers: specs, None = every registered method; budgets: shares of the unreduced multiply-adds.
        budget_by: "macs" or "time": what the budgets are shares of.
        views: (clips per video, crops per clip) of real video; sampling, stride: see ``tokred.data.sampling``.
        batch_size: None = from the size of the model.
        timing_seconds: time for the interleaved timing, 0 = none.
        num_classes: length of the logits where the checkpoint's head shall be replaced.
        fresh: compute finished rows again.
        allow_untrained: run learned methods whose parameters are random.
        animate: turn pictures into clips.
    """

    backbone: str = "videomae_vit_nano"
    checkpoint: str | None = None
    data: str = "synthetic"
    clips: int | None = None
    reducers: tuple[str, ...] | None = None
    budgets: tuple[float, ...] | None = None
    budget_by: str = "macs"
    views: tuple[int, int] = (1, 1)
    sampling: str = "dense"
    stride: int | None = None
    batch_size: int | None = None
    device: str = "cpu"
    dtype: str = "float32"
    seed: int = 0
    timing_seconds: float = 20.0
    num_classes: int | None = None
    fresh: bool = False
    allow_untrained: bool = False
    animate: bool = False

    @property
    def clip_settings(self) -> ClipSettings:
        """The part that says which clips."""
        return ClipSettings(self.data, self.clips, self.views, self.sampling, self.stride, self.seed, self.animate)


def default_out(settings: CompareSettings) -> Path:
    """The run folder of these settings: the same command continues where it stopped."""
    key = cell_id({k: v for k, v in vars(settings).items() if k != "fresh"})[:8]
    data = "".join(c if c.isalnum() else "-" for c in Path(settings.data).name)[:24]
    backbone = "".join(c if c.isalnum() or c == "_" else "-" for c in settings.backbone)
    return Path("results") / f"compare-{backbone}-{data}-{key}"
