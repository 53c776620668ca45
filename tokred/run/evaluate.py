"""What a model says about every clip of a source."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch

from tokred.attach import Attached
from tokred.backbones.spec import BackboneSpec
from tokred.data.source import Batch, Source

Array = np.ndarray
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
    labels: dict[str, Array] = field(default_factory=dict)


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
    """Run the attached model over the source in its fixed order.

    On a CPU with several threads each batch runs on one of them: faster than sharing every small operation, and the
    result does not depend on their number.

    Args:
        model: attached, on ``device`` and in ``dtype``; it is put in eval mode.
        spec: how the host wants its clips.
        advance: called with the number of clips done, after each batch.
    Raises:
        ValueError: the source gave no clip at all.
    """
    model.eval()

    def run(batch: Batch) -> tuple[Array, Array]:
        model.reset()  # the clips of a batch continue no other clips
        with torch.inference_mode():
            found = model.run(spec.arrange(batch.clips.to(device, dtype)))
            return found.logits.float().cpu().numpy(), found.pooled.float().cpu().numpy()

    logits, features, items = [], [], []
    labels: dict[str, list[Array]] = {}
    stateful = model.reducer.capabilities.stateful
    workers = torch.get_num_threads() if torch.device(device).type == "cpu" and not stateful else 1
    for batch, (ours, pooled) in _in_order(run, source.batches(batch_size), workers):
        logits.append(ours)
        features.append(pooled)
        items.append(np.asarray(batch.items, dtype=np.int64))
        for name, values in batch.labels.items():
            labels.setdefault(name, []).append(values.numpy())
        if advance is not None:
            advance(len(batch.items))
    if not logits:
        raise ValueError(f"{source.name} gave no clip that can be used")
    joined = {name: np.concatenate(values) for name, values in labels.items()}
    return Predictions(np.concatenate(logits), np.concatenate(features), np.concatenate(items), joined)


def _in_order(run: Callable[[Batch], Result], batches: Iterator[Batch], workers: int) -> Iterator[tuple[Batch, Result]]:
    """Each batch with its result, in order, with at most two batches per worker in memory."""
    if workers == 1:
        for batch in batches:
            yield batch, run(batch)
        return
    waiting: deque[tuple[Batch, Future[Result]]] = deque()
    with one_thread(), ThreadPoolExecutor(workers) as pool:
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


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch operations use one thread each inside; restored afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
