"""Eventful: pooled keys and values, and the work of a frame, each against counts and computations by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tokred.attach import attach
from tokred.backbones.videomae import VideoViT
from tokred.backbones.vivit import ViViT
from tokred.measure.flops import count, unreduced_plan
from tokred.measure.handles import fvcore_macs
from tokred.methods import Eventful
from tokred.registry import build
from tokred.testing import default_backbones

VIDEO = default_backbones()[0]
N, C, HIDDEN, BLOCKS, STREAMS = 96, 24, 48, 3, 3
"""VIDEO: 4 x 4 x 6 patches, three blocks, three clips."""

POOLED = 4 * 2 * 3


def frames_of() -> tuple[VideoViT, list[Tensor]]:
    """The host, and two frames of three streams of which a corner changes."""
    model, x = VIDEO.build()
    assert isinstance(model, VideoViT)
    later = x.clone()
    later[..., :8, :8] = torch.randn(x[..., :8, :8].shape, generator=torch.Generator().manual_seed(3))
    return model, [x, later]


def averaged(x: Tensor) -> Tensor:
    """Keys or values (B, H, N, d) of 4 x 4 x 6 patches, averaged over squares of 2 x 2 of each frame."""
    b, h, _, d = x.shape
    maps = x.transpose(2, 3).reshape(b * h, d, 4, 4, 6)
    return F.avg_pool3d(maps, (1, 2, 2)).reshape(b, h, d, POOLED).transpose(2, 3)


@torch.no_grad()
@pytest.mark.parametrize("variant", ["tokenwise", "qk", "full"])
def test_pooling_averages_keys_and_values_over_squares_of_each_frame(variant: str) -> None:
    model, frames = frames_of()
    fast = attach(model, Eventful(pool_size=2, variant=variant))
    for clips in frames:
        x = model.embed(clips)
        for block in model.blocks:
            part: Any = block
            q, k, v = part.attn.heads(part.norm1(x))
            out = F.scaled_dot_product_attention(q, averaged(k), averaged(v), scale=part.attn.scale)
            x = x + part.attn.proj(out.transpose(1, 2).flatten(2))
            x = x + part.mlp(part.norm2(x))
        torch.testing.assert_close(fast(clips), model.head(model.pool(x)), atol=2e-5, rtol=2e-5)
    assert not torch.allclose(fast(frames[1]), model(frames[1]), atol=1e-4), "pooling should show in this test"


def worked(reducer: Eventful) -> list[Any]:
    """What every block did on a first frame and on a second one."""
    model, frames = frames_of()
    fast = attach(model, reducer)
    with reducer.recorded() as log, torch.no_grad():
        for clips in frames:
            fast(clips)
    assert [(work.block, work.flush) for work in log] == [(b, f == 0) for f in range(2) for b in range(BLOCKS)]
    return log


@pytest.mark.parametrize(("pool", "columns"), [(1, N), (2, POOLED)])
def test_a_first_frame_costs_a_whole_block(pool: int, columns: int) -> None:
    for work in worked(Eventful(8, pool_size=pool))[:BLOCKS]:
        linear = STREAMS * N * (4 * C * C + 2 * C * HIDDEN)
        products = STREAMS * 2 * N * columns * C
        assert work.macs == linear + products
        assert (work.official["linear_flops"], work.official["matmul_flops"]) == (linear, products)
        assert work.official["bias_flops"] == STREAMS * N * (3 * C + C + HIDDEN + C)
        assert work.official["add_flops"] == STREAMS * 2 * N * C
        assert work.official["gate_flops"] == work.official["accumulator_flops"] == 0
        assert work.sent == {}


def test_a_later_frame_costs_the_tokens_that_are_sent() -> None:
    """By the published rules: two products of the rows and the columns that are new, and the gates' own additions."""
    r = 8
    for work in worked(Eventful(r))[BLOCKS:]:
        linear = STREAMS * r * (4 * C * C + 2 * C * HIDDEN)
        assert work.official["linear_flops"] == linear
        assert work.official["matmul_flops"] == STREAMS * C * (2 * r * N + 2 * r * N)
        assert work.official["gate_flops"] == STREAMS * (3 * N * C + N * C + 3 * N * N)  # three heads
        assert work.official["accumulator_flops"] == STREAMS * (r * C + 2 * N * C)
        assert linear < work.macs <= linear + STREAMS * C * 4 * r * N
    for work in worked(Eventful(r, variant="tokenwise", pool_size=2))[BLOCKS:]:
        assert work.macs == linear + STREAMS * 2 * N * POOLED * C, "both products are computed anew"


@torch.no_grad()
@pytest.mark.parametrize(("variant", "floats"), [("tokenwise", 8 * C), ("qk", 8 * C + 3 * N), ("full", 9 * C + 6 * N)])
def test_state_is_what_gates_compare_with_what_was_computed_and_the_kept_products(variant: str, floats: int) -> None:
    """For each token: three references, queries, keys, values, two branches, and of three heads Q K^T, A and A V."""
    model, frames = frames_of()
    reducer = Eventful(8, variant=variant)
    fast = attach(model, reducer)
    for clips in frames:
        fast(clips)
        assert reducer.state_bytes() == 4 * STREAMS * BLOCKS * N * floats


def test_a_step_leaves_every_token() -> None:
    geometry = attach(VIDEO.build()[0], Eventful()).geometry
    steps = Eventful(8, at=(0, 2)).steps(geometry)
    assert [(block, step.left(N), step.is_noop) for block, step in steps.items()] == [(0, N, True), (2, N, True)]


@pytest.mark.parametrize(("spec", "columns"), [("", 17), (",pool_size=2", 5)])
def test_inside_a_clip_all_that_is_saved_is_counted(spec: str, columns: int) -> None:
    """Of 17 tokens 5 are sent on three of four steps; keys are 4 x 4 patches behind a class token, or 2 x 2."""
    plain, (reused, done) = 4 * 3 * (17 * LINEAR + 17 * 17 * PRODUCTS), clip_of(f"r=5,variant=tokenwise{spec}")
    assert reused == 3 * (3 * (17 - 5) * LINEAR + 4 * 17 * (17 - columns) * PRODUCTS)
    assert done == plain - reused


def test_with_pooling_the_content_may_save_more_than_is_promised() -> None:
    plain, (reused, done) = 4 * 3 * (17 * LINEAR + 17 * 17 * PRODUCTS), clip_of("r=3,pool_size=2")
    assert 0.8 * (plain - reused) < done <= plain - reused


LINEAR, PRODUCTS = 4 * 24 * 24 + 2 * 24 * 96, 2 * 24
"""One token in the linear layers of a block, and one pair of tokens in both products."""


def clip_of(settings: str) -> tuple[int, int]:
    """What the plan of one clip of four steps through three blocks calls reused, and what the blocks say they did."""
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "frames": 8, "dim": 24, "depth": 3, "temporal_depth": 2, "num_heads": 3}
    model = ViViT(**sizes, num_classes=7).eval()
    fast = attach(model, build(f"eventful:{settings}"))
    own: Any = fast.reducer
    with own.recorded() as log, torch.no_grad():
        fast(torch.randn(1, 3, 8, 32, 32))
    assert fast.plan is not None
    assert count(fast.geometry, unreduced_plan(fast.geometry)).macs - count(fast.geometry, fast.plan).macs == (
        fast.plan.reused
    )
    return fast.plan.reused, sum(work.macs for work in log)


def test_pooled_keys_can_be_counted_from_outside() -> None:
    model = ViViT(img_size=16, frames=4, patch_size=4, dim=8, depth=2, temporal_depth=1, num_heads=2, num_classes=3)
    clips = torch.randn(1, 3, 4, 16, 16)
    counted = [fvcore_macs(attach(model, build(f"eventful:r=5{more}")), (clips,)) for more in ("", ",pool_size=2")]
    assert 0 < counted[1].macs < counted[0].macs
    assert counted[1].unsupported == {}
