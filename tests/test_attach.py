"""Attached models: same call, host never changed, everything that a module can do."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import tokred
from tokred.attach import Attached, attach, detach
from tokred.backbones import Unsupported
from tokred.backbones.videomae import VideoViT
from tokred.methods import STA, EViT, FewerFrames, LowerResolution, RandomDrop, RandomMerge, ToMe, TopK, Unreduced
from tokred.probe import Probe
from tokred.reducer import Capabilities, Site, TokenReducer, keep_top
from tokred.reduction import Reduction
from tokred.schedule import Schedule, ScheduleError
from tokred.testing import default_backbones
from tokred.tokens import Tokens

VIDEO, IMAGE = default_backbones()
REDUCERS = [STA(r=4), ToMe(r=9, proportional=True), EViT(0.6, at=(0, 1)), RandomMerge(0.5)]
each_reducer = pytest.mark.parametrize("reducer", REDUCERS, ids=lambda r: r.spec)


def video(**changes: object) -> tuple[VideoViT, Tensor]:
    """A video ViT of 4 x 4 x 4 patches with other settings."""
    settings: dict[str, object] = {
        "img_size": 16, "patch_size": 4, "frames": 8, "dim": 24, "depth": 3, "num_heads": 3, "num_classes": 7,
    }  # fmt: skip
    return VideoViT(**(settings | changes)).eval(), torch.randn(2, 3, 8, 16, 16)  # type: ignore[arg-type]


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: STA(r=24), r"r = 24 per frame at block 0 drops 24 of 24 tokens per group of 1 frame\(s\)"),
        (lambda: STA(r=2, at=(0, 3)), r"at = \(0, 3\): block 3 is not in 0..2"),
        (lambda: EViT(tokens=97, at=(0,)), r"tokens = 97 at block 0 is impossible with 96 tokens: allowed is 1..96"),
        (lambda: FewerFrames(5), r"tubelets = 5 is not in 1..4"),
        (lambda: LowerResolution(5), r"rows = 5 is not in 1..4"),
        (lambda: ToMe(r=(1, 2, 3, 4)), r"drop has 4 entries for 3 steps"),
    ],
)
def test_impossible_settings_are_refused_at_attach_with_the_numbers(
    make: Callable[[], TokenReducer], message: str
) -> None:
    host, _ = VIDEO.build()
    with pytest.raises(ScheduleError, match=message):
        attach(host, make())


def test_what_cannot_be_attached_is_refused_with_the_reason() -> None:
    host, _ = VIDEO.build()
    with pytest.raises(
        TypeError, match=r"must be a tokred.TokenReducer, got .* \(an instance is needed, not the class\)"
    ):
        attach(host, STA)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"must be a tokred\.TokenReducer, got 'sta'"):
        attach(host, "sta")  # type: ignore[arg-type]
    with pytest.raises(
        Unsupported, match=r"has a reducer attached: detach it first, or combine both with tokred\.compose"
    ):
        attach(attach(host, STA(r=1)), STA(r=1))
    with pytest.raises(Unsupported, match=r"torch\.nn\.modules\.linear\.Linear is not a model that tokred reads"):
        attach(nn.Linear(2, 2), STA(r=1))
    with pytest.raises(Unsupported, match=r"evit:keep=0.5,score=class needs a class token"):
        attach(host, EViT(0.5, score="class"))


def test_notes_say_what_was_corrected_and_what_ran() -> None:
    host, _ = VIDEO.build()
    assert attach(host, ToMe(r=60, at=(0,))).notes[0].startswith("block 0: r = 60 clamped to 48")
    assert attach(host, EViT(0.5, at=(1,))).notes == ("EViT-style (received attention), rest fused",)


def test_hooks_that_would_not_run_are_refused() -> None:
    host, _ = VIDEO.build()
    handle = host.blocks[2].attn.register_forward_hook(lambda *_: None)  # type: ignore[index,union-attr,operator]
    with pytest.raises(Unsupported, match="block 2's attn has hooks"):
        attach(host, ToMe(r=3))
    handle.remove()
    attach(host, ToMe(r=3))


def test_a_block_with_a_forward_of_its_own_is_refused() -> None:
    host, _ = VIDEO.build()
    block = host.blocks[1]  # type: ignore[index]
    block.forward = lambda x: x  # type: ignore[union-attr,method-assign]
    with pytest.raises(Unsupported, match="block 1 has a forward of its own"):
        attach(host, ToMe(r=3))


@pytest.mark.parametrize(
    "changes", [{"init_values": 0.3}, {"qkv_bias": False}, {"mean_pooling": False}, {"positions": "grid"}]
)
@torch.no_grad()
def test_variants_of_the_host_are_themselves_at_strength_zero(changes: dict[str, object]) -> None:
    host, clips = video(**changes)
    assert torch.equal(attach(host, ToMe())(clips), host(clips))
    apart = attach(host, TopK(0.9999))(clips)  # taken apart, and every token kept
    torch.testing.assert_close(apart, host(clips), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_clips_of_another_size_are_reduced_too_where_that_is_possible() -> None:
    host, _ = video()
    longer = torch.randn(1, 3, 16, 16, 16)
    assert attach(host, STA(r=4)).run(longer).tokens.count == 8 * (16 - 4 - 2 - 1)
    with pytest.raises(ValueError, match="planned for the model's 4 tubelets of time, the clips have 8"):
        attach(host, FewerFrames(2))(longer)
    large, _ = video(img_size=32)
    fast = attach(large, EViT(tokens=100, at=(0,)))
    with pytest.raises(ScheduleError, match="impossible with 64 tokens"):
        fast(torch.randn(1, 3, 8, 16, 16))


@torch.no_grad()
def test_an_empty_batch_gives_empty_logits() -> None:
    host, clips = VIDEO.build()
    for reducer in REDUCERS:
        assert attach(host, reducer)(clips[:0]).shape == (0, 7)


@torch.no_grad()
def test_mean_pooling_by_mass_is_the_mean_over_patches() -> None:
    """If merged tokens are not touched any more, weighting by mass gives the mean over all original patches."""
    host, clips = video()
    merged = attach(host, RandomMerge(0.5, at=(2,))).run(clips)
    host_tokens = attach(host, Unreduced()).run(clips).tokens
    assert merged.tokens.size is not None
    weighted = (merged.tokens.x * merged.tokens.size[..., None]).sum(1) / merged.tokens.size.sum(1, keepdim=True)
    torch.testing.assert_close(weighted, host_tokens.x.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(merged.logits, host(clips), rtol=1e-4, atol=1e-5)


def test_training_moves_host_and_reducer_together() -> None:
    host, clips = VIDEO.build()
    fast: Attached = attach(host, RandomDrop(0.5))
    fast.train()
    assert host.training
    fast.eval()
    assert not host.training
    fast.to(torch.float64)
    assert fast(clips.double()).dtype == torch.float64
