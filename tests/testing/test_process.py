from __future__ import annotations

import pytest
from testing.zoo import spec

from tokred.methods import DynamicViT, FewerFrames, TopK
from tokred.registry import build
from tokred.testing import Profile, run_checks
from tokred.testing.failures import NotApplicable
from tokred.testing.process import digest, expect_same_elsewhere

ANOTHER = Profile("another", 1, another=True)


def test_a_method_decides_the_same_in_another_process_and_one_that_reads_its_number_does_not() -> None:
    expect_same_elsewhere(TopK())
    outcomes = run_checks(build(spec("ProcessSeed")), only="check_determinism", profile=ANOTHER)
    (elsewhere,) = (outcome for outcome in outcomes if outcome.backbone == "process")
    assert elsewhere.status == "failed"
    assert "the same decisions in another process" in elsewhere.detail
    assert elsewhere.detail.endswith("only='check_determinism', profile='ci')")


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(NotApplicable, match="drawn anew"):
        expect_same_elsewhere(DynamicViT())
    with pytest.raises(NotApplicable, match="decides nothing"):
        expect_same_elsewhere(FewerFrames())


def test_the_digest_is_of_decisions() -> None:
    assert digest(TopK(keep=0.5)) == digest(TopK(keep=0.5)) != digest(TopK(keep=0.4))
    assert digest(FewerFrames()) == ""
    assert digest(TopK()) != "", "its defaults do nothing: half of its strength does"
