"""The part of a recipe that says what a learned reducer is trained on: a trained backbone, frozen or not."""

from __future__ import annotations

from pydantic import Field

from tokred.run.train_part import Part


class StartSpec(Part):
    """A trained backbone to start from.

    ``backbone`` is a name with weights inside the package; the recipe's ``model`` has its sizes. ``lr`` is the
    backbone's learning rate relative to the stage's: 0 keeps it as it is, so that the trained reducer belongs to the
    backbone that everybody has; DynamicViT's code takes 0.01. For the first ``frozen`` steps only the reducer trains.
    With ``teacher`` the unchanged backbone answers too, for the distillation losses of methods that have some.
    """

    backbone: str
    lr: float = Field(0.0, ge=0)
    frozen: int = Field(0, ge=0)
    teacher: bool = True
