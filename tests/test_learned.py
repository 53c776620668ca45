"""Learned methods: built for a backbone, initialised without global state, and they know whether they are trained."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from tokred.attach import attach
from tokred.backbones.geometry import Geometry
from tokred.backbones.videomae import VideoViT
from tokred.compose import compose
from tokred.dry import dry_run
from tokred.learned import LearnedError, LearnedReducer, fresh, run_wide, uniform, untrained
from tokred.matching import noise
from tokred.methods import STA, DynamicViT
from tokred.probe import Probe
from tokred.reducer import Capabilities, Site, keep_top
from tokred.reduction import Keep
from tokred.schedule import Schedule
from tokred.tokens import Tokens


class Scored(LearnedReducer):
    """Keeps what one linear layer scores highest."""

    site = "after_block"
    strength = "keep"
    capabilities = Capabilities(trainable=True)

    def __init__(self, keep: float = 0.5, *, weights: str | None = "shipped") -> None:
        super().__init__(Schedule(at="third", keep=keep), weights)
        self.built = 0

    def build(self, geometry: Geometry, host: nn.Module | None) -> None:
        self.scorer = fresh(lambda: nn.Linear(geometry.dim, 1))
        self.built += 1

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep:
        return keep_top(tokens, run_wide(self.scorer, tokens.patches)[..., 0], site.left(tokens.patch_count))


def host(dim: int = 24) -> VideoViT:
    return VideoViT(img_size=16, patch_size=8, frames=4, dim=dim, depth=3, num_heads=2, num_classes=3).eval()


def test_attach_builds_once_and_keeps_what_was_trained() -> None:
    reducer = Scored()
    attach(host(), reducer)
    with torch.no_grad():
        reducer.scorer.weight.fill_(3.0)
    attach(host(), reducer)
    assert reducer.built == 1
    assert bool((reducer.scorer.weight == 3).all())


def test_another_width_builds_anew_unless_it_is_trained() -> None:
    reducer = Scored()
    attach(host(24), reducer)
    attach(host(32), reducer)
    assert reducer.scorer.in_features == 32
    reducer.mark_trained(5, "a test")
    with pytest.raises(
        LearnedError, match=r"was trained for a backbone of sizes \(32, 2, 3\), this one has \(24, 2, 3\)"
    ):
        attach(host(24), reducer)


def test_a_dry_run_leaves_the_reducer_as_it_was() -> None:
    reducer = Scored()
    geometry = attach(host(), Scored()).geometry
    plan = dry_run(reducer, geometry)
    assert plan.final == 4
    assert dry_run(reducer, geometry, device="meta").final == 4
    assert reducer.built == 0
    assert not list(reducer.parameters())


def test_counts_are_those_of_inference_also_for_a_reducer_in_training_mode() -> None:
    reducer = DynamicViT(0.5)
    assert reducer.training
    geometry = attach(host(), Scored()).geometry
    assert dry_run(reducer, geometry).final == int(8 * 0.5**3)


def test_trained_is_part_of_the_state_and_of_every_copy() -> None:
    reducer = Scored()
    fast = attach(host(), reducer)
    assert untrained(reducer) == [reducer.spec]
    assert fast.notes[-1].endswith("is untrained: its parameters are random")
    reducer.mark_trained(7, "a recipe")
    other = Scored()
    attach(host(), other)
    other.load_state_dict(reducer.state_dict())
    for twin in (copy.deepcopy(reducer), pickle.loads(pickle.dumps(reducer)), other):
        assert twin.trained
        assert int(twin.trained_steps) == 7
    assert attach(host(), reducer).notes[-1] == "Scored is trained (7 steps, a recipe)"
    assert not reducer.half().trained_steps.is_floating_point(), "a count survives a change of precision"
    with pytest.raises(LearnedError, match="steps = 0"):
        reducer.mark_trained(0, "nothing")


def test_untrained_parts_of_a_composition_are_named() -> None:
    first, second = Scored(), DynamicViT(0.7)
    both = compose(first, STA(r=0), second)
    attach(host(), both)
    assert untrained(both) == [first.spec, second.spec]
    second.mark_trained(1, "")
    assert untrained(both) == [first.spec]
    assert untrained(STA(r=1)) == []


def test_initial_parameters_are_the_same_every_time_and_leave_global_state_alone() -> None:
    before = torch.get_rng_state()
    layers = [fresh(lambda: nn.Sequential(nn.Linear(30, 40), nn.LayerNorm(40)), seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    one, again, other = ([p.detach() for p in layer.parameters()] for layer in layers)
    assert all(map(torch.equal, one, again))
    assert not torch.equal(one[0], other[0])
    weight, bias, scale, shift = one
    assert 0.015 < float(weight.std()) < 0.02
    assert float(weight.abs().max()) <= 0.04
    assert not bias.any()
    assert not shift.any()
    assert bool((scale == 1).all())
    assert all(p.requires_grad for p in layers[0].parameters())


def test_parameters_of_another_kind_need_their_own_start() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.centre = nn.Parameter(torch.zeros(3))

    class Own(Bare):
        def initialise(self, generator: torch.Generator) -> None:
            with torch.no_grad():
                self.centre.normal_(generator=generator)

    with pytest.raises(LearnedError, match="Bare has tensors that nothing initialises"):
        fresh(Bare)
    assert torch.equal(fresh(Own).centre, fresh(Own).centre)
    assert bool(fresh(Own).centre.any())


@pytest.mark.parametrize("parameters", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("features", [torch.bfloat16, torch.float32, torch.float64])
def test_decisions_are_computed_wide_whatever_the_model_is_in(parameters: torch.dtype, features: torch.dtype) -> None:
    layer = fresh(lambda: nn.Linear(8, 2)).to(parameters)
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).to(features).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        got = run_wide(layer, x)
    wanted = x.double() @ layer.weight.double().T
    assert got.dtype == torch.promote_types(torch.promote_types(parameters, features), torch.float32)
    assert torch.allclose(got.double(), wanted, atol=1e-6)
    got.sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == parameters
    assert x.grad is not None


def test_uniform_numbers_are_inside_the_unit_interval() -> None:
    edges = uniform(torch.tensor([0, 2**31 - 1]))
    assert 0 < float(edges[0]) < float(edges[1]) < 1
    many: Tensor = uniform(noise(torch.arange(4), 5000, 1, 2))
    assert abs(float(many.mean()) - 0.5) < 0.01
    assert abs(float(many.var()) - 1 / 12) < 0.005
