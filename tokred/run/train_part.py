"""What all parts of a recipe have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Part(BaseModel):
    """A part of a recipe: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PlainViT(Part):
    """What recipes of ViTs have in common: square patches, one width from the first block to the last."""

    patch_size: int = Field(8, ge=1)
    dim: int = Field(96, ge=1)
    depth: int = Field(9, ge=1)
    num_heads: int = Field(3, ge=1)
    mlp_ratio: float = Field(4.0, gt=0)

    @model_validator(mode="after")
    def _divides(self) -> PlainViT:
        if self.dim % self.num_heads:
            raise ValueError(f"num_heads = {self.num_heads} does not divide dim = {self.dim}")
        return self

    @property
    def stride(self) -> int:
        """Pixels per side of a token of the last block."""
        return self.patch_size

    @property
    def widths(self) -> tuple[int, int]:
        """Widths of the tokens that auxiliary heads read and of the features before the classifier."""
        return self.dim, self.dim

    @property
    def auxiliary_stride(self) -> int:
        """Pixels per side of a token that auxiliary heads read."""
        return self.patch_size

    @property
    def sizes(self) -> dict[str, Any]:
        """The settings as the model's own arguments."""
        return self.model_dump(exclude={"kind"})
