"""Attached models: same call, host never changed, everything that a module can do."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tokred
from tokred.attach import Attached, attach, detach
from tokred.methods import STA, EViT, RandomDrop, RandomMerge, ToMe, Unreduced
from tokred.probe import Probe
from tokred.reducer import Capabilities, Site, TokenReducer, keep_top
from tokred.reduction import Reduction
from tokred.schedule import Schedule
from tokred.testing import default_backbones
from tokred.tokens import Tokens

VIDEO, IMAGE, *_ = default_backbones()
REDUCERS = [STA(r=4), ToMe(r=9, proportional=True), EViT(0.6, at=(0, 1)), RandomMerge(0.5)]
each_reducer = pytest.mark.parametrize("reducer", REDUCERS, ids=lambda r: r.spec)


class Learned(TokenReducer):
    """Ranks by a learned vector, and scales what it keeps with it."""

    capabilities = Capabilities(trainable=True)

    def __init__(self, dim: int = 24) -> None:
        super().__init__(Schedule(at=(1,), keep=0.5))
        self.rank = nn.Linear(dim, 1)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        return keep_top(tokens, self.rank(tokens.patches)[..., 0], site.left(tokens.patch_count))


@pytest.mark.parametrize("backbone", [VIDEO, IMAGE], ids=lambda b: b.name)
@each_reducer
@torch.no_grad()
def test_same_call_same_shapes_other_logits(reducer: TokenReducer, backbone: tokred.testing.Backbone) -> None:
    host, clips = backbone.build()
    fast = attach(host, reducer)
    assert fast(clips).shape == host(clips).shape
    assert not torch.allclose(fast(clips), host(clips), atol=1e-3)
    assert torch.equal(fast(clips), fast(clips))
    assert fast.forward_features(clips).shape[-1] == host.forward_features(clips).shape[-1]  # type: ignore[operator]


@torch.no_grad()
def test_unreduced_is_the_host_bit_for_bit() -> None:
    for backbone in (VIDEO, IMAGE):
        host, clips = backbone.build()
        fast = attach(host, Unreduced())
        assert torch.equal(fast(clips), host(clips))
        assert torch.equal(fast.forward_features(clips), host.forward_features(clips))  # type: ignore[operator]


def test_detach_returns_the_host_that_was_given() -> None:
    host, _ = VIDEO.build()
    assert detach(attach(host, STA(r=2))) is host
    with pytest.raises(ValueError, match="VideoViT has no reducer attached"):
        detach(host)


def test_parts_that_the_owner_froze_stay_in_their_mode() -> None:
    host, _ = VIDEO.build()
    host.train()
    host.blocks[1].eval()  # type: ignore[index,union-attr]
    modes = [module.training for module in host.modules()]
    fast = attach(host, RandomDrop(0.5))
    assert [module.training for module in host.modules()] == modes
    assert fast.training
    assert fast.reducer.training
    assert not attach(host.eval(), RandomDrop(0.5)).reducer.training


@each_reducer
@torch.no_grad()
def test_a_run_shows_its_inside_and_the_same_logits(reducer: TokenReducer) -> None:
    host, clips = VIDEO.build()
    fast = attach(host, reducer)
    run = fast.run(clips, trace=True, record=True)
    assert torch.equal(run.logits, fast(clips))
    assert run.pooled.shape == (3, 24)
    torch.testing.assert_close(host.head(run.pooled), run.logits)  # type: ignore[operator]
    assert run.tokens.source is not None
    assert run.tokens.source.shape == (3, 96)
    source = torch.arange(96).expand(3, 96)
    for _, reduction in run.steps:
        went = torch.nn.functional.pad(reduction.positions(), (0, 1), value=-1)
        source = went.gather(1, torch.where(source < 0, went.shape[1] - 1, source))
    assert torch.equal(run.tokens.source, source)
    plain = fast.run(clips)
    assert plain.steps == ()
    assert plain.tokens.source is None


@torch.no_grad()
def test_traced_patches_count_as_the_masses_say() -> None:
    for backbone in (VIDEO, IMAGE):
        host, clips = backbone.build()
        run = attach(host, ToMe(r=12)).run(clips, trace=True)
        assert run.tokens.source is not None
        assert run.tokens.size is not None
        counted = torch.zeros(run.tokens.x.shape[:2]).scatter_add(
            1, run.tokens.source, torch.ones(run.tokens.source.shape)
        )
        prefix = run.tokens.prefix
        assert torch.equal(counted[:, prefix:], run.tokens.size[:, prefix:])
        assert torch.equal(run.tokens.size[:, :prefix], torch.ones(3, prefix))


def test_attributes_of_the_host_are_read_through() -> None:
    host, _ = VIDEO.build()
    fast = attach(host, STA(r=2))
    assert fast.dim == 24
    assert fast.blocks is host.blocks
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = fast.nonsense


@each_reducer
def test_copies_are_equal_and_separate(reducer: TokenReducer) -> None:
    host, clips = VIDEO.build()
    fast = attach(host, reducer)
    logits = fast(clips).detach()
    for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert torch.equal(twin(clips), logits)
        with torch.no_grad():
            twin.host.head.bias.add_(1.0)
        assert torch.equal(fast(clips), logits)


def test_a_copy_uses_its_own_reducer() -> None:
    host, clips = VIDEO.build()
    fast = attach(host, Learned())
    twin = copy.deepcopy(fast)
    with torch.no_grad():
        fast.reducer.rank.weight.neg_()  # type: ignore[union-attr]
        fast.reducer.rank.bias.neg_()  # type: ignore[union-attr]
    assert not torch.equal(fast(clips), twin(clips))
    assert torch.equal(twin(clips), attach(host, twin.reducer)(clips))


def test_a_learned_reducer_is_part_of_the_state_dict_and_of_the_parameters() -> None:
    host, clips = VIDEO.build()
    fast = attach(host, Learned())
    names = set(fast.state_dict())
    assert {"reducer.rank.weight", "reducer.rank.bias", "host.head.bias"} <= names
    assert set(host.state_dict()) == {name.removeprefix("host.") for name in names if name.startswith("host.")}
    other = attach(copy.deepcopy(host), Learned())
    assert not torch.equal(other.reducer.rank.weight, fast.reducer.rank.weight)  # type: ignore[union-attr]
    other.load_state_dict(fast.state_dict())
    assert torch.equal(other(clips), fast(clips))


def gradients(model: nn.Module, clips: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    model(clips).square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@each_reducer
def test_gradient_checkpointing_gives_the_same_gradients(reducer: TokenReducer) -> None:
    host, clips = VIDEO.build()
    fast = attach(host, reducer)
    plain = gradients(fast, clips)
    fast.set_grad_checkpointing()
    assert host.grad_checkpointing
    again = gradients(fast, clips)
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, msg=name)


def test_gradient_checkpointing_runs_each_block_again() -> None:
    class Counting(RandomDrop):
        asked = 0

        def reduce(self, tokens: Tokens, probe: Probe, site: Site):  # type: ignore[no-untyped-def]
            Counting.asked += 1
            return super().reduce(tokens, probe, site)

    host, clips = VIDEO.build()
    fast = attach(host, Counting(0.5, at=(1,)))
    for enabled, asked in ((False, 1), (True, 2)):
        host.set_grad_checkpointing(enabled)  # type: ignore[operator]
        Counting.asked = 0
        fast(clips).sum().backward()
        assert Counting.asked == asked


def test_decisions_inside_autocast_are_taken_in_float32() -> None:
    """The statistics are those of a model in bfloat16; what is made of them is exact: equal keys, equal decision."""
    host, clips = VIDEO.build()
    fast = attach(host, ToMe(r=20, at=(1,)))
    kept: list[tuple[Tensor, Reduction]] = []
    original = type(fast.reducer).reduce

    class Spy(ToMe):
        def reduce(self, tokens: Tokens, probe: Probe, site: Site):  # type: ignore[no-untyped-def]
            reduction = original(self, tokens, probe, site)
            kept.append((probe.mean_key, reduction))
            return reduction

    spied = attach(host, Spy(r=20, at=(1,)))
    kept.clear()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        spied(clips)
    ((key, reduction),) = kept
    from tokred.matching import match_halves

    assert torch.equal(reduction.positions(), match_halves(key, 20).assign)


@torch.no_grad()
def test_an_empty_batch_gives_empty_logits() -> None:
    host, clips = VIDEO.build()
    for reducer in REDUCERS:
        assert attach(host, reducer)(clips[:0]).shape == (0, 7)


@pytest.mark.parametrize("backbone", default_backbones(), ids=lambda b: b.name)
@pytest.mark.parametrize("spec", ["sta:r=2", "tome:r=3", "evit:keep=0.5", "topk:keep=0.5", "random_merge:keep=0.5"])
@torch.no_grad()
def test_an_empty_batch_passes_on_every_kind_of_host(backbone: Any, spec: str) -> None:
    host, inputs = backbone.build()
    assert attach(host, tokred.build(spec))(inputs[:0]).shape == (0, 7)


def test_training_moves_host_and_reducer_together() -> None:
    host, clips = VIDEO.build()
    fast: Attached = attach(host, RandomDrop(0.5))
    fast.train()
    assert host.training
    fast.eval()
    assert not host.training
    fast.to(torch.float64)
    assert fast(clips.double()).dtype == torch.float64
