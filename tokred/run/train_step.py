"""Loss and gradients of one optimizer step, computed by micro-batches on worker threads.

A micro-batch is a pure function of (recipe, step, position in the batch), runs on one thread, and the gradients are
added up in order: the weights depend neither on the number of threads nor on interruptions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokred.backbones.videomae import VideoViT
from tokred.backbones.videoswin import VideoSwin
from tokred.backbones.vivit import ViViT
from tokred.data.synthetic import Scene, SyntheticActions, object_share
from tokred.data.synthetic.render import stream_seed
from tokred.run.train_kernels import working_copy
from tokred.run.train_learned import begin_step, gradients_of, learned_forward, teacher_for
from tokred.run.train_losses import OBJECT_SHARE, AuxHeads, auxiliary_loss, shape_loss
from tokred.run.train_models import ViViTSpec
from tokred.run.train_spec import StageSpec, TrainSpec

Item = TypeVar("Item")
Result = TypeVar("Result")


class Trainee(nn.Module):
    """The model with its auxiliary heads: everything that has parameters in training."""

    def __init__(self, model: nn.Module, aux: AuxHeads | None) -> None:
        super().__init__()
        self.model = model
        self.aux = aux


class Workers:
    """Threads that each compute on one core.

    Args:
        threads: number of threads.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order of the items, which are taken as they are needed and not all at once."""
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(self.pool.submit(function, item))
            if len(waiting) > 2 * self.threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def workers(threads: int) -> Iterator[Workers]:
    """Worker threads for the length of a block; the caller's thread count is restored."""
    before = torch.get_num_threads()
    crew = Workers(threads)
    try:
        yield crew
    finally:
        crew.pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)


class StepEngine:
    """Gradients of the recipe's loss.

    Args:
        spec: the recipe.
        trainee: master weights, float32; updated by the caller between steps.
        crew: worker threads.
        device: where the working copy computes.
    """

    def __init__(self, spec: TrainSpec, trainee: Trainee, crew: Workers, device: torch.device) -> None:
        self.spec, self.master, self.crew, self.device = spec, trainee, crew, device
        self.copy = working_copy(trainee, spec.precision, spec.attention)
        self.label_sets = SyntheticActions(1).label_sets
        self.teacher = teacher_for(spec, self.copy.model, device, next(self.copy.parameters()).dtype)

    def source(self, stage: StageSpec, hold: bool) -> SyntheticActions:
        """The training clips of a stage."""
        data = self.spec.data
        return SyntheticActions(
            1,
            data.seed,
            "train",
            data.size,
            stage.frames or data.frames,
            hold=hold,
            noise=stage.noise,
            slowest=stage.slowest,
        )

    def gradients(self, step: int, stage: StageSpec) -> dict[str, float]:
        """Writes ``.grad`` of the master weights for a step and returns the batch's figures.

        Returns:
            mean loss, loss parts and training accuracies.
        """
        begin_step(self.copy, self.copy.model, self.spec, step)
        masters = list(self.master.parameters())
        copies = list(self.copy.parameters())
        with torch.no_grad():
            for target, source in zip(copies, masters, strict=True):
                target.copy_(source)
        parts = self.spec.batch_size // self.spec.micro_batch
        results = self.crew.map(lambda part: self._micro_batch(step, part, stage, copies), range(parts))
        total: dict[str, float] = {}
        for parameter in masters:
            parameter.grad = torch.zeros_like(parameter)
        for gradients, figures in results:
            for parameter, gradient in zip(masters, gradients, strict=True):
                if gradient is not None and parameter.grad is not None:
                    parameter.grad.add_(gradient.to(parameter.dtype), alpha=1 / parts)
            for key, value in figures.items():
                total[key] = total.get(key, 0.0) + value / parts
        return total

    def _micro_batch(
        self, step: int, part: int, stage: StageSpec, parameters: list[nn.Parameter]
    ) -> tuple[tuple[Tensor | None, ...], dict[str, float]]:
        spec, size = self.spec, self.spec.micro_batch
        generator = torch.Generator().manual_seed(stream_seed("micro-batch", spec.seed, step, part))
        hold = torch.rand(1, generator=generator).item() < stage.hold
        frames = stage.frames or spec.data.frames
        patches = (frames // spec.model.tubelet) * (spec.data.size // spec.model.auxiliary_stride) ** 2
        lottery = torch.rand(size, patches, generator=generator)
        # Another seed of the run takes other clips: offset by whole label blocks, far beyond any run's length.
        first = spec.seed * 80_000_000 + step * spec.batch_size + part * size
        scene = self.source(stage, hold).scene(range(first, first + size))
        share = object_share(scene, spec.model.tubelet, spec.model.auxiliary_stride, frames).flatten(1)
        seen = share >= OBJECT_SHARE  # (B, P)
        keep = None
        if stage.tokens < 1:
            # A model that sees one tubelet at a time gets as many patches of each.
            groups = frames // spec.model.tubelet if isinstance(spec.model, ViViTSpec) else 1
            count = max(1, round(stage.tokens * patches / groups))
            drawn = (lottery + seen.float()).unflatten(1, (groups, -1)).topk(count, dim=2).indices.sort(dim=2).values
            keep = (drawn + torch.arange(groups)[:, None] * (patches // groups)).flatten(1)
        with torch.enable_grad():
            loss, figures = self._loss(scene, seen, keep, stage)
            gradients = gradients_of(loss, parameters)
        return gradients, figures

    def _loss(
        self, scene: Scene, seen: Tensor, keep: Tensor | None, stage: StageSpec
    ) -> tuple[Tensor, dict[str, float]]:
        model, smoothing = self.copy.model, self.spec.optimizer.label_smoothing
        dtype = torch.bfloat16 if self.spec.precision == "bf16" else torch.float32
        clips = scene.rendered.clips.to(self.device, dtype)
        heads = self.copy.aux
        tokens = carrier = steps = None
        extras: dict[str, Tensor] = {}
        if self.spec.reducer is None and isinstance(model, VideoViT):
            tokens = model.embed(clips)
            if keep is not None:
                tokens = tokens.gather(1, keep.to(self.device)[..., None].expand(-1, -1, tokens.shape[-1]))
            for block in model.blocks:
                tokens = block(tokens)
            features = model.pool(tokens)
            logits = model.head(features).float()
        elif self.spec.reducer is None and isinstance(model, ViViT):
            tokens, steps = _spatial(model, clips, keep)
            features = model.over_time(steps.flatten(0, 1))
            logits = model.head(features).float()
        elif self.spec.reducer is None and isinstance(model, VideoSwin):
            maps = [x for x, _ in model.stages(clips)]
            tokens = maps[getattr(self.spec.model, "auxiliary_stage", -1)]
            features = model.pool(maps[-1])
            logits = model.head(features).float()
        else:
            tasks = [slice(s.offset, s.offset + len(s.classes)) for s in self.label_sets]
            wants_tokens = heads is not None and (stage.aux > 0 or stage.shape > 0)
            logits, extras, run = learned_forward(model, clips, self.teacher, tasks, trace=wants_tokens)
            if run is not None and wants_tokens:
                source = run.tokens.source
                tokens, features = run.tokens.patches, run.pooled
                carrier = None if source is None else source - run.tokens.prefix
        total = torch.zeros((), device=self.device)
        figures = {}
        for labels, wanted in zip(self.label_sets, (scene.appearance, scene.motion), strict=True):
            part = logits[:, labels.offset : labels.offset + len(labels.classes)]
            wanted = wanted.to(self.device)
            loss = F.cross_entropy(part, wanted, label_smoothing=smoothing)
            total = total + loss
            figures[f"{labels.name}_loss"] = loss.item()
            figures[f"{labels.name}_top1"] = (part.argmax(-1) == wanted).float().mean().item()
        for name, loss in extras.items():
            total = total + loss
            figures[f"{name}_loss"] = loss.item()
        if stage.aux > 0 and heads is not None and tokens is not None:
            loss = auxiliary_loss(heads, tokens, features, scene, seen, keep, self.spec, carrier, steps)
            total = total + stage.aux * loss
            figures["aux_loss"] = loss.item()
        if stage.shape > 0 and heads is not None and tokens is not None:
            loss = shape_loss(heads, tokens, scene, seen, keep, carrier)
            total = total + stage.shape * loss
            figures["shape_loss"] = loss.item()
        figures["loss"] = total.item()
        return total, figures


def _spatial(model: ViViT, clips: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """The spatial model on the patches that are seen.

    Args:
        keep: (B, K) patches of the whole clip, as many of each step; None = all.
    Returns:
        the last block's patch tokens (B, K, C) and the features of the steps (B, T', C).
    """
    spatial, steps = model.spatial_model, model.grid.t
    x = spatial.embed(model.patches(clips))
    if keep is not None:
        patches = keep.unflatten(1, (steps, -1)).flatten(0, 1).to(x.device) % model.grid.per_frame
        kept = x[:, 1:].gather(1, patches[..., None].expand(-1, -1, x.shape[-1]))
        x = torch.cat([x[:, :1], kept], dim=1)
    for block in spatial.backbone.blocks:
        x = block(x)
    return x[:, 1:].unflatten(0, (-1, steps)).flatten(1, 2), spatial.result(x).unflatten(0, (-1, steps))
