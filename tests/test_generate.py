"""New tokens in place of patches, and patches that come back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tokred.advance import advance
from tokred.generate import Generate, Recover
from tokred.reduction import Reduction
from tokred.tokens import Grid, Tokens

GRID = Grid(2, 2, 2)
CELLS = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]]).expand(3, -1)


def clip(prefix: int = 1) -> Tokens:
    x = torch.randn(3, prefix + 8, 5, generator=torch.Generator().manual_seed(0))
    source = torch.arange(prefix, prefix + 8).expand(3, -1)
    return Tokens(x, GRID, prefix, groups=2, source=source)


def frame_means(patches: Tensor) -> Tensor:
    return patches.unflatten(1, (2, 4)).mean(dim=2)


def generate(prefix: int = 1, sets_aside: bool = False) -> Generate:
    return Generate(frame_means, CELLS, 2, prefix, groups=2, sets_aside=sets_aside)


def test_new_tokens_stand_behind_the_prefix_and_carry_the_patches_of_their_cell() -> None:
    tokens = clip()
    after = advance(tokens, generate())
    assert torch.equal(after.x[:, :1], tokens.x[:, :1])
    assert torch.equal(after.patches, frame_means(tokens.patches))
    assert after.groups == 2
    assert after.source is not None
    assert after.source[0].tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert after.masses[0].tolist() == [1, 4, 4]
    assert after.aside is None
    again = generate().restore(after.x)
    assert torch.equal(again[:, 1:5], after.x[:, 1:2].expand(-1, 4, -1))


def test_masses_before_the_step_are_added_up() -> None:
    size = torch.arange(1.0, 9.0).expand(3, -1)
    masses = generate(0).masses(size)
    assert masses is not None
    assert masses[0].tolist() == [10, 26]


def test_patches_that_were_set_aside_come_back_with_all_that_was_known_of_them() -> None:
    tokens = clip()
    made = advance(tokens, generate(sets_aside=True))
    assert made.aside is tokens
    later = made.with_x(made.x + 1)
    recover = Recover(lambda image, now: image + now.repeat_interleave(4, dim=1), tokens, 2)
    back = advance(later, recover)
    assert torch.equal(back.patches, tokens.patches + (frame_means(tokens.patches) + 1).repeat_interleave(4, dim=1))
    assert torch.equal(back.x[:, 0], later.x[:, 0]), "the class token goes on as it is now"
    assert back.source is tokens.source
    assert (back.size, back.groups, back.aside) == (None, 2, None)
    assert (recover.n_in, recover.n_out) == (3, 9)
    assert recover.positions()[0].tolist() == [0, 1, 5]
    assert torch.equal(recover.restore(back.x), back.x[:, [0, 1, 5]])


def test_steps_in_between_do_not_lose_what_was_set_aside() -> None:
    made = advance(clip(0), generate(0, sets_aside=True))
    fewer = advance(made, Generate(lambda x: x.mean(1, keepdim=True), torch.zeros(3, 2, dtype=torch.int64), 1))
    assert fewer.aside is not None
    back = advance(fewer, Recover(lambda image, now: image + now, fewer.aside, 1))
    assert back.count == 8


def test_nothing_comes_back_where_nothing_was_set_aside() -> None:
    tokens = clip(0)
    recover: Reduction = Recover(lambda image, now: image, tokens, 8)
    with pytest.raises(ValueError, match="none were set aside"):
        advance(tokens, recover)
