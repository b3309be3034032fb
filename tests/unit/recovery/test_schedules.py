"""Shapes, timetables and amounts by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.plan.recovery import SCHEDULES as NAMES
from autoprune.plan.recovery import SchedulePlan
from autoprune.recovery.learning_rate import Rate, scheduler, simulate
from autoprune.recovery.schedules import (
    SCHEDULES,
    PruningStep,
    ScheduleRunner,
    amount_now,
    check_regrowth,
    decay_fraction_at,
    decay_progress,
    schedule,
    timetable,
)


def plan(name: str, updates: int = 4, end: float = 0.75, regrowth: float = 0.0) -> SchedulePlan:
    return SchedulePlan(name=name, updates=updates, end=end, regrowth=regrowth)


def steps_of(updates: tuple[PruningStep, ...]) -> list[int]:
    return [update.step for update in updates]


def progress_of(updates: tuple[PruningStep, ...]) -> list[float]:
    return [update.progress for update in updates]


# ---- shapes


@pytest.mark.parametrize(
    ("name", "quarters"),
    [
        ("one_shot", [0.8, 0.8, 0.8, 0.8, 0.8]),
        ("iterative", [0.0, 0.2, 0.4, 0.6, 0.8]),
        # 1 - (3/4)^3 = 37/64, 1 - (1/2)^3 = 7/8, 1 - (1/4)^3 = 63/64
        ("cubic", [0.0, 0.4625, 0.7, 0.7875, 0.8]),
        # a fifth is left in the end: the fourth root of it after each quarter
        ("exponential", [0.0, 1 - 0.2**0.25, 1 - math.sqrt(0.2), 1 - 0.2**0.75, 0.8]),
        ("learning_rate", [0.0, 0.2, 0.4, 0.6, 0.8]),
    ],
)
def test_quarters_of_the_way_to_four_fifths(name: str, quarters: list[float]) -> None:
    found = [SCHEDULES[name](quarter / 4, 0.8) for quarter in range(5)]
    assert found == pytest.approx(quarters)
    assert found[-1] == 0.8


def test_exponential_takes_the_same_share_of_what_is_left_each_time() -> None:
    left = [1 - SCHEDULES["exponential"](quarter / 4, 0.9) for quarter in range(5)]
    shares = [after / before for before, after in pairwise(left)]
    assert shares == pytest.approx([shares[0]] * 4)


def test_every_schedule_of_plans_has_a_shape() -> None:
    assert tuple(SCHEDULES) == NAMES
    assert all(schedule(name) is SCHEDULES[name] for name in NAMES)


def test_an_unknown_shape_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match=r"one_shot.*Did you mean 'cubic'"):
        schedule("cubik")


# ---- how many stay


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("iterative", [10, 8, 6, 4, 2]),
        ("one_shot", [2, 2, 2, 2, 2]),
        ("cubic", [10, 5, 3, 2, 2]),  # 5.375, 3, 2.125
        ("exponential", [10, 7, 4, 3, 2]),  # 6.69, 4.47, 2.99
    ],
)
def test_from_ten_channels_to_two(name: str, expected: list[int]) -> None:
    assert [amount_now(10, 2, quarter / 4, name) for quarter in range(5)] == expected


def test_an_amount_that_stays_as_it_is() -> None:
    assert [amount_now(7, 7, progress, "cubic") for progress in (0.0, 0.3, 1.0)] == [7, 7, 7]
    assert amount_now(0, 0, 0.5, "iterative") == 0


def test_all_may_go_where_that_is_asked() -> None:
    assert [amount_now(4, 0, progress, "exponential") for progress in (0.0, 0.5, 1.0)] == [4, 0, 0]
    assert [amount_now(4, 0, progress, "iterative") for progress in (0.0, 0.5, 1.0)] == [4, 2, 0]


# ---- timetables


@pytest.mark.parametrize("name", ["iterative", "cubic", "exponential"])
def test_four_updates_within_three_quarters_of_forty_steps(name: str) -> None:
    """Thirty steps hold them: at 0, 7.5, 15 and 22.5."""
    found = timetable(plan(name), 40, None)
    assert steps_of(found) == [0, 7, 15, 22]
    assert progress_of(found) == [0.25, 0.5, 0.75, 1.0]
    assert [update.exchange for update in found] == [0, 0, 0, 0]


def test_the_end_may_be_the_end() -> None:
    assert steps_of(timetable(plan("cubic", updates=2, end=1.0), 10, None)) == [0, 5]
    assert steps_of(timetable(plan("cubic", updates=10, end=1.0), 10, None)) == list(range(10))


def test_one_shot_prunes_once_before_the_first_step() -> None:
    assert timetable(plan("one_shot"), 40, [1.0] * 40) == (PruningStep(step=0, progress=1.0),)


def test_what_falls_on_one_step_goes_as_far_as_the_furthest() -> None:
    """Eight updates within four steps: 0, 0.5, 1, 1.5, ... of end = 1."""
    found = timetable(plan("iterative", updates=8, end=1.0), 4, None)
    assert steps_of(found) == [0, 1, 2, 3]
    assert progress_of(found) == [0.25, 0.5, 0.75, 1.0]
    assert timetable(plan("iterative", updates=8), 1, None) == (PruningStep(step=0, progress=1.0),)


@pytest.mark.parametrize("name", NAMES)
def test_without_steps_all_goes_at_once(name: str) -> None:
    assert timetable(plan(name, regrowth=0.3), 0, None) == (PruningStep(step=0, progress=1.0, exchange=0.0),)
    assert timetable(plan(name), 0, []) == (PruningStep(step=0, progress=1.0),)


def test_the_exchange_falls_along_a_cosine_to_nothing() -> None:
    found = timetable(plan("cubic", regrowth=0.4), 40, None)
    half = math.sqrt(0.5)
    # Quarters of the time until the updates end; before the first step there are no gradients.
    assert [update.exchange for update in found] == pytest.approx([0.0, 0.2 * (1 + half), 0.2, 0.2 * (1 - half)])
    assert found[0].exchange == 0.0


def test_one_shot_with_regrowth_only_exchanges_later() -> None:
    found = timetable(plan("one_shot", regrowth=0.4), 40, None)
    assert steps_of(found) == [0, 7, 15, 22]
    assert progress_of(found) == [1.0] * 4
    assert found[2].exchange == pytest.approx(0.2)
    two = timetable(plan("one_shot", updates=2, regrowth=0.4), 40, None)
    assert two == (PruningStep(step=0, progress=1.0), PruningStep(step=15, progress=1.0, exchange=pytest.approx(0.2)))
    assert timetable(plan("one_shot", updates=1, regrowth=0.4), 40, None) == (PruningStep(step=0, progress=1.0),)


# ---- by the learning rate


def test_progress_is_the_share_of_the_fall() -> None:
    assert decay_progress([2.0, 6.0, 10.0, 8.0, 4.0, 2.0]) == pytest.approx([0, 0, 0, 0.25, 0.75, 1.0])
    assert decay_progress([4.0, 2.0, 4.0, 3.0, 0.0]) == pytest.approx([0, 0.5, 0.5, 0.5, 1.0]), (
        "up again changes nothing"
    )
    assert decay_progress([1.0, 2.0, 3.0]) == decay_progress([0.1] * 3) == [0, 0, 0]
    assert decay_progress([]) == []


def test_a_fall_before_the_peak_counts_too() -> None:
    """From 4 to 2, then from 6 to 5: the deeper fall is the measure, and its end is all of it."""
    assert decay_progress([4.0, 2.0, 6.0, 5.0]) == [0, 1, 1, 1]
    assert decay_progress([4.0, 3.0, 6.0, 2.0]) == [0, 0.25, 0.25, 1]


def test_noise_of_floats_is_no_fall() -> None:
    rates = [0.1, 0.1 - 1e-17, math.nextafter(0.1, 0), 0.05]
    assert decay_progress(rates) == [0, 0, 0, 1]
    assert decay_progress(rates[:3]) == [0, 0, 0]


@pytest.mark.parametrize(
    ("peak", "rate", "lowest", "expected"),
    [(8, 8, 2, 0), (8, 5, 2, 0.5), (8, 2, 2, 1), (8, 1, 2, 1), (8, 2, 0, 0.75), (2, 2, 2, 0), (0, 0, 0, 0)],
)
def test_progress_online(peak: float, rate: float, lowest: float, expected: float) -> None:
    assert decay_fraction_at(peak, rate, lowest) == expected


def test_a_linear_fall_by_hand() -> None:
    """Ten rates from 1 to 0.1; possible updates before steps 2, 4, 6 and 8. The fall is 0.9 in all."""
    rates = simulate(scheduler("linear"), 1.0, 10)
    found = timetable(plan("learning_rate", end=0.1), 10, rates)
    assert steps_of(found) == [2, 4, 6, 8]
    assert progress_of(found) == pytest.approx([2 / 9, 4 / 9, 6 / 9, 1.0])
    assert found[-1].progress == 1.0


def test_updates_of_a_rate_that_rises_or_stands_are_left_out() -> None:
    warm = [0.2, 0.4, 0.6, 0.8, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    found = timetable(plan("learning_rate"), 10, warm)
    assert steps_of(found) == [6, 8]
    assert progress_of(found) == [pytest.approx(0.4), 1.0]
    steps = timetable(plan("learning_rate", updates=9), 20, simulate(scheduler("step"), 1.0, 20))
    assert steps_of(steps) == [10, 16], "once after each drop, at 10 and 15; updates are possible at every other step"
    assert progress_of(steps) == [pytest.approx(0.9 / 0.99), 1.0]


def test_the_last_update_waits_until_the_rate_begins_to_fall() -> None:
    rates = [1.0] * 9 + [0.1]
    assert timetable(plan("learning_rate"), 10, rates) == (PruningStep(step=9, progress=1.0),)
    assert timetable(plan("learning_rate", updates=1), 10, [1.0] * 7 + [0.5, 0.2, 0.1]) == (
        PruningStep(step=7, progress=1.0),
    )


def test_exchanges_go_on_when_all_has_gone_but_not_before_anything_has() -> None:
    rates = [1.0] * 5 + [0.1] * 5
    found = timetable(plan("learning_rate", regrowth=0.4), 10, rates)
    assert steps_of(found) == [6, 8]
    assert [update.exchange for update in found] == pytest.approx(
        [0.2 * (1 + math.cos(math.pi * number / 5)) for number in (3, 4)]
    )
    found = timetable(plan("learning_rate", updates=9, regrowth=0.4), 10, rates)
    assert steps_of(found) == [5, 6, 7, 8, 9]
    assert progress_of(found) == [1.0] * 5
    assert found[0].exchange == pytest.approx(0.2)


def test_an_exchange_needs_an_update_after_the_first_step() -> None:
    def check(own: SchedulePlan, steps: int) -> None:
        check_regrowth(own, steps, timetable(own, steps, None))

    for name in NAMES:
        check(plan(name, updates=2, regrowth=0.4), 40)
        check(plan(name, updates=1), 40)
        with pytest.raises(ConfigurationError, match=r"have an update after step 0.*updates=2, end=0\.75 and 1 steps"):
            check(plan(name, updates=2, regrowth=0.4), 1)
        with pytest.raises(ConfigurationError, match="and 0 steps"):
            check(plan(name, regrowth=0.4), 0)
    check(plan("learning_rate", updates=1, regrowth=0.4), 40)
    for name in ("one_shot", "cubic"):
        with pytest.raises(ConfigurationError, match="Take more updates, more steps, or regrowth=0"):
            check(plan(name, updates=1, regrowth=0.4), 40)
        with pytest.raises(ConfigurationError, match=r"end=0\.02"):
            check(plan(name, updates=4, end=0.02, regrowth=0.4), 40)


def test_the_remedy_for_a_rate_that_never_falls_is_true_of_it() -> None:
    def refused(steps: int) -> str:
        with pytest.raises(ConfigurationError) as error:
            timetable(plan("learning_rate"), steps, [0.1] * steps)
        return str(error.value)

    assert "One step has one rate, whatever the scheduler" in refused(1)
    assert "one_cycle" not in refused(1)
    assert "one_cycle is constant below 8" in refused(5)
    assert "below 8" not in refused(20)


@pytest.mark.parametrize("rates", [[0.1] * 20, [0.1 + 0.01 * step for step in range(20)], [0.1]])
def test_a_rate_that_never_falls_is_refused(rates: list[float]) -> None:
    with pytest.raises(ConfigurationError, match=rf"must fall, but got 0.1 to .* over {len(rates)} steps"):
        timetable(plan("learning_rate"), len(rates), rates)


def test_a_number_of_rates_that_is_not_that_of_the_steps_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="3 rates for 4 steps"):
        timetable(plan("learning_rate"), 4, [1.0, 0.5, 0.1])


# ---- by a rate that depends on the loss


def test_possible_updates_when_rates_are_not_known() -> None:
    found = timetable(plan("learning_rate"), 10, None)
    assert steps_of(found) == [2, 4, 6, 8]
    assert progress_of(found) == [0, 0, 0, 1]


def test_the_pace_of_a_plateau_follows_the_loss() -> None:
    """Thirty steps, patience 3: the rate is halved with the fourth loss that brings no new low."""
    rate = Rate(scheduler("plateau"), 1.0, 30)
    runner = ScheduleRunner(plan("learning_rate", updates=5), 30, None)
    assert steps_of(runner.updates) == [5, 10, 15, 20, 25]
    done, losses = [], [1.0] * 8 + [0.5] * 30  # halved after steps 4 and 12, 16, 20, 24, ...
    for step in range(30):
        for possible in runner.updates:
            if possible.step == step:
                update = runner.now(possible, rate.decay_fraction)
                done += [] if update is None else [update]
        rate.advance(losses[step])
    assert steps_of(tuple(done)) == [5, 15, 20, 25], "at 10 the rate was where it had been at 5"
    assert progress_of(tuple(done)) == pytest.approx([0.5 / 0.99, 0.75 / 0.99, 0.875 / 0.99, 1.0])
    assert done[-1].progress == 1.0


def test_a_plateau_that_never_comes_prunes_at_the_last_update() -> None:
    runner = ScheduleRunner(plan("learning_rate"), 20, None)
    done = [runner.now(update, 0.0) for update in runner.updates]
    assert done == [None, None, None, PruningStep(step=16, progress=1.0)]


def test_the_pace_exchanges_only_what_is_masked() -> None:
    runner = ScheduleRunner(plan("learning_rate", regrowth=0.4), 20, None)
    done = [
        runner.now(update, decay_fraction)
        for update, decay_fraction in zip(runner.updates, (0.0, 0.6, 0.6, 0.6), strict=True)
    ]
    assert [update and update.progress for update in done] == [None, 0.6, 0.6, 1.0]
    assert done[2] is not None
    assert done[2].exchange > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_pace_of_what_is_known_is_the_timetable(name: str) -> None:
    rates = simulate(scheduler("cosine"), 0.1, 40)
    runner = ScheduleRunner(plan(name), 40, rates)
    assert runner.updates == timetable(plan(name), 40, rates)
    assert tuple(runner.now(update, 0.99) for update in runner.updates) == runner.updates


def test_a_loss_moves_no_schedule_but_the_rates() -> None:
    runner = ScheduleRunner(plan("cubic"), 40, None)
    assert [runner.now(update, 0.99) for update in runner.updates] == list(timetable(plan("cubic"), 40, None))
