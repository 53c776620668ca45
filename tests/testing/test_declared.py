from __future__ import annotations

from collections.abc import Callable

import pytest
from testing.zoo import Specimen, about


@pytest.mark.parametrize("wrong", about("check_declared_needs", "check_declarations"), ids=lambda wrong: wrong.reducer)
def test_a_false_declaration_is_caught(caught: Callable[..., str], wrong: Specimen) -> None:
    assert wrong.says in caught(wrong.reducer, wrong.check, wrong.backbone)
