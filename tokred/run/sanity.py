"""What a video model's accuracy is worth: does it need the order of time, and more than one moment?"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from tokred.data.source import Batch, LabelSet, Source

Change = Callable[[Tensor, Batch], Tensor]


def changes(tubelet: int) -> dict[str, Change]:
    """Ways to take time away from clips (B, 3, T, H, W).

    Args:
        tubelet: frames per tubelet.
    Returns:
        name -> function of (clips, batch): "intact", "reversed" (frames backwards), "shuffled" (tubelets in a random
        order that depends on the clip's index), "single_tubelet" (the middle one repeated), "frozen" (the first frame
        repeated).
    """

    def shuffled(clips: Tensor, batch: Batch) -> Tensor:
        b, c, t, h, w = clips.shape
        orders = []
        for item in batch.items:
            generator = torch.Generator().manual_seed(item)
            orders.append(torch.randperm(t // tubelet, generator=generator))
        groups = clips.reshape(b, c, t // tubelet, tubelet * h, w)
        index = torch.stack(orders).to(clips.device)[:, None, :, None, None].expand_as(groups)
        return groups.gather(2, index).reshape(clips.shape)

    def single(clips: Tensor, batch: Batch) -> Tensor:
        steps = clips.shape[2] // tubelet
        middle = steps // 2 * tubelet
        return clips[:, :, middle : middle + tubelet].repeat(1, 1, steps, 1, 1)

    return {
        "intact": lambda clips, batch: clips,
        "reversed": lambda clips, batch: clips.flip(2),
        "shuffled": shuffled,
        "single_tubelet": single,
        "frozen": lambda clips, batch: clips[:, :, :1].expand_as(clips),
    }


def correct(model: nn.Module, batch: Batch, labels: Iterable[LabelSet], change: Change) -> dict[str, int]:
    """Number of right answers of a batch per label set."""
    parameter = next(model.parameters())
    with torch.inference_mode():
        logits = model(change(batch.clips.to(parameter.device, parameter.dtype), batch)).float().cpu()
    found = {}
    for one in labels:
        answer = logits[:, one.offset : one.offset + len(one.classes)].argmax(-1)
        found[one.name] = int((answer == batch.labels[one.name]).sum())
    return found


def accuracies(
    model: nn.Module,
    source: Source,
    tubelet: int,
    *,
    only: Iterable[str] | None = None,
    batch_size: int = 16,
    mapper: Callable[..., Iterable[dict[str, dict[str, int]]]] = map,
) -> dict[str, dict[str, float]]:
    """Top-1 of a model on clips as they are and with time taken away.

    Args:
        model: clips (B, 3, T, H, W) to logits that hold every label set of the source.
        source: labelled clips.
        tubelet: frames per tubelet.
        only: names of the changes to evaluate; default: all.
        batch_size: clips per forward.
        mapper: ``map`` or a parallel version of it.
    Returns:
        change -> label set -> top-1 in [0, 1].
    """
    every = changes(tubelet)
    names = list(every) if only is None else list(only)
    was_training = model.training
    model.eval()

    def evaluate(batch: Batch) -> dict[str, dict[str, int]]:
        return {name: correct(model, batch, source.label_sets, every[name]) for name in names}

    total = {name: {one.name: 0 for one in source.label_sets} for name in names}
    for found in mapper(evaluate, source.batches(batch_size)):
        for name, counts in found.items():
            for key, value in counts.items():
                total[name][key] += value
    model.train(was_training)
    return {name: {key: value / len(source) for key, value in counts.items()} for name, counts in total.items()}
