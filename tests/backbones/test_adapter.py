from __future__ import annotations

import pytest
import torch
from torch import nn

from tokred.backbones import Unsupported, adapter_for
from tokred.backbones.adapter import mean_tokens
from tokred.testing import default_backbones
from tokred.tokens import Grid, Tokens

X = torch.tensor([[[100.0], [1.0], [2.0], [4.0]]])


@pytest.mark.parametrize(("pool", "mean"), [("mean", 7 / 3), ("mass", (1 + 2 * 3 + 4 * 2) / 6)])
def test_the_mean_of_patch_tokens_leaves_the_prefix_out(pool: str, mean: float) -> None:
    tokens = Tokens(X, Grid(1, 1, 6), 1, size=torch.tensor([[1.0, 1.0, 3.0, 2.0]]))
    assert mean_tokens(X, tokens, pool).item() == pytest.approx(mean)


def test_without_masses_both_means_are_equal() -> None:
    tokens = Tokens(X, Grid(1, 1, 3), 1)
    assert mean_tokens(X, tokens, "mass").item() == pytest.approx(7 / 3)


def test_the_pooled_vector_of_features_that_are_tokens_is_their_mean() -> None:
    host, _ = default_backbones()[0].build()
    adapter = adapter_for(host)
    tokens = Tokens(X, Grid(1, 1, 3), 1)
    assert adapter.pooled(host, X, tokens, "mean").tolist() == mean_tokens(X, tokens, "mean").tolist()
    assert adapter.pooled(host, X[:, 0], tokens, "mean").tolist() == X[:, 0].tolist()


def test_each_host_has_its_adapter_and_other_models_are_refused_with_the_list() -> None:
    names = [adapter_for(backbone.build()[0]).name for backbone in default_backbones()]
    assert names == ["tokred.VideoViT", "timm.VisionTransformer", "tokred.VideoSwin"]
    with pytest.raises(
        Unsupported, match=r"nn\.modules\.linear\.Linear is not a model .* it reads tokred\.VideoViT, .*timm"
    ):
        adapter_for(nn.Linear(2, 2))
