"""Overlaps of the points of a sweep: what both keep, what both merge, and which clips both find hard."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tokred.data.source import LabelSet
from tokred.measure.overlap import kept_iou, merge_rand
from tokred.run.cell import Cell
from tokred.run.clips import ClipSettings
from tokred.run.evaluate import Predictions
from tokred.run.sweep_overlap import overlaps, ranked_by
from tokred.run.sweep_plan import Group, PlannedCell, Point, SweepPlan

MOTION, APPEARANCE = LabelSet("motion", ("a", "b")), LabelSet("appearance", ("c", "d"), 2)
CLIPS = 12
KEYS = {"a", "b", "iou", "rand", "spearman", "kendall", "clips"}
rng = np.random.default_rng(0)
SOURCES = {name: rng.integers(-1, 5, (CLIPS, 16)).astype(np.int32) for name in ("sta", "tome", "topk")}


def planned(name: str, measure: str = "carried", seed: int = 0, data: str = "d") -> PlannedCell:
    sets = (MOTION, APPEARANCE)
    group = Group("b", None, None, ClipSettings(), "w", "", data, "clips", CLIPS, "clip", sets, sets, 1.0, 8, 10)
    point = Point({"reducer": name, "seed": seed})
    return PlannedCell(point, Cell("b", name, measure=measure), f"{name}-{measure}-{seed}", group, "none")


def answers(name: str) -> Predictions:
    own = np.random.default_rng(len(name))
    logits = own.normal(size=(CLIPS, 4)).astype(np.float32)
    labels = {"motion": np.arange(CLIPS) % 2, "appearance": np.zeros(CLIPS, np.int64)}
    return Predictions(logits, logits, np.arange(CLIPS), labels)


def found(
    *cells: PlannedCell, labels: str | None = None, answered: bool = True, views: int = 1, **sources: np.ndarray
) -> list[dict]:
    kept = {**SOURCES, **sources}

    def arrays(id_: str | None) -> dict[str, np.ndarray] | None:
        name, measure, seed = str(id_).split("-")
        source = kept.get(name + seed, kept.get(name)) if measure == "carried" else None
        return None if source is None else {"source": source, "items": np.arange(len(source)) // views}

    def predictions(id_: str | None) -> Predictions | None:
        return None if id_ is None or not answered else answers(id_.split("-")[0])

    return overlaps(SweepPlan("", cells, ()), predictions, arrays, [["reducer"]], labels)


def test_every_pair_has_the_means_over_its_clips() -> None:
    pairs = found(planned("sta"), planned("tome"), planned("topk"))
    assert [(p["a"], p["b"]) for p in pairs] == [("sta", "tome"), ("sta", "topk"), ("tome", "topk")]
    assert all(set(p) == KEYS for p in pairs)
    first = pairs[0]
    assert first["iou"] == pytest.approx(kept_iou(SOURCES["sta"], SOURCES["tome"]).mean())
    assert first["rand"] == pytest.approx(merge_rand(SOURCES["sta"], SOURCES["tome"]).mean())
    assert first["clips"] == CLIPS


def test_without_answers_clips_are_ranked_by_the_patches_that_are_kept() -> None:
    a, b = ((SOURCES[name] >= 0).sum(1) for name in ("sta", "tome"))
    (pair,) = found(planned("sta"), planned("tome"))
    assert pair["spearman"] == pytest.approx(stats.spearmanr(a, b).statistic)
    assert pair["kendall"] == pytest.approx(stats.kendalltau(a, b).statistic)
    (equal,) = found(planned("sta"), planned("tome"), sta=np.zeros((CLIPS, 16), np.int32))
    assert equal["spearman"] is None
    assert equal["kendall"] is None
    assert equal["iou"] is not None


def test_with_answers_clips_are_ranked_by_how_sure_the_right_one_is() -> None:
    cells = [planned(name, measure) for name in ("sta", "tome") for measure in ("predict", "carried")]

    def sure(name: str, offsets: tuple[int, ...]) -> np.ndarray:
        given = answers(name)
        truth = {0: given.labels["motion"], 2: given.labels["appearance"]}
        total = np.zeros(CLIPS)
        for offset in offsets:
            scores = given.logits[:, offset : offset + 2].astype(np.float64)
            log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
            total += log_p[np.arange(CLIPS), truth[offset]]
        return total

    for labels, offsets in ((None, (0, 2)), ("motion", (0,)), ("trajectory", (0, 2))):
        (pair,) = found(*cells, labels=labels)
        expected = stats.spearmanr(sure("sta", offsets), sure("tome", offsets)).statistic
        assert pair["spearman"] == pytest.approx(expected), labels
    (failed,) = found(*cells, answered=False)
    assert failed["spearman"] is None


def test_what_clips_are_ranked_by_is_said() -> None:
    carried, predict = planned("sta"), planned("sta", "predict")
    assert ranked_by(SweepPlan("", (carried, predict), ())) == "probability of the right answer"
    assert ranked_by(SweepPlan("", (carried,), ())) == "patches kept"
    assert ranked_by(SweepPlan("", (predict,), ())) is None


def test_other_clips_are_no_pair_and_one_point_is_none() -> None:
    assert found(planned("sta"), planned("tome", data="other")) == []
    assert found(planned("sta")) == []
    assert found(planned("sta"), planned("failed")) == []


def test_other_grids_of_patches_have_nothing_in_common_to_count() -> None:
    (pair,) = found(planned("sta"), planned("tome"), tome=SOURCES["tome"][:, :8])
    assert (pair["iou"], pair["rand"], pair["clips"]) == (None, None, CLIPS)


def test_seeds_are_pooled_where_their_clips_are_others() -> None:
    cells = [planned(name, seed=seed, data=f"d{seed}") for name in ("sta", "tome") for seed in (0, 1)]
    (pair,) = found(*cells)
    assert (pair["a"], pair["b"], pair["clips"]) == ("sta", "tome", 2 * CLIPS)


def test_a_seed_on_the_same_clips_is_no_second_sample() -> None:
    cells = [planned(name, seed=seed) for name in ("sta", "tome") for seed in (0, 1)]
    (pair,) = found(*cells, sta1=SOURCES["tome"])
    assert pair["clips"] == CLIPS
    assert pair["iou"] == pytest.approx(kept_iou(SOURCES["sta"], SOURCES["tome"]).mean())


def test_views_of_a_clip_are_one_clip() -> None:
    assert found(planned("sta"), planned("tome"), views=2)[0]["clips"] == CLIPS // 2


def test_two_clips_have_no_ranks() -> None:
    kept = {"sta": np.array([[0, -1], [0, 1]]), "tome": np.array([[0, 0], [-1, 0]])}
    (pair,) = found(planned("sta"), planned("tome"), **kept)
    assert (pair["spearman"], pair["kendall"], pair["clips"]) == (None, None, 2)
    assert pair["iou"] is not None


def test_merges_are_compared_where_one_of_the_two_merges() -> None:
    alone = np.tile(np.arange(8), (CLIPS, 1))
    dropping = alone.copy()
    dropping[:, 5:] = -1  # three are gone, which is no group of three
    merging = alone.copy()
    merging[:, 1] = 0
    (pair,) = found(planned("sta"), planned("tome"), sta=alone, tome=dropping)
    assert pair["rand"] is None
    assert pair["iou"] == pytest.approx(5 / 8)
    (pair,) = found(planned("sta"), planned("tome"), sta=merging, tome=dropping)
    assert pair["rand"] is not None
