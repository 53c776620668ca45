from __future__ import annotations

import pytest
import torch
from torch import nn

from tokred.backbones.adapter import Unsupported
from tokred.backbones.guards import kind_of, refuse_hooks, refuse_overrides, refuse_unknown_parts, require_type


class Child(nn.Linear):
    pass


def test_the_exact_class_is_required() -> None:
    require_type(nn.Linear(1, 1), (nn.Linear, nn.Identity), "block 3")
    with pytest.raises(Unsupported, match=r"^block 3 is a .*Child; understood: Identity, Linear$"):
        require_type(Child(1, 1), (nn.Linear, nn.Identity), "block 3")


def test_unknown_children_parameters_and_buffers_are_named() -> None:
    module = nn.Sequential()
    module.add_module("known", nn.Identity())
    module.register_parameter("weight", nn.Parameter(torch.zeros(1)))
    refuse_unknown_parts(module, {"known"}, {"weight"}, "it")
    module.add_module("gate", nn.Identity())
    module.register_parameter("bias", nn.Parameter(torch.zeros(1)))
    module.register_buffer("count", torch.zeros(1))
    with pytest.raises(Unsupported, match=r"Sequential\) has parts that are not understood: gate, bias, count$"):
        refuse_unknown_parts(module, {"known"}, {"weight"}, "it")


def test_parts_that_are_none_do_not_count() -> None:
    module = nn.Module()
    module.register_module("gate", None)
    module.register_parameter("bias", None)
    refuse_unknown_parts(module, (), (), "it")


def test_methods_replaced_in_a_subclass_or_on_the_instance_are_refused() -> None:
    class Other(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    refuse_overrides(Child(1, 1), nn.Linear, ("forward",), "it")
    with pytest.raises(Unsupported, match=r"^it \(.*Other\) overrides Linear\.forward; attach would not run it$"):
        refuse_overrides(Other(1, 1), nn.Linear, ("forward",), "it")
    patched = nn.Linear(1, 1)
    patched.forward = lambda x: x  # type: ignore[method-assign]
    with pytest.raises(Unsupported, match=r"^it has a forward of its own, set on the instance"):
        refuse_overrides(patched, nn.Linear, ("forward",), "it")


def test_a_method_that_was_put_back_is_the_own_one() -> None:
    module, other = nn.Linear(1, 1), nn.Linear(1, 1)
    module.forward = module.forward  # type: ignore[method-assign]
    refuse_overrides(module, nn.Linear, ("forward",), "it")
    module.forward = other.forward  # type: ignore[method-assign]
    with pytest.raises(Unsupported, match="it has a forward of its own"):
        refuse_overrides(module, nn.Linear, ("forward",), "it")


@pytest.mark.parametrize(
    "kind",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
def test_hooks_are_refused_until_they_are_removed(kind: str) -> None:
    module = nn.Identity()
    handle = getattr(module, kind)(lambda *_: None)
    with pytest.raises(Unsupported, match=r"^it has hooks"):
        refuse_hooks(module, "it")
    handle.remove()
    refuse_hooks(module, "it")


def test_hooks_of_a_library_that_only_record_may_stay() -> None:
    module = nn.Identity()
    module.register_forward_hook(lambda *_: None)
    refuse_hooks(module, "it", inert=__name__)
    with pytest.raises(Unsupported, match="has hooks"):
        refuse_hooks(module, "it", inert="other.package")


def test_kind_is_the_full_class_name() -> None:
    assert kind_of(nn.Linear(1, 1)) == "torch.nn.modules.linear.Linear"
