"""Which labels of a data set a model can be right or wrong about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tokred.data.source import LabelSet

_SHOWN = 3


def answerable(
    labels: Sequence[LabelSet], tasks: Sequence[LabelSet], logits: int
) -> tuple[tuple[LabelSet, ...], list[str]]:
    """The label sets of a data set with their places in a model's logits; those that it does not tell are left out.

    Args:
        labels: of the data; tasks: what is known of the model's logits, empty = nothing; logits: their number.
    Returns:
        The label sets that can be scored, and a note for each that cannot. Class numbers without names are taken to
        be the model's.
    """
    kept, notes = [], []
    for label_set in labels:
        task = next((task for task in tasks if task.classes == label_set.classes), None)
        if task is not None:
            kept.append(replace(label_set, offset=task.offset))
        elif tasks and not all(name.isdecimal() for name in label_set.classes):
            told = ", ".join(f"{task.name} ({_some(task.classes)})" for task in tasks)
            notes.append(
                f"no accuracy for {label_set.name} ({_some(label_set.classes)}): the model was trained for {told}"
            )
        elif label_set.offset + len(label_set.classes) > logits:
            last = label_set.offset + len(label_set.classes)
            notes.append(f"no accuracy for {label_set.name}: it ends at class {last}, the model has {logits} logits")
        else:
            kept.append(label_set)
    return tuple(kept), notes


def _some(names: Sequence[str]) -> str:
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
