from __future__ import annotations

import torch
from torch import nn

from tokred.testing import StepExample
from tokred.testing.stand_in import StandIn, View

EXAMPLE = StepExample(grid=(2, 2, 3), batch=2, prefix=1, dim=8, heads=2, masses="mixed", gone=1, seed=3)


def test_views_of_an_example_show_the_same_content() -> None:
    plain = StandIn(EXAMPLE, View(torch.float64)).tokens()
    assert plain.x.shape == (2, 1 + 2 * 5, 8)
    alone = StandIn(EXAMPLE, View(torch.float64, sample=1)).tokens()
    assert torch.equal(alone.x, plain.x[1:])
    assert torch.equal(alone.masses, plain.masses[1:])
    turned = StandIn(EXAMPLE, View(torch.float64, turned=True)).tokens()
    assert not torch.equal(turned.x, plain.x)
    assert torch.equal(turned.x.sort(dim=-1).values, plain.x.sort(dim=-1).values)
    narrow = StandIn(EXAMPLE, View(torch.float16)).tokens().x
    wide = StandIn(EXAMPLE, View(through=torch.float16)).tokens().x
    assert (narrow.dtype, wide.dtype) == (torch.float16, torch.float32)
    assert torch.equal(narrow.float(), wide)
    other = StandIn(EXAMPLE, View(torch.float64, frame=1)).tokens()
    assert not torch.equal(other.x, plain.x)


def test_queries_and_keys_belong_to_the_tokens_and_follow_the_views() -> None:
    host = nn.Identity()
    drawn: dict[object, object] = {}
    adapter = StandIn(EXAMPLE, View(), drawn)
    tokens = adapter.tokens()
    attended = adapter.attend(host, tokens, None)
    assert attended.q.shape == (2, 2, tokens.count, 4)
    assert torch.equal(attended.x, tokens.x)
    again = StandIn(EXAMPLE, View(sample=0), drawn)
    assert torch.equal(again.attend(host, again.tokens(), None).k, attended.k[:1])


def test_parts_of_its_blocks_act_on_each_token_alone() -> None:
    adapter = StandIn(StepExample(grid=(1, 2, 2), dim=8, heads=2), View())
    parts = adapter.token_parts(nn.Identity())
    x = adapter.tokens().x
    assert parts.whole(x).shape == x.shape
    torch.testing.assert_close(parts.qkv(x)[:, :1], parts.qkv(x[:, :1]))
