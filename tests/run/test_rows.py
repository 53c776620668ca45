"""What a comparison will run, before it runs."""

from __future__ import annotations

import pytest

from tokred import list_methods
from tokred.backbones import adapter_for
from tokred.backbones.zoo import create_backbone
from tokred.learned import LearnedReducer
from tokred.run.rows import DEFAULT_BUDGETS, Row, plan_rows
from tokred.spec_text import RegistryError


@pytest.fixture(scope="module")
def host():
    return create_backbone("videomae_vit_nano", pretrained=False)


def rows_of(host, specs=None, budgets=None, **options: bool) -> list[Row]:
    return plan_rows(host, adapter_for(host).geometry(host), specs, budgets, **options)


def test_every_registered_method_at_every_budget_after_the_unreduced_model(host) -> None:
    rows = rows_of(host)
    assert (rows[0].method, rows[0].budget) == ("none", None)
    learned = {name for name, cls in list_methods().items() if issubclass(cls, LearnedReducer)}
    wanted = {(name, share) for name in set(list_methods()) - learned - {"none"} for share in DEFAULT_BUDGETS}
    wanted |= {(name, None) for name in learned}  # untrained here: one refused row each
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


def test_a_learned_method_without_weights_is_one_refused_row_that_says_what_helps(host) -> None:
    rows = rows_of(host, ["dynamicvit", "sta:r=8"])
    assert [(row.spec, row.budget) for row in rows[1:]] == [("dynamicvit", None), ("sta:r=8", None)]
    refused = rows[1]
    assert (refused.model, refused.learned, refused.trained) == (None, True, False)
    assert "dynamicvit has no trained weights" in refused.reason
    for way in ("tokred train", "weights=", "--allow-untrained"):
        assert way in refused.reason
    assert (rows[2].learned, rows[2].trained) == (False, None)


def test_random_parameters_run_where_that_is_allowed_and_say_so(host) -> None:
    rows = rows_of(host, ["dynamicvit", "sta:r=8+dynamicvit:keep=0.7"], [0.5], allow_untrained=True)
    row = rows[1]
    assert row.model is not None
    assert row.trained is False
    assert any("untrained" in note for note in row.notes)
    assert rows_of(host, ["sta:r=8+dynamicvit:keep=0.7"])[1].model is None, "in a composition it is refused too"


def test_unreadable_weights_are_the_reason_of_the_row(host, tmp_path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"nothing")
    for allowed in (False, True):
        row = rows_of(host, [f"dynamicvit:keep=0.7,weights={tmp_path}/w.safetensors"], allow_untrained=allowed)[1]
        assert row.model is None
        assert "no readable safetensors file" in row.reason
