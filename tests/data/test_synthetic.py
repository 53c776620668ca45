"""The generated action data set."""

from __future__ import annotations

import math

import pytest
import torch

from tokred.data.synthetic import MEAN, MOTIONS, SHAPES, STD, Scene, SyntheticActions, object_share, object_tokens
from tokred.data.synthetic.motion import paths
from tokred.data.synthetic.render import draw, render, stream_seed
from tokred.data.synthetic.shapes import DISTRACTORS, shape_tables, signed_distance


@pytest.fixture(scope="module")
def many() -> Scene:
    return SyntheticActions(400, noise=0.08, slowest=1.0).scene(range(400))


def test_a_clip_depends_on_its_index_alone() -> None:
    source = SyntheticActions(12)
    whole = source.scene(range(12)).rendered.clips
    assert torch.equal(whole[5:8], source.scene([5, 6, 7]).rendered.clips)
    assert torch.equal(whole[[9, 2]], source.scene([9, 2]).rendered.clips)
    for size in (1, 5, 12):
        assert torch.equal(whole, torch.cat([batch.clips for batch in source.batches(size)]))


def test_a_clip_does_not_depend_on_the_thread_count() -> None:
    source = SyntheticActions(6)
    alone = source.scene(range(6)).rendered.clips
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(alone, source.scene(range(6)).rendered.clips)
    finally:
        torch.set_num_threads(before)


def test_global_random_state_is_not_touched() -> None:
    before = torch.random.get_rng_state()
    SyntheticActions(2).scene([0, 1])
    assert torch.equal(before, torch.random.get_rng_state())


def test_iterating_twice_gives_the_same_and_covers_every_index_once() -> None:
    source = SyntheticActions(10)
    first, second = list(source.batches(4)), list(source.batches(4))
    assert [item for batch in first for item in batch.items] == list(range(10))
    assert all(torch.equal(a.clips, b.clips) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("other", [{"split": "train"}, {"seed": 1}])
def test_splits_and_seeds_have_unrelated_clips(other: dict[str, object]) -> None:
    clips = SyntheticActions(8).scene(range(8)).rendered.clips
    others = SyntheticActions(8, **other).scene(range(8)).rendered.clips  # type: ignore[arg-type]
    correlation = torch.corrcoef(torch.stack([clips.flatten(), others.flatten()]))[0, 1]
    for one in clips:
        assert not any(torch.equal(one, two) for two in others)
    assert abs(correlation) < 0.2


def test_clips_are_normalised_pixels() -> None:
    clips = SyntheticActions(16).scene(range(16)).rendered.clips
    assert clips.shape == (16, 3, 16, 64, 64)
    assert clips.dtype == torch.float32
    pixels = clips * STD + MEAN
    assert pixels.min() > -1e-6
    assert pixels.max() < 1 + 1e-6
    assert abs(clips.mean()) < 0.5
    assert 0.3 < clips.std() < 1.2


def test_labels_are_balanced_and_independent() -> None:
    appearance, motion = SyntheticActions(800).labels(range(800))
    joint = torch.bincount(appearance * len(MOTIONS) + motion, minlength=80)
    assert joint.tolist() == [10] * 80
    assert appearance[:80].tolist() != appearance[80:160].tolist()


def test_label_sets_share_the_logits_without_overlap() -> None:
    source = SyntheticActions(1)
    appearance, motion = source.label_sets
    assert (appearance.name, appearance.offset, appearance.classes) == ("appearance", 0, SHAPES)
    assert (motion.name, motion.offset, motion.classes) == ("motion", 10, MOTIONS)
    batch = next(SyntheticActions(5).batches(5))
    assert set(batch.labels) == {"appearance", "motion"}
    assert len(batch.names) == 5


@pytest.mark.parametrize("hold", [True, False])
def test_held_poses_show_no_motion_inside_a_tubelet(hold: bool) -> None:
    """Without the sensor noise, the two frames of a tubelet are the same picture."""
    stream = draw([stream_seed("any", i) for i in range(8)], 16, 64, 8 if hold else 16)
    motion = torch.arange(8)
    clips = render(
        torch.zeros(8, dtype=torch.int64), motion, stream, noise=0, slowest=1, frames=16, size=64, hold=hold
    ).clips
    change = clips.diff(dim=2).abs().amax(dim=(1, 3, 4))  # (8, 15)
    assert (change[:, 1::2] > 0).all()
    assert (change[:, 0::2] == 0).all() == hold


def test_every_motion_passes_through_the_same_pose() -> None:
    """One tubelet alone cannot tell the motion: offset and zoom are zero at the middle one for every class."""
    motion = torch.arange(8).repeat_interleave(50)
    u = torch.rand(400, 8, generator=torch.Generator().manual_seed(3))
    offsets, zoom = paths(motion, torch.full((400,), 30.0), u, 8)
    assert offsets[:, 4].abs().max() == 0
    assert zoom[:, 4].abs().max() == 0


def test_motions_go_where_their_names_say(many: Scene) -> None:
    scene = many
    way = scene.rendered.centre[:, -1] - scene.rendered.centre[:, 0]
    growth = (scene.rendered.scale[:, -1] / scene.rendered.scale[:, 0]).log()
    mean = {name: way[scene.motion == i].mean(0) for i, name in enumerate(MOTIONS)}
    assert mean["left"][0] < -20
    assert mean["right"][0] > 20
    assert mean["up"][1] < -20
    assert mean["down"][1] > 20
    assert mean["still"].norm() < 2
    zooms = {name: growth[scene.motion == i] for i, name in enumerate(MOTIONS)}
    assert zooms["grow"].min() > 0.5
    assert zooms["shrink"].max() < -0.5
    assert all(zooms[name].abs().max() == 0 for name in MOTIONS[:6])


def test_the_slowest_objects_go_the_share_of_the_way_that_was_asked_for() -> None:
    def way(slowest: float) -> torch.Tensor:
        scene = SyntheticActions(160, slowest=slowest).scene(range(160))
        return (scene.rendered.centre[:, -1] - scene.rendered.centre[:, 0])[scene.motion < 4].norm(dim=-1)

    ratio = way(0.2) / way(1.0)
    assert ratio.max() < 1.2
    assert 0.1 < ratio.min() < 0.35
    assert 0.5 < ratio.mean() < 0.7


def test_shapes_cover_the_same_area(many: Scene) -> None:
    """Otherwise the number of covered tokens would give the class away."""
    scene = many
    pixels = scene.rendered.mask.sum(dim=(2, 3)) / scene.rendered.scale.square()
    for i in range(len(SHAPES)):
        assert abs(pixels[scene.appearance == i].mean() - 1) < 0.08, SHAPES[i]


def test_objects_are_small_and_where_they_are_said_to_be(many: Scene) -> None:
    scene = many
    tokens = object_tokens(scene, 2, 8, 16)
    assert tokens.shape == (400, 8, 8, 8)
    assert 0.04 < tokens.float().mean() < 0.15
    share = object_share(scene, 2, 8, 16)
    axis = torch.arange(8) * 8 + 4.0
    total = share.sum(dim=(2, 3))
    x = (share.sum(2) * axis).sum(-1) / total
    disc = scene.appearance == SHAPES.index("disc")
    assert (x - scene.rendered.centre[..., 0])[disc].abs().max() < 4


def test_the_object_is_brighter_than_the_background(many: Scene) -> None:
    scene = many
    light = scene.rendered.clips.mean(1)[:, ::2]
    mask = scene.rendered.mask > 0.9
    inside = torch.stack([a[m].mean() for a, m in zip(light, mask, strict=True)])
    assert (inside > light.mean(dim=(1, 2, 3)) + 0.3).float().mean() > 0.95


def test_the_distractor_is_still_bright_and_says_nothing_of_the_labels(many: Scene) -> None:
    scene = many
    place = scene.rendered.distractor
    assert ((place - 32).abs() >= 14 - 1e-4).all()
    for labels, count in ((scene.appearance, len(SHAPES)), (scene.motion, len(MOTIONS))):
        quadrant = (place > 32).long() @ torch.tensor([1, 2])
        table = torch.bincount(labels * 4 + quadrant, minlength=count * 4).reshape(count, 4).float()
        expected = table.sum(1, keepdim=True) * table.sum(0) / table.sum()
        freedom = (count - 1) * 3
        chi2 = float(((table - expected) ** 2 / expected).sum())
        assert chi2 < freedom + 4 * math.sqrt(2 * freedom)
    light = scene.rendered.clips.mean(1)
    x, y = place.long().unbind(1)
    rows = torch.arange(400)
    spot = torch.stack([light[rows, :, y + dy, x + dx] for dy in (-4, 4) for dx in (-2, 0, 2)]).amax(0)
    brighter = spot - light.mean(dim=(2, 3))
    assert brighter.mean() > 0.5  # in every frame of the clip, also where nothing moves
    assert brighter.mean(0).std() < 0.1


def test_distractors_have_a_shape_of_their_own() -> None:
    assert not set(SHAPES) & set(DISTRACTORS)
    tables, areas = shape_tables()
    inside = (tables < 0).flatten(1).float()
    overlap = inside @ inside.T / (inside.sum(1)[:, None] + inside.sum(1) - inside @ inside.T)
    assert (overlap - torch.eye(12)).max() < 0.9
    assert (areas > 0.5).all()


def test_distance_is_negative_inside() -> None:
    x, y = torch.tensor([0.0, 2.0]), torch.zeros(2)
    assert (signed_distance("disc", x, y) < 0).tolist() == [True, False]
    assert (signed_distance("ring", x, y) < 0).tolist() == [False, False]


def test_reported_digest_follows_the_settings() -> None:
    digests = {
        SyntheticActions(10).digest(),
        SyntheticActions(11).digest(),
        SyntheticActions(10, seed=1).digest(),
        SyntheticActions(10, split="train").digest(),
        SyntheticActions(10, hold=False).digest(),
        SyntheticActions(10, noise=0.1).digest(),
        SyntheticActions(10, slowest=0.5).digest(),
    }
    assert len(digests) == 7
    assert SyntheticActions(10).digest() == SyntheticActions(10).digest()


def test_other_sizes_draw_the_same_kind_of_scene() -> None:
    clips = SyntheticActions(4, size=32, frames=8).scene(range(4)).rendered.clips
    assert clips.shape == (4, 3, 8, 32, 32)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"clips": 0}, "clips = 0"),
        ({"split": "val"}, "'val'"),
        ({"size": 20}, "size = 20"),
        ({"frames": 5}, "frames = 5"),
        ({"noise": -0.1}, "noise = -0.1"),
        ({"slowest": 0}, "slowest = 0"),
    ],
)
def test_wrong_settings_are_refused_with_what_was_given(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SyntheticActions(**wrong)  # type: ignore[arg-type]


def test_wrong_indices_and_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        SyntheticActions(3).scene([-1])
    with pytest.raises(ValueError, match="batch_size = 0"):
        next(SyntheticActions(3).batches(0))
    with pytest.raises(ValueError, match="blob"):
        signed_distance("blob", torch.zeros(1), torch.zeros(1))
