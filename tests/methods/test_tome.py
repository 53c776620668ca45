"""ToMe: merging by masses, schedules, clamps, prefix tokens (the matching itself: tests/test_matching.py)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokred.advance import advance
from tokred.attach import attach
from tokred.backbones.geometry import Geometry
from tokred.methods import ToMe
from tokred.probe import Probe
from tokred.reducer import Site
from tokred.schedule import ScheduleError, Step
from tokred.settings import SettingError
from tokred.testing import default_backbones
from tokred.tokens import Grid, Tokens

VIDEO, IMAGE, *_ = default_backbones()
GEOMETRY = Geometry(
    depth=6, dim=24, heads=3, head_dim=8, mlp_hidden=48, grid=Grid(4, 4, 6), prefix=0, classes=7, kernel=(2, 4, 4)
)


@given(st.integers(2, 14), st.integers(0, 2), st.integers(0, 9), st.integers(0, 9999))
def test_a_step_is_the_mean_by_mass_of_the_best_pairs(n: int, prefix: int, r: int, seed: int) -> None:
    """One step against loops: proposals by the cosine of head-mean keys, the r best merge, masses add up."""
    g = torch.Generator().manual_seed(seed)
    total = prefix + n
    x, size = torch.randn(1, total, 3, generator=g), torch.randint(1, 5, (1, total), generator=g).float()
    k = torch.randn(1, 2, total, 4, generator=g)
    tokens = Tokens(x, Grid(1, 1, n), prefix, size=size)
    reducer = ToMe(r=r)
    probe = Probe(x, k, k, k, prefix=prefix, needs=reducer.capabilities.needs)
    step = Step(0, 0, "drop", r)
    merge = reducer.reduce(tokens, probe, Site("after_attention", step, 6, 1))
    merged = min(r, n // 2)
    if merged == 0:
        assert merge is None
        return
    assert merge is not None
    after = advance(tokens, merge)

    keys = k[0].mean(0).double()
    keys = keys / keys.norm(dim=1, keepdim=True)
    even = [i for i in range(0, total, 2) if i >= prefix]
    odd = [i for i in range(1, total, 2) if i >= prefix]
    best = {i: max((float(keys[i] @ keys[j]), j) for j in odd) for i in even}
    ranked = sorted(even, key=lambda i: -best[i][0])
    groups = {j: [j] for j in odd}
    for i in ranked[:merged]:
        groups[best[i][1]].append(i)
    rest = sorted(ranked[merged:]) if prefix else ranked[merged:]
    members = [[i] for i in range(prefix)] + [[i] for i in rest] + [groups[j] for j in odd]
    assert after.count == len(members)
    assert after.size is not None
    for place, group in enumerate(members):
        mass = size[0, group]
        assert float(after.size[0, place]) == float(mass.sum())
        torch.testing.assert_close(after.x[0, place], (x[0, group] * mass[:, None]).sum(0) / mass.sum())


def counts(reducer: ToMe, n: int = 96) -> list[int]:
    found = []
    for step in reducer.schedule.steps(6):
        n = reducer.promise(step, n, None, GEOMETRY).left
        found.append(n)
    return found


def test_every_schedule() -> None:
    assert counts(ToMe(r=10)) == [86, 76, 66, 56, 46, 36]
    assert counts(ToMe(r=10, inflection=-1)) == [76, 60, 48, 40, 36, 36]
    assert counts(ToMe(r=(8, 0, 3))) == [88, 88, 85, 85, 85, 85]
    assert counts(ToMe(r=8, at=(1, 4))) == [88, 80]
    assert counts(ToMe(keep=0.5)) == [48, 24, 12, 6, 3, 2]


def test_a_large_r_is_clamped_to_half_and_saturates() -> None:
    """The official code does it in silence; here it is told."""
    assert counts(ToMe(r=20), 64) == [44, 24, 12, 6, 3, 2]
    notes = ToMe(r=40).check(GEOMETRY)
    assert [note.partition(", ")[0] for note in notes] == [
        "block 1: r = 40 clamped to 28",
        "block 2: r = 40 clamped to 14",
        "block 3: r = 40 clamped to 7",
        "block 4: r = 40 clamped to 3",
        "block 5: r = 40 clamped to 2",
    ]
    assert ToMe(r=14).check(GEOMETRY) != []
    assert ToMe(r=13).check(GEOMETRY) == []


@pytest.mark.parametrize("backbone", [VIDEO, IMAGE], ids=lambda b: b.name)
@torch.no_grad()
def test_masses_are_none_before_the_first_merge_and_add_up_after_it(backbone: Any) -> None:
    host, clips = backbone.build()
    fast = attach(host, ToMe(r=(0, 9)))
    run = fast.run(clips, record=True)
    (site, merge), _ = run.steps[0], run.tokens
    assert site.block == 1
    assert merge.masses(None) is not None
    assert run.tokens.size is not None
    assert torch.equal(run.tokens.size.sum(1), torch.full((3,), float(fast.geometry.tokens)))
    assert attach(host, ToMe()).run(clips).tokens.size is None


@torch.no_grad()
def test_proportional_attention_changes_later_blocks_only() -> None:
    host, clips = VIDEO.build()
    plain = attach(host, ToMe(r=(9, 0, 0)))(clips)
    proportional = attach(host, ToMe(r=(9, 0, 0), proportional=True))(clips)
    assert (plain - proportional).abs().max() > 1e-3
    last = attach(host, ToMe(r=(0, 0, 9)))(clips)
    assert torch.equal(attach(host, ToMe(r=(0, 0, 9), proportional=True))(clips), last)


@torch.no_grad()
def test_pooling_by_mass_or_by_token() -> None:
    host, clips = VIDEO.build()
    by_mass, by_token = (attach(host, ToMe(r=(20,), pool=pool)).run(clips) for pool in ("mass", "mean"))
    assert torch.equal(by_mass.tokens.x, by_token.tokens.x)
    assert (by_mass.logits - by_token.logits).abs().max() > 1e-3
    x, size = by_mass.tokens.x, by_mass.tokens.size
    assert size is not None
    pooled = host.fc_norm((x * size[..., None]).sum(1) / 96)  # type: ignore[operator]
    torch.testing.assert_close(by_mass.pooled, pooled)
    torch.testing.assert_close(by_token.pooled, host.fc_norm(x.mean(1)))  # type: ignore[operator]


def test_strength() -> None:
    whole = ToMe().strength_range(GEOMETRY)
    assert (whole.name, whole.weakest, whole.whole) == ("r", 0, True)
    assert whole.strongest == 48
    share = ToMe(keep=0.9).strength_range(GEOMETRY)
    assert (share.name, share.weakest, share.strongest, share.whole) == ("keep", 1.0, 0.5, False)
    assert counts(ToMe(keep=0.9).with_(keep=1.0)) == 6 * [96]


@pytest.mark.parametrize("tokens", [96, 97])
def test_a_step_costs_the_similarities_of_even_with_odd_tokens(tokens: int) -> None:
    even, odd = len(range(0, tokens, 2)), len(range(1, tokens, 2))
    assert ToMe(r=3).macs(tokens, GEOMETRY, Step(0, 0, "drop", 3)) == even * odd * 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 3, "keep": 0.7}, r"give r \(with inflection\) or keep, not both: r = 3, keep = 0.7"),
        ({"inflection": 0.5, "keep": 0.7}, "not both"),
        ({"keep": 0.4}, r"keep = 0.4 is not in \[0.5, 1\]: one step merges at most half of the tokens"),
        ({"pool": "max"}, "pool = 'max' is not one of mass, mean"),
        ({"r": 4, "inflection": 2}, r"inflection = 2 is not in \[-1, 1\]"),
        ({"r": (4, 2), "inflection": 0.5}, r"shape = 0.5 needs a single drop, not drop = \(4, 2\)"),
    ],
)
def test_wrong_settings_are_refused_when_it_is_made(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        ToMe(**settings)


def test_an_inflection_is_a_number_and_not_a_shape_of_another_method() -> None:
    with pytest.raises(SettingError, match="inflection = nan is not a number"):
        ToMe(r=8, inflection=float("nan"))
    with pytest.raises(SettingError, match="inflection = 'decreasing' is not a number"):
        ToMe(r=8, inflection="decreasing")  # type: ignore[arg-type]
