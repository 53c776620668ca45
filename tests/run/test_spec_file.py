"""Files of settings: plain values only, nothing silently lost, every problem with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tokred.run.spec_file import SpecError, did_you_mean, dotted, explain, explain_all, parse_yaml, read_yaml


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
    assert "named.a.length: 0 is not at least 1" in told


class Soil(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    depth: float = Field(1.0, gt=0, le=2)
    kind: Literal["sand", "clay"] = "sand"
    layers: list[int] = Field([1], min_length=1, max_length=2)
    wet: bool = False
    name: str = Field("a", pattern="^[a-z]+$", min_length=1)
    mixed: str | dict[str, Any] | None = None
    roots: Tree | None = None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"depth": 0}, "depth: 0 is not above 0"),
        ({"depth": 3}, "depth: 3 is not at most 2"),
        ({"depth": "1"}, "depth: '1' is not a number"),
        ({"kind": "sant"}, "kind: 'sant' is not known; did you mean sand?"),
        ({"layers": []}, "layers: is empty; allowed is at least 1"),
        ({"layers": [1, 2, 3]}, "layers: has 3; allowed is at most 2"),
        ({"layers": 1}, "layers: 1 is not a list"),
        ({"layers": [1.5]}, "layers[0]: 1.5 is not a whole number"),
        ({"layers": None}, "layers: is empty; allowed is a list"),
        ({"wet": 1}, "wet: 1 is not true or false"),
        ({"name": ""}, "name: is empty; allowed is at least 1"),
        ({"name": "B"}, "name: 'B' does not match ^[a-z]+$"),
        ({"mixed": 3}, "mixed: 3 is not text or a mapping (KEY: VALUE)"),
        ({"roots": 3}, "roots: 3 is not a mapping (KEY: VALUE)"),
    ],
)
def test_a_wrong_value_is_told_in_words_with_what_is_allowed(content: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match="Soil") as caught:
        Soil.model_validate(content)
    assert [line for _, line in explain_all(caught.value, Soil, whole="soil")] == [said]


def test_a_long_value_is_cut() -> None:
    with pytest.raises(ValidationError, match="Soil") as caught:
        Soil.model_validate({"wet": "x" * 1000})
    assert len(explain_all(caught.value, Soil, whole="soil")[0][1]) < 120


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
