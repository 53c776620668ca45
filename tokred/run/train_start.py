"""The part of a recipe that says what training starts from: a trained backbone, frozen or not."""

from __future__ import annotations

from pydantic import Field

from tokred.run.train_part import Part


class StartSpec(Part):
    """A trained backbone to start from.

    ``backbone`` is a name whose sizes the recipe's ``model`` has. Its weights are those inside the package, or those of
    ``weights``, a file that a training wrote (a path from where the command runs). ``lr`` is the backbone's learning
    rate relative to the stage's: 0 keeps it as it is, so that the trained reducer belongs to the backbone that
    everybody has; DynamicViT's code takes 0.01; a recipe that trains no learned reducer needs more than 0. For the
    first ``frozen`` steps only the reducer trains. With ``teacher`` the unchanged backbone answers too, for the
    distillation losses of methods that have some.
    """

    backbone: str
    weights: str | None = None
    lr: float = Field(0.0, ge=0)
    frozen: int = Field(0, ge=0)
    teacher: bool = True
