"""``tokred list`` names everything that can be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tokred import list_methods

Call = Callable[..., tuple[int, str, str]]


def test_every_method_is_listed_with_its_purpose(tokred: Call) -> None:
    status, out, _ = tokred("list", "methods", "--json")
    assert status == 0
    methods = json.loads(out)["methods"]
    assert set(methods) == set(list_methods())
    assert all(methods.values())


def test_the_status_of_a_method_is_that_of_its_page(tokred: Call) -> None:
    methods = json.loads(tokred("list", "methods", "--json")[1])["methods"]
    pages = (Path(__file__).parents[2] / "docs" / "methods" / "README.md").read_text()
    for name, text in methods.items():
        (row,) = [line for line in pages.splitlines() if line.startswith("|") and f"`{name}`" in line]
        status = text[1 : text.index("]")]
        for word in status.split("; "):
            told = {"baseline": "definitions of ours"}.get(word, word)
            assert told in row, f"{name} is listed as {status}, its page says {row}"


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


def test_sweeps_are_listed_with_their_profiles(tokred: Call) -> None:
    found = json.loads(tokred("list", "experiments", "--json")[1])["experiments"]
    sweeps = {name: text for name, text in found.items() if text.endswith("]")}
    assert sweeps
    assert all(text.endswith("[nano, full]") for text in sweeps.values())
    assert not found["train_nano.yaml"].endswith("]")
