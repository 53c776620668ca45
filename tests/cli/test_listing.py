"""``tokred list`` names everything that can be used."""

from __future__ import annotations

import json
from collections.abc import Callable

from tokred import list_methods

Call = Callable[..., tuple[int, str, str]]


def test_every_method_is_listed_with_its_purpose(tokred: Call) -> None:
    status, out, _ = tokred("list", "methods", "--json")
    assert status == 0
    methods = json.loads(out)["methods"]
    assert set(methods) == set(list_methods())
    assert all(methods.values())


def test_the_table_has_all_four_kinds(tokred: Call) -> None:
    status, out, _ = tokred("list")
    assert status == 0
    for word in (
        "methods:",
        "backbones:",
        "data:",
        "experiments:",
        "sta",
        "videomae_vit_nano",
        "synthetic",
        "train_nano",
    ):
        assert word in out
