"""STViT and STViT-R: few semantic tokens in place of the patches (Chang et al., CVPR 2023, arXiv 2303.08685).

Verified against the official code's layers. Differs from the published models in that the generating and recovering
layers are the reducer's own and come on top of the host's, which keeps all of its blocks: a published STViT of L layers
is a host of L - 2 blocks with this reducer; and in fused attention. On video, tokens are generated for each frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

from tokred.backbones.geometry import Geometry
from tokred.distillation import unexplained_variance
from tokred.generate import Recover
from tokred.learned import SHIPPED, WHOLE, fresh
from tokred.probe import Probe
from tokred.reducer import Promise, Site
from tokred.reduction import Reduction
from tokred.registry import register
from tokred.schedule import ScheduleError, Step
from tokred.semantic import LAYER_SCALE, CrossLayer, run_like
from tokred.semantic_reducer import SemanticReducer, layer_size
from tokred.tokens import Tokens

if TYPE_CHECKING:
    from tokred.attach import Run


@register("stvit")
class STViT(SemanticReducer):
    """Replace the patches of each frame by side x side semantic tokens, made by layers of its own.

    Args:
        side: semantic tokens per side of a frame (published: 4 for 14 x 14 patches).
        at: the block before which they are made (0-based); default a third of the depth (published: 4 of 12), with
            windows two thirds of the longest stage behind the first.
        layers: layers that make them (published: 2, 3, 4).
        centres: whether learned global centres are added before the second layer (paper; the released runs have none).
        keys: what the first layer looks at: all image tokens of the "clip", those of the own "frame", or, on hosts with
            windows, those of the own "window" and its surroundings (official Swin form).
        weights: "shipped" (those that come with the package for the backbone, if any), a safetensors file, or none.
        layer_scale: of the new layers at the start of training.
        distill_weight: weight of the loss that pulls the logits to those of the unreduced model (ours).
    """

    status = "official code; published number"
    site = "before_block"

    def __init__(
        self,
        side: int = 4,
        *,
        at: int | None = None,
        layers: int = 2,
        centres: bool = True,
        keys: str = "clip",
        weights: str | None = SHIPPED,
        layer_scale: float = LAYER_SCALE,
        distill_weight: float = 0.5,
    ) -> None:
        super().__init__(side, layers, centres, keys, weights, layer_scale, distill_weight)
        self.at = at

    def build(self, geometry: Geometry, host: nn.Module | None) -> None:
        self.generation = nn.ModuleList([self.fresh_generation(geometry, 0, self.use_centres)])

    def steps(self, geometry: Geometry) -> dict[int, Step]:
        block = self._start(geometry)
        if not 0 <= block < geometry.depth:
            raise ScheduleError(f"at = {block} is not in 0..{geometry.depth - 1}")
        return {block: Step(block, 0, "tokens", self.made(geometry.grid).patches)}

    def _start(self, geometry: Geometry) -> int:
        if self.at is not None:
            return self.at
        if not geometry.stages:
            return geometry.depth // 3
        depths = [stage.depth for stage in geometry.stages]
        longest = max(range(min(1, len(depths) - 1), len(depths)), key=lambda i: depths[i])
        return sum(depths[:longest]) + 2 * depths[longest] // 3

    def seen(self, geometry: Geometry) -> Geometry:
        if not geometry.stages:
            return geometry
        stage = geometry.stage_of(self._start(geometry))
        return geometry.at(geometry.stages[stage].dim, geometry.stage_grid(stage))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction:
        return self.generate(tokens, site, 0)

    def promise(self, step: Step, count: int, groups: int | None, geometry: Geometry) -> Promise:
        self.whole(count, groups, geometry.grid, step.block)
        made = self.made(geometry.grid)
        return Promise(made.patches, made.t, grid=made if geometry.stages else None)

    def macs(self, tokens: int, geometry: Geometry, step: Step) -> int:
        return self.generation_macs(geometry, self.window(geometry))


@register("stvit_r")
class STViTR(SemanticReducer):
    """Units of a full block, semantic tokens through the next blocks, and the patches back: dense features survive.

    Args:
        side: semantic tokens per side of a frame.
        units: the host's blocks fall into so many units of equal length; default one for every six (official: three in
            18 layers). The first block of a unit runs on patches, the others on semantic tokens.
        layers: layers that make the semantic tokens of a unit.
        centres: whether learned global centres are added in the first unit.
        keys: what the first layer looks at: all image tokens of the "clip", or those of the own "frame".
        weights: "shipped" (those that come with the package for the backbone, if any), a safetensors file, or none.
        layer_scale: of the new layers at the start of training.
        distill_weight: weight of the loss that pulls the logits to those of the unreduced model (ours).
        feature_weight: weight of the loss that pulls the patches that come back to those of the unreduced model (ours).
    """

    status = "official code; published number"
    site = "after_block"
    recovery: nn.ModuleList

    def __init__(
        self,
        side: int = 4,
        *,
        units: int | None = None,
        layers: int = 2,
        centres: bool = True,
        keys: str = "clip",
        weights: str | None = SHIPPED,
        layer_scale: float = LAYER_SCALE,
        distill_weight: float = 0.5,
        feature_weight: float = 0.5,
    ) -> None:
        super().__init__(side, layers, centres, keys, weights, layer_scale, distill_weight)
        if feature_weight < 0:
            raise ScheduleError(f"feature_weight = {feature_weight} is negative: allowed is 0 or more")
        if units is not None and units < 1:
            raise ScheduleError(f"units = {units} is not a whole number of at least 1")
        self.units = units
        self.feature_weight = feature_weight
        self.recovery = nn.ModuleList()

    def build(self, geometry: Geometry, host: nn.Module | None) -> None:
        units = len(self.steps(geometry)) // 2
        self.generation = nn.ModuleList(
            self.fresh_generation(geometry, i, self.use_centres and i == 0) for i in range(units)
        )
        size = layer_size(geometry)
        self.recovery = nn.ModuleList(
            fresh(lambda: CrossLayer(size, scale=self.layer_scale), seed=units + i) for i in range(units)
        )

    def steps(self, geometry: Geometry) -> dict[int, Step]:
        if geometry.stages:
            raise ScheduleError(
                f"{self.spec} brings patches back on backbones of one grid; this one has stages, whose grids differ: "
                "stvit runs here"
            )
        depth = geometry.depth
        units = max(1, depth // 6) if self.units is None else self.units
        if depth < 2 * units:
            raise ScheduleError(
                f"units = {units} of a backbone of {depth} blocks: a unit has 2 blocks or more, so allowed is "
                f"1..{depth // 2}"
            )
        found = {}
        made = self.made(geometry.grid).patches
        for i in range(units):
            first, last = i * depth // units, (i + 1) * depth // units - 1
            found[first] = Step(first, 2 * i, "tokens", made)
            found[last] = Step(last, 2 * i + 1, "tokens", geometry.grid.patches)
        return found

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction:
        unit, recovers = divmod(site.index, 2)
        if not recovers:
            return self.generate(tokens, site, unit, sets_aside=True)
        if tokens.aside is None:
            raise ScheduleError(f"{self.spec} at block {site.block} has no patches to bring back")
        # They were pooled as whole frames, so they are in frames, whether or not that was known.
        aside = replace(tokens.aside, groups=tokens.aside.grid.t)
        return Recover(partial(run_like, self.recovery[unit]), aside, tokens.patch_count)

    def promise(self, step: Step, count: int, groups: int | None, geometry: Geometry) -> Promise:
        if step.index % 2:
            return Promise(geometry.grid.patches, geometry.grid.t)
        self.whole(count, groups, geometry.grid, step.block)
        return Promise(self.made(geometry.grid).patches, geometry.grid.t)

    def macs(self, tokens: int, geometry: Geometry, step: Step) -> int:
        if step.index % 2:
            return layer_size(geometry).macs(geometry.grid.patches, tokens - geometry.prefix)
        return self.generation_macs(geometry, self.window(geometry))

    def training_losses(self, student: Run, teacher: Run | None, tasks: Sequence[slice] = WHOLE) -> dict[str, Tensor]:
        """Besides the logits', the share of the variance of the unreduced model's last patches that is missed."""
        losses = super().training_losses(student, teacher, tasks)
        if teacher is not None and self.feature_weight > 0:
            missed = unexplained_variance(student.tokens.patches, teacher.tokens.patches)
            losses["features"] = self.feature_weight * missed
        return losses
