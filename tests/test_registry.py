from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokred
from tokred import registry
from tokred.methods import STA, Unreduced
from tokred.registry import Broken, build, get, register
from tokred.spec_text import RegistryError, split_specs

MINE = """
from __future__ import annotations
import tokred
from tokred.methods import TopK

class Mine(TopK):
    def __init__(self, keep: float = 0.5, sizes: tuple[int, ...] = ()) -> None:
        super().__init__(keep)

class Other(TopK):
    pass
"""


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A registry that may be written on."""
    monkeypatch.setattr(registry, "_METHODS", dict(tokred.list_methods()))
    monkeypatch.setattr(registry, "_BROKEN", [])
    yield
    for method in ("sta", "none"):
        registry.get(method).method = method


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def plug_in(monkeypatch: pytest.MonkeyPatch, *entries: tuple[str, Any]) -> None:
    """Entry points whose load gives the value, or raises it."""

    def load(value: Any) -> Any:
        if isinstance(value, BaseException):
            raise value
        return value

    found = [
        SimpleNamespace(name=name, dist=SimpleNamespace(name=f"plug-{name}", version="1.2"), load=lambda v=v: load(v))
        for name, v in entries
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: found if group == "tokred.methods" else [])
    monkeypatch.setattr(registry, "_loaded", False)


def test_the_built_in_methods_are_those_that_the_package_exports() -> None:
    built_in = {cls for cls in tokred.list_methods().values() if cls.__module__.startswith("tokred.methods")}
    assert built_in == {getattr(tokred.methods, name) for name in tokred.methods.__all__}
    assert {"sta", "tome", "evit", "none"} <= set(tokred.list_methods())
    assert all(cls.method == name for name, cls in tokred.list_methods().items())


@pytest.mark.usefixtures("fresh")
class TestRegister:
    def test_the_decorator_keeps_the_class(self) -> None:
        class Mine(Unreduced):
            pass

        assert register("mine_2")(Mine) is Mine
        assert get("mine_2") is Mine
        assert build("mine_2").spec == "mine_2"

    def test_a_duplicate_is_refused_with_both_owners(self) -> None:
        class Mine(Unreduced):
            pass

        with pytest.raises(RegistryError, match=r"'sta' is registered by .*methods\.sta\.STA and again by .*\.Mine"):
            register("sta")(Mine)
        assert get("sta") is STA

    def test_a_class_may_be_registered_again_when_its_module_is_read_again(self) -> None:
        again = type("STA", (STA,), {"__module__": STA.__module__, "__qualname__": "STA"})
        assert register("sta")(again) is again

    @pytest.mark.parametrize("name", ["", "Sta", "my-method", "1st", "a b", "a:b"])
    def test_a_bad_name_is_refused(self, name: str) -> None:
        with pytest.raises(RegistryError, match="must be lower case letters, digits and underscores"):
            register(name)

    def test_what_is_not_a_reducer_class_is_refused(self) -> None:
        for wrong in (int, lambda: None, STA(r=1)):
            with pytest.raises(RegistryError, match="it is not a TokenReducer class"):
                register("wrong")(wrong)  # type: ignore[type-var]


@pytest.mark.usefixtures("fresh")
class TestPlugins:
    def test_a_plug_in_is_a_class_or_a_module_that_registers_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Mine(Unreduced):
            pass

        plug_in(monkeypatch, ("mine", Mine), ("others", ModuleType("others")))
        assert tokred.list_methods()["mine"] is Mine
        assert registry.broken_plugins() == ()

    def test_one_broken_plug_in_does_not_kill_the_rest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Mine(Unreduced):
            pass

        plug_in(
            monkeypatch,
            ("torn", ImportError("no module named 'x'")),
            ("leaving", SystemExit(3)),
            ("sta", Mine),
            ("odd", print),
            ("mine", Mine),
        )
        assert "mine" in tokred.list_methods()
        assert get("sta") is STA
        reasons = {b.name: b.reason for b in registry.broken_plugins()}
        assert reasons.keys() == {"torn", "leaving", "sta", "odd"}
        assert reasons["torn"] == "ImportError: no module named 'x'"
        assert reasons["leaving"] == "SystemExit: 3"
        assert "registered by" in reasons["sta"]
        assert "is not a TokenReducer class" in reasons["odd"]
        assert registry.broken_plugins()[0] == Broken("torn", "plug-torn 1.2", reasons["torn"])

    def test_asking_for_a_broken_plug_in_says_why_it_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        plug_in(monkeypatch, ("torn", ImportError("no module named 'x'")))
        with pytest.raises(RegistryError, match=r"'torn' is in plug-torn 1\.2, which could not be loaded: I"):
            build("torn")


def test_an_unknown_method_is_answered_with_close_matches_and_the_list() -> None:
    with pytest.raises(
        RegistryError, match=r"unknown method 'tme': did you mean tome\? known are .*evit, fewer_frames"
    ):
        get("tme")
    with pytest.raises(RegistryError, match=r"unknown method 'random': did you mean random_drop or"):
        get("random")
    with pytest.raises(RegistryError, match=r"unknown method 'zzz': known are"):
        build("zzz:r=3")


@pytest.mark.parametrize(
    ("spec", "config"),
    [
        ("sta", {"r": 0}),
        ("sta:", {"r": 0}),
        ("sta:r=4", {"r": 4}),
        ("sta: r = 4 , order = BFB", {"r": 4, "order": "BFB"}),
        ("sta:r=[4,2,1],at=(0,1,2)", {"r": (4, 2, 1), "at": (0, 1, 2)}),
        ("stvit_r:layer_scale=1,side=2", {"layer_scale": 1.0, "side": 2}),
        ("tome:keep=0.75,proportional=True", {"keep": 0.75, "proportional": True}),
        ("evit:tokens=none,keep=1e-1,fuse=false", {"tokens": None, "keep": 0.1, "fuse": False}),
    ],
)
def test_specs_are_read(spec: str, config: dict[str, Any]) -> None:
    built = build(spec).config
    assert {name: built[name] for name in config} == config
    assert {name: type(built[name]) for name in config} == {name: type(value) for name, value in config.items()}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sta:4", r"'sta:4': '4' is not key=value"),
        ("sta:r=4,r=5", r"'sta:r=4,r=5': r is given twice"),
        ("sta:oder=B", r"unknown setting 'oder' \(did you mean order\?\): allowed are r, at, schedule"),
        ("sta:zzz=4", r"unknown setting 'zzz': allowed are r, at"),
        ("none:r=4", r"unknown setting 'r': allowed are none"),
        ("sta:r=-4", r"'sta:r=-4': drop = -4 is not a whole number of at least 0"),
        ("sta:r=[4,2", r"r = '\[4,2' is not a whole number or a list of whole numbers"),
        ("sta:at=3", r"at = 3 is not a word or a list of whole numbers"),
        ("evit:fuse=no", r"fuse = 'no' is not true or false"),
        ("sta:order=FXB", r"order = 'FXB' is not a string of F"),
        ("random_drop:seed=x", r"seed = 'x' is not a whole number"),
        ("no.such.module:Mine", r"importing no.such.module failed: ModuleNotFoundError"),
        ("tokred.methods:Nobody", r"tokred.methods has no TokenReducer class 'Nobody'; it has .*STA"),
        ("tokred.methods", r"tokred.methods has no TokenReducer class ''; it has"),
        ("tokred.plan:Plan", r"tokred.plan has no TokenReducer class 'Plan'; it has none"),
        ("nowhere/mine.py:Mine", r"there is no file nowhere/mine.py"),
        ("sta:r=4+zzz", r"unknown method 'zzz'"),
    ],
)
def test_a_wrong_spec_is_one_line_that_says_what_is_allowed(spec: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message) as caught:
        build(spec)
    assert "\n" not in str(caught.value)


def test_a_class_from_a_file(file: Path) -> None:
    reducer = build(f"{file}:Mine:keep=0.25,sizes=[1,2]")
    assert reducer.spec == f"{file}:Mine:keep=0.25,sizes=[1,2]"
    assert build(reducer.spec).config == reducer.config
    assert type(build(f"{file}:Mine")) is type(reducer), "a file is read once"
    with pytest.raises(RegistryError, match="has no TokenReducer class 'Nobody'; it has TopK, Mine, Other"):
        build(f"{file}:Nobody")


def test_a_file_that_fails_is_reported_and_read_again_next_time(file: Path) -> None:
    good = file.read_text()
    file.write_text("raise OSError('disk')")
    with pytest.raises(RegistryError, match=r"importing .*mine\.py failed: OSError: disk"):
        build(f"{file}:Mine")
    assert not any(
        name.startswith("_tokred_file_mine") and getattr(m, "__file__", "") == str(file)
        for name, m in sys.modules.items()
    )
    file.write_text(good)
    assert build(f"{file}:Mine").config["keep"] == 0.5


def test_a_class_from_a_module() -> None:
    assert build("tokred.methods.sta:STA:r=3").spec == "sta:r=3"


@pytest.mark.parametrize(
    ("text", "specs"),
    [
        ("", []),
        ("sta", ["sta"]),
        ("sta,tome", ["sta", "tome"]),
        ("sta:r=4,order=BFB,tome:r=6,pool=mean,none", ["sta:r=4,order=BFB", "tome:r=6,pool=mean", "none"]),
        ("sta,r=4,tome", ["sta:r=4", "tome"]),
        ("sta:r=[4,2,1],at=(0,1,2), tome ", ["sta:r=[4,2,1],at=(0,1,2)", "tome"]),
        ("a.b:C,r=3,x/y.py:D:k=1,l=2", ["a.b:C:r=3", "x/y.py:D:k=1,l=2"]),
        ("sta:r=1+tome,r=3,evit", ["sta:r=1+tome:r=3", "evit"]),
        ("sta:r=1,order=F+tome:r=3,pool=mean", ["sta:r=1,order=F+tome:r=3,pool=mean"]),
    ],
)
def test_lists_of_specs_are_split_where_a_new_method_begins(text: str, specs: list[str]) -> None:
    assert split_specs(text) == specs


SPECS = st.sampled_from(
    ["none", "sta:r=4", "sta:r=[4,2,1],order=BFB", "tome:keep=0.75", "evit:keep=0.5,fuse=false", "topk:at=[0,1]"]
)


@given(st.lists(st.lists(SPECS, min_size=1, max_size=3), min_size=1, max_size=4))
def test_joining_and_splitting_gives_the_same_specs(groups: list[list[str]]) -> None:
    specs = ["+".join(group) for group in groups]
    assert split_specs(",".join(specs)) == specs
    assert split_specs(" , ".join(specs)) == specs


def test_a_registered_class_of_a_file_is_named_by_the_file_so_that_any_process_finds_it(
    fresh: None, file: Path
) -> None:
    file.write_text(MINE.replace("class Mine", "@tokred.register('mine_too')\nclass Mine"))
    built = build(f"{file}:Mine:keep=0.25")
    assert built.method == "mine_too"
    assert built.spec == f"{file}:Mine:keep=0.25"
    assert build("mine_too:keep=0.25").spec == built.spec


def test_an_edited_file_takes_its_registered_name_along(fresh: None, file: Path, tmp_path: Path) -> None:
    text = MINE.replace("class Mine", "@tokred.register('mine_too')\nclass Mine")
    file.write_text(text)
    before = type(build(f"{file}:Mine"))
    file.write_text(text + "\n# edited\n")
    after = type(build(f"{file}:Mine"))
    assert before is not after
    assert registry.get("mine_too") is after
    (tmp_path / "other.py").write_text(text)
    with pytest.raises(RegistryError, match=r"method 'mine_too' is registered by .* and again by"):
        build(f"{tmp_path / 'other.py'}:Mine")


def test_a_module_without_a_dot_is_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "plainmodule.py").write_text(MINE)
    assert build("plainmodule:Mine:keep=0.25").spec == "plainmodule:Mine:keep=0.25"
    assert registry.with_settings("plainmodule:Mine:keep=0.5", {"keep": 0.25}) == "plainmodule:Mine:keep=0.25"
    assert split_specs("plainmodule:Mine,keep=0.25,sta") == ["plainmodule:Mine:keep=0.25", "sta"]
    with pytest.raises(RegistryError, match=r"json has no TokenReducer class 'loads'"):
        build("json:loads")
    with pytest.raises(RegistryError, match=r"there is no module 'nosuchmodule', and unknown method"):
        build("nosuchmodule:Mine")
