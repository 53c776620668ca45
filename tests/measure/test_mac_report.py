"""What a report adds up to."""

from __future__ import annotations

import json

from tokred.measure.mac_report import BLOCK_PARTS, MacReport

BLOCKS = (
    {"attention": 100, "mlp": 200, "norm": 10, "reduction": 5},
    {"attention": 60, "mlp": 120, "norm": 6, "reduction": 0},
)
REPORT = MacReport(
    embed=30, blocks=BLOCKS, final_norm=4, head=7, executed_reduction=9, skipped=20, merging=13, notes=("clamped",)
)


def test_parts_are_sums_over_blocks() -> None:
    assert (REPORT.attention, REPORT.mlp, REPORT.norm, REPORT.reduction) == (160, 320, 20, 5)
    assert [REPORT.block_macs(i) for i in range(2)] == [315, 186]


def test_the_total_is_everything_once_in_the_published_convention() -> None:
    assert REPORT.model == 30 + 160 + 320 + 20 + 13 + 7
    assert REPORT.macs == REPORT.model + 5
    assert REPORT.flops == 2 * REPORT.macs
    assert REPORT.gmac == REPORT.macs / 1e9


def test_what_runs_has_the_own_steps_and_lacks_what_is_skipped() -> None:
    assert REPORT.executed_macs == REPORT.model + 9 - 20
    assert REPORT.lean_macs == REPORT.macs - 20
    without = MacReport(embed=30, blocks=BLOCKS, final_norm=4, head=7)
    assert without.lean_macs == without.macs
    assert without.executed_macs == without.model


def test_shares_and_speed_ups_follow_the_published_convention() -> None:
    whole = MacReport(embed=1110, blocks=(), final_norm=0, head=0)
    assert REPORT.implied_speedup(whole) == 2.0
    assert REPORT.reduction_share == 5 / 555
    assert MacReport(embed=0, blocks=(), final_norm=0, head=0).reduction_share == 0.0


def test_the_dictionary_is_json_with_units_and_leaves_nothing_out() -> None:
    plain = REPORT.as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["total_macs"] == REPORT.macs
    assert plain["merging_macs"] == 13
    assert plain["lean_macs"] == REPORT.lean_macs
    assert plain["notes"] == ["clamped"]
    parts = ("embed", "attention", "mlp", "norm", "head", "merging", "reduction")
    assert sum(int(str(plain[f"{part}_macs"])) for part in parts) == plain["total_macs"]


def test_blocks_have_the_known_parts() -> None:
    assert set(BLOCKS[0]) == set(BLOCK_PARTS)
