"""Comparing the keys of a file with those of a model: everything that is wrong, in one error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from tokred.backbones.convert.errors import CheckpointError

_LISTED_IN_FULL = 12


def check_fit(
    where: str, given: Mapping[str, Tensor], expected: Mapping[str, Tensor], hints: Iterable[str] = ()
) -> None:
    """Refuse weights that are not exactly the expected ones.

    Args:
        where: file and layout, the start of the message.
        given: weights of the file; expected: state dict of the model.
        hints: what may be done about it; appended to the message.
    Raises:
        CheckpointError: keys are missing, unexpected or of another shape; the message lists them all.
    """
    missing = tuple(name for name in expected if name not in given)
    unexpected = tuple(name for name in given if name not in expected)
    misshaped = tuple(name for name in expected if name in given and given[name].shape != expected[name].shape)
    if not (missing or unexpected or misshaped):
        return
    shapes = [f"{n} (file {tuple(given[n].shape)}, model {tuple(expected[n].shape)})" for n in misshaped]
    parts = [
        f"{len(names)} {word}: {', '.join(shown)}"
        for names, word, shown in (
            (missing, "missing", condense(missing)),
            (unexpected, "unexpected", condense(unexpected)),
            (misshaped, "of another shape", condense(shapes)),
        )
        if names
    ]
    message = "; ".join([f"{where} does not fit the model: {parts[0]}", *parts[1:], *hints])
    raise CheckpointError(message, missing=missing, unexpected=unexpected, misshaped=misshaped)


def condense(names: Sequence[str]) -> list[str]:
    """Long lists with the block numbers put together: ``blocks.{0,1,2}.norm1.weight``; short lists as they are."""
    if len(names) <= _LISTED_IN_FULL:
        return list(names)
    blocks: dict[str, list[str]] = {}
    for name in names:
        match = re.match(r"(.*?\b(?:blocks|layer|layers))\.(\d+)\.(.*)", name)
        key, number = (f"{match[1]}.#.{match[3]}", match[2]) if match else (name, "")
        blocks.setdefault(key, []).append(number)
    return [key.replace("#", "{" + ",".join(numbers) + "}", 1) for key, numbers in blocks.items()]
