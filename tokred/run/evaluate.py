"""What a model says, or what is measured in it, for every clip of a source."""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from tokred.attach import Attached
from tokred.backbones.spec import BackboneSpec
from tokred.data.parts import aligned
from tokred.data.source import Batch, Source
from tokred.measure.threads import torch_threads

Array = np.ndarray
Arrays = dict[str, Array]
Measure = Callable[[Attached, Tensor], dict[str, Tensor]]
"""From an attached model and a batch of clips as it takes them to values per clip, (B, ...) each."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Predictions:
    """Outputs for all views of all usable items.

    Args:
        logits: (V, classes) float32; features: (V, C) float32, pooled, before the classifier.
        items: (V,) int64, the item of each view; labels: label set -> (V,) int64.
    """

    logits: Array
    features: Array
    items: Array
    labels: Arrays = field(default_factory=dict)

    @classmethod
    def of(cls, arrays: Arrays) -> Predictions:
        """From what `collect` found with `answers`, or a store kept of it."""
        labels = {k[len(LABELS) :]: v for k, v in arrays.items() if k.startswith(LABELS)}
        return cls(arrays["logits"], arrays["features"], arrays["items"], labels)

    @property
    def arrays(self) -> Arrays:
        """Under the names that `of` reads."""
        named = {LABELS + name: values for name, values in self.labels.items()}
        return {"logits": self.logits, "features": self.features, "items": self.items, **named}


LABELS = "labels."


def answers(model: Attached, clips: Tensor) -> dict[str, Tensor]:
    """The measure that every comparison needs: logits (B, classes) and pooled features (B, C)."""
    with torch.inference_mode():
        found = model.run(clips)
        return {"logits": found.logits.float(), "features": found.pooled.float()}


def predict(
    model: Attached,
    source: Source,
    spec: BackboneSpec,
    *,
    batch_size: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    advance: Callable[[int], None] | None = None,
) -> Predictions:
    """`collect` with `answers`."""
    return Predictions.of(
        collect(model, source, spec, answers, batch_size=batch_size, device=device, dtype=dtype, advance=advance)
    )


def collect(
    model: Attached,
    source: Source,
    spec: BackboneSpec,
    measure: Measure,
    *,
    batch_size: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    advance: Callable[[int], None] | None = None,
) -> Arrays:
    """Measure the attached model on the source, in its fixed order.

    On a CPU with several threads each batch runs on one of them: faster than sharing every small operation, and the
    result does not depend on their number.

    Args:
        model: attached, on ``device`` and in ``dtype``; it is put in eval mode.
        spec: how the host wants its clips.
        measure: called for every batch; several threads may call it at a time.
        advance: called with the number of clips done, after each batch.
    Returns:
        What the measure found, (V, ...) for all views of all usable items; ``items`` (V,), the item of each view; the
        labels of each label set as ``labels.NAME`` (V,).
    Raises:
        ValueError: the source gave no clip at all.
    """
    model.eval()

    workers = torch.get_num_threads() if torch.device(device).type == "cpu" else 1
    own = threading.local()

    def mine() -> Attached:
        """A method with state needs a model in every thread; the host is the same."""
        if workers == 1 or not model.reducer.capabilities.stateful:
            return model
        if not hasattr(own, "model"):
            own.model = copy.deepcopy(model, {id(model.host): model.host})
        return own.model

    def run(batch: Batch) -> Arrays:
        used = mine()
        used.reset()  # the clips of a batch continue no other clips
        found = measure(used, spec.arrange(batch.clips.to(device, dtype)))
        return {name: values.detach().cpu().numpy() for name, values in found.items()}

    parts: dict[str, list[Array]] = {}
    for batch, found in _in_order(run, aligned(source, batch_size), workers):
        rows = {"items": np.asarray(batch.items, dtype=np.int64)}
        rows |= {LABELS + name: values.numpy() for name, values in batch.labels.items()}
        for name, values in (found | rows).items():
            parts.setdefault(name, []).append(values)
        if advance is not None:
            advance(len(batch.items))
    if not parts:
        raise ValueError(f"{source.name} gave no clip that can be used")
    return {name: np.concatenate(values) for name, values in parts.items()}


def _in_order(run: Callable[[Batch], Result], batches: Iterator[Batch], workers: int) -> Iterator[tuple[Batch, Result]]:
    """Each batch with its result, in order, with at most two batches per worker in memory."""
    if workers == 1:
        for batch in batches:
            yield batch, run(batch)
        return
    waiting: deque[tuple[Batch, Future[Result]]] = deque()
    with torch_threads(1), ThreadPoolExecutor(workers) as pool:
        try:
            for batch in batches:
                waiting.append((batch, pool.submit(run, batch)))
                if len(waiting) >= 2 * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
