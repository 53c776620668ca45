"""Names of methods: a typed decorator, lazily loaded plug-ins, and strings that build reducers."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, get_args, get_type_hints

from tokred.reducer import TokenReducer
from tokred.spec_text import RegistryError, is_path, parse_settings, spec_value, split_outside_brackets

GROUP = "tokred.methods"
"""Entry-point group of plug-ins: an entry point names a module (which registers itself) or a TokenReducer class."""

R = TypeVar("R", bound=type[TokenReducer])


@dataclass(frozen=True)
class Broken:
    """A plug-in that could not be loaded: its entry point, its distribution with version, and why."""

    name: str
    distribution: str
    reason: str


_METHODS: dict[str, type[TokenReducer]] = {}
_BROKEN: list[Broken] = []
_loaded = False


def register(name: str) -> Callable[[R], R]:
    """Class decorator: make a reducer known under ``name``.

    Args:
        name: lower case letters, digits and underscores.
    Raises:
        RegistryError: a bad name, or a name taken by another class (both owners are named).
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise RegistryError(f"method name {name!r} must be lower case letters, digits and underscores")

    def decorate(cls: R) -> R:
        if not (isinstance(cls, type) and issubclass(cls, TokenReducer)):
            raise RegistryError(f"{cls!r} cannot be registered as {name!r}: it is not a TokenReducer class")
        owner = _METHODS.get(name)
        if owner is not None and _path(owner) != _path(cls) and not _same_file(owner, cls):
            raise RegistryError(f"method {name!r} is registered by {_path(owner)} and again by {_path(cls)}")
        _METHODS[name] = cls
        cls.method = name
        return cls

    return decorate


def list_methods() -> dict[str, type[TokenReducer]]:
    """All known methods by name: the built-in ones and those of installed plug-ins."""
    _load()
    return dict(sorted(_METHODS.items()))


def broken_plugins() -> tuple[Broken, ...]:
    """Plug-ins that failed to load; the others work on."""
    _load()
    return tuple(_BROKEN)


def get(name: str) -> type[TokenReducer]:
    """The class of a method.

    Raises:
        RegistryError: unknown, with close matches and the whole list.
    """
    known = list_methods()
    if name in known:
        return known[name]
    for plugin in broken_plugins():
        if plugin.name == name:
            raise RegistryError(
                f"method {name!r} is in {plugin.distribution}, which could not be loaded: {plugin.reason}"
            )
    raise RegistryError(_unknown(name))


def _unknown(name: str) -> str:
    known = list_methods()
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"unknown method {name!r}: {hint}known are {', '.join(known)}"


def build(spec: str) -> TokenReducer:
    """A reducer from a string.

    Args:
        spec: ``name``, ``name:key=value,...``, ``package.module:Class`` or ``FILE.py:Class`` (both may be followed
            by ``:key=value,...``), or several joined by ``+`` (composed in that order).
    Raises:
        RegistryError: with what was wrong and what is allowed.
    """
    from tokred.compose import compose

    pieces = split_outside_brackets(spec, "+")
    if len(pieces) > 1:
        return compose(*(build(piece) for piece in pieces))
    cls, rest = _class_of(spec)
    return _construct(cls, parse_settings(rest, spec), spec)


def class_or_reducer(spec: str) -> type[TokenReducer] | TokenReducer:
    """The class where a spec gives no settings, else the reducer; for checks that choose settings of their own.

    Raises:
        RegistryError: see ``build``.
    """
    if len(split_outside_brackets(spec, "+")) > 1:
        return build(spec)
    cls, rest = _class_of(spec)
    return _construct(cls, parse_settings(rest, spec), spec) if rest else cls


def with_settings(spec: str, changes: Mapping[str, Any]) -> str:
    """A spec with settings changed or added; nothing is built.

    Raises:
        RegistryError: a composition, whose parts have settings of their own.
    """
    if not changes:
        return spec
    if len(split_outside_brackets(spec, "+")) > 1:
        raise RegistryError(f"{spec!r} is a composition: {', '.join(changes)} may belong to any of its parts")
    head, settings = taken_apart(spec)
    settings |= changes
    return f"{head}:{','.join(f'{key}={spec_value(value)}' for key, value in settings.items())}"


def taken_apart(spec: str) -> tuple[str, dict[str, Any]]:
    """What names the method of one spec, and its settings as written; nothing is loaded.

    Raises:
        RegistryError: settings that cannot be read.
    """
    head, _, rest = spec.strip().partition(":")
    if names_a_class(head, rest):
        name, _, rest = rest.partition(":")
        head = f"{head}:{name}"
    return head, parse_settings(rest, spec)


def names_a_class(head: str, rest: str) -> bool:
    """Whether what stands before a spec's first colon is a module or a file, and a class name behind it."""
    name = rest.partition(":")[0].strip()
    return is_path(head) or (head.isidentifier() and name.isidentifier() and head not in list_methods())


def _class_of(spec: str) -> tuple[type[TokenReducer], str]:
    """The class that one spec names, and its settings as written."""
    head, _, rest = spec.strip().partition(":")
    if names_a_class(head, rest):
        if not is_path(head) and importlib.util.find_spec(head) is None:
            raise RegistryError(f"{spec!r}: there is no module {head!r}, and {_unknown(head)}")
        name, _, settings = rest.partition(":")
        return _import_class(head, name.strip(), spec), settings
    return get(head), rest


def _construct(cls: type[TokenReducer], settings: dict[str, Any], spec: str) -> TokenReducer:
    allowed = list(inspect.signature(cls.__init__).parameters)[1:]
    for key in settings:
        if key not in allowed:
            close = difflib.get_close_matches(key, allowed, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise RegistryError(f"{spec!r}: unknown setting {key!r}{hint}: allowed are {', '.join(allowed) or 'none'}")
    try:
        return cls(**_numbers_as_declared(cls, settings))
    except (ValueError, TypeError) as error:
        raise RegistryError(f"{spec!r}: {error}") from error


def _numbers_as_declared(cls: type[TokenReducer], settings: dict[str, Any]) -> dict[str, Any]:
    """Whole numbers as float where only that is declared: "1" is how a spec writes 1.0."""
    try:
        hints = get_type_hints(cls.__init__)
    except (NameError, AttributeError, TypeError, SyntaxError):
        return settings  # a stranger's annotations may name what is not there; they decide nothing but this
    wanted = {key for key, hint in hints.items() if float in (hint, *get_args(hint)) and int not in get_args(hint)}
    return {key: float(value) if key in wanted and type(value) is int else value for key, value in settings.items()}


def _import_class(module: str, name: str, spec: str) -> type[TokenReducer]:
    try:
        loaded = _from_file(Path(module), spec) if module.endswith(".py") else importlib.import_module(module)
    except RegistryError:
        raise
    except (Exception, SystemExit) as error:
        raise RegistryError(f"{spec!r}: importing {module} failed: {type(error).__name__}: {error}") from error
    classes = [k for k, v in vars(loaded).items() if isinstance(v, type) and issubclass(v, TokenReducer)]
    if name not in classes:
        raise RegistryError(
            f"{spec!r}: {module} has no TokenReducer class {name!r}; it has {', '.join(classes) or 'none'}"
        )
    cls: type[TokenReducer] = getattr(loaded, name)
    if not is_own(cls):
        cls.origin = f"{module}:{name}"  # also where it is registered: another process knows the file alone
    return cls


def _from_file(path: Path, spec: str) -> ModuleType:
    """The module of a file, loaded anew when the file has changed."""
    if not path.is_file():
        raise RegistryError(f"{spec!r}: there is no file {path}")
    place, content = (hashlib.sha1(b).hexdigest()[:12] for b in (str(path.resolve()).encode(), path.read_bytes()))
    unique = f"_tokred_file_{path.stem}_{place}_{content}"
    if unique in sys.modules:
        return sys.modules[unique]
    found = importlib.util.spec_from_file_location(unique, path)
    assert found is not None
    assert found.loader is not None
    loaded = importlib.util.module_from_spec(found)
    sys.modules[unique] = loaded
    try:
        found.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[unique]
        raise
    return loaded


def is_own(cls: type) -> bool:
    """Whether a class is part of tokred itself."""
    return cls.__module__.partition(".")[0] == "tokred"


def _same_file(one: type, other: type) -> bool:
    """Whether two classes are the same name in the same file, one of them from before the file was edited."""
    first, second = (getattr(sys.modules.get(cls.__module__), "__file__", None) for cls in (one, other))
    return first is not None and first == second and one.__qualname__ == other.__qualname__


def _load() -> None:
    global _loaded
    if _loaded:
        return
    _loaded = True
    importlib.import_module("tokred.methods")
    for entry in importlib.metadata.entry_points(group=GROUP):
        owner = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "unknown distribution"
        try:
            loaded = entry.load()
            if not isinstance(loaded, ModuleType):
                register(entry.name)(loaded)
        except (Exception, SystemExit) as error:
            _BROKEN.append(Broken(entry.name, owner, f"{type(error).__name__}: {error}"))


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
