"""Checks that an adapter makes before it takes a foreign module apart: every one refuses with the reason.

A module that is taken apart no longer runs its own ``forward``. So nothing may be in it, or hang on it, that the
adapter does not run itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from torch import nn

from tokred.backbones.adapter import Unsupported


def kind_of(module: object) -> str:
    """The full name of an object's class."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def require_type(module: nn.Module, allowed: Collection[type], where: str) -> None:
    """Refuse a module whose class is not exactly one of the allowed: a subclass may compute something else."""
    if type(module) not in allowed:
        names = ", ".join(sorted({cls.__qualname__ for cls in allowed}))
        raise Unsupported(f"{where} is a {kind_of(module)}; understood: {names}")


def refuse_unknown_parts(module: nn.Module, children: Collection[str], tensors: Collection[str], where: str) -> None:
    """Refuse sub-modules, parameters and buffers with names that are not known to be there."""
    strange = [name for name, child in module.named_children() if name not in children and child is not None]
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    strange += [name for name, _ in own if name not in tensors]
    if strange:
        raise Unsupported(f"{where} ({kind_of(module)}) has parts that are not understood: {', '.join(strange)}")


def refuse_overrides(module: nn.Module, base: type, methods: Iterable[str], where: str) -> None:
    """Refuse methods that a subclass or the instance itself replaces."""
    for name in methods:
        if name in vars(module) and not _is_own_method(module, name):
            raise Unsupported(f"{where} has a {name} of its own, set on the instance; attach would not run it")
        if getattr(type(module), name, None) is not getattr(base, name, None):
            raise Unsupported(
                f"{where} ({kind_of(module)}) overrides {base.__qualname__}.{name}; attach would not run it"
            )


def _is_own_method(module: nn.Module, name: str) -> bool:
    """Whether the attribute is the class's own method, as wrappers leave it behind when they put it back."""
    method = vars(module)[name]
    own = getattr(type(module), name, None)
    return getattr(method, "__self__", None) is module and getattr(method, "__func__", None) is own


def refuse_hooks(module: nn.Module, where: str, inert: str = "") -> None:
    """Refuse forward and backward hooks on a module whose own call is bypassed.

    Args:
        inert: hooks defined in modules whose name starts so do nothing in a plain forward.
    """
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    hooks = [hook for kind in kinds for hook in getattr(module, kind).values()]
    if any(not inert or not getattr(hook, "__module__", "").startswith(inert) for hook in hooks):
        raise Unsupported(f"{where} has hooks, and its own call, which would run them, is not what attach runs")
