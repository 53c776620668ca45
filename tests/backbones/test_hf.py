from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokred import Grid, Probe, Reduction, Schedule, Site, TokenReducer, Tokens, attach, detach
from tokred.backbones import adapter_for
from tokred.backbones.convert import load_checkpoint, to_official
from tokred.backbones.hf import HFVideoMAEAdapter
from tokred.backbones.video_vit_adapter import VideoViTAdapter
from tokred.backbones.videomae import VideoViT
from tokred.reducer import SmallerInput

transformers = pytest.importorskip("transformers", reason="transformers is an optional extra")

CONFIG: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "num_frames": 4,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 60,
    "num_labels": 5,
}


def build(kernel: str = "sdpa", **changes: Any) -> Any:
    torch.manual_seed(1)
    config = transformers.VideoMAEConfig(**{**CONFIG, **changes})
    config._attn_implementation = kernel
    host = transformers.VideoMAEForVideoClassification(config).eval()
    with torch.no_grad():
        for parameter in host.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return host


@pytest.fixture(params=["sdpa", "eager"])
def host(request: pytest.FixtureRequest) -> Any:
    return build(request.param)


@pytest.fixture
def clips() -> Tensor:
    return torch.randn(2, 4, 3, 32, 32)


class Nothing(TokenReducer):
    """Leaves every token, without looking into any block: the host's own block path."""

    def __init__(self) -> None:
        super().__init__(Schedule(at="all", keep=0.9))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        return None


# Strength zero


@torch.no_grad()
@pytest.mark.parametrize("mean_pooling", [True, False])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_strength_zero_is_the_host_bit_for_bit(
    clips: Tensor, watch: TokenReducer, kernel: str, mean_pooling: bool
) -> None:
    host = build(kernel, use_mean_pooling=mean_pooling)
    want = host(clips).logits
    fast = attach(host, watch)
    assert torch.equal(fast(clips).logits, want)
    assert torch.equal(attach(host, Nothing())(clips).logits, want)
    assert torch.equal(detach(fast)(clips).logits, want)


@torch.no_grad()
def test_a_model_without_biases(clips: Tensor, watch: TokenReducer) -> None:
    host = build(qv_bias=False, qkv_bias=False)
    assert torch.equal(attach(host, watch)(clips).logits, host(clips).logits)


@torch.no_grad()
def test_strength_zero_in_training_is_the_host(clips: Tensor, watch: TokenReducer, host: Any) -> None:
    host = build(host.config._attn_implementation, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.2).train()
    torch.manual_seed(4)
    want = host(clips).logits
    torch.manual_seed(4)
    assert torch.equal(attach(host, watch)(clips).logits, want)


# Masses


@torch.no_grad()
def test_merged_equal_tokens_give_the_unreduced_logits(host: Any, merge_pairs: TokenReducer) -> None:
    host.videomae.embeddings.position_embeddings = torch.zeros(1, 32, 24)
    tile = torch.randn(2, 4, 3, 4, 8, 2, 8).repeat_interleave(2, dim=5)
    clips = tile.reshape(2, 4, 3, 32, 32)
    run = attach(host, merge_pairs).run(clips)
    assert run.tokens.count == 24
    assert torch.allclose(run.logits, host(clips).logits, atol=1e-5)
    merge_pairs.proportional = False
    assert not torch.allclose(attach(host, merge_pairs).run(clips).logits, host(clips).logits, atol=1e-4)


# Inside


@torch.no_grad()
def test_it_reads_what_our_own_model_reads_from_the_same_weights(host: Any, clips: Tensor) -> None:
    own = VideoViT(
        img_size=32, patch_size=8, frames=4, dim=24, depth=3, num_heads=3, mlp_ratio=2.5, num_classes=5
    ).eval()
    own.load_state_dict(to_official(host))
    theirs, ours = HFVideoMAEAdapter(), VideoViTAdapter()
    a, b = theirs.embed(host, clips, None), ours.embed(own, clips.transpose(1, 2), None)
    assert (a.grid, a.prefix, a.groups, a.count) == (b.grid, b.prefix, b.groups, b.count)
    assert torch.allclose(a.x, b.x, atol=1e-5)
    left, right = theirs.attend(theirs.blocks(host)[0], a, None), ours.attend(ours.blocks(own)[0], a, None)
    assert left.scale == right.scale
    for one, other in zip(left[:4], right[:4], strict=True):
        assert torch.allclose(one, other, atol=1e-4)
    assert torch.allclose(
        theirs.feed(theirs.blocks(host)[1], a.x).branch, ours.feed(ours.blocks(own)[1], a.x).branch, atol=1e-4
    )
    assert theirs.geometry(host) == ours.geometry(own)


@torch.no_grad()
def test_a_smaller_clip_is_read_as_our_own_model_reads_it(host: Any, clips: Tensor) -> None:
    own = VideoViT(img_size=32, patch_size=8, frames=4, dim=24, depth=3, num_heads=3, mlp_ratio=2.5, num_classes=5)
    own.load_state_dict(to_official(host))
    for smaller in (SmallerInput(Grid(2, 3, 2)), SmallerInput(Grid(1, 4, 4), (1,)), SmallerInput(Grid(1, 2, 2), (0,))):
        a = HFVideoMAEAdapter().embed(host, clips, smaller)
        b = VideoViTAdapter().embed(own, clips.transpose(1, 2), smaller)
        assert a.grid == b.grid == smaller.grid
        assert torch.allclose(a.x, b.x, atol=1e-5)


@torch.no_grad()
def test_the_official_state_gives_the_same_logits(clips: Tensor, tmp_path: Any) -> None:
    host = build(layer_norm_eps=1e-6)
    host.fc_norm.eps = 1e-6
    own = VideoViT(
        img_size=32, patch_size=8, frames=4, dim=24, depth=3, num_heads=3, mlp_ratio=2.5, num_classes=5
    ).eval()
    torch.save(host.state_dict(), tmp_path / "w.bin")
    load_checkpoint(own, tmp_path / "w.bin")
    assert (own(clips.transpose(1, 2)) - host(clips).logits).abs().max() <= 1e-5


def test_the_first_token_pool_norms_every_token() -> None:
    assert HFVideoMAEAdapter().geometry(build(use_mean_pooling=False)).final_norm_tokens
    assert not HFVideoMAEAdapter().geometry(build()).final_norm_tokens
    assert HFVideoMAEAdapter().geometry(build(num_labels=0)).classes == 0


# The call


@torch.no_grad()
def test_the_call_returns_what_the_host_returns(host: Any, clips: Tensor, watch: TokenReducer) -> None:
    fast = attach(host, watch)
    out, want = fast(pixel_values=clips), host(pixel_values=clips)
    assert type(out) is type(want)
    assert torch.equal(out.logits, want.logits)
    assert out.loss is None
    short, whole = fast(clips, return_dict=False), host(clips, return_dict=False)
    assert isinstance(short, tuple)
    assert len(short) == len(whole) == 1
    assert torch.equal(short[0], whole[0])


@pytest.mark.parametrize(
    ("labels", "changes"),
    [
        (torch.tensor([1, 3]), {}),
        (torch.tensor([0.2, 0.7]), {"num_labels": 1}),
        (torch.eye(5)[:2], {}),
        (torch.randn(2, 5), {"problem_type": "regression"}),
    ],
    ids=["classes", "one number", "several classes each", "several numbers"],
)
def test_labels_give_the_hosts_loss(
    clips: Tensor, watch: TokenReducer, labels: Tensor, changes: dict[str, Any]
) -> None:
    host = build(**changes)
    out, want = attach(host, watch)(clips, labels=labels), host(clips, labels=labels)
    assert torch.equal(out.loss, want.loss)
    pair = attach(host, watch)(clips, labels=labels, return_dict=False)
    assert torch.equal(pair[0], want.loss)
    assert torch.equal(pair[1], want.logits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_attentions": True}, "output_attentions is not possible with a reducer"),
        ({"output_hidden_states": True}, "output_hidden_states is not possible with a reducer"),
        ({"head_mask": torch.ones(3)}, "head_mask is not possible with a reducer"),
        ({"pixels": 3}, "unknown arguments: pixels; pixel_values, labels, return_dict are taken"),
    ],
)
def test_arguments_that_cannot_be_honoured_are_refused(
    clips: Tensor, watch: TokenReducer, arguments: dict[str, Any], message: str
) -> None:
    fast = attach(build(), watch)
    with pytest.raises(TypeError, match=message):
        fast(clips, **arguments)
    with pytest.raises(TypeError, match="only pixel_values is taken by position"):
        fast(clips, torch.tensor([1, 2]))


def test_arguments_that_are_off_are_taken(clips: Tensor, watch: TokenReducer) -> None:
    fast = attach(build(), watch)
    fast(clips, output_attentions=False, output_hidden_states=None, labels=None)


# Use


@torch.no_grad()
def test_a_host_that_recorded_outputs_before_is_read(clips: Tensor, watch: TokenReducer) -> None:
    host = build("eager")
    host(clips, output_hidden_states=True, output_attentions=True)
    assert torch.equal(attach(host, watch)(clips).logits, host(clips).logits)


def test_an_attached_model_can_be_copied_and_trained(host: Any, clips: Tensor, watch: TokenReducer) -> None:
    fast = attach(host, watch)
    assert torch.equal(copy.deepcopy(fast)(clips).logits, fast(clips).logits)
    fast(clips).logits.square().sum().backward()
    mine = {name: p.grad.clone() for name, p in host.named_parameters()}
    host.zero_grad()
    host(clips).logits.square().sum().backward()
    for name, parameter in host.named_parameters():  # summed in another order, so not bit for bit
        assert torch.allclose(mine[name], parameter.grad, rtol=1e-4, atol=1e-4), name
    assert isinstance(pickle.loads(pickle.dumps(HFVideoMAEAdapter())), HFVideoMAEAdapter)


@pytest.mark.parametrize("reducer", ["taken apart", "own path"])
def test_gradient_checkpointing_gives_the_same_gradients(clips: Tensor, watch: TokenReducer, reducer: str) -> None:
    method = watch if reducer == "taken apart" else Nothing()
    grads = []
    for on in (False, True):
        host = build().train()
        if on:
            host.gradient_checkpointing_enable({"use_reentrant": False})
        assert HFVideoMAEAdapter().checkpoints(host) is on
        attach(host, method)(clips).logits.sum().backward()
        grads.append({name: p.grad.clone() for name, p in host.named_parameters()})
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])
    assert not HFVideoMAEAdapter().checkpoints(host.eval())


@torch.no_grad()
def test_it_compiles_to_one_graph(host: Any, clips: Tensor, merge_pairs: TokenReducer) -> None:
    fast = attach(host, merge_pairs)
    compiled = torch.compile(fast, backend="eager", fullgraph=True)
    assert torch.equal(compiled(clips).logits, fast(clips).logits)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_runs_and_stays(
    host: Any, clips: Tensor, merge_pairs: TokenReducer, dtype: torch.dtype
) -> None:
    assert attach(host.to(dtype), merge_pairs)(clips.to(dtype)).logits.dtype == dtype


@torch.no_grad()
def test_nothing_is_written_on_the_host(host: Any, clips: Tensor, watch: TokenReducer) -> None:
    before = {name: tensor.clone() for name, tensor in host.state_dict().items()}
    attributes = {name: set(vars(module)) for name, module in host.named_modules()}
    attach(host, watch)(clips)
    assert all(torch.equal(before[name], tensor) for name, tensor in host.state_dict().items())
    assert {name: set(vars(module)) for name, module in host.named_modules()} == attributes


def test_the_adapter_is_found_for_this_model_alone(host: Any) -> None:
    assert isinstance(adapter_for(host), HFVideoMAEAdapter)
    assert not HFVideoMAEAdapter().accepts(nn.Linear(1, 1))
    assert not HFVideoMAEAdapter().accepts(host.videomae)
