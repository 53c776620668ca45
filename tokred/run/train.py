"""Trains a backbone on generated clips by a recipe: resumable, seeded, the same weights on any number of threads."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokred.data.pictures import CIFAR10_CLASSES
from tokred.data.synthetic import SyntheticActions
from tokred.run.sanity import accuracies
from tokred.run.train_export import TrainResult, as_stored
from tokred.run.train_image_spec import Cifar10Spec
from tokred.run.train_learned import check_trains, load_start, parameter_groups, set_rates, write_weights
from tokred.run.train_losses import AuxHeads
from tokred.run.train_spec import TrainSpec, load_spec, parse_spec, stage_at
from tokred.run.train_state import TrainLog, load_checkpoint, save_checkpoint
from tokred.run.train_step import StepEngine, Trainee, Workers, workers


def build_model(spec: TrainSpec) -> nn.Module:
    """The recipe's model, freshly initialised from its seed; with its reducer attached where it names one."""
    classes = len(CIFAR10_CLASSES)
    if not isinstance(spec.data, Cifar10Spec):
        classes = sum(len(labels.classes) for labels in SyntheticActions(clips=1).label_sets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        model = spec.model.build(spec.data.size, spec.data.frames, classes)
    load_start(model, spec)
    if spec.reducer is not None:
        from tokred.attach import attach
        from tokred.registry import build

        model = attach(model.train(), build(spec.reducer))
    check_trains(model, spec)
    return model


def train(
    spec: TrainSpec | str | Path,
    out: str | Path,
    resume: bool = True,
    *,
    data: str | Path | None = None,
    seed: int | None = None,
    precision: str | None = None,
    reducer: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    log_every: int = 25,
    checkpoint_every: int = 50,
    progress: bool | None = None,
    say: Callable[[str], None] = print,
) -> TrainResult:
    """Trains by a recipe: checkpoint.pt, log.jsonl and, at the end, NAME.safetensors (float16) in the folder.

    Args:
        spec: the recipe, or a YAML file with it.
        out: folder for checkpoint and log; made if missing.
        resume: continue from the folder's checkpoint; False starts again and overwrites.
        data: where the pictures of a recipe for an image model lie (see ``read_cifar10``).
        seed, precision, reducer: instead of the recipe's.
        device: where to compute.
        threads: CPU worker threads, default: all cores; they change the speed and not the weights.
        log_every: steps between lines of the log.
        checkpoint_every: steps between checkpoints.
        progress: whether to draw a progress bar; default: when stderr is a terminal.
        say: takes the lines for people.
    Raises:
        SpecError: a wrong recipe. ValueError: the folder holds another recipe's checkpoint.
    """
    recipe = spec if isinstance(spec, TrainSpec) else load_spec(spec)
    given = {"seed": seed, "precision": precision, "reducer": reducer}
    recipe = parse_spec(recipe.model_dump() | {key: value for key, value in given.items() if value is not None})
    folder, target = Path(out), torch.device(device)
    folder.mkdir(parents=True, exist_ok=True)
    count = threads or os.cpu_count() or 1
    with workers(count if target.type == "cpu" else 1) as crew:
        run = _kind_of_run(recipe)(recipe, folder, resume, target, crew, say, None if data is None else Path(data))
        run.loop(log_every, checkpoint_every, sys.stderr.isatty() if progress is None else progress)
        return run.finish()


def _kind_of_run(spec: TrainSpec) -> type[Run]:
    if not isinstance(spec.data, Cifar10Spec):
        return Run
    from tokred.run.train_images import ImageRun

    return ImageRun


class Run:
    """Weights, optimizer and position of a run on generated clips."""

    def __init__(
        self,
        spec: TrainSpec,
        folder: Path,
        resume: bool,
        device: torch.device,
        crew: Workers,
        say: Callable[[str], None],
        data: Path | None = None,
    ) -> None:
        self.spec, self.folder, self.crew, self.say, self.device = spec, folder, crew, say, device
        self.prepare(data)
        uses_shape = any(stage.shape > 0 for stage in spec.stages)
        uses_aux = uses_shape or any(stage.aux > 0 for stage in spec.stages)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed + 1)
            aux = AuxHeads(*spec.model.widths, uses_shape, spec.model.kind == "vivit") if uses_aux else None
        self.trainee = Trainee(self.start(build_model(spec)), aux).to(device)
        self.average = {k: v.clone() for k, v in self._weights().items()} if spec.optimizer.ema else {}
        groups = parameter_groups(self.trainee, spec)
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=spec.optimizer.betas)
        self.step = 0
        self.window: dict[str, float] = {}  # sums of the figures since the last line of the log
        self.since = 0
        state = load_checkpoint(folder, spec) if resume else None
        if state is not None:
            self.step, self.window, self.since = state["step"], state["window"], state["since"]
            self.trainee.load_state_dict(state["trainee"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average = {k: v.to(device) for k, v in state["average"].items()}
            say(f"continuing {folder} after step {self.step} of {spec.steps}")
        self.log = TrainLog(folder, self.step)
        self.stage_ends = set(itertools.accumulate(stage.steps for stage in spec.stages))
        self.engine = self.make_engine()

    def prepare(self, data: Path | None) -> None:
        """Reads what the run trains on; generated clips are not read from anywhere."""
        if data is not None:
            raise ValueError(f"data = {data} is not for this recipe: it trains on generated clips")

    def start(self, model: nn.Module) -> nn.Module:
        """The freshly initialised model, fitted to the data."""
        return model

    def make_engine(self) -> StepEngine:
        """What computes the gradients."""
        return StepEngine(self.spec, self.trainee, self.crew, self.device)

    def _weights(self) -> dict[str, Tensor]:
        return {k: v.detach() for k, v in self.trainee.model.state_dict().items()}

    def save(self) -> None:
        """A checkpoint of this moment. No random state: every random number derives from the step."""
        state = {
            "spec": self.spec.model_dump(mode="json"),
            "step": self.step,
            "trainee": self.trainee.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "window": self.window,
            "since": self.since,
        }
        save_checkpoint(self.folder, state)

    def advance(self) -> dict[str, Any]:
        """One optimizer step."""
        stage, rate = stage_at(self.spec, self.step)
        figures: dict[str, Any] = {"stage": stage.name, "lr": rate}
        figures |= self.engine.gradients(self.step, stage)
        norm = nn.utils.clip_grad_norm_(self.trainee.parameters(), self.spec.optimizer.clip)
        if not torch.isfinite(norm):
            raise RuntimeError(
                f"step {self.step}: the gradient is not finite (loss {figures['loss']}); lower lr {rate:g}"
            )
        set_rates(self.optimizer, rate, self.spec, self.step)
        self.optimizer.step()
        self.step += 1
        if self.average:
            decay = self.spec.optimizer.ema
            for key, value in self._weights().items():
                if value.is_floating_point():
                    self.average[key].lerp_(value, 1 - decay)
        return figures | {"grad_norm": float(norm)}

    def loop(self, log_every: int, checkpoint_every: int, progress: bool) -> None:
        """All remaining steps."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        began, timed = time.perf_counter(), 0
        with Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
            task = bar.add_task("train", total=self.spec.steps, completed=self.step)
            while self.step < self.spec.steps:
                figures = self.advance()
                self.since, timed = self.since + 1, timed + 1
                for key, value in figures.items():
                    if isinstance(value, float):
                        self.window[key] = self.window.get(key, 0.0) + value
                bar.update(task, completed=self.step, description=str(figures["stage"]))
                ends = self.step in self.stage_ends
                if self.step % log_every == 0 or ends:
                    rate = timed * self.spec.batch_size / (time.perf_counter() - began)
                    means = {key: value / self.since for key, value in self.window.items()}
                    event = {"step": self.step, "stage": figures["stage"]} | means
                    self.log.write(event | {"lr": figures["lr"], "clips_per_s": round(rate, 1)})
                    self.window, self.since = {}, 0
                    began, timed = time.perf_counter(), 0
                if ends:
                    self.evaluate_stage(str(figures["stage"]))
                    began = time.perf_counter()
                if self.step % checkpoint_every == 0 or ends:
                    self.save()

    def result_model(self) -> nn.Module:
        """The weights to use (averaged where the recipe averages), without auxiliary heads."""
        model = build_model(self.spec)
        model.load_state_dict(self.average or self._weights())
        return model.to(self.device).eval()

    def evaluate_stage(self, stage: str) -> None:
        """Accuracy on validation clips, into the log."""
        clips = self.spec.evaluation.stage_clips
        if not clips:
            return
        # Not the clips of the final evaluation: looking at these between stages must not tune on those.
        source = SyntheticActions(
            clips, self.spec.data.seed + 1, "test", size=self.spec.data.size, frames=self.spec.data.frames
        )
        found = accuracies(self.result_model(), source, self.spec.model.tubelet, only=["intact"], mapper=self.crew.map)[
            "intact"
        ]
        self.log.write({"step": self.step, "event": "stage", "stage": stage, "clips": clips, **found})
        self.say(f"after {stage} (step {self.step}): {_percent(found)} on {clips} validation clips")

    def finish(self) -> TrainResult:
        """Export, and the final evaluation of exactly the exported values with its sanity checks."""
        spec = self.spec
        source = SyntheticActions(
            spec.evaluation.clips, spec.data.seed, "test", size=spec.data.size, frames=spec.data.frames
        )
        model = as_stored(self.result_model())
        found = accuracies(model, source, spec.model.tubelet, mapper=self.crew.map)
        self.log.write(
            {"step": self.step, "event": "final", "clips": len(source), "digest": source.digest(), "top1": found}
        )
        self.say(f"top-1 on {len(source)} held-out clips; chance: appearance 10 %, motion 12.5 %")
        for change, values in found.items():
            self.say(f"  {change:<15} {_percent(values)}")
        path = write_weights(model, self.folder, spec, self.step, source, found)
        self.say(f"weights: {path} ({path.stat().st_size / 1e6:.2f} MB)")
        return TrainResult(model, found, path, self.folder, self.step)


def _percent(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {100 * value:.1f} %" for name, value in values.items())
