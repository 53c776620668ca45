from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from tokred.attach import Attached
from tokred.backbones.video_vit_adapter import VideoViTAdapter
from tokred.methods import STA, ToMe
from tokred.reducer import TokenReducer
from tokred.testing import Case, default_backbones
from tokred.testing.failures import Broken, NotApplicable
from tokred.testing.pooling import check_pooling
from tokred.tokens import Tokens

VIDEO = default_backbones()[0]


class PlainMean(VideoViTAdapter):
    """Averages tokens without their masses, as the published public patch does on MAE models."""

    def classify(self, model: Any, features: Tensor, tokens: Tokens, pool: str) -> Tensor:
        return super().classify(model, features, tokens, "mean")

    def features(self, model: Any, tokens: Tokens, pool: str) -> Tensor:
        return super().features(model, tokens, "mean")


def test_a_plain_mean_instead_of_the_weighted_one_is_caught() -> None:
    class Unweighted(Case):
        def attach(self, reducer: TokenReducer | None = None, host: nn.Module | None = None) -> Attached:
            return Attached(self.host if host is None else host, reducer or self.reducer, PlainMean())

    with pytest.raises(Broken, match="masses 1, 4, 2, 1 to be those of each token so many times"):
        check_pooling(Unweighted(ToMe(r=4), VIDEO))
    check_pooling(Case(ToMe(r=4), VIDEO))


def test_methods_that_pool_without_masses_are_left_alone() -> None:
    with pytest.raises(NotApplicable, match="does not pool by mass"):
        check_pooling(Case(STA(r=2), VIDEO))
