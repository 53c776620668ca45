"""The loop over blocks: which path a block takes, what later steps see of earlier ones, proportional attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokred.backbones.adapter import Attended
from tokred.backbones.video_vit_adapter import VideoViTAdapter
from tokred.backbones.videoswin_adapter import VideoSwinAdapter
from tokred.compose import compose, parts_of
from tokred.driver import Actions, BlockCounts, actions_of, perform, recorder, run_blocks
from tokred.methods import STA, EViT, GridKeep, RandomDrop, ToMe, TopK
from tokred.probe import Probe
from tokred.reducer import Capabilities, Site, TokenReducer, keep_patches
from tokred.reduction import Reduction
from tokred.saliency import RowsWanted
from tokred.schedule import Schedule, ScheduleError
from tokred.testing import default_backbones
from tokred.tokens import Grid, Tokens, sample_seeds

VIDEO = default_backbones()[0]


class Watched(VideoViTAdapter):
    """Notes which blocks are taken apart, and with which mass bias."""

    def __init__(self) -> None:
        self.apart: list[Tensor | None] = []

    def attend(
        self, block: nn.Module, tokens: Tokens, log_size: Tensor | None, wanted: RowsWanted | None = None
    ) -> Attended:
        self.apart.append(log_size)
        return super().attend(block, tokens, log_size, wanted)


def run(
    reducer: TokenReducer, adapter: VideoViTAdapter | None = None, **known: Any
) -> tuple[Tokens, tuple[BlockCounts, ...]]:
    host, clips = VIDEO.build()
    adapter = adapter or VideoViTAdapter()
    tokens = adapter.embed(host, clips, None)
    tokens = Tokens(tokens.x, tokens.grid, groups=tokens.groups, sample_seed=sample_seeds(clips))
    actions: Actions = actions_of(parts_of(reducer), adapter.geometry(host))
    proportional = any(part.proportional for part in parts_of(reducer))
    with torch.no_grad():
        return run_blocks(adapter, host, tokens, actions, proportional=proportional, **known)


@pytest.mark.parametrize(
    ("reducer", "apart"),
    [
        (RandomDrop(0.5), 0),
        (GridKeep(0.5), 0),
        (STA(r=2), 3),
        (STA(r=(2, 0, 0)), 1),
        (TopK(0.5, at=(1,)), 1),
        (ToMe(r=3), 3),
        (ToMe(r=(3, 0, 0)), 1),
        (ToMe(r=(3, 0, 0), proportional=True), 3),
        (ToMe(r=(0, 0, 3), proportional=True), 1),
    ],
    ids=lambda value: getattr(value, "spec", value),
)
def test_a_block_is_taken_apart_only_where_a_step_needs_it(reducer: TokenReducer, apart: int) -> None:
    adapter = Watched()
    run(reducer, adapter)
    assert len(adapter.apart) == apart


def test_the_mass_bias_is_skipped_while_all_masses_are_one() -> None:
    adapter = Watched()
    run(ToMe(r=(3, 0, 0), proportional=True), adapter)
    assert [log_size is None for log_size in adapter.apart] == [True, False, False]
    adapter = Watched()
    run(ToMe(r=(3, 3, 3)), adapter)
    assert adapter.apart == [None, None, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_proportional_attention_is_softmax_with_the_log_of_the_masses(dtype: torch.dtype) -> None:
    host, clips = VIDEO.build()
    host = host.to(dtype)
    adapter = VideoViTAdapter()
    block: Any = adapter.blocks(host)[0]
    x = adapter.embed(host, clips.to(dtype), None).x
    size = torch.randint(1, 9, x.shape[:2], generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        found = adapter.attend(block, Tokens(x, Grid(1, 1, x.shape[1])), size.log()).x
        q, k, v = block.attn.heads(block.norm1(x))
        weights = (q @ k.transpose(-1, -2) * block.attn.scale).exp() * size[:, None, None].to(dtype)
        weights = weights / weights.sum(-1, keepdim=True)
        expected = x + block.attn.proj((weights @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    plain = adapter.attend(block, Tokens(x, Grid(1, 1, x.shape[1])), None).x
    assert (found - plain).abs().max() > 1e-3


def test_counts_are_taken_before_and_after_the_step_between_attention_and_mlp() -> None:
    _, counts = run(compose(TopK(0.5, at=(1,)), RandomDrop(0.25, at=(1,))))
    grid = Grid(4, 4, 6)
    assert counts == (BlockCounts(96, 96, 96, grid), BlockCounts(96, 48, 96, grid), BlockCounts(12, 12, 12, grid))


def test_a_recorder_writes_down_what_was_done_and_changes_nothing() -> None:
    records: list[tuple[Site, Reduction]] = []
    reducer = ToMe(r=(3, 0, 2))
    with_records, _ = run(reducer, perform=recorder(records))
    without, _ = run(reducer)
    assert torch.equal(with_records.x, without.x)
    assert [(site.block, site.index, r.n_in, r.n_out) for site, r in records] == [(0, 0, 96, 93), (2, 2, 93, 91)]


def test_steps_of_several_parts_run_by_site_and_then_in_the_stated_order() -> None:
    seen: list[tuple[str, str, int]] = []

    def note(action: Any, tokens: Tokens, probe: Probe, site: Site) -> Any:
        seen.append((type(action.reducer).__name__, site.name, tokens.count))
        return perform(action, tokens, probe, site)

    at = (1,)
    run(compose(RandomDrop(0.5, at=at), TopK(0.5, at=at), GridKeep(1.0), EViT(0.5, at=at), Before()), perform=note)
    assert seen == [
        ("Before", "before_block", 96),
        ("TopK", "after_attention", 95),
        ("EViT", "after_attention", 48),
        ("RandomDrop", "after_block", 25),
    ]


class Before(TokenReducer):
    """Drops the last token before block 1."""

    site = "before_block"

    def __init__(self, site: str = "before_block") -> None:
        super().__init__(Schedule(at=(1,), drop=1))
        self.site = site  # type: ignore[misc]

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        return keep_patches(tokens, torch.arange(tokens.patch_count - 1).expand(len(tokens.x), -1))


def test_a_site_that_does_not_exist_is_refused_instead_of_never_running() -> None:
    message = r"acts at site 'after_attn': allowed are before_block, after_attention, after_block"
    with pytest.raises(ScheduleError, match=message):
        actions_of((Before("after_attn"),), VideoViTAdapter().geometry(VIDEO.build()[0]))


@pytest.mark.parametrize("first", [ToMe(r=20, at=(1,)), TopK(0.5, at=(1,)), EViT(0.5, at=(1,))], ids=lambda r: r.spec)
@pytest.mark.parametrize("site", ["after_attention", "after_block"])
def test_a_later_step_of_a_block_sees_statistics_of_what_is_left(first: TokenReducer, site: str) -> None:
    class Look(TokenReducer):
        capabilities = Capabilities(needs=frozenset({"key", "received", "block_input", "ffn"}))

        def __init__(self) -> None:
            super().__init__(Schedule(at=(1,), tokens=1))
            self.site = site  # type: ignore[misc]
            self.shapes: dict[str, tuple[int, ...]] = {}

        def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
            read = {"key": probe.mean_key, "received": probe.received, "block_input": probe.block_input}
            if site.name == "after_block":
                read["ffn"] = probe.ffn
            self.shapes = {name: value.shape for name, value in read.items()}
            self.count = tokens.count
            torch.testing.assert_close(probe.received.sum(1), torch.ones(len(tokens.x)))
            return None

    look = Look()
    run(compose(first, look))
    assert look.count < 96
    assert {shape[1] for shape in look.shapes.values()} == {look.count}


def test_statistics_behind_a_step_before_the_block_are_those_of_its_attention() -> None:
    class Half(Before):
        def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
            return keep_patches(tokens, torch.arange(48, 96).expand(len(tokens.x), -1))

    class Look(TopK):
        def reduce(self, tokens: Tokens, probe: Probe, site: Site):  # type: ignore[no-untyped-def]
            assert probe.received.shape == (3, 48)
            return super().reduce(tokens, probe, site)

    found, _ = run(compose(Half(), Look(0.5, at=(1,))))
    assert found.count == 24


def test_the_mlp_branch_is_moved_only_by_steps_behind_the_mlp() -> None:
    class Ffn(TokenReducer):
        capabilities = Capabilities(needs=frozenset({"ffn"}))
        seen: Tensor

        def __init__(self) -> None:
            super().__init__(Schedule(at=(1,), tokens=1))

        def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
            self.seen = probe.ffn
            return None

    alone, behind = Ffn(), Ffn()
    run(alone)
    run(compose(Before("after_block"), behind))
    assert torch.equal(behind.seen, alone.seen[:, :-1])
    run(compose(TopK(0.5, at=(1,)), Before("after_block"), behind))
    assert behind.seen.shape[1] == 47


def test_a_step_that_needs_frames_is_refused_after_one_that_lost_them() -> None:
    with pytest.raises(ScheduleError, match=r"grid:keep=0\.5 at block 0 needs equal temporal groups, which an earlier"):
        run(compose(TopK(0.5, at=(0,)), GridKeep(0.5)))


def test_checkpointed_blocks_give_the_same_tokens() -> None:
    host, clips = VIDEO.build()
    adapter = VideoViTAdapter()
    found = []
    for checkpoint in (False, True):
        tokens = adapter.embed(host, clips, None)
        actions = actions_of((ToMe(r=5, proportional=True),), adapter.geometry(host))
        tokens, counts = run_blocks(adapter, host, tokens, actions, proportional=True, checkpoint=checkpoint)
        found.append((tokens.x, tokens.size, counts))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])  # type: ignore[arg-type]
    assert found[0][2] == found[1][2]


WINDOWS = default_backbones()[-1]


def run_windows(reducer: TokenReducer, **known: Any) -> tuple[Tokens, tuple[BlockCounts, ...]]:
    host, clips = WINDOWS.build()
    adapter = VideoSwinAdapter()
    tokens = replace(adapter.embed(host, clips, None), sample_seed=sample_seeds(clips))
    actions = actions_of(parts_of(reducer), adapter.geometry(host))
    with torch.no_grad():
        return run_blocks(adapter, host, tokens, actions, proportional=True, **known)


def test_a_stage_starts_from_a_whole_grid_whatever_was_dropped_before() -> None:
    tokens, counts = run_windows(compose(RandomDrop(0.5, at=(0,)), RandomDrop(0.5, at=(1,)), RandomDrop(0.5, at=(3,))))
    assert [(c.attention, c.mlp, c.queries) for c in counts] == [(210, 210, 210), (30, 30, 30), (15, 15, 15), (18,) * 3]
    assert [c.grid for c in counts] == [Grid(3, 7, 10), Grid(3, 4, 5), Grid(3, 4, 5), Grid(3, 2, 3)]
    assert (tokens.count, tokens.grid) == (9, Grid(3, 2, 3))


def test_merged_tokens_ask_from_each_of_their_places() -> None:
    _, counts = run_windows(ToMe(r=(10, 10, 0), at=(1, 2, 3)))
    assert [(c.attention, c.mlp, c.queries) for c in counts] == [
        (210, 210, 210),
        (60, 50, 60),
        (50, 40, 60),
        (18, 18, 18),
    ]


def test_masses_are_forgotten_at_the_next_stage_and_add_no_bias_on_windows() -> None:
    tokens, _ = run_windows(ToMe(r=(10, 10), at=(1, 2), proportional=True))
    assert tokens.size is None
    tokens, _ = run_windows(ToMe(r=(10, 3), at=(1, 3), proportional=True))
    assert tokens.size is not None
    assert tokens.size.sum(1).tolist() == [18.0] * 3


def test_temporal_groups_are_those_of_the_clip_again_after_patch_merging() -> None:
    lost, _ = run_windows(compose(TopK(0.5, at=(0,)), GridKeep(0.5, at=(0,))))
    assert lost.groups == 3
    with pytest.raises(ScheduleError, match=r"grid:keep=0\.5.* at block 1 needs equal temporal groups"):
        run_windows(compose(TopK(0.5, at=(1,)), GridKeep(0.5, at=(1,))))


def test_on_windows_no_mass_bias_is_added_because_a_merged_token_stands_on_each_of_its_places() -> None:
    biases: list[Tensor | None] = []

    class Noted(VideoSwinAdapter):
        def attend(
            self, block: nn.Module, tokens: Tokens, log_size: Tensor | None, wanted: RowsWanted | None = None
        ) -> Attended:
            biases.append(log_size)
            return super().attend(block, tokens, log_size, wanted)

    host, clips = WINDOWS.build()
    actions = actions_of((ToMe(r=(10, 10), at=(1, 2)),), VideoSwinAdapter().geometry(host))
    with torch.no_grad():
        run_blocks(Noted(), host, VideoSwinAdapter().embed(host, clips, None), actions, proportional=True)
    assert len(biases) >= 2
    assert all(bias is None for bias in biases)
