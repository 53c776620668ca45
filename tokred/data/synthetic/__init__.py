"""A generated action data set: no download, every clip a pure function of (seed, split, index)."""

from __future__ import annotations

from tokred.data.synthetic.actions import Scene, SyntheticActions, object_share, object_tokens
from tokred.data.synthetic.motion import MOTIONS
from tokred.data.synthetic.render import MEAN, STD, Rendered
from tokred.data.synthetic.shapes import DISTRACTORS, SHAPES

__all__ = [
    "DISTRACTORS",
    "MEAN",
    "MOTIONS",
    "SHAPES",
    "STD",
    "Rendered",
    "Scene",
    "SyntheticActions",
    "object_share",
    "object_tokens",
]
