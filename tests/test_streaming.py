"""Gates over time against what they mean: every buffer is its operation on what was last sent."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokred.backbones.geometry import Geometry
from tokred.backbones.parts import BlockParts
from tokred.schedule import ScheduleError
from tokred.streaming import (
    AttentionValue,
    Chosen,
    Fraction,
    GatedBlock,
    GateSettings,
    QueryKey,
    Threshold,
    TokenBuffer,
    TokenGate,
    TopR,
)
from tokred.streaming.counts import BlockSizes, frame_counts, frame_macs, planned_macs
from tokred.streaming.policies import chosen_of
from tokred.streaming.pooling import Pooling
from tokred.tokens import Grid

DIM, HEADS, N = 24, 3, 20
GRID = Grid(1, 4, 4)  # behind 4 prefix tokens


def block_parts(seed: int = 0) -> BlockParts:
    torch.manual_seed(seed)
    norms = [nn.LayerNorm(DIM), nn.LayerNorm(DIM)]
    qkv, proj, first, second = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM), nn.Linear(DIM, 48), nn.Linear(48, DIM)
    for layer in (qkv, proj, first, second):
        nn.init.normal_(layer.weight, std=0.3)
    return BlockParts(
        norms[0], qkv, proj, norms[1], lambda y: second(F.gelu(first(y))), HEADS, DIM // HEADS, (DIM // HEADS) ** -0.5
    )


def video(streams: int, frames: int, moving: int = N, seed: int = 1) -> list[Tensor]:
    """Frames (B, N, C) of which only the first tokens change."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(streams, N, DIM, generator=g)
    found = [x]
    for _ in range(frames - 1):
        x = x.clone()
        x[:, :moving] += torch.randn(streams, moving, DIM, generator=g) * torch.rand(streams, moving, 1, generator=g)
        found.append(x)
    return found


class Meaning:
    """One stream: what the three gates sent last and compare with, and columns of A as they were last let through."""

    def __init__(self, parts: BlockParts, settings: GateSettings, pool: int) -> None:
        self.parts, self.settings, self.pool = parts, settings, pool
        self.sent: dict[str, Tensor] = {}
        self.references: dict[str, Tensor] = {}
        self.attention: Tensor | None = None

    def gate(self, name: str, y: Tensor) -> tuple[Tensor, list[int]]:
        old = self.references.get(name)
        if old is None:
            self.sent[name] = self.references[name] = y.clone()
            return y, list(range(N))
        length = [float((y[i].double() - old[i].double()).norm()) for i in range(N)]
        policy = self.settings.policy
        if isinstance(policy, TopR):
            picked = sorted(range(N), key=lambda i: -length[i])[: policy.r]
        else:
            assert isinstance(policy, Threshold)
            picked = [i for i in range(N) if length[i] > policy.threshold]
        new = self.sent[name].clone()
        new[picked] = y[picked]
        self.sent[name] = new
        self.references[name] = y.clone() if self.settings.forget else new
        return new, picked

    def pooled(self, x: Tensor) -> Tensor:
        if self.pool == 1:
            return x
        squares = [[4 + 4 * (2 * r + i) + 2 * c + j for i in (0, 1) for j in (0, 1)] for r in (0, 1) for c in (0, 1)]
        return torch.stack([*x[:, :4].unbind(1), *(x[:, square].mean(1) for square in squares)], dim=1)

    def cell(self, token: int) -> int:
        if self.pool == 1 or token < 4:
            return token
        return 4 + (token - 4) // 4 // 2 * 2 + (token - 4) % 4 // 2

    def __call__(self, x: Tensor) -> Tensor:
        parts = self.parts
        sent, picked = self.gate("qkv", parts.norm1(x))
        q, k, v = (part[0] for part in parts.split(parts.qkv(sent[None])))
        k, v = self.pooled(k), self.pooled(v)
        attention = (q @ k.transpose(-2, -1) * parts.scale).softmax(-1)
        if self.settings.variant == "full" and self.attention is not None:
            columns = sorted({self.cell(i) for i in picked})
            mixed = self.attention.clone()
            mixed[..., columns] = attention[..., columns]
            attention = mixed
        self.attention = attention
        out = (attention @ v).transpose(0, 1).flatten(1)
        y = parts.project(self.gate("projection", out)[0]) + x
        return parts.feed(self.gate("mlp", parts.norm2(y))[0]) + y


@torch.no_grad()
@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("variant", ["tokenwise", "qk", "full"])
@pytest.mark.parametrize("policy", [TopR(5), TopR(13), Threshold(1.5), TopR(0)], ids=str)
def test_streams_in_lockstep_are_each_what_they_mean_alone(policy: TopR | Threshold, variant: str, pool: int) -> None:
    """Also with pooling and with numbers that differ from stream to stream, where the official code takes one only."""
    parts, settings = block_parts(), GateSettings(policy, variant)
    gated = GatedBlock(settings, Pooling(2, GRID, 4) if pool == 2 else None)
    alone = [Meaning(parts, settings, pool) for _ in range(3)]
    for x in video(3, 5):
        wanted = torch.stack([one(stream) for one, stream in zip(alone, x, strict=True)])
        torch.testing.assert_close(gated(parts, x), wanted, atol=2e-5, rtol=1e-5)
    if isinstance(policy, Threshold):
        assert len(set(gated.chosen["qkv"].counts.tolist())) > 1, "the streams should differ in this test"


@torch.no_grad()
def test_stgt_forgets_what_it_did_not_send() -> None:
    parts, settings = block_parts(), GateSettings(TopR(4), "tokenwise", forget=True)
    gated, alone = GatedBlock(settings), Meaning(parts, settings, 1)
    for x in video(1, 4):
        torch.testing.assert_close(gated(parts, x)[0], alone(x[0]), atol=2e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("variant", ["tokenwise", "qk", "full"])
@pytest.mark.parametrize("policy", [TopR(N), Fraction(1.0), Threshold(-1.0)], ids=str)
def test_sending_every_token_is_the_plain_block(policy: TopR, variant: str) -> None:
    parts = block_parts()
    gated = GatedBlock(GateSettings(policy, variant))
    for x in video(2, 4):
        torch.testing.assert_close(gated(parts, x), parts.whole(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_static_tokens_keep_stale_columns_unless_refreshed() -> None:
    """Defect of the published method: threshold 0 is exact for "tokenwise" and "qk", not for "full"."""
    parts = block_parts()
    errors = {}
    for name, settings in {
        "tokenwise": GateSettings(Threshold(0.0), "tokenwise"),
        "qk": GateSettings(Threshold(0.0), "qk"),
        "full": GateSettings(Threshold(0.0), "full"),
        "refreshed": GateSettings(Threshold(0.0), "full", refresh=1),
    }.items():
        gated = GatedBlock(settings)
        gaps = [float((gated(parts, x) - parts.whole(x)).abs().max()) for x in video(1, 5, moving=6)]
        errors[name] = max(gaps)
    assert errors["full"] > 0.05
    assert max(errors[name] for name in ("tokenwise", "qk", "refreshed")) < 1e-5


@torch.no_grad()
def test_a_static_scene_converges_only_with_a_refresh() -> None:
    parts = block_parts()
    frames = video(1, 3)
    frames += [frames[-1]] * 12
    last = {}
    for refresh in (0, 3):
        gated = GatedBlock(GateSettings(TopR(5), "full", refresh=refresh))
        last[refresh] = [float((gated(parts, x) - parts.whole(x)).abs().max()) for x in frames][-1]
    assert last[0] > 1e-3
    assert last[3] < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_kept_product_does_not_drift_in_half_precision(dtype: torch.dtype) -> None:
    """Defect of the official code: its sum is in half precision too."""
    g = torch.Generator().manual_seed(0)
    product, drifting, exact, worst = AttentionValue(), None, None, {"ours": 0.0, "half": 0.0}
    held = v = None
    for _ in range(150):
        a = torch.randn(1, 2, N, N, generator=g).softmax(-2).to(dtype)
        index = torch.randperm(N, generator=g)[:6].sort().values[None]
        fresh = torch.randn(1, 2, N, 4, generator=g).to(dtype)
        if held is None or v is None or drifting is None:
            held, v = a.clone(), fresh
            ours, drifting = product(a, v, None, None, None), held.transpose(-2, -1) @ v
        else:
            old, before = v[:, :, index[0]], held[:, :, index[0]].transpose(-2, -1)
            v = v.clone()
            v[:, :, index[0]] = fresh[:, :, index[0]]
            held[:, :, index[0]] = a[:, :, index[0]]
            new, after = v[:, :, index[0]], held[:, :, index[0]].transpose(-2, -1)
            ours = product(a, v, Chosen(index), new, old)
            drifting = drifting + after @ (new - old) + (after - before) @ old
        exact = held.double().transpose(-2, -1) @ v.double()
        worst["ours"] = max(worst["ours"], float((ours.double() - exact).abs().max()))
        worst["half"] = max(worst["half"], float((drifting.double() - exact).abs().max()))
    assert worst["ours"] < 1e-4
    assert worst["half"] > 20 * worst["ours"]


@torch.no_grad()
def test_tensors_of_the_caller_are_never_written_on() -> None:
    parts = block_parts()
    for settings in (GateSettings(TopR(5)), GateSettings(TopR(5), gate_before_norm=True)):
        gated = GatedBlock(settings)
        for x in video(2, 4):
            before = x.clone()
            out = gated(parts, x)
            kept = out.clone()
            gated(parts, x + 1)
            assert torch.equal(x, before)
            assert torch.equal(out, kept)


def test_gradients_reach_the_sent_tokens_and_leave_the_state_alone() -> None:
    parts = block_parts()
    gated = GatedBlock(GateSettings(TopR(5)))
    first, second, third = video(1, 3)
    gated(parts, first)
    x = second.clone().requires_grad_()
    out = gated(parts, x)
    with torch.no_grad():
        gated(parts, third)
    out.sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
    assert bool(x.grad.any())
    assert not any(tensor.requires_grad for tensor in gated.tensors())


def test_state_of_inference_mode_can_be_carried_on_outside() -> None:
    parts = block_parts()
    gated, other = GatedBlock(GateSettings(TopR(5))), GatedBlock(GateSettings(TopR(5)))
    frames = video(1, 3)
    with torch.inference_mode():
        gated(parts, frames[0])
    with torch.no_grad():
        other(parts, frames[0])
        for x in frames[1:]:
            torch.testing.assert_close(gated(parts, x), other(parts, x))


def test_ties_go_to_the_earlier_and_not_a_number_counts_as_most() -> None:
    length = torch.tensor([[1.0, 3.0, 3.0, float("nan"), 3.0]])
    assert TopR(3).choose(length).index.tolist() == [[1, 2, 3]]
    assert Threshold(2.0).choose(length).index.tolist() == [[1, 2, 4]]
    assert Fraction(0.5).choose(length).index.tolist() == [[1, 3]]
    assert Threshold(5.0).choose(length).index.shape == (1, 0)
    with pytest.raises(ScheduleError, match="r = 6"):
        TopR(6).choose(length)


def test_a_rectangle_of_choices_names_no_position_twice() -> None:
    mask = torch.tensor([[True, False, True, True], [False, False, False, True], [False] * 4])
    chosen = chosen_of(mask)
    assert chosen.counts.tolist() == [3, 1, 0]
    assert [chosen.of_stream(i).tolist() for i in range(3)] == [[0, 2, 3], [3], []]
    assert all(len(set(row)) == len(row) for row in chosen.index.tolist())


def test_a_gate_without_policy_needs_its_choice_and_a_buffer_keeps_the_rest() -> None:
    gate, buffer = TokenGate(None), TokenBuffer()
    x = torch.arange(12.0).reshape(1, 4, 3)
    gate(x)
    with pytest.raises(ValueError, match="without a policy"):
        gate(x)
    buffer(x, None)
    whole = buffer(-x[:, [2]], Chosen(torch.tensor([[2]])))
    assert whole[0, 2].tolist() == [-6.0, -7.0, -8.0]
    assert torch.equal(whole[0, [0, 1, 3]], x[0, [0, 1, 3]])


@torch.no_grad()
def test_query_key_follows_rows_and_columns() -> None:
    g = torch.Generator().manual_seed(0)
    kept = QueryKey()
    q, k = torch.randn(2, 3, 12, 4, generator=g), torch.randn(2, 3, 9, 4, generator=g)
    kept(q, k, None, None)
    for _ in range(3):
        rows = torch.stack([torch.randperm(12, generator=g)[:3].sort().values for _ in range(2)])
        columns = torch.stack([torch.randperm(9, generator=g)[:2].sort().values for _ in range(2)])
        for b in range(2):
            q[b, :, rows[b]] = torch.randn(3, 3, 4, generator=g)
            k[b, :, columns[b]] = torch.randn(3, 2, 4, generator=g)
        torch.testing.assert_close(kept(q, k, Chosen(rows), Chosen(columns)), k @ q.transpose(-2, -1))
        assert kept.pairs == 3 * 9 + 12 * 2


def test_pooling_refuses_grids_that_do_not_divide() -> None:
    with pytest.raises(ScheduleError, match="pool_size = 3 does not divide the grid of 4 x 4"):
        Pooling(3, GRID)


@torch.no_grad()
@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("variant", ["tokenwise", "qk", "full"])
@pytest.mark.parametrize("r", [0, 4, 12, N])
def test_the_planned_work_is_the_work_done(r: int, variant: str, pool: int) -> None:
    parts, settings = block_parts(), GateSettings(TopR(r), variant)
    pooling = Pooling(2, GRID, 4) if pool == 2 else None
    gated = GatedBlock(settings, pooling)
    geometry = Geometry(1, DIM, HEADS, DIM // HEADS, 48, GRID, 4, 0, (1, 1, 1))
    columns = N if pooling is None else pooling.count
    sizes = BlockSizes(N, DIM, DIM, HEADS, 48, columns)
    for i, x in enumerate(video(1, 2)):
        gated(parts, x)
        planned = planned_macs(settings, geometry, N, columns, flush=i == 0)
        done = frame_macs(gated, sizes)
        assert done == planned or (pool == 2 and i and done <= planned)


@pytest.mark.parametrize(("r", "steady"), [(24, 2.235), (48, 4.450), (96, 8.880)])
def test_published_cost_of_a_step_of_vivit_base(r: int, steady: float) -> None:
    """By the official counters, in 1e9: 12 blocks of 197 tokens, and the positions; 17.47 at a flush."""
    sizes = BlockSizes(197, 768, 768, 12, 3072, 197)
    for sent, wanted in ((None, 17.47), (r, steady)):
        gated = GatedBlock(GateSettings(TopR(r)))
        gated.buffers["qkv"].value = torch.zeros(1, 1, 1)
        if sent is not None:
            choice = Chosen(torch.arange(sent)[None])
            gated.chosen = dict.fromkeys(("qkv", "projection", "mlp", "value", "attention"), choice)
        total = 12 * sum(frame_counts(gated, sizes).values()) + 197 * 768
        assert total / 1e9 == pytest.approx(wanted, abs=0.006)
