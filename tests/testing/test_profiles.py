from __future__ import annotations

import pytest

from tokred.testing.profiles import PROFILES, profile_of


def test_profiles_are_chosen_by_name_and_deep_is_short_for_one() -> None:
    assert profile_of(None, deep=False) is PROFILES["default"]
    assert profile_of("ci", deep=False).steps == 300
    assert profile_of(None, deep=True) is profile_of("deep", deep=True) is PROFILES["deep"]
    assert PROFILES["deep"].steps == 10_000
    with pytest.raises(ValueError, match="profile = 'night' is not one of default, ci, deep"):
        profile_of("night", deep=False)
