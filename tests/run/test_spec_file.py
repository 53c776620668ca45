"""Files of settings: plain values only, nothing silently lost, every problem with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tokred.run.spec_file import SpecError, did_you_mean, dotted, explain, parse_yaml, read_yaml


class Leaf(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["leaf"] = "leaf"
    length: int = Field(1, ge=1)


class Tree(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    leaves: list[Leaf] = []
    named: dict[str, Leaf] = {}
    crown: Leaf | None = None


def problems(content: object) -> list[str]:
    with pytest.raises(ValidationError, match="Tree") as caught:
        Tree.model_validate(content)
    return [explain(problem, Tree, whole="tree")[1] for problem in caught.value.errors()]


def test_every_problem_has_its_place_and_close_matches() -> None:
    told = problems({"leaves": [{}, {"lenght": 2}], "named": {"a": {"length": 0}}, "crown": {"lengt": 1}, "nmae": "x"})
    assert "leaves[1].lenght: unknown key; did you mean length?" in told
    assert "crown.lengt: unknown key; did you mean length?" in told
    assert "nmae: unknown key; did you mean name or named?" in told
    assert "name: missing" in told
    assert any(line.startswith("named.a.length: ") and line.endswith("(given: 0)") for line in told)


def test_a_word_without_a_close_match_gets_the_whole_list() -> None:
    assert did_you_mean("qqq", ["size", "name"]) == "allowed: name, size"
    assert did_you_mean("nam", ["size", "name"]) == "did you mean name?"


def test_places_are_written_as_in_python() -> None:
    assert dotted(("axes", 1, "reducer.r", 0)) == "axes[1].reducer.r[0]"


def test_a_key_that_is_given_twice_is_refused() -> None:
    with pytest.raises(SpecError, match="'a' is given twice"):
        parse_yaml("x: {a: 1, b: 2, a: 3}", "file")


def test_aliases_and_merged_keys_are_allowed() -> None:
    assert parse_yaml("a: &x {r: 1}\nb: {<<: *x, s: 2}", "file") == {"a": {"r": 1}, "b": {"r": 1, "s": 2}}


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30)),
        "a: &a [*a]",
        "[" * 1500,
        "!!python/object/apply:os.getcwd []",
        "a: [",
        "a: 2001-99-99",
    ],
    ids=["bomb", "circle", "deep", "object", "open", "date"],
)
def test_what_is_no_plain_file_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="cannot be read as YAML"):
        parse_yaml(text, "file")


def test_a_file_that_is_missing_too_large_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        read_yaml(tmp_path / "missing.yaml")
    large = tmp_path / "large.yaml"
    large.write_text("# " + "x" * 1_000_001)
    with pytest.raises(SpecError, match="allowed are 1000000"):
        read_yaml(large)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00x")
    with pytest.raises(SpecError, match="cannot be read"):
        read_yaml(binary)
