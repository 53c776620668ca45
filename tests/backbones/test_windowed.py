"""A block on reduced tokens is the dense block on the filled grid, in every form; so are its attention statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parity_swin import attention
from torch import Tensor

from tokred.advance import advance
from tokred.attach import attach
from tokred.backbones import windowed
from tokred.backbones.swin_layers import SwinBlock
from tokred.backbones.videoswin_adapter import VideoSwinAdapter
from tokred.cover import Cover
from tokred.gather import take
from tokred.measure.flops import count
from tokred.measure.handles import fvcore_macs
from tokred.methods import RandomDrop
from tokred.probe import Probe
from tokred.reduction import Fuse, Keep, Merge, Reduction
from tokred.testing import default_backbones
from tokred.tokens import Grid, Tokens

DIM = 12
seeds = st.integers(0, 10**6)


@dataclass(frozen=True)
class Host:
    """A block and the grid that it runs on."""

    grid: Grid
    window: tuple[int, int, int]
    shifted: bool
    heads: int
    bias: bool

    def block(self, seed: int) -> SwinBlock:
        torch.manual_seed(seed)
        block = SwinBlock(DIM, self.heads, self.window, self.shifted, 2.0, self.bias, 0.0).double().eval()
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
        return block.requires_grad_(False)


axis = st.integers(1, 5)
hosts = st.builds(
    Host,
    st.builds(Grid, st.integers(1, 4), axis, axis),
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    st.booleans(),
    st.sampled_from([1, 3]),
    st.booleans(),
)


def keep(generator: torch.Generator, batch: int, tokens: Tokens, per_frame: bool) -> Keep:
    """A random subset in random order; the same number in every frame, or any tokens of the clip."""
    n = tokens.count
    groups = (tokens.groups or 1) if per_frame else 1
    size = n // groups
    left = int(torch.randint(1, size + 1, (), generator=generator))
    order = torch.rand(batch, groups, size, generator=generator).argsort(-1)[..., :left]
    index = order + torch.arange(groups)[:, None] * size
    return Keep(index.flatten(1), n, groups if per_frame else None)


def merge(generator: torch.Generator, batch: int, tokens: Tokens) -> Merge:
    """A random partition."""
    n = tokens.count
    left = int(torch.randint(1, n + 1, (), generator=generator))
    assign = torch.randint(0, left, (batch, n), generator=generator)
    order = torch.rand(batch, n, generator=generator).argsort(1)
    return Merge(assign.scatter(1, order[:, :left], torch.arange(left).expand(batch, -1)), left)


def fuse(generator: torch.Generator, batch: int, tokens: Tokens) -> Reduction:
    """Some tokens kept, one for the rest."""
    kept = keep(generator, batch, tokens, False)
    if kept.n_out == tokens.count:
        return kept
    return Fuse(kept.index, torch.full((batch, tokens.count), 0.1).scatter(1, kept.index, 0.0))


CHAINS = {
    "nothing": (),
    "keep per frame": ("frame",),
    "keep": ("keep",),
    "keep, keep": ("frame", "keep"),
    "merge": ("merge",),
    "keep, merge": ("keep", "merge"),
    "merge, keep": ("merge", "keep"),
    "fuse": ("fuse",),
    "merge, merge": ("merge", "merge"),
}
chains = st.sampled_from(sorted(CHAINS))


def reduced(host: Host, chain: str, batch: int, seed: int) -> Tokens:
    """Random tokens on the grid of a host, taken through a chain of random reductions."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, host.grid.patches, DIM, generator=generator, dtype=torch.float64)
    cover = Cover.whole(host.grid, batch, x.device, host.window)
    tokens = Tokens(x, host.grid, groups=host.grid.t, class_token=False, cover=cover)
    for kind in CHAINS[chain]:
        if kind in ("frame", "keep"):
            reduction: Reduction = keep(generator, batch, tokens, kind == "frame")
        else:
            reduction = {"merge": merge, "fuse": fuse}[kind](generator, batch, tokens)
        tokens = advance(tokens, reduction)
    return tokens


def cover_of(tokens: Tokens) -> Cover:
    assert tokens.cover is not None
    return tokens.cover


def averaged(full: Tensor, cover: Cover, count: int) -> Tensor:
    """The mean of what each token's places hold, (B, P, C) to (B, M, C), token by token."""
    rows = [
        torch.stack([full[b, cover.owner[b] == token].mean(0) for token in range(count)]) for b in range(full.shape[0])
    ]
    return torch.stack(rows)


def dense(block: SwinBlock, tokens: Tokens) -> Tensor:
    """select(block(refill(x))): attention on the whole grid; a token that carries several places takes their mean."""
    cover = cover_of(tokens)
    full = take(tokens.x, cover.fill)
    change = block.attn(block.norm1(full), tokens.grid, block.shifted)
    x = tokens.x + averaged(change, cover, tokens.count)
    return cast(Tensor, x + block.mlp(block.norm2(x)))


FORMS = {"published": (False, 0), "padded": (True, 10**6), "one by one": (True, 0)}


@pytest.mark.parametrize("form", FORMS)
@given(seeds, hosts, chains, st.integers(1, 3))
def test_a_block_on_reduced_tokens_is_the_dense_block_on_the_filled_grid(
    form: str, seed: int, host: Host, chain: str, batch: int
) -> None:
    skip, volume = FORMS[form]
    block, tokens = host.block(seed), reduced(host, chain, batch, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windowed, "LOOP_VOLUME", volume)
        found = VideoSwinAdapter(skip).run(block, tokens)
        apart = VideoSwinAdapter(skip).attend(block, tokens, None).x
    torch.testing.assert_close(found, dense(block, tokens), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(apart + block.mlp(block.norm2(apart)), found, rtol=1e-9, atol=1e-9)


def test_kept_tokens_of_a_block_are_those_of_the_dense_block_itself() -> None:
    """Where nothing is averaged, the whole block commutes with the choice, not its attention alone."""
    host = Host(Grid(3, 4, 5), (2, 3, 3), True, 3, True)
    block, tokens = host.block(1), reduced(host, "keep per frame", 2, 1)
    cover = cover_of(tokens)
    assert cover.home is not None
    whole = take(block(take(tokens.x, cover.fill), host.grid), cover.home)
    torch.testing.assert_close(VideoSwinAdapter().run(block, tokens), whole, rtol=1e-9, atol=1e-9)


def test_each_form_runs_where_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    for name in ("attend_kept", "attend_whole", "_padded", "_one_by_one"):
        own = getattr(windowed, name)

        def noted(*args: Any, own: Any = own, name: str = name) -> Tensor:
            ran.append(name)
            return cast(Tensor, own(*args))

        monkeypatch.setattr(windowed, name, noted)
        if name.startswith("attend"):
            monkeypatch.setattr(f"tokred.backbones.windowed_adapter.{name}", noted)
    small = Host(Grid(2, 4, 4), (2, 2, 2), True, 3, True)
    large = Host(Grid(4, 6, 6), (4, 5, 5), True, 3, True)

    def forms(host: Host, chain: str, skip: bool) -> list[str]:
        ran.clear()
        VideoSwinAdapter(skip).attend(host.block(0), reduced(host, chain, 2, 0), None)
        return list(ran)

    assert forms(small, "keep", True) == ["attend_kept", "_padded"]
    assert forms(large, "keep", True) == ["attend_kept", "_one_by_one"]
    assert forms(small, "keep", False) == ["attend_whole"]
    assert forms(small, "nothing", True) == ["attend_whole"]
    assert forms(small, "merge", True) == ["attend_whole"]
    assert forms(small, "merge, keep", True) == ["attend_whole"]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert forms(small, "keep", True) == ["attend_whole"]


def test_a_whole_frame_may_be_gone() -> None:
    host = Host(Grid(3, 2, 3), (2, 2, 2), True, 3, True)
    block, tokens = host.block(3), reduced(host, "nothing", 2, 3)
    tokens = advance(tokens, Keep(torch.tensor([[0, 3, 5, 12, 13], [6, 7, 8, 10, 11]]), 18))
    for form in FORMS.values():
        torch.testing.assert_close(VideoSwinAdapter(form[0]).run(block, tokens), dense(block, tokens))
    fill = cover_of(tokens).fill.view(2, 3, 6)
    assert torch.equal(fill[0, 1], fill[0, 0])
    assert torch.equal(fill[1, 0], fill[1, 1])
    assert torch.equal(fill[1, 2], fill[1, 1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("form", FORMS)
def test_formats_and_autocast(form: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    skip, volume = FORMS[form]
    monkeypatch.setattr(windowed, "LOOP_VOLUME", volume)
    host = Host(Grid(2, 3, 5), (2, 2, 3), True, 3, True)
    block, tokens = host.block(0), reduced(host, "keep", 2, 0)
    wanted = dense(block, tokens).float()
    cast_to = tokens.with_x(tokens.x.to(dtype))
    found = VideoSwinAdapter(skip).run(block.to(dtype), cast_to)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), wanted, rtol=0.05, atol=0.1)
    if dtype == torch.float32:
        with torch.autocast("cpu", torch.bfloat16):
            mixed = VideoSwinAdapter(skip).run(block, cast_to)
        torch.testing.assert_close(mixed.float(), wanted, rtol=0.05, atol=0.1)


@given(seeds, hosts, st.sampled_from(["keep", "keep per frame", "merge"]), st.integers(1, 2))
def test_gradients_are_those_of_the_dense_block(seed: int, host: Host, chain: str, batch: int) -> None:
    found = []
    tokens = reduced(host, chain, batch, seed)
    weight = torch.randn(tokens.x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    for skip, volume in (*FORMS.values(), (None, 0)):
        block, x = host.block(seed).requires_grad_(), tokens.x.clone().requires_grad_()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(windowed, "LOOP_VOLUME", volume)
            moved = tokens.with_x(x)
            out = dense(block, moved) if skip is None else VideoSwinAdapter(skip).run(block, moved)
        names = [name for name, _ in block.named_parameters()]
        slopes = torch.autograd.grad((out * weight).sum(), [x, *block.parameters()])
        found.append(dict(zip(["x", *names], slopes, strict=True)))
    for name, wanted in found.pop().items():
        for slopes in found:
            torch.testing.assert_close(slopes[name], wanted, rtol=1e-8, atol=1e-8, msg=name)


def statistics(host: Host, block: SwinBlock, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Received attention and negative entropy of every token, from the map over the padded grid."""
    cover = cover_of(tokens)
    weights = dict(block.state_dict())
    full = block.norm1(take(tokens.x, cover.fill)).unflatten(1, host.grid)
    shift = tuple(length // 2 if host.shifted else 0 for length in host.window)
    _, maps = attention(weights, "", full, host.heads, host.window, shift)  # type: ignore[arg-type]
    mean = maps.mean(1)  # (B, P', P')
    sizes = [min(length, size) for length, size in zip(host.grid, host.window)]
    padded = [-(-length // size) * size for length, size in zip(host.grid, sizes)]
    real = [
        (t * padded[1] + h) * padded[2] + w
        for t in range(host.grid.t)
        for h in range(host.grid.h)
        for w in range(host.grid.w)
    ]
    received = mean[:, real][:, :, real].sum(1) / host.grid.patches
    negative = torch.special.xlogy(mean, mean).sum(-1)[:, real]
    return tuple(averaged(part[..., None], cover, tokens.count)[..., 0] for part in (received, negative))  # type: ignore[return-value]


@given(seeds, hosts, chains, st.integers(1, 2))
def test_statistics_are_those_of_the_dense_maps_at_the_places_of_the_tokens(
    seed: int, host: Host, chain: str, batch: int
) -> None:
    block, tokens = host.block(seed), reduced(host, chain, batch, seed)
    attended = VideoSwinAdapter().attend(block, tokens, None)
    probe = Probe(tokens.x, *attended[1:4], scale=attended.scale, statistics=attended.statistics)
    received, negative = statistics(host, block, tokens)
    torch.testing.assert_close(probe.received, received, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(probe.negative_entropy, negative, rtol=1e-7, atol=1e-9)
    volume = 1
    for length, size in zip(host.grid, host.window, strict=True):
        volume *= min(length, size)
    sharpness = negative + torch.tensor(float(volume)).log().double()
    torch.testing.assert_close(probe.sharpness, sharpness, rtol=1e-6, atol=1e-6)


def test_received_attention_of_whole_unpadded_grids_adds_up_to_one() -> None:
    host = Host(Grid(4, 4, 6), (2, 2, 3), True, 3, True)
    block, tokens = host.block(0), reduced(host, "nothing", 2, 0)
    attended = VideoSwinAdapter().attend(block, tokens, None)
    assert attended.statistics is not None
    rows = attended.statistics.rows(attended.q, attended.k, attended.scale, received=True, entropy=False)
    assert rows.received is not None
    torch.testing.assert_close(rows.received.sum(1), torch.ones(2, dtype=torch.float64))
    assert rows.negative_entropy is None
    assert rows.sharpness is None


def test_statistics_need_the_attention_inside_windows() -> None:
    host = Host(Grid(2, 4, 4), (2, 2, 2), False, 3, True)
    attended = VideoSwinAdapter().attend(host.block(0), reduced(host, "nothing", 1, 0), None)
    probe = Probe(attended.x, *attended[1:4], statistics=attended.statistics)
    for name in ("attention", "mean_query_row"):
        with pytest.raises(Exception, match=f"{name} does not exist here: the attention is not that of all tokens"):
            getattr(probe, name)


def test_windows_that_are_filled_up_to_the_fullest_one_are_noted() -> None:
    """What runs is more than the count without replicas, and at most the published one: fvcore counts it."""
    model, pixels = default_backbones()[-1].build()
    fast = attach(model, RandomDrop(0.5, at=(1,)))
    assert fast.plan is not None
    assert fast.notes == (
        "attention of block 2: every window runs as many queries as the fullest one, so more than the multiply-adds "
        "without replicas, and at most the published ones",
    )
    report = count(fast.geometry, fast.plan)
    ran = fvcore_macs(fast, (pixels[:1],)).macs
    assert report.executed_macs < ran < report.executed_macs + report.skipped
    assert not attach(model, RandomDrop(0.5, at=(1,)), skip_replicas=False).notes
    cuda = windowed.padding_notes(fast.geometry, fast.plan, torch.device("cuda"))
    assert cuda == windowed.padding_notes(fast.geometry, fast.plan, torch.device("cpu")), "all windows here are small"


def test_large_windows_on_a_cpu_run_exactly_their_queries() -> None:
    assert windowed.exact_form(96, torch.device("cpu"))
    assert not windowed.exact_form(95, torch.device("cpu"))
    assert not windowed.exact_form(392, torch.device("cuda"))
