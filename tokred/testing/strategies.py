"""Hypothesis strategies for whoever writes or tests a reducer: everything that flows through one, small and odd.

All of them shrink towards few tokens and ordinary content. Needs hypothesis, which ``tokred[test]`` installs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from torch import Tensor

from tokred.schedule import PLACES, Schedule
from tokred.testing import content
from tokred.testing.example import StepExample
from tokred.testing.hosts import Backbone
from tokred.testing.shapes import ImageShape, VideoShape, WindowShape
from tokred.tokens import Grid, Tokens

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
Shape = VideoShape | ImageShape | WindowShape
SEEDS = st.integers(0, 9_999)


def grids(max_frames: int = 4, max_side: int = 5) -> SearchStrategy[Grid]:
    """Patch grids (T, H, W) from 1 x 1 x 1 up: one frame, odd and non-square ones included."""
    side = st.integers(1, max_side)
    return st.builds(Grid, st.integers(1, max_frames), side, side)


@st.composite
def features(
    draw: DrawFn, batch: int = 2, tokens: int = 8, width: int = 4, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Features (B, N, C) without NaN: of a kind of ``tokred.testing.content.FEATURES`` (ordinary, constant, zero,
    duplicated, near ties, tiny, huge).

    Args:
        batch, tokens, width: B, N, C; dtype: a floating format, into which all of them fit.
    """
    kind, seed = draw(st.sampled_from(content.FEATURES)), draw(SEEDS)
    huge = content.HALF if dtype == torch.float16 else content.HUGE
    return content.features(kind, (batch, tokens, width), content.generator(seed), huge=huge).to(dtype)


@st.composite
def attention_maps(draw: DrawFn, batch: int = 2, heads: int = 2, tokens: int = 8, width: int = 4) -> Tensor:
    """Attention maps (B, H, N, N) in float32, rows summing to one: of a kind of ``tokred.testing.content.ATTENTION``
    (ordinary, uniform, one key per row, columns of exact zeros, near ties, logits so large that all of a row is on its
    best key).

    Args:
        batch, heads, tokens: B, H, N; width: d of the queries and keys behind it.
    """
    kind, seed = draw(st.sampled_from(content.ATTENTION)), draw(SEEDS)
    shape = (batch, heads, tokens, width)
    q, k = content.queries_and_keys(kind, shape, content.generator(seed), huge=content.HALF)
    return (q @ k.transpose(-1, -2) * width**-0.5).softmax(dim=-1).float()


@st.composite
def token_sets(
    draw: DrawFn, max_batch: int = 3, max_prefix: int = 2, max_width: int = 8, dtype: torch.dtype = torch.float32
) -> Tokens:
    """Tokens as a step may find them: x (B, N, C) on a small grid, behind 0 to ``max_prefix`` class and register
    tokens, with masses (B, N) or without, in temporal groups or not, some of each group gone before.

    Args:
        max_batch, max_prefix, max_width: largest B, prefix and C; dtype: format of x.
    """
    grid = draw(grids())
    batch, prefix = draw(st.integers(1, max_batch)), draw(st.integers(0, max_prefix))
    gone = draw(st.integers(0, grid.per_frame - 1))
    patches = grid.t * (grid.per_frame - gone)
    x = draw(features(batch, prefix + patches, draw(st.integers(1, max_width)), dtype))
    kind, seed = draw(st.sampled_from(content.MASSES)), draw(SEEDS)
    size = content.masses(kind, batch, prefix, patches, content.generator(seed))
    groups = grid.t if draw(st.booleans()) else None
    seeds = torch.arange(batch) + seed
    return Tokens(x, grid, prefix, size=size, groups=groups, sample_seed=seeds, class_token=draw(st.booleans()))


@st.composite
def schedules(draw: DrawFn, depth: int = 4, tokens: int = 16) -> Schedule:
    """Valid schedules for a host of ``depth`` blocks: everywhere, at named places or at chosen blocks; tokens or
    a share dropped, a share kept, or so many left; once for all steps or one amount per step.

    Whether the amounts are possible with ``tokens`` patches depends on the method: some are meant to be refused.
    """
    places = ("all", "third", "early", *(("thirds", "quarters") if depth >= 4 else ()))
    assert set(places) <= set(PLACES)
    chosen = st.sets(st.integers(0, depth - 1), min_size=1, max_size=3).map(lambda blocks: tuple(sorted(blocks)))
    at = draw(st.one_of(chosen, st.sampled_from(places)))
    count = len(Schedule(at=at, drop=0).blocks(depth))
    kind = draw(st.sampled_from(("keep", "drop", "tokens")))
    share = st.integers(1, 8).map(lambda eighths: eighths / 8)
    one: SearchStrategy[int | float] = {
        "keep": share,
        "drop": st.integers(0, tokens - 1),
        "tokens": st.integers(1, tokens),
    }[kind]
    amount: object = draw(one)
    if draw(st.booleans()):
        amount = tuple(draw(one) for _ in range(count))
    shape: str | float = "constant"
    if kind == "drop" and isinstance(amount, int):
        shapes: tuple[str | float, ...] = ("constant", "decreasing", "increasing", -1.0, 0.5)
        shape = draw(st.sampled_from(shapes))
    return Schedule(at=at, shape=shape, **{kind: amount})  # type: ignore[arg-type]


@st.composite
def steps(draw: DrawFn, windows: bool | None = None, strength: bool = True) -> StepExample:
    """One step of a reducer and everything that it looks at; see ``StepExample``.

    Args:
        windows: hosts with windows and stages only, or none of them; None = both; strength: whether it is drawn too.
    """
    t, h, w = (draw(st.integers(1, 4)) for _ in range(3))
    prefix, gone = draw(st.integers(0, 3)), draw(st.integers(0, 4))
    heads = draw(st.sampled_from((1, 2)))
    class_token = draw(st.booleans())
    plain = StepExample(
        grid=(t, h, w),
        batch=draw(st.integers(1, 3)),
        prefix=prefix,
        class_token=class_token and prefix > 0,
        dim=heads * draw(st.sampled_from((4, 8))),
        heads=heads,
        depth=draw(st.sampled_from((4, 3, 6))),
        # Single patches are where steps go wrong: all but one may be gone.
        gone=h * w - 1 if gone == 4 else min(gone, h * w - 1),
        frames=draw(st.sampled_from((True, True, True, False))),
        masses=draw(st.sampled_from(content.MASSES)),
        features=draw(st.sampled_from(content.FEATURES)),
        attention=draw(st.sampled_from(content.ATTENTION)),
        strength=draw(st.integers(1, 8)) if strength else None,
        step=draw(st.sampled_from((0, 1, 2, None))),
        seed=draw(SEEDS),
    )
    # Everything is drawn for both kinds of hosts, so that an example can become plain while it shrinks.
    if not (draw(st.booleans()) if windows is None else windows):
        return plain
    return replace(
        plain,
        grid=(t, h + 2, w + 2),
        prefix=0,
        class_token=False,
        depth=StepExample.depth,
        windows=True,
        gone=0,
        frames=True,
        masses="none",
        step=None,
    )


def backbones(video: bool = True, image: bool = True, windows: bool = True) -> SearchStrategy[Backbone]:
    """Models of random small shape with random weights, each with a batch of random inputs: a video ViT, a timm ViT
    with or without class and register tokens, layer scale and normalised queries and keys, a VideoSwin.

    Args:
        video, image, windows: which families; image needs timm.
    """
    small, flag = st.integers(1, 4), st.booleans()
    width = st.sampled_from((8, 12, 24))
    families: list[SearchStrategy[Shape]] = []
    if video:
        families.append(
            st.builds(
                VideoShape,
                grid=st.tuples(small, st.integers(2, 4), st.integers(2, 5)),
                dim=width,
                heads=st.sampled_from((1, 2)),
                depth=st.sampled_from((4, 3)),
                layer_scale=flag,
                batch=st.just(3),
                seed=SEEDS,
            )
        )
    if image:
        families.append(
            st.builds(
                ImageShape,
                grid=st.tuples(st.integers(2, 5), st.integers(2, 5)),
                dim=width,
                heads=st.sampled_from((1, 2)),
                depth=st.sampled_from((4, 5)),
                class_token=flag,
                registers=st.integers(0, 2),
                layer_scale=flag,
                qk_norm=flag,
                batch=st.just(3),
                seed=SEEDS,
            )
        )
    if windows:
        families.append(
            st.builds(
                WindowShape,
                grid=st.tuples(small, st.integers(5, 8), st.integers(5, 8)),
                dim=st.sampled_from((8, 16)),
                window=st.tuples(st.integers(1, 2), st.integers(2, 3), st.integers(2, 3)),
                batch=st.just(3),
                seed=SEEDS,
            )
        )
    return st.one_of(families).map(backbone_of)


def backbone_of(shape: Shape) -> Backbone:
    """A backbone of a shape."""
    return shape.backbone
