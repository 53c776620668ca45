"""STViT and STViT-R on hosts: what they make, what they bring back, what they cost and refuse."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tokred
from tokred.attach import Attached, attach
from tokred.backbones import adapter_for
from tokred.backbones.geometry import Geometry
from tokred.backbones.videomae import VideoViT
from tokred.backbones.videoswin import VideoSwin
from tokred.budget import BudgetError, solve
from tokred.dry import dry_run
from tokred.generate import Generate, Recover
from tokred.learned import LearnedError
from tokred.learned_files import save_learned
from tokred.measure.flops import count, unreduced_plan
from tokred.methods import FewerFrames, STViT, STViTR, TopK
from tokred.probe import Probe
from tokred.reducer import Site
from tokred.schedule import ScheduleError, Step
from tokred.semantic import SemanticTokens, pool_cells
from tokred.semantic_windows import WindowLayer
from tokred.testing import default_backbones
from tokred.tokens import Grid

VIDEO, IMAGE, WINDOWS = default_backbones()


def loud(fast: Attached) -> None:
    """Weights at which every part of the reducer matters."""
    with torch.no_grad():
        for i, parameter in enumerate(fast.reducer.parameters()):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))


def swin() -> VideoSwin:
    """28 x 28 and 14 x 14 patches in two frames, windows of 7 x 7."""
    size = {"img_size": 56, "patch_size": (2, 2, 2), "frames": 4, "window": (2, 7, 7)}
    return VideoSwin(**size, dim=8, depths=(1, 3), num_heads=(2, 2), num_classes=3).eval()  # type: ignore[arg-type]


def sizes(c: int, depth: int, grid: Grid, head: int = 64) -> Geometry:
    video = grid.t > 1
    return Geometry(
        depth=depth,
        dim=c,
        heads=c // head,
        head_dim=head,
        mlp_hidden=4 * c,
        grid=grid,
        prefix=0,
        classes=400 if video else 1000,
        kernel=(2 if video else 1, 16, 16),
        class_token=False,
        video=video,
    )


def gmac(reducer: STViT, geometry: Geometry) -> float:
    """Without norms, as the published counts are."""
    report = count(geometry, dry_run(reducer, geometry, device="meta"))
    n, m = geometry.grid.patches, reducer.made(geometry.grid).patches
    norms = 5 * geometry.dim * (2 * m + n + (reducer.layers - 1) * (3 * m + n))
    return (report.macs - report.norm - norms) / 1e9


DEIT = Grid(1, 14, 14)


@pytest.mark.parametrize(("c", "published"), [(192, 0.522), (384, 1.907), (768, 7.263)])
def test_counts_of_deit_with_two_of_twelve_layers_generating(c: int, published: float) -> None:
    # A host of 10 blocks: the two generating layers are the reducer's own.
    assert gmac(STViT(at=4), sizes(c, 10, DEIT)) == pytest.approx(published, abs=6e-4)


@pytest.mark.parametrize(("layers", "at", "published"), [(3, 4, 1.97), (4, 4, 2.03), (2, 3, 1.56), (2, 8, 3.30)])
def test_counts_of_the_ablations(layers: int, at: int, published: float) -> None:
    assert gmac(STViT(at=at, layers=layers), sizes(384, 12 - layers, DEIT)) == pytest.approx(published, abs=6e-3)


@pytest.mark.parametrize(("c", "head", "depth", "at", "known"), [(384, 64, 12, 4, 22.7), (1280, 80, 32, 10, 441.4)])
def test_counts_of_video_models(c: int, head: int, depth: int, at: int, known: float) -> None:
    got = gmac(STViT(at=at), sizes(c, depth - 2, Grid(8, 14, 14), head))
    assert got == pytest.approx(known, abs=0.06)


def test_the_host_goes_on_with_the_tokens_that_its_own_layers_would_make() -> None:
    host, clips = VIDEO.build()
    assert isinstance(host, VideoViT)
    fast = attach(host, STViT(2, at=1))
    loud(fast)
    with torch.no_grad():
        x = host.embed(clips)
        x = host.blocks[0](x)
        module = fast.reducer.get_submodule("generation.0")
        frames = x.unflatten(1, tuple(host.grid))
        pooled = torch.cat([pool_cells(frames[:, t], 2) for t in range(4)], dim=1)
        s1 = module.get_submodule("layers.0")(pooled, x)
        shift = module.get_parameter("centres").flatten(0, 1)
        s2 = module.get_submodule("layers.1")(s1 + shift, torch.cat([s1, x], dim=1))
        for block in host.blocks[1:]:
            s2 = block(s2)
        torch.testing.assert_close(fast(clips), host.head(host.pool(s2)), atol=2e-5, rtol=2e-5)


def test_units_go_down_to_semantic_tokens_and_back_and_dense_features_come_out() -> None:
    host, images = IMAGE.build()
    fast = attach(host, STViTR(3, units=2))
    loud(fast)
    features = fast.forward_features(images)
    assert features.shape == (3, 2 + 64, 24)
    assert fast.plan is not None
    assert fast.plan.attention == (66, 11, 66, 11)
    assert fast.plan.mlp == (66, 11, 66, 11)
    run = fast.run(images, trace=True, record=True)
    assert [type(step) for _, step in run.steps] == [Generate, Recover] * 2
    assert run.tokens.source is not None
    assert run.tokens.source[0].tolist() == list(range(2, 66)), "every patch is itself again"
    assert run.tokens.size is None


def test_a_recovered_patch_is_the_patch_before_the_unit_after_a_look_at_the_semantic_tokens() -> None:
    host, clips = VIDEO.build()
    assert isinstance(host, VideoViT)
    fast = attach(host, STViTR(2))
    loud(fast)
    with torch.no_grad():
        image = host.blocks[0](host.embed(clips))
        s = fast.reducer.get_submodule("generation.0")(image.unflatten(1, tuple(host.grid)))
        for block in host.blocks[1:]:
            s = block(s)
        wanted = fast.reducer.get_submodule("recovery.0")(image, s)
        torch.testing.assert_close(fast.run(clips).tokens.x, wanted, atol=2e-5, rtol=2e-5)


def test_one_unit_for_every_six_blocks() -> None:
    grid = Grid(1, 4, 4)
    blocks = [list(STViTR(2).steps(sizes(64, depth, grid))) for depth in (3, 12, 18)]
    assert blocks == [[0, 2], [0, 5, 6, 11], [0, 5, 6, 11, 12, 17]]
    assert list(STViTR(2, units=3).steps(sizes(64, 10, grid))) == [0, 2, 3, 5, 6, 9]


def test_only_the_first_unit_has_centres() -> None:
    host, _ = IMAGE.build()
    names = dict(attach(host, STViTR(2, units=2)).reducer.named_parameters())
    assert "generation.0.centres" in names
    assert "generation.1.centres" not in names


def test_windows_run_on_the_grid_of_the_semantic_tokens() -> None:
    host, clips = WINDOWS.build()
    fast = attach(host, STViT(3))
    assert fast.plan is not None
    assert [step.block for step in fast.plan.steps] == [2], "two thirds of the longest stage"
    assert fast.plan.steps[0].n_out == 3 * 9
    assert fast.run(clips).tokens.count == 3 * 4, "3 x 3 places per frame, merged to 2 x 2"


def test_the_first_stage_is_left_alone_and_the_earliest_of_equal_stages_is_taken() -> None:
    host = VideoSwin(img_size=32, frames=4, dim=8, depths=(3, 2, 2), num_heads=(1, 1, 1), window=(2, 2, 2))
    assert list(STViT(2).steps(adapter_for(host).geometry(host))) == [4]


def test_tokens_of_a_window_look_at_its_surroundings_alone_in_the_first_layer() -> None:
    host = swin()
    fast = attach(host, STViT(6, keys="window"))
    assert fast.plan is not None
    assert [(step.block, step.n_in, step.n_out) for step in fast.plan.steps] == [(3, 2 * 196, 2 * 36)]
    loud(fast)
    first = fast.reducer.get_submodule("generation.0.layers.0")
    assert isinstance(first, WindowLayer)
    assert (first.window, first.side, first.shortcut) == (7, 3, True)
    clips = torch.randn(1, 3, 4, 56, 56, generator=torch.Generator().manual_seed(0))
    ((_, made),) = fast.run(clips, record=True).steps
    x = torch.randn(1, 392, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps = x.unflatten(1, (2, 14, 14)).flatten(0, 1)
        generation = fast.reducer.get_submodule("generation.0")
        assert isinstance(generation, SemanticTokens)
        steps = list(generation.steps(maps[None]))
        torch.testing.assert_close(steps[1], first(maps).flatten(0, 1)[None])
        torch.testing.assert_close(steps[0].unflatten(1, (2, 36))[0], pool_cells(maps, 6))
        torch.testing.assert_close(made.apply(x), steps[2])


def test_executed_and_published_macs_of_windows() -> None:
    host = swin()
    plan = attach(host, STViT(6, keys="window")).plan
    assert plan is not None
    (step,) = plan.steps
    c, frames, windows, own = 16, 2, 4, 9
    twice_projected = frames * (windows * (own + 100) - 196 - windows * own)
    assert step.macs - step.executed_macs == twice_projected * (2 * c * c + 5 * c) + frames * windows * own * 5 * c


@pytest.mark.parametrize("side", [3, 5])
def test_windows_must_divide_tokens(side: int) -> None:
    with pytest.raises(ScheduleError, match=f"the frame is 14 x 14, side = {side}"):
        attach(swin(), STViT(side, keys="window"))


def test_a_class_token_passes_by() -> None:
    host, images = IMAGE.build()
    fast = attach(host, STViT(3))
    loud(fast)
    ((_, made),) = fast.run(images, record=True).steps
    x = torch.randn(3, 66, 24, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        y = made.apply(x)
        other = made.apply(torch.cat([x[:, :2] + 1, x[:, 2:]], dim=1))
    assert torch.equal(y[:, :2], x[:, :2])
    assert torch.equal(y[:, 2:], other[:, 2:])


@pytest.mark.parametrize(
    ("reducer", "said"),
    [
        (lambda: STViT(0), "side = 0"),
        (lambda: STViT(8), r"side = 8 makes 64 tokens of a frame of 8 x 8 .* allowed is 1..7"),
        (lambda: STViT(9), r"side = 9"),
        (lambda: STViT(2, at=4), r"at = 4 is not in 0..3"),
        (lambda: STViT(2, layers=1), "layers = 1"),
        (lambda: STViT(2, keys="all"), "keys = 'all'"),
        (lambda: STViT(2, keys="window"), "keys = window is for a backbone with windows"),
        (lambda: STViT(2, distill_weight=-1), "distill_weight = -1"),
        (lambda: STViTR(2, feature_weight=-1), "feature_weight = -1"),
        (lambda: STViTR(2, units=0), "units = 0"),
        (lambda: STViTR(2, units=3), r"units = 3 of a backbone of 4 blocks.*allowed is 1..2"),
        (lambda: tokred.compose(TopK(0.5, at=(0,)), STViT(2)), "needs all 64 patches"),
        (lambda: tokred.compose(STViT(3, at=1), STViT(2, at=2)), "needs all 64 patches"),
    ],
)
def test_what_cannot_be_is_refused_with_the_numbers(reducer: object, said: str) -> None:
    host, _ = IMAGE.build()
    with pytest.raises(ScheduleError, match=said):
        attach(host, reducer())  # type: ignore[operator]


def test_patches_come_back_on_one_grid_only() -> None:
    host, _ = WINDOWS.build()
    with pytest.raises(ScheduleError, match="this one has stages"):
        attach(host, STViTR(2))


def test_masked_training_is_refused() -> None:
    host, clips = VIDEO.build()
    both = tokred.compose(tokred.build("dynamicvit:keep=0.7,at=[0]"), STViT(2))
    with pytest.raises(ScheduleError, match="pools whole frames"):
        attach(host.train(), both)
    fast = attach(host, STViT(2))
    tokens = replace(fast.adapter.embed(host, clips, None), policy=torch.ones(3, 96))
    with pytest.raises(ScheduleError, match="cannot follow masked training"):
        fast.reducer.reduce(tokens, Probe(tokens.x), Site("before_block", Step(1, 0, "tokens", 16), 3, 4))


def test_other_methods_may_act_on_the_semantic_tokens() -> None:
    host, clips = VIDEO.build()
    fast = attach(host, tokred.compose(STViT(2, at=0), TopK(0.5, at=(1,))))
    assert fast.run(clips).tokens.count == 8
    unit = attach(host, tokred.compose(STViTR(2), TopK(0.5, at=(1,))))
    assert unit.plan is not None
    assert unit.plan.final == 96


def test_a_shorter_clip_takes_centres_between_the_learned_ones() -> None:
    host, clips = VIDEO.build()
    fast = attach(host, tokred.compose(FewerFrames(2), STViT(2)))
    assert fast.run(clips).tokens.count == 2 * 4


def test_a_model_in_half_precision_takes_parameters_in_float32() -> None:
    host, clips = VIDEO.build()
    exact = attach(host, STViT(2))(clips).detach()
    fast = attach(host.bfloat16(), STViT(2))
    assert next(fast.reducer.parameters()).dtype == torch.float32
    logits = fast(clips.bfloat16()).detach()
    assert logits.dtype == torch.bfloat16
    assert float((logits.float() - exact).abs().max()) < 0.1 * float(exact.abs().max())


def test_training_reaches_every_parameter_and_the_teacher_pulls_the_logits() -> None:
    host, clips = VIDEO.build()
    for reducer in (STViT(2, layers=3), STViTR(2)):
        fast = attach(host.train(), reducer)
        loud(fast)
        student, teacher = fast.run(clips, record=True), attach(host, tokred.build("none")).run(clips)
        losses = reducer.training_losses(student, teacher)
        assert list(losses) == ["logits", "features"][: len(losses)]
        assert ("features" in losses) == isinstance(reducer, STViTR), "patches that do not come back cannot be compared"
        losses["logits"].backward(retain_graph=True)
        without = [name for name, p in reducer.named_parameters() if p.grad is None or not bool(p.grad.any())]
        assert without == []
        assert reducer.training_losses(student, None) == {}
        assert float(reducer.training_losses(teacher, teacher)["logits"].detach()) == pytest.approx(0, abs=1e-6)
    assert STViT(2, distill_weight=0).training_losses(student, teacher) == {}
    assert STViTR(2, distill_weight=0, feature_weight=0).training_losses(student, teacher) == {}
    thrice = STViTR(2, feature_weight=1.5).training_losses(student, teacher)["features"]
    assert float(thrice.detach()) == pytest.approx(3 * float(losses["features"].detach()))


def test_weights_are_written_read_and_fitted_to_another_side(tmp_path: Path) -> None:
    host, clips = VIDEO.build()
    fast = attach(host, STViT(2))
    loud(fast)
    assert isinstance(fast.reducer, STViT)
    fast.reducer.mark_trained(10, "here")
    path = f"{tmp_path}/stvit.safetensors"
    save_learned(fast.reducer, path, backbone="video", backbone_sha256="", recipe="test")
    again = attach(host, STViT(2, weights=path))
    assert "stvit is trained" in " ".join(again.notes)
    gap = (again(clips) - fast(clips)).abs().max().detach()
    assert float(gap) < 0.02 * float(fast(clips).abs().max())
    other = attach(host, STViT(3, weights=path))
    assert "centres resampled from 2 x 2 to 3 x 3 per frame" in " ".join(other.notes)
    learned, resampled = (f.reducer.get_parameter("generation.0.centres").detach() for f in (fast, other))
    torch.testing.assert_close(resampled[:, [0, 2, 6, 8]], learned, atol=2e-3, rtol=0)
    torch.testing.assert_close(resampled[:, 4], learned.mean(1), atol=2e-3, rtol=0)
    with pytest.raises(LearnedError, match="does not fit"):
        attach(host, STViT(2, layers=3, weights=path))
    without = attach(host, STViT(3, centres=False, weights=None))
    assert not any("centres" in name for name, _ in without.reducer.named_parameters())


def test_fewer_tokens_cost_less_down_to_a_floor_that_budgets_know() -> None:
    geometry = sizes(384, 12, DEIT)
    full = count(geometry, unreduced_plan(geometry)).macs
    shares = [count(geometry, dry_run(STViT(side), geometry, device="meta")).macs / full for side in range(13, 0, -1)]
    assert shares == sorted(shares, reverse=True)
    assert math.isclose(shares[-1], 0.38, abs_tol=0.02)
    solved = solve(STViT(), geometry, 0.6)
    assert solved.share == pytest.approx(0.6, abs=0.06)
    with pytest.raises(BudgetError, match="cannot go down to 30%"):
        solve(STViT(), geometry, 0.3)


def test_notes_say_what_was_made() -> None:
    host, _ = VIDEO.build()
    notes = attach(host, STViT(3)).notes
    assert "stvit is untrained: its parameters are random" in notes
    assert "3 x 3 semantic tokens per frame of 4 x 6 patches, made by 2 layers of its own" in notes
