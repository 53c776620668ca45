"""The head of a host: a merged token counts as often as the patches that it stands for."""

from __future__ import annotations

import torch
from torch import Tensor

from tokred.compose import parts_of
from tokred.testing.case import Case, difference
from tokred.testing.check import check
from tokred.testing.failures import NotApplicable, expect
from tokred.testing.identity import KERNELS
from tokred.tokens import Grid, Tokens


@check("where it pools by mass, a merged token counts as often as the patches that it stands for")
def check_pooling(case: Case) -> None:
    if not any(part.pool == "mass" for part in parts_of(case.reducer)):
        raise NotApplicable("it does not pool by mass")
    if case.geometry.stages:
        raise NotApplicable("a host on whole grids puts merged tokens back on each of their places")
    fast = case.attach()
    prefix, width = case.geometry.prefix, case.geometry.dim
    random = torch.Generator().manual_seed(5)
    batch = 2 * case.geometry.steps
    patches = torch.randn(batch, 4, width, generator=random)
    front = torch.randn(batch, prefix, width, generator=random)
    times = torch.tensor([1, 4, 2, 1])

    def logits(x: Tensor, size: Tensor | None) -> Tensor:
        tokens = Tokens(
            torch.cat([front, x], dim=1), Grid(1, 1, 8), prefix, size, class_token=case.geometry.class_token
        )
        with torch.no_grad():
            features = fast.adapter.features(fast.host, tokens, "mass")
            return fast.adapter.classify(fast.host, features, tokens, "mass")

    size = torch.cat([torch.ones(prefix), times.float()]).expand(batch, -1)
    merged, apart = logits(patches, size), logits(patches.repeat_interleave(times, dim=1), None)
    gap = difference(merged, apart)
    expect(
        gap <= KERNELS,
        "the logits of tokens with masses 1, 4, 2, 1 to be those of each token so many times",
        f"a difference of {gap:.2g}",
    )
