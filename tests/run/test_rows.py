"""What a comparison will run, before it runs."""

from __future__ import annotations

import pytest

from tokred import list_methods
from tokred.backbones import adapter_for
from tokred.backbones.zoo import create_backbone
from tokred.registry import RegistryError
from tokred.run.rows import DEFAULT_BUDGETS, Row, plan_rows


@pytest.fixture(scope="module")
def host():
    return create_backbone("videomae_vit_nano", pretrained=False)


def rows_of(host, specs=None, budgets=None) -> list[Row]:
    return plan_rows(host, adapter_for(host).geometry(host), specs, budgets)


def test_every_registered_method_at_every_budget_after_the_unreduced_model(host) -> None:
    rows = rows_of(host)
    assert (rows[0].method, rows[0].budget) == ("none", None)
    wanted = {(name, share) for name in list_methods() if name != "none" for share in DEFAULT_BUDGETS}
    assert {(row.method, row.budget) for row in rows[1:]} == wanted
    assert all(row.model is not None or row.reason for row in rows)


def test_solved_rows_cost_their_budget_or_say_how_far_off_they_are(host) -> None:
    rows = rows_of(host)
    full = rows[0].report.macs
    for row in rows[1:]:
        if row.model is None:
            continue
        off = abs(row.report.macs / full - row.budget)
        assert off <= 0.02 or any("nearest setting" in note for note in row.notes), row.spec


def test_a_given_strength_runs_as_given_and_others_are_solved(host) -> None:
    rows = rows_of(host, ["sta:r=8", "tome", "evit:tokens=[300,200,100]"])
    assert [(row.method, row.budget) for row in rows[1:]] == [
        ("sta", None),
        ("tome", 0.75),
        ("tome", 0.5),
        ("tome", 0.35),
        ("evit", None),
    ]
    assert rows[1].spec == "sta:r=8"


def test_given_budgets_solve_everything(host) -> None:
    rows = rows_of(host, ["sta:r=8,order=BFB"], [0.6])
    assert [row.budget for row in rows] == [None, 0.6]
    assert "order=BFB" in rows[1].spec
    assert rows[1].spec != "sta:r=8,order=BFB"


def test_an_impossible_setting_is_a_refused_row_with_its_numbers(host) -> None:
    refused = rows_of(host, ["sta:r=64"])[1]
    assert refused.model is None
    assert "64" in refused.reason


def test_an_unknown_name_stops_everything(host) -> None:
    with pytest.raises(RegistryError, match="stta"):
        rows_of(host, ["sta", "stta"])
