from __future__ import annotations

from tokred.reducer import Capabilities
from tokred.testing.case import Case
from tokred.testing.check import check, content_decides


def test_a_check_has_the_name_of_its_function_and_tells_what_it_tells() -> None:
    @check("something holds", unless=content_decides, once=True)
    def check_something(case: Case) -> str:
        return f"looked at {case}"

    assert (check_something.name, check_something.clause, check_something.once) == (
        "check_something",
        "something holds",
        True,
    )
    assert check_something("it") == "looked at it"  # type: ignore[arg-type]


def test_clauses_about_known_counts_do_not_apply_where_the_content_decides() -> None:
    assert content_decides(Capabilities()) is None
    assert "content" in str(content_decides(Capabilities(static_counts=False)))
