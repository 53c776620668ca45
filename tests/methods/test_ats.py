"""ATS against loops; its official variant; places that stay stable over time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tokred.attach import attach
from tokred.backbones import Unsupported
from tokred.driver import _rows_wanted
from tokred.dry import dry_run
from tokred.methods import ATS
from tokred.methods.ats import official_scores, stabilised
from tokred.probe import Probe
from tokred.reducer import Promise, Site
from tokred.reduction import Keep
from tokred.schedule import ScheduleError, Step
from tokred.testing import default_backbones
from tokred.tokens import Grid, Tokens

VIDEO, IMAGE, *_ = default_backbones()[:2]
WINDOWS = default_backbones()[-1]


def step(
    reducer: ATS, q: Tensor, k: Tensor, v: Tensor, prefix: int, log_size: Tensor | None = None, **tokens: Any
) -> Keep | None:
    b, _, n, _ = q.shape
    x = torch.zeros(b, n, 3)
    probe = Probe(x, q, k, v, scale=0.5, prefix=prefix, log_size=log_size, needs=reducer.capabilities.needs)
    return reducer.reduce(
        Tokens(x, Grid(1, 1, n - prefix), prefix, **tokens),
        probe,
        Site(reducer.site, reducer.schedule.steps(1)[0], 1, 1),
    )


@given(st.integers(2, 9), st.integers(0, 2), st.booleans(), st.booleans(), st.floats(0.1, 0.95), st.integers(0, 999))
def test_a_step_is_the_definition_by_loops(
    n: int, prefix: int, mean: bool, biased: bool, keep: float, seed: int
) -> None:
    prefix = prefix if mean else max(1, prefix)
    g = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, 3, prefix + n, 4, generator=g) for _ in range(3))
    log_size = torch.rand(2, prefix + n, generator=g) if biased else None
    reducer = ATS(keep, score="mean_query" if mean else "class")
    made = step(reducer, q, k, v, prefix, log_size)
    left = max(1, int(keep * n))
    for b in range(2):
        total = torch.zeros(n, dtype=torch.float64)
        for h in range(3):
            query = q[b, h, prefix:].double().mean(0) if mean else q[b, h, 0].double()
            logits = k[b, h].double() @ query * 0.5 + (0 if log_size is None else log_size[b].double())
            score = logits.softmax(0) * v[b, h].double().norm(dim=-1)
            total += score[prefix:] / score[prefix:].sum()
        best = sorted(sorted(range(n), key=lambda j: -float(total[j]))[:left])
        if left == n:
            assert made is None
        else:
            assert made is not None
            assert made.index[b].tolist() == [*range(prefix), *(prefix + j for j in best)]


def test_the_score_is_named_where_there_is_no_class_token() -> None:
    model, _ = VIDEO.build()
    fast = attach(model, ATS(0.8))
    assert fast.notes[-1] == "ATS-style (attention of the mean query)"
    assert attach(IMAGE.build()[0], ATS(0.8)).notes[-1] == "ATS"
    with pytest.raises(ValueError, match="class token"):
        attach(model, ATS(0.8, score="class"))


def test_counts_round_down_in_every_block_and_stop_at_one() -> None:
    geometry = attach(IMAGE.build()[0], ATS(0.5)).geometry
    plan = dry_run(ATS(0.5), geometry)
    assert [s.n_out - 2 for s in plan.steps] == [32, 16, 8, 4]
    thin = dry_run(ATS(0.1), geometry)
    assert [s.n_out - 2 for s in thin.steps] == [6, 1]
    assert any("int(0.1 * 6) = 0 raised to 1" in note for note in thin.notes)


def test_promises_tell_groups_and_raised_counts() -> None:
    geometry = attach(VIDEO.build()[0], ATS(0.5)).geometry
    reducer = ATS(0.1)
    assert reducer.promise(Step(2, 0, "keep", 0.1), 20, 4, geometry) == Promise(2, None)
    assert reducer.promise(Step(2, 0, "keep", 0.1), 10, 4, geometry) == Promise(1, None)
    assert reducer.promise(Step(2, 0, "keep", 0.1), 9, 4, geometry) == Promise(
        1, None, ("block 2: int(0.1 * 9) = 0 raised to 1",)
    )
    assert reducer.promise(Step(2, 0, "keep", 1.0), 9, 4, geometry) == Promise(9, 4)


def test_registers_stay_in_front_and_do_not_compete() -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 9, 4, generator=g) for _ in range(3))
    v[:, :, 1] = 1000.0
    made = step(ATS(0.5), q, k, v, 2)
    v[:, :, 1] = 0.0
    again = step(ATS(0.5), q, k, v, 2)
    assert made is not None
    assert again is not None
    assert torch.equal(made.index, again.index)
    assert made.index[:, :2].tolist() == [[0, 1], [0, 1]]


def test_the_official_variant_sums_over_the_batch_and_reads_the_class_column() -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 3, 8, 4, generator=g) for _ in range(3))
    made = step(ATS(0.5, official=True), q, k, v, 1)
    assert made is not None
    attention = (q.double() @ k.double().transpose(2, 3) * 0.5).softmax(-1)
    for h in range(3):
        total = torch.zeros(7, dtype=torch.float64)
        for b in range(3):
            score = torch.tensor([attention[b, h, i, 0] * v[b, h, i].double().norm() for i in range(1, 8)])
            total += score / score.sum()
        best = sorted(sorted(range(7), key=lambda j: -float(total[j]))[:3])
        assert made.index[h].tolist() == [0, *(1 + j for j in best)]
    assert official_scores(attention, v, 1).shape == (3, 7)
    clean = step(ATS(0.5), q, k, v, 1)
    assert clean is not None
    assert not torch.equal(clean.index, made.index)


def test_the_official_variant_gives_one_sample_the_scores_of_the_first_head() -> None:
    """Row h of the scores belongs to head h, and sample b takes row b: with one sample that is head 0 alone."""
    g = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 4, 9, 4, generator=g) for _ in range(3))
    made = step(ATS(0.5, official=True), q, k, v, 1)
    assert made is not None
    attention = (q[0, 0].double() @ k[0, 0].double().T * 0.5).softmax(-1)
    score = [float(attention[i, 0] * v[0, 0, i].double().norm()) for i in range(1, 9)]
    best = sorted(sorted(range(8), key=lambda j: -score[j])[:4])
    assert made.index.tolist() == [[0, *(1 + j for j in best)]]


def test_the_official_variant_takes_no_more_samples_than_heads() -> None:
    q, k, v = (torch.randn(4, 2, 6, 3) for _ in range(3))
    with pytest.raises(ValueError, match="at most 2 samples"):
        step(ATS(0.5, official=True), q, k, v, 1)
    with pytest.raises(ScheduleError, match="contradicts"):
        ATS(0.5, official=True, score="mean_query")
    with pytest.raises(ScheduleError, match="not one of auto, class, mean_query, received"):
        ATS(0.5, score="values")


@given(st.integers(1, 12), st.integers(1, 4), st.data())
def test_who_stays_keeps_the_place_and_newcomers_fill_the_rest_rising(n: int, b: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, n))
    subset = st.permutations(range(n)).map(lambda order: order[:size])
    last = [data.draw(subset) for _ in range(b)]
    now = [sorted(data.draw(subset)) for _ in range(b)]
    got = stabilised(torch.tensor(now), torch.tensor(last))
    for new, old, mine in zip(now, last, got.tolist(), strict=True):
        newcomers = [token for token in new if token not in old]
        assert mine == [token if token in new else newcomers.pop(0) for token in old]
        assert sorted(mine) == new


def test_stable_places_are_kept_between_forwards_until_reset() -> None:
    g = torch.Generator().manual_seed(0)
    reducer = ATS(0.5, stable=True)
    assert reducer.capabilities.stateful
    first, second = ([torch.randn(2, 3, 9, 4, generator=g) for _ in range(3)] for _ in range(2))
    one = step(reducer, *first, 1)
    two = step(reducer, *second, 1)
    fresh = step(ATS(0.5, stable=True), *second, 1)
    assert one is not None
    assert two is not None
    assert fresh is not None
    assert torch.equal(two.index.sort(1).values, fresh.index.sort(1).values)
    assert not torch.equal(two.index, fresh.index)
    stays = (one.index[:, :, None] == two.index[:, None]).any(2)
    assert torch.equal(one.index[stays], two.index[stays])
    reducer.reset()
    again = step(reducer, *second, 1)
    assert again is not None
    assert torch.equal(again.index, fresh.index)
    assert torch.equal(stabilised(torch.tensor([[1, 2]]), torch.tensor([[2, 1], [3, 4]])), torch.tensor([[1, 2]]))


def test_inside_windows_received_attention_stands_in_and_says_so() -> None:
    model, clips = WINDOWS.build()
    fast = attach(model, ATS(0.6, at=(1,)))
    assert "ATS-style (attention received inside windows)" in fast.notes
    run = fast.run(clips, record=True)
    entering = fast.adapter.run(fast.adapter.blocks(model)[0], fast.adapter.embed(model, clips, None))
    crossed = fast.adapter.cross(model, 0, fast.adapter.embed(model, clips, None).with_x(entering))
    assert crossed is not None
    attended = fast.adapter.attend(fast.adapter.blocks(model)[1], crossed.tokens, None)
    assert attended.statistics is not None
    rows = attended.statistics.rows(attended.q, attended.k, attended.scale, received=True, entropy=False)
    assert rows.received is not None
    score = rows.received * attended.v.norm(dim=-1).mean(dim=1)
    ((_, made),) = run.steps
    assert isinstance(made, Keep)
    for row, kept in zip(score.detach(), made.index, strict=True):
        best = sorted(range(60), key=lambda j: -float(row[j]))[:36]
        assert kept.tolist() == sorted(best)


@pytest.mark.parametrize("settings", [{"score": "class"}, {"score": "mean_query"}, {"official": True}])
def test_inside_windows_no_query_sees_all_tokens(settings: dict[str, Any]) -> None:
    model, _ = WINDOWS.build()
    with pytest.raises(Unsupported, match=r"class token|inside windows"):
        attach(model, ATS(0.6, **settings))


def test_the_mean_query_needs_no_pass_over_all_rows() -> None:
    """Where the mean query stands in, received attention is never asked for, although auto declares it."""
    model, clips = VIDEO.build()
    mean, auto = attach(model, ATS(0.6, score="mean_query")), attach(model, ATS(0.6))
    assert torch.equal(mean(clips), auto(clips))
    assert auto.plan is not None
    assert mean.plan is not None
    assert auto.plan.steps == mean.plan.steps
    assert _rows_wanted(auto._actions[0], auto.adapter.embed(model, clips, None)) is None
