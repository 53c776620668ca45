"""From axes to points: every combination once, in a fixed order, with the reason where one is left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SEED = "seed"


@dataclass(frozen=True)
class Point:
    """One combination of the axes.

    Args:
        values: axis key -> value, in the order of the axes, then "seed".
        excluded: the reason why it is not computed, None where it is.
    """

    values: dict[str, Any]
    excluded: str | None = None
