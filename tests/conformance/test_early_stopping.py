"""Every rule of early stopping, taken from the registry, keeps to the same promises."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest

from autoprune.search.early_stopping import MIN_TRIALS_FOR_STOPPING, RULES, FinishedTrial, RungContext

ALL = pytest.mark.parametrize("name", RULES)
STOPPING = ("front", "pareto_rank")
#: Three of a study's candidates in four get about 0.1 better from the rung on.
SHARE = 0.25


def past(count: int = 30, seed: int = 0) -> tuple[FinishedTrial, ...]:
    """Candidates that are better the more they cost."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        cost = draw.uniform(0.1, 1.0)
        early = 0.5 + 0.3 * cost + draw.uniform(-0.02, 0.02)
        found.append(
            FinishedTrial(rungs={SHARE: -early}, loss=-early - draw.uniform(0.05, 0.1), costs=(cost, 100 * cost))
        )
    return tuple(found)


def at(quality: float, cost: float = 0.6, **changes: object) -> RungContext:
    given: dict[str, object] = {"share": SHARE, "loss": -quality, "costs": (cost, 100 * cost), "past": past()}
    return RungContext(**{**given, **changes})  # type: ignore[arg-type]


QUALITIES = [step / 40 for step in range(41)]


@pytest.mark.parametrize("name", STOPPING)
def test_it_stops_what_is_hopeless_and_nothing_else(name: str) -> None:
    assert RULES[name](at(0.05))
    assert not RULES[name](at(0.95))


@ALL
def test_better_is_never_stopped_where_worse_goes_on(name: str) -> None:
    for cost in (0.2, 0.5, 0.8):
        stopped = [RULES[name](at(quality, cost)) for quality in QUALITIES]
        assert stopped == sorted(stopped, reverse=True)


@ALL
def test_cheaper_is_never_stopped_where_dearer_goes_on(name: str) -> None:
    for quality in QUALITIES:
        stopped = [RULES[name](at(quality, cost / 20)) for cost in range(1, 21)]
        assert stopped == sorted(stopped)


@ALL
def test_the_order_of_the_past_does_not_matter(name: str) -> None:
    for quality in QUALITIES:
        turned = at(quality, past=past()[::-1])
        assert RULES[name](turned) == RULES[name](at(quality))


@ALL
@pytest.mark.parametrize("count", [0, 1, MIN_TRIALS_FOR_STOPPING - 1])
def test_with_few_before_it_everything_goes_on(name: str, count: int) -> None:
    assert not RULES[name](at(0.0, past=past(count)))


@ALL
def test_a_rung_that_nobody_passed_tells_nothing(name: str) -> None:
    assert not RULES[name](at(0.0, share=0.5))


@ALL
def test_a_quality_that_is_no_number_stops_nothing(name: str) -> None:
    spoiled = [dataclasses.replace(p, rungs={SHARE: math.nan}, loss=math.nan) for p in past()]
    assert not RULES[name](at(math.nan))
    assert not RULES[name](at(0.0, past=spoiled))
    for quality in (0.05, 0.95):
        assert RULES[name](at(quality, past=(*past(), *spoiled))) == RULES[name](at(quality))


@ALL
def test_the_cheapest_of_all_goes_on(name: str) -> None:
    """Nothing that costs no more has been seen: it may open the front at its end, if it is not all alone behind."""
    assert not RULES[name](at(0.5, cost=0.05))


@ALL
def test_it_changes_nothing(name: str) -> None:
    now = at(0.05)
    before = repr(now)
    assert RULES[name](now) == RULES[name](now)
    assert repr(now) == before
