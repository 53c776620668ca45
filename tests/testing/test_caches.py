from __future__ import annotations

from testing.zoo import spec

from tokred.registry import build
from tokred.testing.caches import LYING, STANDING, forgotten
from tokred.tokens import Grid

TABLE: dict[int, str] = {1: "one"}


def test_both_grids_have_as_many_patches_in_as_many_frames() -> None:
    assert Grid(*LYING).patches == Grid(*STANDING).patches
    assert LYING[0] == STANDING[0]
    assert LYING != STANDING


def test_what_is_put_into_a_table_of_a_class_is_out_again_and_what_was_there_stays() -> None:
    reducer = build(spec("ShapeCache"))
    table = type(reducer).columns  # type: ignore[attr-defined]
    table.clear()  # of other tests
    table[-1] = "before"
    try:
        with forgotten(reducer):
            table[110] = "inside"
        assert table == {-1: "before"}
    finally:
        table.clear()


def test_tables_of_the_module_count_as_well() -> None:
    from tokred.methods import TopK

    class Mine(TopK):
        def reduce(self, tokens, probe, site):  # type: ignore[no-untyped-def]
            return super().reduce(tokens, probe, site)

    with forgotten(Mine()):
        TABLE[2] = "two"
    assert TABLE == {1: "one"}
