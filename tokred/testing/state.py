"""Nothing outside is touched, nothing is left for the next forward, the same comes out every time."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from tokred.reducer import TokenReducer
from tokred.testing.caches import expect_grids_apart
from tokred.testing.case import Case, Seen, difference, same_decisions
from tokred.testing.check import check
from tokred.testing.failures import expect
from tokred.testing.identity import EXACT
from tokred.testing.remake import remade
from tokred.testing.stand_in import View
from tokred.testing.surroundings import changes, decide_in, global_state, other_surroundings, seeded, switched
from tokred.testing.trial import Trial

WORKERS = 3


@check("the same input gives the same decisions and logits, whatever generators, modes and defaults are around it")
def check_determinism(case: Case) -> None:
    fast = case.attach()
    with seeded(1):
        logits, decisions = case.logits(fast), case.decisions(fast)
    with seeded(2):
        again, decided = case.logits(fast), case.decisions(fast)
    expect(
        same_decisions(decisions, decided), "the same decisions on a second run, with other seeds", "other decisions"
    )
    expect(torch.equal(logits, again), "the same logits bit for bit on a second run", _gap(again, logits))
    twin = case.attach(copy.deepcopy(case.reducer))
    expect(
        same_decisions(case.decisions(twin), decisions), "the same decisions from an equal reducer", "other decisions"
    )
    for where, around in other_surroundings(case.reducer.capabilities).items():
        seen = case.watch(fast, decide=decide_in(around))
        decided = [step.reduction.positions() for step in seen if step.reduction is not None]
        expect(same_decisions(decided, decisions), f"the same decisions {where}", "other decisions")


@check_determinism.on_drawn
def _determinism_drawn(trial: Trial) -> None:
    first, again = trial.plain, trial.run()
    expect(same_decisions(first.decisions, again.decisions), "the same decisions on a second run", "other decisions")
    same = torch.equal(first.tokens.x, again.tokens.x)
    expect(same, "the same tokens bit for bit on a second run", _gap(again.tokens.x, first.tokens.x))


@check("no global state is touched: random generators, defaults, threads, modes, switches")
def check_no_global_state(case: Case) -> None:
    # What is set to what it was is seen the second time, when everything is the other way round.
    for flipped in (False, True):
        with switched(flipped=flipped), seeded(1 + flipped):
            before = global_state()
            made = remade(case.reducer)
            drawn = torch.get_rng_state()
            if case.reducer.capabilities.trainable:
                before["torch's random state"] = drawn  # layers are made with random weights, as all of torch's
            fast = case.attach()
            case.logits(fast)
            changed = changes(before, global_state())
        what = "every global state as it was after construction, attach and a forward"
        expect(not changed, what, f"changes in {', '.join(changed)}")
        del made
    _expect_no_seed(case)


def _expect_no_seed(case: Case) -> None:
    """Construction may draw weights from torch's generator; it does not set it."""
    left = []
    for seed in (3, 4):
        with seeded(seed):
            remade(case.reducer)
            left.append(torch.get_rng_state())
    expect(not torch.equal(*left), "torch's generator not to be seeded by construction", "a seed")


@check_no_global_state.on_drawn
def _globals_drawn(trial: Trial) -> None:
    before = global_state()
    trial.run()
    changed = changes(before, global_state())
    expect(not changed, "every global state as it was after a step", f"changes in {', '.join(changed)}")


@check(
    "a forward leaves nothing behind for the next one",
    unless=lambda c: "it declares that it keeps state" if c.stateful else None,
)
def check_no_state_between_forwards(case: Case) -> None:
    fast = case.attach()
    first = case.logits(fast)
    carried = held(case.reducer)
    case.logits(fast, case.clips.flip(0) * 2)
    changed = [name for name, value in held(case.reducer).items() if not equal(value, carried.get(name))]
    expect(not changed, "the reducer's attributes as they were after a forward", f"changes in {', '.join(changed)}")
    again = case.logits(fast)
    expect(torch.equal(first, again), "the same logits after another clip in between", _gap(again, first))
    expect_grids_apart(case)


@check_no_state_between_forwards.on_drawn
def _forwards_drawn(trial: Trial) -> None:
    first = trial.plain
    trial.run(View(frame=2))
    again = trial.run(fresh=False)
    same = same_decisions(first.decisions, again.decisions) and torch.equal(first.tokens.x, again.tokens.x)
    expect(same, "the same tokens after other content in between", _gap(again.tokens.x, first.tokens.x))


@check(
    "reset forgets: the next video comes out as if it were the first",
    unless=lambda c: None if c.stateful else "it keeps no state",
)
def check_reset_forgets(case: Case) -> None:
    fast = case.attach()
    first = case.logits(fast)
    with torch.no_grad():
        fast(case.clips.flip(0) * 2)  # goes on from there
    again = case.logits(fast)
    expect(torch.equal(first, again), "the same logits for a video after reset", _gap(again, first))


@check_reset_forgets.on_drawn
def _reset_drawn(trial: Trial) -> None:
    first = trial.run()
    trial.run(View(frame=2), fresh=False)
    again = trial.run()
    same = same_decisions(first.decisions, again.decisions) and torch.equal(first.tokens.x, again.tokens.x)
    expect(same, "the same tokens for a video after reset", _gap(again.tokens.x, first.tokens.x))


@check("reduce only decides: it writes on nothing that it is given, neither tokens nor queries, keys or values")
def check_tokens_untouched(case: Case) -> None:
    for seen in case.watch():
        _expect_untouched(seen)


@check_tokens_untouched.on_drawn
def _untouched_drawn(trial: Trial) -> None:
    for step in trial.plain.steps:
        _expect_untouched(step)


def _expect_untouched(step: Seen) -> None:
    """Features, masses and seeds of the tokens, queries, keys and values of the block: reduce was only shown them."""
    what = f"everything that the step at block {step.site.block} was given to stay as it was"
    expect(not step.touched, what, f"{step.touched} changed in place")


@check("the same on one thread and on two, and in several forwards at once", once=True)
def check_threads(case: Case) -> None:
    fast = case.attach()
    threads = torch.get_num_threads()
    found: list[tuple[Tensor, list[Tensor]]] = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append((case.logits(fast), case.decisions(fast)))
    finally:
        torch.set_num_threads(threads)
    (one, decided), (two, again) = found
    expect(same_decisions(decided, again), "the same decisions on one thread and on two", "other decisions")
    gap = difference(two, one)
    expect(gap <= EXACT, f"the same logits on one thread and on two (within {EXACT:g})", f"a difference of {gap:.2g}")
    if case.reducer.capabilities.stateful:
        return
    with ThreadPoolExecutor(WORKERS) as pool:
        results = list(pool.map(lambda i: case.logits(fast, case.clips[i % 3 : i % 3 + 1]), range(WORKERS)))
    gap = max(difference(result, one[i % 3 : i % 3 + 1]) for i, result in enumerate(results))
    expect(gap <= EXACT, "the same logits from forwards that run at once", f"a difference of {gap:.2g}")


def held(reducer: TokenReducer) -> dict[str, Any]:
    """What a reducer and its sub-modules carry: attributes (copied) and tensors."""
    found: dict[str, Any] = {}
    for place, module in reducer.named_modules():
        for name, value in vars(module).items():
            if name not in ("_modules", "_parameters", "_buffers"):
                found[f"{place}.{name}".lstrip(".")] = copy.deepcopy(value)
    found.update({name: tensor.clone() for name, tensor in reducer.state_dict().items()})
    return found


def equal(a: Any, b: Any) -> bool:
    """Whether two values are equal, also inside of containers and plain objects."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    # Objects without an equality of their own were copied, and are compared by what they carry.
    own_equality = any("__eq__" in vars(kind) for kind in type(a).__mro__[:-1])
    if type(a) is type(b) and not own_equality and hasattr(a, "__dict__"):
        return equal(vars(a), vars(b))
    return bool(a == b)


def _gap(a: Tensor, b: Tensor) -> str:
    return f"a difference of {difference(a, b):.2g}"
