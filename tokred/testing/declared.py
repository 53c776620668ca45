"""What a reducer declares about itself is true."""

from __future__ import annotations

import inspect

from tokred.reducer import SITES
from tokred.testing.case import Case, same_decisions
from tokred.testing.check import check
from tokred.testing.claims import expect_counts_vary, expect_grid, expect_needs_read, expect_not_whole, expect_state
from tokred.testing.failures import Broken, expect


@check("it reads the statistics that it declares in Capabilities.needs, and no others")
def check_declared_needs(case: Case) -> None:
    decided = case.decisions()  # reading what is not declared raises
    if "frames" not in case.reducer.capabilities.needs:
        try:
            without = [s.reduction.positions() for s in case.watch(frames=False) if s.reduction is not None]
        except Exception as error:
            raise Broken(
                'it to work on tokens without temporal groups, or to declare that it needs "frames"',
                f"{type(error).__name__}: {error}",
            ) from error
        same = same_decisions(decided, without)
        expect(
            same, 'the same decisions on tokens without temporal groups, or "frames" in its needs', "other decisions"
        )
    expect_needs_read(case)


@check("its other declarations hold: site, strength, length, parameters, state, grid, defaults")
def check_declarations(case: Case) -> str | None:
    reducer, capabilities = case.reducer, case.reducer.capabilities
    expect(reducer.site in SITES, f"a site among {', '.join(SITES)}", repr(reducer.site))
    if reducer.strength:
        allowed = inspect.signature(type(reducer).__init__).parameters
        expect(reducer.strength in allowed, "strength to name an argument of the constructor", repr(reducer.strength))
    has_parameters = any(True for _ in reducer.parameters())
    expect(
        has_parameters == capabilities.trainable,
        f"{'no ' if not capabilities.trainable else ''}parameters, as trainable={capabilities.trainable} declares",
        "parameters" if has_parameters else "none",
    )
    seen = case.watch()
    shrinks = reducer.smaller_input(case.geometry) is not None
    changed = shrinks or any((s.after.count, s.after.fed) != (s.before.count, s.before.fed) for s in seen)
    expect(
        changed == capabilities.changes_length,
        f"the number of tokens, or of those with a whole MLP, to {'change' if capabilities.changes_length else 'stay'} "
        "as changes_length="
        f"{capabilities.changes_length} declares (at {reducer.spec}; a strength, or defaults that reduce, lets the "
        "contract see it at work)",
        "another number of tokens" if changed else "the same number of tokens",
    )
    if capabilities.identity_at_zero is not True:
        reason = capabilities.identity_at_zero
        expect(isinstance(reason, str) and bool(reason), "the reason why strength zero is not the host", repr(reason))
        expect_not_whole(case)
    if capabilities.keeps_grid:
        expect_grid(seen)
    expect_state(case)
    return expect_counts_vary(case)
