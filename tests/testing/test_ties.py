from __future__ import annotations

from collections.abc import Callable

import pytest
from testing.zoo import about, spec

from tokred.methods import ATS, STA, EViT, GridKeep, RandomDrop, ToMe, TopK
from tokred.reducer import TokenReducer
from tokred.registry import build
from tokred.testing import default_backbones
from tokred.testing.case import Case
from tokred.testing.failures import Broken
from tokred.testing.ties import expect_earlier

VIDEO, IMAGE, _ = default_backbones()


def test_the_later_of_equal_tokens_is_caught(caught: Callable[..., str]) -> None:
    (wrong,) = (s for s in about("check_degenerate_inputs") if s.reducer == "TieOrder")
    assert wrong.says in caught(wrong.reducer, wrong.check, "image")
    case = Case(build(spec("TieOrder")), IMAGE)
    with pytest.raises(Broken, match=r"the later one, (\d+) times out of \1"):
        expect_earlier(case.reducer, case.geometry)


@pytest.mark.parametrize(
    "reducer",
    [
        build(spec("Plain")),
        build(spec("Latest")),  # its choice depends on places: nothing is said of it
        build(spec("Merges")),
        TopK(keep=0.5),
        EViT(keep=0.5, at=(1,)),
        RandomDrop(keep=0.5),
        GridKeep(keep=0.5),
        STA(r=3),
        ToMe(r=3),
        ATS(),
    ],
    ids=lambda reducer: reducer.spec.rpartition("/")[2],
)
def test_nobody_else_is_accused(reducer: TokenReducer) -> None:
    case = Case(reducer, VIDEO)
    expect_earlier(case.reducer, case.geometry)
