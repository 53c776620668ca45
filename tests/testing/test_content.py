from __future__ import annotations

import pytest
import torch

from tokred.testing.content import ATTENTION, FEATURES, MASSES, features, generator, masses, queries_and_keys


def test_features_are_of_their_kind_and_finite() -> None:
    made = {kind: features(kind, (2, 6, 4), generator(1)) for kind in FEATURES}
    assert all(bool(x.isfinite().all()) and x.shape == (2, 6, 4) for x in made.values())
    assert torch.equal(made["constant"], made["constant"][:, :1].expand(2, 6, 4))
    assert not made["zero"].any()
    assert torch.equal(made["duplicated"][:, ::2], made["duplicated"][:, 1::2])
    assert 0 < (made["near_ties"] - made["near_ties"][:, :1]).abs().max() < 1e-2
    assert made["tiny"].abs().max() < 1e-10
    assert made["huge"].abs().max() > 1e14
    assert features("huge", (1, 50, 8), generator(0), huge=1e4).half().isfinite().all()


def test_attention_is_of_its_kind() -> None:
    def attention(kind: str) -> torch.Tensor:
        q, k = queries_and_keys(kind, (1, 2, 6, 4), generator(3))
        return (q @ k.transpose(-1, -2) / 2).softmax(dim=-1)

    assert all(bool(attention(kind).isfinite().all()) for kind in ATTENTION)
    assert torch.equal(attention("uniform"), torch.full((1, 2, 6, 6), 1 / 6, dtype=torch.float64))
    assert bool((attention("one_hot").amax(dim=-1) > 0.99).all())
    assert bool((attention("zero_rows") == 0).any())
    assert not queries_and_keys("zero_rows", (1, 2, 6, 4), generator(3))[1].any(-1).all()
    near = attention("near_ties")
    assert 0 < (near - 1 / 6).abs().max() < 1e-2


def test_masses_are_whole_and_prefix_tokens_weigh_one() -> None:
    assert masses("none", 2, 1, 5, generator(0)) is None
    for kind in MASSES[1:]:
        size = masses(kind, 2, 1, 5, generator(0))
        assert size is not None
        assert bool((size[:, 0] == 1).all())
        assert torch.equal(size, size.round())


@pytest.mark.parametrize(
    "make",
    [
        lambda: features("odd", (1, 1, 1), generator(0)),
        lambda: queries_and_keys("odd", (1, 1, 1, 1), generator(0)),
        lambda: masses("odd", 1, 0, 1, generator(0)),
    ],
)
def test_another_kind_is_refused_with_the_list(make: object) -> None:
    with pytest.raises(ValueError, match="= 'odd' is not one of no"):
        make()  # type: ignore[operator]


def test_content_touches_no_global_random_state() -> None:
    before = torch.get_rng_state()
    features("normal", (1, 2, 3), generator(5))
    assert torch.equal(before, torch.get_rng_state())
