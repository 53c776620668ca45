from __future__ import annotations

import pytest
import torch
from torch import nn

from tokred import ranking as module
from tokred.ranking import ranking


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("exported", [False, True])
def test_equal_values_keep_their_order(descending: bool, exported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_exporting", lambda: exported)
    x = torch.randint(0, 5, (3, 4096), generator=torch.Generator().manual_seed(0)).float()
    rows = [sorted(range(4096), key=lambda i: ((-1 if descending else 1) * row[i], i)) for row in x.tolist()]
    assert ranking(x, descending=descending).tolist() == rows
    assert ranking(x.T, 0, descending=descending).T.tolist() == rows


class Ranks(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ranking(x)


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="torch 2.6 does not tell that it exports")
def test_a_program_holds_no_stable_sort() -> None:
    program = torch.export.export(Ranks(), (torch.randn(2, 8),))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert [name for name in called if "sort" in name] == ["aten.sort.default"] * 2
