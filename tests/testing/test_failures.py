from __future__ import annotations

import pytest

from tokred.testing.failures import Broken, expect


def test_expect_says_what_came_only_when_it_does_not_hold() -> None:
    expect(True, "anything", "nothing")
    with pytest.raises(Broken, match="expected 3 tokens; got 4") as caught:
        expect(False, "3 tokens", 4)
    assert (caught.value.expected, caught.value.got) == ("3 tokens", "4")
