"""Every registered method on every family of hosts: the clauses that a host can break."""

from __future__ import annotations

import pytest
from testing.other_hosts import OTHERS

import tokred
from tokred.testing import CHECKS, Backbone
from tokred.testing.contract import case_of, run_check
from tokred.testing.failures import Outcome

METHODS = {n: c for n, c in tokred.list_methods().items() if c.__module__.startswith("tokred.methods")}

ABOUT_HOSTS = {
    "check_identity_at_zero",
    "check_blocks_taken_apart",
    "check_pooling",
    "check_token_count_is_scheduled",
    "check_mass_conserved",
    "check_order_and_prefix_kept",
    "check_restore",
    "check_batch_independence",
    "check_detach_leaves_nothing",
    "check_inference_mode",
}

# (method, host) -> words of every failure there, and why it cannot be otherwise. Strict: where nothing fails any more,
# the test does until the entry is taken out.
EXPECTED_FAILURES: dict[tuple[str, str], tuple[str, str]] = {
    (method, "torchvision"): (
        "torchvision backbone",
        "the host does not say which clips it is for, so 32 x 224 x 224 is taken",
    )
    for method in ("fewer_frames", "lower_resolution")
}

# (method, host) -> words with which the host is refused. Strict as well.
REFUSED = {
    ("fewer_frames", "vivit"): "this backbone sees one frame",
    ("fewer_frames", "average"): "this backbone sees one frame",
    ("sta_window", "vivit"): "needs a backbone with window attention",
    ("sta_window", "average"): "needs a backbone with window attention",
    ("sta_window", "huggingface"): "needs a backbone with window attention",
    ("eventful", "huggingface"): "are not computed token by token here",
    ("eventful", "torchvision"): "are not computed token by token here",
    ("stvit_r", "torchvision"): "on backbones of one grid",
}


@pytest.mark.parametrize("host", OTHERS, ids=lambda host: host.name)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_the_contract_on_every_family_of_hosts(method: str, host: Backbone) -> None:
    case = case_of(METHODS[method], host)
    if isinstance(case, str):
        assert REFUSED.get((method, host.name), "not expected to be refused") in case
        return
    assert (method, host.name) not in REFUSED, "it is accepted by now: take the entry out"
    outcomes = [case] if isinstance(case, Outcome) else [run_check(c, case) for c in CHECKS if c.name in ABOUT_HOSTS]
    failed = [outcome.detail for outcome in outcomes if outcome.status == "failed"]
    if (method, host.name) in EXPECTED_FAILURES:
        words, reason = EXPECTED_FAILURES[method, host.name]
        assert failed, f"it passes by now, in spite of: {reason}"
        failed = [detail for detail in failed if words not in detail]
    assert not failed, "\n\n".join(failed)


def test_no_entry_names_what_is_not_there() -> None:
    for method, host in (*EXPECTED_FAILURES, *REFUSED):
        assert method in METHODS
        assert host in {"vivit", "average", "huggingface", "torchvision"}
