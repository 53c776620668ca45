"""Search a schedule at a fixed cost on some clips, and say on others what it gains over the method's own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokred.attach import attach
from tokred.backbones import adapter_for
from tokred.backbones.spec import BackboneSpec, backbone_info
from tokred.backbones.zoo import create_backbone
from tokred.budget import solve
from tokred.data.source import LabelSet, Source
from tokred.data.subset import Subset
from tokred.measure.accuracy import accuracy, compare
from tokred.measure.agreement import agreement
from tokred.measure.flops import count, unreduced_plan
from tokred.measure.views import item_scores
from tokred.reducer import TokenReducer
from tokred.registry import build
from tokred.run.cell import batch_for
from tokred.run.clips import ClipSettings, open_clips, prepare
from tokred.run.environment import environment
from tokred.run.evaluate import Predictions, predict
from tokred.run.progress import Progress, Silent
from tokred.run.results import plain_values
from tokred.run.tune_space import Candidate, Space, Unreachable, plain

JOURNAL = "trials.log"


class TuneError(ValueError):
    """A search that cannot be made; one line."""


@dataclass(frozen=True)
class TuneSettings:
    """What to tune; every field is an option of ``tokred tune``.

    Args:
        reducer: the method, with settings that stay as they are; budget: share of the unreduced multiply-adds.
        calibration: items to tune on; test: others to test on, drawn from the same data without overlap.
        trials: schedules to try, those of an earlier run in the same folder counted.
    """

    reducer: str
    budget: float = 0.5
    backbone: str = "videomae_vit_nano"
    checkpoint: str | None = None
    num_classes: int | None = None
    clips: ClipSettings = field(default_factory=ClipSettings)
    calibration: int = 200
    test: int = 800
    trials: int = 40
    device: str = "cpu"
    dtype: str = "float32"
    seed: int = 0


def split(items: Sequence[int], calibration: int, seed: int) -> tuple[frozenset[int], frozenset[int]]:
    """Items to tune on and items to test on: drawn by a seed, never the same.

    Raises:
        TuneError: too few items for both.
    """
    if len(items) < calibration + 1:
        raise TuneError(f"{len(items)} usable items: {calibration} to tune on leave none to test on")
    drawn = random.Random(seed).sample(list(items), len(items))
    return frozenset(drawn[:calibration]), frozenset(drawn[calibration:])


def tune(settings: TuneSettings, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Search, or go on with a search, and test the best schedule once on clips that it was not tuned on.

    Every finished trial is kept in ``out`` at once, so a stopped search goes on where it was.

    Returns:
        Plain values: the method's own schedule and the tuned one with their calibration losses, the gain on the
        held-out clips with its interval and test, all trials. ``better``: whether the best schedule tried beat the
        method's own on the clips it was tuned on; ``complete`` is False after Ctrl-C.
    Raises:
        TuneError, ScheduleError: what cannot be searched; nothing is computed then.
    """
    say = progress if progress is not None else Silent()
    host = create_backbone(settings.backbone, settings.checkpoint, num_classes=settings.num_classes)
    info = backbone_info(host)
    assert info is not None
    host = host.to(settings.device, getattr(torch, settings.dtype)).eval()
    geometry = adapter_for(host).geometry(host)
    method = build(settings.reducer)
    space = Space(method, geometry, settings.budget)
    own = plain(method, geometry, settings.budget, solve)
    space.share = own.share  # what the tuned schedule is held against decides what it may cost
    attach(host, own.reducer)
    source = prepare(open_clips(settings.clips, info.spec), info.spec, geometry.classes)
    try:
        items = sorted({item for batch in source.batches(64) for item in batch.items})
        tuning, testing = split(items, settings.calibration, settings.seed)
        batch = batch_for(count(geometry, unreduced_plan(geometry)).gmac, geometry.tokens)
        judge = _Judge(host, info.spec, settings, batch, info.spec.label_sets)
        study, complete = _search(space, own, judge, Subset(source, tuning), settings, out, say)
        best = study.best_trial if any(t.value is not None for t in study.trials) else None
        own_loss = judge.calibrate(own.reducer, Subset(source, tuning))
        tuned = own.reducer if best is None else build(best.user_attrs["spec"])
        with say.phase("testing on held-out clips", 3):
            found = judge.test(own.reducer, tuned, Subset(source, testing))
        return plain_values(
            {
                "schema": 1,
                "kind": "tune",
                "settings": {**vars(settings), "clips": vars(settings.clips)},
                "environment": environment(settings.device, settings.dtype),
                "complete": complete,
                "data": {"name": source.name, "digest": source.digest(), "notes": list(source.notes)},
                "clips": {"tuned_on": len(tuning), "tested_on": len(testing), "shared": len(tuning & testing)},
                "own": _entry(own, own_loss, space),
                "tuned": None if best is None else {**best.user_attrs, "loss": best.value, "trial": best.number},
                "better": best is not None and best.value < own_loss,
                "gain": found,
                "trials": [
                    {"number": t.number, "loss": t.value, "state": t.state.name, **t.user_attrs} for t in study.trials
                ],
            }
        )
    finally:
        source.close()


def _entry(candidate: Candidate, loss: float, space: Space) -> dict[str, Any]:
    return {"spec": candidate.reducer.spec, "share": candidate.share, "tokens": _tokens(candidate, space), "loss": loss}


def _tokens(candidate: Candidate, space: Space) -> list[int]:
    from tokred.dry import dry_run

    return list(dry_run(candidate.reducer, space.geometry).attention)


def _search(
    space: Space, own: Candidate, judge: _Judge, clips: Source, settings: TuneSettings, out: Path, say: Progress
) -> tuple[Any, bool]:
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise TuneError("tokred tune needs Optuna: pip install 'tokred[tune]'") from None

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    out.mkdir(parents=True, exist_ok=True)
    name = f"{settings.reducer} at {settings.budget:g} on {settings.backbone}, seed {settings.seed}"
    study = optuna.create_study(
        study_name=name,
        storage=JournalStorage(JournalFileBackend(str(out / JOURNAL))),
        sampler=optuna.samplers.TPESampler(seed=settings.seed),
        load_if_exists=True,
    )

    def objective(trial: Any) -> float:
        try:
            candidate = space.propose(trial)
        except Unreachable as error:
            trial.set_user_attr("reason", str(error))
            raise optuna.TrialPruned from error
        trial.set_user_attr("spec", candidate.reducer.spec)
        trial.set_user_attr("share", candidate.share)
        trial.set_user_attr("tokens", _tokens(candidate, space))
        return judge.calibrate(candidate.reducer, clips)

    first = space.numbers_of(own.reducer)
    if first is not None and not study.trials:
        study.enqueue_trial(first)  # the search starts from the schedule that it has to beat
    finished = sum(trial.state.is_finished() for trial in study.trials)
    left = max(0, settings.trials - finished)
    if finished:
        say.note(f"{finished} trials are kept from an earlier run in {out}")
    try:
        with say.phase("trying schedules", left) as advance:
            study.optimize(objective, n_trials=left, callbacks=[lambda study, trial: advance(1)])
    except KeyboardInterrupt:
        return study, False
    return study, True


class _Judge:
    """Runs schedules on clips and says how good they are."""

    def __init__(
        self, host: nn.Module, spec: BackboneSpec, settings: TuneSettings, batch: int, tasks: Sequence[LabelSet]
    ) -> None:
        self.host, self.spec, self.settings, self.batch, self.tasks = host, spec, settings, batch, tasks
        self._unreduced: dict[str, Predictions] = {}

    def calibrate(self, reducer: TokenReducer, clips: Source) -> float:
        """The mean cross-entropy of the labels over items and label sets; without labels the KL divergence from the
        unreduced model, in nats."""
        found = self.answers(reducer, clips)
        labelled = [label_set for label_set in clips.label_sets if label_set.name in found.labels]
        if not labelled:
            return self._divergence(found, clips)
        return sum(_cross_entropy(found, label_set) for label_set in labelled) / len(labelled)

    def test(self, own: TokenReducer, tuned: TokenReducer, clips: Source) -> dict[str, Any]:
        """Tuned minus own on the same clips: accuracy with interval and paired test, agreement with the unreduced."""
        ours, theirs = self.answers(tuned, clips), self.answers(own, clips)
        items = ours.items.tolist()
        labels: dict[str, Any] = {}
        for label_set in clips.label_sets:
            if label_set.name not in ours.labels:
                continue
            truth = torch.from_numpy(ours.labels[label_set.name])
            new, old = (accuracy(torch.from_numpy(p.logits), truth, items, label_set) for p in (ours, theirs))
            paired = compare(new, old)
            gap = paired.difference
            labels[label_set.name] = {
                "own": old.top1.value,
                "tuned": new.top1.value,
                "n": gap.n,
                "gain": gap.value,
                "low": gap.low,
                "high": gap.high,
                "p": paired.p,
            }
        divergence = {"own": self._divergence(theirs, clips), "tuned": self._divergence(ours, clips)}
        return {"accuracy": labels, "kl": divergence}

    def answers(self, reducer: TokenReducer, clips: Source) -> Predictions:
        """Logits on all clips."""
        return predict(
            attach(self.host, reducer),
            clips,
            self.spec,
            batch_size=self.batch,
            device=self.settings.device,
            dtype=getattr(torch, self.settings.dtype),
        )

    def _divergence(self, found: Predictions, clips: Source) -> float:
        key = clips.digest()
        if key not in self._unreduced:
            self._unreduced[key] = self.answers(build("none"), clips)
        ours, theirs = torch.from_numpy(found.logits), torch.from_numpy(self._unreduced[key].logits)
        measured = agreement(ours, theirs, found.items.tolist(), self.tasks or clips.label_sets)
        return (measured.get("joint") or next(iter(measured.values()))).kl.value


def _cross_entropy(found: Predictions, label_set: LabelSet) -> float:
    items = found.items.tolist()
    scores = item_scores(torch.from_numpy(found.logits), items, label_set)
    label_of = dict(zip(items, found.labels[label_set.name].tolist(), strict=True))
    truth = torch.tensor([label_of[item] for item in scores.items])
    return float(-scores.log_probabilities.gather(1, truth[:, None]).mean())
