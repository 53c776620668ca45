"""Replay golden vectors: outputs of the published code, stored in files, against what this package computes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import torch

from tokred.run.parity import (
    ats,
    dynamicvit,
    eventful,
    eventful_models,
    eventful_vivit,
    evit,
    evit_models,
    sta,
    sta_videoswin,
    stts,
    stts_models,
    stvit,
    stvit_models,
    tome,
    tome_models,
    vid_tldr,
    vid_tldr_models,
    videomae,
    videoswin,
)
from tokred.run.parity.golden import Golden, one_line
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed

SUFFIX = ".safetensors"

Replay = Callable[[Golden, Ledger], None]

HOSTED: dict[str, Replay] = {
    "sta function level": sta.function,
    "sta end to end": sta.end_to_end,
    "tome function level": tome.function,
    "tome chained merges": tome.chain,
    "tome kth bipartite": tome.every_kth,
    "tome r schedules": tome.schedules,
    "tome end to end": tome_models.timm_models,
    "tome composed on a VideoMAE-style video ViT": tome_models.composed,
    "evit function": evit.function,
    "evit end_to_end": evit_models.end_to_end,
    "evit schedule": evit.schedule,
    "vid_tldr function": vid_tldr.function,
    "vid_tldr streaming": vid_tldr.streaming,
    "vid_tldr end_to_end": vid_tldr_models.end_to_end,
    "dynamicvit end_to_end": dynamicvit.end_to_end,
    "dynamicvit function": dynamicvit.policy_attention,
    "wangjk666/STTS PerturbedTopKFunction": stts.perturbed,
    "wangjk666/STTS HardTopK": stts.hard,
    "wangjk666/STTS PredictorLG": stts.predictor,
    "wangjk666/STTS PatchNet": stts.stage,
    "wangjk666/STTS MViT": stts_models.mvit,
    "wangjk666/STTS SwinTransformer3D": stts_models.swin,
    "WISION-Lab/eventful-transformer TokenGate": eventful.gate,
    "WISION-Lab/eventful-transformer TokenDeltaGate": eventful.gate,
    "WISION-Lab/eventful-transformer SimpleSTGTGate": eventful.gate,
    "WISION-Lab/eventful-transformer TokenBuffer": eventful.buffer,
    "WISION-Lab/eventful-transformer MatmulBuffer": eventful.query_key,
    "WISION-Lab/eventful-transformer TokenDeltaGate+MatmulDeltaAccumulator": eventful.attention_value,
    "WISION-Lab/eventful-transformer FactorizedViViT": eventful_vivit.video,
    "VideoMAE ViT end to end": videomae.end_to_end,
    "sin-cos position table": videomae.positions,
    "VideoSwin end to end": videoswin.end_to_end,
    "relative position index": videoswin.index_and_mask,
    "relative position index and shifted-window mask": videoswin.index_and_mask,
    "inflate a 2D Swin state_dict": videoswin.inflation,
    "nearest kept token of the same frame": sta_videoswin.nearest_token,
    "VideoSwin block on kept tokens = select(block(refill(x)))": sta_videoswin.block,
    "STA on VideoSwin end to end, given kept indices": sta_videoswin.given_sets,
    "STA on VideoSwin end to end, STA scores": sta_videoswin.by_score,
}
"""What a file calls itself -> how it is replayed."""

BY_CONTENT: tuple[tuple[Callable[[Golden], bool], Replay], ...] = (
    (ats.is_plain, ats.blocks),
    (eventful_models.is_backbone, eventful_models.backbone),
    (stvit.is_pooling, stvit.pooling),
    (stvit.is_layer, stvit.layer),
    (stvit_models.is_columnar, stvit_models.columnar),
    (stvit_models.is_stage, stvit_models.stage),
    (stvit_models.is_swin, stvit_models.swin),
)
"""For files whose own names vary: whether it is this one's, and how it is replayed; the first wins."""


@dataclass(frozen=True)
class FileReport:
    """What came of one file.

    Args:
        path: the file; kind: what it calls itself.
        status: "pass", "fail" (it differs, or cannot be read) or "refused" (nothing here replays its kind).
        decisions: indices and counts that are equal, and all of them; None when none was compared.
        max_error, tolerance: of the value that came closest to its tolerance, or went furthest over it.
        detail: what was compared, or what differs, on one line.
        seconds: time taken.
    """

    path: Path
    kind: str
    status: str
    decisions: tuple[int, int] | None
    max_error: float | None
    tolerance: float | None
    detail: str
    seconds: float

    def line(self) -> str:
        """The report on one line."""
        parts = [f"{self.status:<7} {self.path.name}"]
        if self.decisions is not None:
            equal, total = self.decisions
            parts.append(f"decisions equal ({total})" if equal == total else f"decisions {equal}/{total} equal")
        if self.max_error is not None and self.tolerance is not None:
            parts.append(f"max error {self.max_error:.1e} (allowed {self.tolerance:.0e})")
        return "  ".join([*parts, self.detail])


def find_files(folder: Path | str, only: str | None = None) -> list[Path]:
    """Golden files of a folder and the folders in it, sorted; or the one file given.

    Args:
        only: shell pattern of file names.
    Raises:
        ValueError: there is no such folder, or no such file in it.
    """
    folder = Path(folder)
    if folder.is_file():
        found = [folder]
    elif folder.is_dir():
        found = sorted(path for path in folder.rglob(f"*{SUFFIX}") if path.is_file())
    else:
        raise ValueError(f"{folder} is not a folder of golden vectors: there is no such folder")
    if not found:
        raise ValueError(f"{folder} holds no golden vectors (*{SUFFIX})")
    chosen = [path for path in found if only is None or fnmatch(path.name, only) or fnmatch(path.stem, only)]
    if not chosen:
        raise ValueError(f"none of the {len(found)} golden files in {folder} is named like {only!r}")
    return chosen


def replay_folder(folder: Path | str, *, only: str | None = None) -> list[FileReport]:
    """Replay every golden file of a folder and the folders in it.

    Args:
        only: shell pattern of file names, e.g. "videomae*".
    Raises:
        ValueError: there is nothing to replay.
    """
    return list(replay_files(find_files(folder, only)))


def replay_files(paths: list[Path]) -> Iterator[FileReport]:
    """Replay files one after another, each report as soon as it is there."""
    for path in paths:
        yield replay_file(path)


def replay_file(path: Path | str) -> FileReport:
    """Replay one golden file. Whatever is wrong with the file is in the report: nothing is raised."""
    path, start = Path(path), time.perf_counter()
    kind, status, ledger = "unreadable", "fail", Ledger()
    try:
        golden = Golden(path)
        kind = golden.kind
        replay = HOSTED.get(kind) or next((how for fits, how in BY_CONTENT if fits(golden)), None)
        if replay is None:
            status, detail = "refused", f"unknown kind: {golden.kind[:120]}; known are {', '.join(HOSTED)}"
        else:
            with torch.random.fork_rng(devices=[]):
                replay(golden, ledger)
            if not ledger.failures:
                golden.finish()
            if not ledger.compared:
                raise Malformed("the file holds nothing to compare")
            status, detail = "fail" if ledger.failures else "pass", ledger.detail()
    except Malformed as error:
        detail = "; ".join([one_line(error), *ledger.failures[:2]])
    except Exception as error:
        # Any file may be in the folder: its fault is a line of the report, not a traceback.
        detail = "; ".join([f"{type(error).__name__}: {one_line(error)}", *ledger.failures[:2]])
    return FileReport(
        path,
        kind,
        status,
        (ledger.equal, ledger.total) if ledger.total else None,
        ledger.error,
        ledger.tolerance,
        detail,
        time.perf_counter() - start,
    )
