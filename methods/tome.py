"""ToMe: token merging (Bolya et al., ICLR 2023, arXiv 2210.09461). Training-free, also usable in training.

Verified against the official code's outputs (maps, sizes, logits). Differs in carrying the decision as one integer
map, in masses and sums in float32, in protecting every prefix token (official: class and distillation token), in
guarding zero keys, and in recording a clamped r instead of clamping in silence.
"""

from __future__ import annotations

from tokred.backbones.geometry import Geometry
from tokred.matching import match_halves
from tokred.probe import Probe
from tokred.reducer import Capabilities, Promise, Site, Strength, TokenReducer
from tokred.reduction import Merge
from tokred.registry import register
from tokred.schedule import Schedule, ScheduleError, Step
from tokred.tokens import Tokens


@register("tome")
class ToMe(TokenReducer):
    """In every block, between attention and MLP, merge the r most similar pairs of tokens.

    Args:
        r: tokens merged per block; one number, or one per block (padded with 0).
        inflection: f in [-1, 1] makes a single r linear over the blocks, from r(1-f) to r(1+f): -1 falls to 0
            (the official "decreasing" schedule).
        keep: share of the current tokens left by each block, instead of r; at least half.
        at: blocks that merge; default all.
        proportional: add log(mass) to the attention of later blocks (official default on supervised timm models;
            off for off-the-shelf MAE models, so off here).
        pool: on mean-pooling hosts: "mass" (official MAE patch) or "mean" (official timm patch).
    """

    status = "official code"
    site = "after_attention"
    strength = "r"
    published_macs = "the official code compares prefix tokens, too, before it leaves them as they are"

    def __init__(
        self,
        r: int | tuple[int, ...] = 0,
        *,
        inflection: float = 0.0,
        keep: float | None = None,
        at: str | tuple[int, ...] = "all",
        proportional: bool = False,
        pool: str = "mass",
    ) -> None:
        if keep is not None and (r != 0 or inflection != 0.0):
            raise ScheduleError(f"give r (with inflection) or keep, not both: r = {r}, keep = {keep}")
        if keep is not None and not 0.5 <= keep <= 1:
            raise ScheduleError(f"keep = {keep} is not in [0.5, 1]: one step merges at most half of the tokens")
        if not -1 <= inflection <= 1:
            raise ScheduleError(f"inflection = {inflection} is not in [-1, 1]")
        if pool not in ("mass", "mean"):
            raise ScheduleError(f"pool = {pool!r} is not one of mass, mean")
        shape = inflection if inflection else "constant"
        super().__init__(Schedule(at=at, drop=r, shape=shape) if keep is None else Schedule(at=at, keep=keep))
        self.proportional = proportional
        self.pool = pool
        self.capabilities = Capabilities(needs=frozenset({"key"}), channel_blind=True)
        if keep is not None:
            self.strength = "keep"  # type: ignore[misc]

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Merge | None:
        r, _ = _merged(site.step, tokens.patch_count)
        if r == 0:
            return None
        matching = match_halves(probe.mean_key, r, tokens.prefix)
        return Merge(matching.assign, matching.n_out)

    def promise(self, step: Step, count: int, groups: int | None, geometry: Geometry) -> Promise:
        r, wanted = _merged(step, count)
        clamped = f"block {step.block}: r = {wanted} clamped to {r}, half of the tokens"
        return Promise(count - r, None if r else groups, (clamped,) if r < wanted else ())

    def strength_range(self, geometry: Geometry) -> Strength:
        """r up to half of the tokens (large ones are clamped in late blocks, which is noted); keep down to one half."""
        if self.schedule.kind == "keep":
            return Strength("keep", 1.0, 0.5, whole=False)
        return Strength("r", 0, geometry.grid.patches // 2, whole=True)

    def macs(self, tokens: int, geometry: Geometry, step: Step) -> int | None:
        """The similarities of even with odd tokens."""
        return ((tokens + 1) // 2) * (tokens // 2) * geometry.head_dim


def _merged(step: Step, n: int) -> tuple[int, int]:
    """Tokens that a step merges of n patch tokens, and what it wanted to."""
    wanted = int(step.amount) if step.kind == "drop" else n - step.left(n)
    return min(wanted, n // 2), wanted
