from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest
import torch
from testing.zoo import spec

from tokred.methods import STA
from tokred.registry import build
from tokred.testing import Backbone, Case, default_backbones, graphs, run_checks
from tokred.testing.graphs import breaks_graph, other_clips


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("BreaksTheGraph", "expected   one graph (or Capabilities.one_graph to say why not)"),
        ("DeclaresABreak", "got        one graph: the declaration can go"),
        ("NumbersItsForwards", "expected   no recompilation for other clips of the same shape"),
        ("OtherWhenCompiled", "the same logits under torch.compile"),
    ],
)
def test_what_torch_compile_cannot_take_is_caught(caught: Callable[..., str], name: str, says: str) -> None:
    assert says in caught(name, "check_compile")


def test_a_declared_graph_break_passes_and_is_told() -> None:
    (outcome,) = run_checks(build(spec("HonestBreak")), default_backbones()[:1], only="check_compile")
    assert (outcome.status, outcome.detail) == ("passed", "with graph breaks: it looks at scores in Python")


def test_content_that_decides_token_counts_breaks_graphs() -> None:
    from tokred.capabilities import Capabilities

    assert breaks_graph(Capabilities()) is None
    assert breaks_graph(Capabilities(static_counts=False)) == "its token counts depend on the content"


def test_the_batches_that_are_tried_have_one_shape_and_different_content() -> None:
    clips = other_clips(torch.randn(2, 3, 4, 4))
    assert {clip.shape for clip in clips} == {clips[0].shape}
    assert len({tuple(clip.flatten().tolist()) for clip in clips}) == len(clips)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="code that torch generates for a CPU needs g++")
@pytest.mark.skipif(os.environ.get("HYPOTHESIS_PROFILE") != "thorough", reason="HYPOTHESIS_PROFILE=thorough runs it")
@pytest.mark.parametrize("backbone", default_backbones(), ids=lambda backbone: backbone.name)
def test_generated_code_gives_the_same_logits(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "BACKEND", "inductor")
    assert graphs.check_compile(Case(STA(r=2), backbone)) == "in one graph"
