from __future__ import annotations

import pytest

from tokred.capabilities import Capabilities, Site
from tokred.schedule import ScheduleError, Step


def test_an_unknown_need_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"needs \['keys'\] is not known; known are .*'key'.*frames, class_token"):
        Capabilities(needs=frozenset({"keys", "key"}))


def test_a_site_reads_its_step() -> None:
    site = Site("after_block", Step(3, 1, "keep", 0.5), 12, 8)
    assert (site.block, site.index, site.left(7)) == (3, 1, 4)
    with pytest.raises(ScheduleError, match="impossible with 5 tokens"):
        Site("after_block", Step(3, 1, "drop", 5), 12, 8).left(5)
