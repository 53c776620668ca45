"""The clips of a comparison: opened without decoding, brought to memory once."""

from __future__ import annotations

from dataclasses import replace

import torch

import tokred
from tokred.backbones.spec import backbone_info
from tokred.run.clips import ClipSettings, open_clips, prepare

SPEC = backbone_info(tokred.create_backbone("videomae_vit_nano")).spec


def test_settings_decide_the_clips() -> None:
    one = open_clips(ClipSettings(clips=3), SPEC)
    assert len(one) == 3
    digests = {
        open_clips(settings, SPEC).digest()
        for settings in (
            ClipSettings(clips=3),
            ClipSettings(clips=4),
            ClipSettings(clips=3, seed=1),
            ClipSettings(clips=3, corrupt="noise:0.2"),
            ClipSettings("synthetic:seed=5", clips=3),
        )
    }
    assert len(digests) == 5


def test_prepared_clips_are_the_sources_own_and_every_item_is_counted() -> None:
    counted: list[int] = []
    source = prepare(open_clips(ClipSettings(clips=40), SPEC), SPEC, 18, counted.append)
    assert sum(counted) == 40
    ours = torch.cat([b.clips for b in source.batches(7)])
    theirs = torch.cat([b.clips for b in open_clips(ClipSettings(clips=40), SPEC).batches(40)])
    assert torch.equal(ours, theirs)
    assert [s.name for s in source.label_sets] == ["appearance", "motion"]


def test_labels_that_the_model_cannot_answer_are_left_out_with_a_note() -> None:
    source = prepare(open_clips(ClipSettings(clips=2), SPEC), replace(SPEC, label_sets=()), 12)
    assert [s.name for s in source.label_sets] == ["appearance"]
    assert any("no accuracy for motion" in note for note in source.notes)
