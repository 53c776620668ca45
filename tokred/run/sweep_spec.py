"""A sweep as a file: what is varied, on what, and what a paper printed for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tokred.run.grid import reducer_text
from tokred.run.spec_file import SpecError, did_you_mean, explain_all

DEFAULT_PROFILE = "nano"
Axis = dict[str, list[Any]]


class Strict(BaseModel):
    """A part of a sweep: no unknown keys, no converted values."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class BaseSpec(Strict):
    """The fields of a cell, see ``Cell`` and ``ClipSettings``; ``budget`` is the share of the unreduced multiply-adds
    that the method's strength is solved for. ``label`` names a point and decides nothing: it lets profiles with other
    settings, and printed numbers, mean the same point."""

    label: str | None = None
    backbone: str = "videomae_vit_nano"
    checkpoint: str | None = None
    num_classes: int | None = Field(None, ge=1)
    data: str = "synthetic"
    clips: int | None = Field(None, ge=1)
    views: list[Annotated[int, Field(ge=1)]] = Field([1, 1], min_length=2, max_length=2)
    sampling: Literal["dense", "uniform"] = "dense"
    stride: int | None = Field(None, ge=1)
    animate: bool = False
    corrupt: str | None = None
    batch_size: int | None = Field(None, ge=1)
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    measures: list[str] = Field(["predict"], min_length=1)
    reducer: str | dict[str, Any] = "none"
    budget: float | None = Field(None, gt=0, le=1)
    allow_untrained: bool = False

    @field_validator("reducer")
    @classmethod
    def _names_a_method(cls, reducer: str | dict[str, Any]) -> str | dict[str, Any]:
        reducer_text(reducer)
        return reducer

    @field_validator("corrupt")
    @classmethod
    def _is_known_damage(cls, corrupt: str | None) -> str | None:
        from tokred.data.corrupt import parse
        from tokred.data.lists import DataError

        if corrupt is not None:
            try:
                parse(corrupt)
            except DataError as error:
                raise ValueError(str(error).removeprefix("corrupt: ")) from None
        return corrupt


VARIED = tuple(name for name in BaseSpec.model_fields if name not in ("measures", "allow_untrained"))
"""The fields that an axis may vary."""


class Exclude(Strict):
    """Points that are left out: those with all the values of ``when``."""

    when: dict[str, Any] = Field(min_length=1)
    reason: str = Field(min_length=1)


class Profile(Strict):
    """A size at which the sweep is run; what it does not say is that of the file.

    ``base`` is merged key by key, ``axes`` item by item; ``needs`` tells what one has to have, and where it is from.
    """

    base: dict[str, Any] = {}
    axes: list[Axis | None] = []
    excludes: list[Exclude] | None = None
    seeds: list[Annotated[int, Field(ge=0)]] | None = Field(None, min_length=1)
    labels: str | None = None
    needs: str = ""


class Printed(Strict):
    """A printed number: of the points with the values of ``at``."""

    at: dict[str, Any]
    value: float | None = None
    gflops: float | None = None
    note: str = ""


class Effect(Strict):
    """A printed comparison whose sign ours is held against."""

    from_: dict[str, Any] = Field(alias="from")
    to: dict[str, Any]
    note: str = ""


class Paper(Strict):
    """What the paper printed; without ``effects`` every row is compared with the first."""

    metric: str = ""
    source: str = ""
    rows: list[Printed] = []
    effects: list[Effect] | None = None


class SweepSpec(Strict):
    """A grid of cells: ``base``, varied along ``axes``; the keys inside one axis move together."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    title: str = ""
    source: str = ""
    base: BaseSpec = BaseSpec()
    axes: list[Axis] = []
    excludes: list[Exclude] = []
    seeds: list[Annotated[int, Field(ge=0)]] = Field([0], min_length=1)
    labels: str | None = None
    profiles: dict[str, Profile] = {}
    paper: Paper | None = None

    def settled(self, profile: str | None = None) -> Settled:
        """The sweep at one of its sizes.

        Args:
            profile: a name; by default "nano", or the file itself where it has no profiles.
        Raises:
            SpecError: no such profile, with close matches; settings of its base that nothing has.
        """
        name = profile if profile is not None else DEFAULT_PROFILE if self.profiles else ""
        if not name:
            return Settled("", self.base, tuple(self.axes), tuple(self.excludes), tuple(self.seeds), self.labels)
        if name not in self.profiles:
            raise SpecError(self.name, [f"no profile is called {name!r}; {did_you_mean(name, self.profiles)}"])
        own = self.profiles[name]
        axes = [*self.axes, *({} for _ in own.axes[len(self.axes) :])]
        for place, axis in enumerate(own.axes):
            axes[place] = axis or axes[place]
        try:
            base = BaseSpec.model_validate({**self.base.model_dump(), **own.base})
        except ValidationError as error:
            where = f"profiles.{name}.base"
            raise SpecError(
                self.name, [f"{where}.{line}" for _, line in explain_all(error, BaseSpec, whole=where)]
            ) from None
        return Settled(
            name,
            base,
            tuple(axes),
            tuple(self.excludes if own.excludes is None else own.excludes),
            tuple(own.seeds or self.seeds),
            own.labels or self.labels,
            own.needs,
        )


@dataclass(frozen=True)
class Settled:
    """A sweep with the settings of one profile in place, see ``SweepSpec``."""

    profile: str
    base: BaseSpec
    axes: tuple[Axis, ...]
    excludes: tuple[Exclude, ...]
    seeds: tuple[int, ...]
    labels: str | None = None
    needs: str = ""
