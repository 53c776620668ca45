from __future__ import annotations

import copy
import pickle
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokred.backbones.geometry import Geometry
from tokred.methods import STA, EViT, GridKeep, LowerResolution, RandomDrop, ToMe, TopK
from tokred.probe import Probe
from tokred.reducer import Capabilities, Promise, Site, TokenReducer, keep_patches, keep_top
from tokred.reduction import Reduction
from tokred.registry import build
from tokred.schedule import Schedule, ScheduleError, Step
from tokred.settings import SettingError
from tokred.tokens import Grid, Tokens

VIDEO = Geometry(
    depth=6, dim=24, heads=3, head_dim=8, mlp_hidden=48, grid=Grid(4, 4, 6), prefix=0, classes=7, kernel=(2, 4, 4)
)


class Idle(TokenReducer):
    """Does nothing; what matters is how it is made."""

    def __init__(self, amount: int, *, share: float = 0.5, where: tuple[int, ...] = (1,), word: str = "a") -> None:
        super().__init__(Schedule(at=where, keep=share))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        return None


def test_the_spec_names_what_differs_from_the_defaults() -> None:
    assert ToMe().spec == "tome"
    assert STA(r=4, order="bfb").spec == "sta:r=4,order=bfb"
    assert STA((4, 2, 1), at=[0, 2, 4]).spec == "sta:r=[4,2,1],at=[0,2,4]"  # type: ignore[arg-type]
    assert EViT(0.7, fuse=False).spec == "evit:keep=0.7,fuse=false"
    assert Idle(3).spec == "Idle:amount=3"
    assert repr(ToMe(r=3)) == "ToMe(tome:r=3)"


@given(st.floats(0.001, 1.0))
def test_a_share_survives_the_spec_to_the_last_bit(keep: float) -> None:
    again = build(TopK(keep).spec)
    assert again.config == TopK(keep).config


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_in_a_spec_is_that_number_and_never_a_composition(value: float) -> None:
    spec = Idle.spec.fget(_with_config(word=value))  # type: ignore[attr-defined]
    assert "+" not in spec
    text = spec.partition("word=")[2]
    assert float(text) == value


def _with_config(**config: Any) -> Idle:
    idle = Idle(0)
    object.__setattr__(idle, "_config", {"amount": 0, **config})
    return idle


@pytest.mark.parametrize(
    "reducer",
    [
        RandomDrop(0.123456789, seed=3),
        ToMe(r=(3, 2)),
        ToMe(r=8, inflection=-1.0, proportional=True),
        ToMe(keep=0.75, pool="mean"),
        STA(r=4, order="B", similarity="ffn", score="activation", first="grid", grouping="frame"),
        STA(r=(4, 0, 2), at=(0, 1, 5)),
        EViT(tokens=(20, 10), at=(1, 3), order="position"),
        EViT(keep=(0.5, 0.75), normalise=True, score="mean_query", pool="mass"),
        LowerResolution(rows=2),
        GridKeep(0.5, at="all"),
    ],
    ids=lambda r: r.spec,
)
def test_the_spec_builds_the_same_reducer(reducer: TokenReducer) -> None:
    again = build(reducer.spec)
    assert type(again) is type(reducer)
    assert again.spec == reducer.spec
    assert again.config == reducer.config


def test_with_changes_one_setting_and_leaves_the_original() -> None:
    one = STA(r=4, order="B")
    two = one.with_(r=6)
    assert (one.spec, two.spec) == ("sta:r=4,order=B", "sta:r=6,order=B")
    assert one.config is not one.config  # a copy: writing on it changes nothing


def test_copies_and_pickles_know_their_settings() -> None:
    one = STA(r=4)
    assert copy.deepcopy(one).spec == pickle.loads(pickle.dumps(one)).spec == "sta:r=4"
    assert copy.deepcopy(Idle(3)).config == Idle(3).config


def test_a_wrong_call_gets_pythons_own_message() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'amount'"):
        Idle()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
        Idle(1, size=3)  # type: ignore[call-arg]


def test_settings_of_the_wrong_kind_are_refused_when_the_reducer_is_made() -> None:
    with pytest.raises(SettingError, match="amount = '3' is not a whole number"):
        Idle("3")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="fuse = 'no' is not true or false"):
        EViT(0.5, fuse="no")  # type: ignore[arg-type]


def test_steps_leave_out_what_changes_nothing() -> None:
    assert {b: s.amount for b, s in ToMe(r=(3, 0, 2)).steps(VIDEO).items()} == {0: 3, 2: 2}
    assert ToMe().steps(VIDEO) == {}


def test_a_promise_is_what_the_schedule_says() -> None:
    assert TopK(0.5).promise(Step(0, 0, "keep", 0.5), 95, 4, VIDEO) == Promise(48, None)
    assert TopK(0.5).promise(Step(0, 0, "keep", 0.999), 95, 4, VIDEO) == Promise(95, 4)


def test_a_promise_is_per_group_where_frames_are_needed_and_kept() -> None:
    assert GridKeep(0.5).promise(Step(0, 0, "keep", 0.5), 4 * 23, 4, VIDEO) == Promise(4 * 12, 4)


def test_a_fraction_of_a_token_is_rounded_and_noted() -> None:
    left = TopK(0.5).promise(Step(2, 0, "drop", Fraction(5, 2)), 10, None, VIDEO)
    assert left == Promise(8, None, ("block 2: drop = 2.5 rounded down to 2",))


def test_check_follows_the_promises_through_all_steps() -> None:
    with pytest.raises(ScheduleError, match="drop = 40 at block 2 is impossible with 16 tokens"):
        _Dropper(40).check(VIDEO)
    assert _Dropper(31).check(VIDEO) == []


class _Dropper(TokenReducer):
    strength = "r"

    def __init__(self, r: int = 0) -> None:
        super().__init__(Schedule(at=(0, 1, 2), drop=r))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        return None


def test_a_subclass_is_another_method_until_it_is_registered() -> None:
    class Mine(TopK):
        pass

    assert Mine(0.5).spec == "Mine:keep=0.5"
    assert Mine.method == ""
    assert TopK(0.5).spec == "topk:keep=0.5"


def test_the_default_range_of_strength_follows_the_schedule() -> None:
    share = TopK().strength_range(VIDEO)
    assert (share.name, share.weakest, share.strongest, share.whole) == ("keep", 1.0, 1 / 96, False)
    whole = _Dropper().strength_range(VIDEO)
    assert (whole.name, whole.weakest, whole.strongest, whole.whole) == ("r", 0, 95, True)


@pytest.mark.parametrize("reducer", [Idle(1), EViT(tokens=5)])
def test_a_reducer_without_strength_says_so(reducer: TokenReducer) -> None:
    with pytest.raises(ScheduleError, match=r"has no strength to solve for"):
        reducer.strength_range(VIDEO)


def tokens(b: int, n: int, prefix: int) -> Tokens:
    return Tokens(torch.randn(b, prefix + n, 2), Grid(1, 1, n), prefix)


@given(
    st.integers(1, 3),
    st.integers(1, 8),
    st.integers(0, 2),
    st.integers(0, 9999),
    st.sampled_from(["position", "score"]),
)
def test_keep_top_is_a_sort_with_ties_to_the_earlier(b: int, n: int, prefix: int, seed: int, order: str) -> None:
    g = torch.Generator().manual_seed(seed)
    score = torch.randint(0, 3, (b, n), generator=g).float()  # few values: many ties
    count = int(torch.randint(1, n + 1, (1,), generator=g))
    keep = keep_top(tokens(b, n, prefix), score, count, order=order)
    for i in range(b):
        ranked = sorted(range(n), key=lambda j: (-float(score[i, j]), j))[:count]
        expected = sorted(ranked) if order == "position" else ranked
        assert keep.index[i].tolist() == [*range(prefix), *(prefix + j for j in expected)]


@given(
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(0, 2),
    st.integers(0, 9999),
    st.sampled_from(["position", "score"]),
)
def test_keep_top_of_a_score_by_groups_keeps_as_many_of_each(
    t: int, g: int, prefix: int, seed: int, order: str
) -> None:
    score = torch.randint(0, 3, (2, t, g), generator=torch.Generator().manual_seed(seed)).float()
    count = 1 + seed % g
    keep = keep_top(tokens(2, t * g, prefix), score, count, order=order)
    assert keep.groups == t
    for i in range(2):
        alone = [keep_top(tokens(1, g, 0), score[i : i + 1, c], count, order=order).index[0].tolist() for c in range(t)]
        expected = [prefix + c * g + j for c, group in enumerate(alone) for j in group]
        assert keep.index[i].tolist() == [*range(prefix), *expected]


def test_many_ties_go_to_the_earlier_too() -> None:
    score = (torch.arange(3000) % 2).float()[None]
    assert keep_top(tokens(1, 3000, 0), score, 1600).index[0].tolist() == sorted(
        [*range(1, 3000, 2), *range(0, 200, 2)]
    )


def test_nan_is_kept_so_that_it_shows() -> None:
    nan, inf = float("nan"), float("inf")
    scores = torch.tensor([[nan, -inf, 0.0, inf]])
    assert keep_top(tokens(1, 4, 0), scores, 2).index.tolist() == [[0, 3]]
    assert keep_top(tokens(1, 4, 0), scores, 3).index.tolist() == [[0, 2, 3]]


def test_keeping_patches_keeps_the_prefix_in_front_and_passes_groups_on() -> None:
    keep = keep_patches(tokens(2, 4, 2), torch.tensor([[3, 0], [1, 2]]), groups=2)
    assert keep.index.tolist() == [[0, 1, 5, 2], [0, 1, 3, 4]]
    assert (keep.n_in, keep.groups) == (6, 2)


def test_a_reducer_must_say_how_it_reduces() -> None:
    with pytest.raises(TypeError, match="abstract"):
        TokenReducer(Schedule(drop=0))  # type: ignore[abstract]


def test_capabilities_default_to_the_least() -> None:
    assert Idle(1).capabilities == Capabilities()
    assert Idle(1).smaller_input(VIDEO) is None
    assert Idle(1).macs(10, VIDEO, Step(0, 0, "drop", 1)) is None
    assert Idle(1).describe(VIDEO) == []
    Idle(1).reset()


def test_a_list_that_goes_on_growing_is_no_setting() -> None:
    places = [1, 2]
    reducer = Listed(places)
    places.append(3)
    assert reducer.config["at"] == [1, 2]
    assert reducer.spec.endswith("at=[1,2]")


class Listed(TokenReducer):
    """Takes a list as it comes."""

    def __init__(self, at: list[int]) -> None:
        super().__init__(Schedule(at=tuple(at), drop=1))

    def reduce(self, tokens, probe, site):
        return None
