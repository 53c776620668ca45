"""STTS: the scorer, the choice at inference, the mixture in training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tokred
from tokred.anchors import Anchors
from tokred.attach import Attached, attach
from tokred.backbones.geometry import Geometry
from tokred.budget import macs_of
from tokred.learned import LearnedError
from tokred.methods import STTS, STTSHeuristic
from tokred.methods.stts import Scorer
from tokred.probe import Probe
from tokred.reducer import Site
from tokred.reduction import Keep, Reduction
from tokred.schedule import ScheduleError
from tokred.soft_cut import Chained, MixFrames, MixSquares
from tokred.testing import default_backbones
from tokred.tokens import Grid, Tokens
from tokred.two_stage import CutStep

HOSTS = {backbone.name: backbone for backbone in default_backbones()}
MVIT_STAGE = Geometry(
    depth=16, dim=384, heads=4, head_dim=96, mlp_hidden=1536, grid=Grid(8, 14, 14), prefix=1, classes=400,
    kernel=(2, 16, 16),
)  # fmt: skip


def randomised(reducer: STTS, seed: int = 0) -> STTS:
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in reducer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=g))
    return reducer


def built(width: int, **settings: Any) -> STTS:
    reducer = STTS(weights=None, **settings)
    reducer.build_for(width, width)
    return randomised(reducer)


def clip(grid: Grid, prefix: int, width: int = 8, seed: int = 0) -> Tokens:
    x = torch.randn(2, prefix + grid.patches, width, generator=torch.Generator().manual_seed(seed))
    return Tokens(x, grid, prefix, groups=grid.t, sample_seed=torch.tensor([3, 4]))


def decide(reducer: STTS, tokens: Tokens, time: float, space: float) -> Reduction | None:
    step = CutStep(0, 0, "keep", time * space, time, space)
    return reducer.reduce(tokens, Probe(tokens.x), Site("before_block", step, 6, tokens.grid.t))


def by_definition(scorer: Scorer, x: Tensor) -> Tensor:
    """The scorer with the shared half written into every position."""
    h = scorer.in_conv(x)
    half = x.shape[-1] // 2
    shared = h[..., half:].mean(1, keepdim=True).expand(-1, x.shape[1], -1)
    return scorer.out_conv(torch.cat([h[..., :half], shared], dim=-1))[..., 0]


def scorers(reducer: STTS) -> tuple[Scorer, Scorer]:
    found = [
        kind[0].get_submodule("score_network") for kind in (reducer.time_score_predictor, reducer.space_score_predictor)
    ]
    assert isinstance(found[0], Scorer)
    assert isinstance(found[1], Scorer)
    return found[0], found[1]


def test_the_shared_half_may_be_multiplied_once() -> None:
    scorer, _ = scorers(built(8))
    x = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(scorer(x), by_definition(scorer, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prefix", [0, 2])
def test_at_inference_the_best_frames_and_the_best_square_of_each_are_kept(prefix: int) -> None:
    grid = Grid(5, 4, 6)
    reducer, tokens = built(8, time=0.6, space=0.6).eval(), clip(Grid(5, 4, 6), prefix)
    time, space = scorers(reducer)
    kept = decide(reducer, tokens, 0.6, 0.6)
    assert isinstance(kept, Keep)
    anchors = Anchors(4, 6, 3, 4)
    frames = tokens.by_frame()
    with torch.no_grad():
        pooled = torch.cat([frames.mean(2), frames.amax(2)], -1)
        ranked = by_definition(time, pooled)
        for b in range(2):
            best = sorted(ranked[b].argsort(descending=True)[:3].tolist())
            expected = list(range(prefix))
            for t in best:
                scores = by_definition(space, frames[b, t][None])[0]
                q = max(range(anchors.count), key=lambda q: float(scores[anchors.places()[q]].mean()))
                expected += [prefix + t * grid.per_frame + int(place) for place in anchors.places()[q]]
            assert kept.index[b].tolist() == expected
    assert (kept.groups, kept.grid) == (3, Grid(3, 3, 4))


def test_in_training_the_counts_are_those_of_inference_and_survivors_are_mixtures() -> None:
    tokens = clip(Grid(5, 4, 6), 1)
    reducer = built(8, time=0.6, space=0.6)
    kinds = {(0.6, 1.0): MixFrames, (1.0, 0.6): MixSquares, (0.6, 0.6): Chained}
    for shares, kind in kinds.items():
        soft, hard = decide(reducer.train(), tokens, *shares), decide(reducer.eval(), tokens, *shares)
        assert isinstance(soft, kind)
        assert hard is not None
        assert (soft.n_in, soft.n_out, soft.groups, soft.grid) == (hard.n_in, hard.n_out, hard.groups, hard.grid)
    assert decide(reducer.train(), tokens, 1.0, 1.0) is None


def test_with_little_noise_the_mixture_is_the_choice() -> None:
    tokens = clip(Grid(5, 4, 6), 1)
    reducer = built(8, time=0.6, space=0.6, sigma=1e-6)
    soft, hard = decide(reducer.train(), tokens, 0.6, 0.6), decide(reducer.eval(), tokens, 0.6, 0.6)
    assert soft is not None
    assert hard is not None
    torch.testing.assert_close(soft.apply(tokens.x), hard.apply(tokens.x))


def test_noise_follows_the_clip_and_the_step_and_not_the_batch() -> None:
    tokens = clip(Grid(5, 4, 6), 0)
    reducer = built(8, time=0.6, samples=20).train()
    first, again = decide(reducer, tokens, 0.6, 1.0), decide(reducer, tokens, 0.6, 1.0)
    assert isinstance(first, MixFrames)
    assert isinstance(again, MixFrames)
    assert torch.equal(first.weights, again.weights)
    alone = Tokens(tokens.x[1:], tokens.grid, groups=5, sample_seed=torch.tensor([4]))
    own = decide(reducer, alone, 0.6, 1.0)
    assert isinstance(own, MixFrames)
    assert torch.equal(own.weights, first.weights[1:])
    reducer.progress(1, 1_000_000_000)
    later = decide(reducer, tokens, 0.6, 1.0)
    assert isinstance(later, MixFrames)
    assert not torch.equal(first.weights, later.weights)


def test_sigma_falls_to_zero_with_the_steps_or_stays() -> None:
    for decay, expected in ((True, [0.2, 0.15, 0.05]), (False, [0.2, 0.2, 0.2])):
        reducer = STTS(sigma=0.2, decay=decay)
        found = []
        for step in (0, 1, 3):
            reducer.progress(step, 4)
            found.append(reducer.current_sigma())
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("name", ["video", "windows"])
@pytest.mark.parametrize("jacobian", ["diagonal", "full"])
def test_training_reaches_both_scorers_and_the_host(name: str, jacobian: str) -> None:
    if name not in HOSTS:
        pytest.skip(f"no {name} backbone here")
    host, clips = HOSTS[name].build()
    fast = attach(host, STTS(time=0.7, space=0.6, sigma=1.0, samples=20, jacobian=jacobian, weights=None)).train()
    assert isinstance(fast.reducer, STTS)
    randomised(fast.reducer)
    logits = fast(clips)
    assert logits.shape == host(clips).shape
    (logits * torch.arange(logits.shape[1])).sum().backward()
    for scorer in scorers(fast.reducer):
        slopes = {name: parameter.grad for name, parameter in scorer.named_parameters()}
        # The last bias moves all scores alike, which min-max takes out again.
        assert all(g is not None and bool(g.any()) for n, g in slopes.items() if n != "out_conv.4.bias")
    assert all(p.grad is not None for n, p in host.named_parameters() if n.startswith("patch_embed"))


def test_windows_run_on_the_smaller_grid() -> None:
    if "windows" not in HOSTS:
        pytest.skip("no windows backbone here")
    host, clips = HOSTS["windows"].build()
    reducer = STTSHeuristic(time=0.7, space=0.6)
    fast = attach(host, reducer).eval()
    geometry = fast.geometry
    frames = reducer.extents(geometry.grid, *reducer.shares(geometry))[0]
    assert fast.plan is not None
    assert fast.plan.grids[0] == Grid(frames, geometry.grid.h, geometry.grid.w)
    second = fast.plan.grids[geometry.stages[0].depth]
    assert second.t == frames
    assert second < geometry.stage_grid(1)
    run = fast.run(clips, trace=True, record=True)
    assert run.tokens.cover is not None
    assert run.tokens.cover.complete
    assert run.tokens.count == fast.plan.final == run.tokens.grid.patches
    source = run.tokens.source
    assert source is not None
    assert torch.equal(source, traced(fast, [r for _, r in run.steps]))


def traced(fast: Attached, reductions: list[Reduction]) -> Tensor:
    """Which token carries each patch, followed patch by patch through one step before each of two stages."""
    geometry = fast.geometry
    first, second = reductions
    assert isinstance(first, Keep)
    assert isinstance(second, Keep)
    assert second.grid is not None
    t, h, w = geometry.grid
    out = torch.full((first.index.shape[0], t * h * w), -1)
    for b in range(out.shape[0]):
        for frame in range(t):
            for y in range(h):
                for x in range(w):
                    place = (frame * h + y) * w + x
                    where = (first.index[b] == place).nonzero()
                    if len(where) == 0:
                        continue
                    kept, inside = divmod(int(where[0, 0]), h * w)
                    grid = Grid(first.n_out // (h * w), h, w).halved
                    merged = kept * grid.per_frame + (inside // w) // 2 * grid.w + (inside % w) // 2
                    found = (second.index[b] == merged).nonzero()
                    if len(found) == 0:
                        continue
                    place, grid = int(found[0, 0]), second.grid
                    for _ in range(len(geometry.stages) - 2):
                        frame2, rest = divmod(place, grid.per_frame)
                        place = (
                            frame2 * grid.halved.per_frame + rest // grid.w // 2 * grid.halved.w + rest % grid.w // 2
                        )
                        grid = grid.halved
                    out[b, (frame * h + y) * w + x] = place
    return out


def test_the_published_cost_of_both_scorers() -> None:
    """MViT-B 16x4: 0.33 G multiply-adds for 7 frames of 14 x 14 before block 4, 0.5 M for 8 frames of width 96."""
    reducer = STTS(time=0.875, space=0.863)
    spatial = reducer.macs(1 + 7 * 196, MVIT_STAGE, CutStep(4, 1, "keep", 0.863, 1.0, 0.863))
    assert spatial == 7 * 196 * (384 * 384 * 13 // 8 + 96)
    assert spatial == pytest.approx(0.33e9, rel=0.01)
    narrow = Geometry(**{**MVIT_STAGE.__dict__, "dim": 96, "grid": Grid(8, 56, 56)})
    temporal = reducer.macs(1 + 8 * 56 * 56, narrow, CutStep(0, 0, "keep", 0.875, 0.875, 1.0))
    assert temporal == pytest.approx(0.5e6, rel=0.05)


def test_fewer_frames_cost_on_videoswin_base_what_the_released_models_cost() -> None:
    from tokred.backbones.videoswin_adapter import VideoSwinAdapter

    with torch.device("meta"):
        host = tokred.create_backbone("videoswin_base")
    geometry = VideoSwinAdapter().geometry(host)
    for frames, published in ((16, 281.33), (8, 140.97), (6, 102.23)):
        report = macs_of(STTSHeuristic(time=frames / 16), geometry)
        assert (report.macs - report.norm) / 1e9 == pytest.approx(published, rel=2e-3)


def test_official_scorers_are_taken_and_others_refused() -> None:
    reducer, other = built(8), built(8, sigma=0.05)
    randomised(other, 1)
    official = {name: tensor for name, tensor in other.state_dict().items() if "score_network" in name}
    official["blocks.0.norm1.weight"] = torch.zeros(3)
    reducer.load_official(official)
    assert reducer.trained
    for mine, theirs in zip(reducer.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(LearnedError, match="there are none"):
        reducer.load_official({"blocks.0.norm1.weight": torch.zeros(3)})
    name = "space_score_predictor.0.score_network.in_conv.1.weight"
    for wider in (torch.zeros(16, 8), torch.zeros(4, 8)):
        with pytest.raises(LearnedError, match=f"{name} does not fit"):
            reducer.load_official({name: wider})
    with pytest.raises(LearnedError, match=r"time_score_predictor.1.score_network.x does not fit"):
        reducer.load_official({"time_score_predictor.1.score_network.x": torch.zeros(3)})


def test_a_nan_score_spoils_its_own_clip_alone() -> None:
    reducer, tokens = built(8, time=0.4).eval(), clip(Grid(5, 2, 2), 0)
    before = decide(reducer, tokens, 0.4, 1.0)
    assert isinstance(before, Keep)
    best = int(before.index[0, 0]) // 4
    spoiled = tokens.x.clone()
    spoiled[0, best * 4] = float("nan")
    after = decide(reducer, tokens.with_x(spoiled), 0.4, 1.0)
    assert isinstance(after, Keep)
    # The mean that all frames share is spoiled too: every score is NaN, and the earlier frames stay.
    assert after.index[0].tolist() == list(range(8))
    assert torch.equal(after.index[1], before.index[1])


def test_an_untrained_one_says_so() -> None:
    host, _ = HOSTS["video"].build()
    notes = attach(host, STTS(0.5, weights=None)).notes
    assert any("stts is untrained: its parameters are random" in note for note in notes)
    assert any("of 4 frames" in note for note in notes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": -0.1}, "sigma = -0.1 is negative"),
        ({"samples": 0}, "samples = 0 is not a whole number of at least 1"),
        ({"jacobian": "true"}, "jacobian = 'true' is not one of diagonal, full"),
        ({"keep": 0.5, "space": 0.5}, "give keep, or time and space, not both"),
    ],
)
def test_wrong_settings_are_refused_when_it_is_made(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        STTS(**settings)


def test_a_width_that_the_scorer_cannot_split_is_refused() -> None:
    with pytest.raises(ScheduleError, match="this backbone has 6 and 6"):
        STTS(0.5).build_for(6, 6)


def test_untrained_scorers_start_from_torchs_own_initialiser_at_seeds_0_and_1() -> None:
    """A training can be repeated, and the two scorers are two draws also where they are equally wide."""
    reducer = STTS(0.5, weights=None)
    reducer.build_for(4, 8)
    for seed, scorer in enumerate(scorers(reducer)):
        drawn = torch.empty(8, 8)
        nn.init.trunc_normal_(drawn, std=0.02, a=-0.04, b=0.04, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(scorer.get_parameter("in_conv.1.weight"), drawn)


def test_parameters_are_named_as_officially() -> None:
    names = {name for name, _ in built(8).named_parameters()}
    layers = ("in_conv.0", "in_conv.1", "out_conv.0", "out_conv.2", "out_conv.4")
    assert names == {
        f"{kind}_score_predictor.0.score_network.{layer}.{part}"
        for kind in ("time", "space")
        for layer in layers
        for part in ("weight", "bias")
    }
    assert isinstance(built(8).time_score_predictor, nn.ModuleList)
