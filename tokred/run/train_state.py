"""What a training run keeps on disk: a checkpoint that survives a kill, and a log that agrees with it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from tokred.run.train_spec import TrainSpec

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Writes the checkpoint under a temporary name and renames it, so that a kill leaves the old or the new one."""
    temporary = folder / f"{CHECKPOINT}.tmp"
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / CHECKPOINT)


def load_checkpoint(folder: Path, spec: TrainSpec) -> dict[str, Any] | None:
    """The state to continue from, or None where there is none.

    Raises:
        ValueError: the checkpoint is of another recipe; stages that it has not begun may differ.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    before, now = _as_today(state["spec"]), spec.model_dump(mode="json")
    done, begun = 0, 0
    for stage in before["stages"]:
        if done < state["step"]:
            begun += 1
        done += stage["steps"]
    differs = [key for key in now if key not in ("stages", "evaluation") and before.get(key) != now[key]]
    if before["stages"][:begun] != now["stages"][:begun]:
        differs.append(f"stages (the first {begun} have begun)")
    if differs:
        raise ValueError(
            f"{path} is of another recipe: {', '.join(differs)} differ(s); use another folder, or do not resume"
        )
    return state


def _as_today(recipe: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's recipe with the settings that have come since, at their defaults."""
    try:
        return TrainSpec.model_validate(recipe).model_dump(mode="json")
    except ValidationError:
        return recipe  # a setting that is gone: the comparison names it


class TrainLog:
    """JSON lines, one event each; lines after the checkpoint's step are dropped when a run continues.

    Args:
        folder: where the log lies.
        step: last step whose lines are kept.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / LOG
        kept = []
        if step and self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    event = json.loads(line)
                except json.JSONDecodeError:
                    break  # the line that a kill cut; the steps after the checkpoint are computed again
                if event.get("step", 0) <= step and event.get("event") != "final":
                    kept.append(line + "\n")
        self.path.write_text("".join(kept), encoding="utf-8")

    def write(self, event: dict[str, Any]) -> None:
        """Appends one event."""
        rounded = {key: round(value, 6) if isinstance(value, float) else value for key, value in event.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded) + "\n")
