"""Every schedule, and the coupling with every kind of torch's schedulers: the promises that a sparsity makes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.lr_scheduler import LRScheduler

from autoprune.plan.recovery import SchedulePlan
from autoprune.recovery.learning_rate import SCHEDULERS, Rate, SchedulerFactory, check_scheduler, simulate
from autoprune.recovery.schedules import (
    SCHEDULES,
    PruningStep,
    ScheduleRunner,
    amount_now,
    decay_fraction_at,
    decay_progress,
    timetable,
)

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
SHARES = st.floats(0.0, 1.0)
SPARSITIES = st.floats(0.0, 1.0, exclude_max=True)
PLANS = st.builds(
    SchedulePlan,
    name=st.sampled_from([name for name in SCHEDULES if name != "learning_rate"]),
    updates=st.integers(1, 40),
    end=st.floats(0.01, 1.0),
    regrowth=st.sampled_from([0.0, 0.3]),
)


def warmed_up(optimizer: Optimizer, steps: int) -> LRScheduler:
    warm = max(1, steps // 5)
    rise = torch_schedulers.LinearLR(optimizer, start_factor=0.1, total_iters=warm)
    fall = torch_schedulers.CosineAnnealingLR(optimizer, steps - warm)
    return torch_schedulers.SequentialLR(optimizer, [rise, fall], milestones=[warm])


def chained(optimizer: Optimizer, steps: int) -> LRScheduler:
    first = torch_schedulers.ConstantLR(optimizer, factor=0.5, total_iters=steps // 4)
    second = torch_schedulers.ExponentialLR(optimizer, gamma=0.95)
    return torch_schedulers.ChainedScheduler([first, second], optimizer=optimizer)


#: Schedulers as a user may bring them, beside the built-in ones.
OWN: Mapping[str, SchedulerFactory] = {
    "MultiStepLR": lambda optimizer, steps: torch_schedulers.MultiStepLR(optimizer, [steps // 2, steps * 3 // 4]),
    "StepLR": lambda optimizer, steps: torch_schedulers.StepLR(optimizer, max(1, steps // 5), gamma=0.5),
    "PolynomialLR": lambda optimizer, steps: torch_schedulers.PolynomialLR(optimizer, steps, power=2.0),
    "LambdaLR": lambda optimizer, steps: torch_schedulers.LambdaLR(
        optimizer, lambda step: 1.0 + math.sin(2 * math.pi * step / steps)
    ),
    "MultiplicativeLR": lambda optimizer, steps: torch_schedulers.MultiplicativeLR(optimizer, lambda step: 0.97),
    "CyclicLR": lambda optimizer, steps: torch_schedulers.CyclicLR(
        optimizer, base_lr=0.01, max_lr=0.1, step_size_up=max(1, steps // 6), cycle_momentum=False
    ),
    "OneCycleLR with momentum": lambda optimizer, steps: torch_schedulers.OneCycleLR(
        optimizer, max_lr=0.1, total_steps=steps
    ),
    "CosineAnnealingWarmRestarts": lambda optimizer, steps: torch_schedulers.CosineAnnealingWarmRestarts(
        optimizer, T_0=max(1, steps // 3), eta_min=0.001
    ),
    "CosineAnnealingLR": torch_schedulers.CosineAnnealingLR,
    "SequentialLR": warmed_up,
    "ChainedScheduler": chained,
    "late drop": lambda optimizer, steps: torch_schedulers.MultiStepLR(optimizer, [steps - 1]),
    "ReduceLROnPlateau": lambda optimizer, steps: torch_schedulers.ReduceLROnPlateau(
        optimizer, patience=max(1, steps // 12)
    ),
}
ALL: Mapping[str, SchedulerFactory] = {**SCHEDULERS, **OWN}
BY_LOSS = ("plateau", "ReduceLROnPlateau")
KNOWN = [name for name in ALL if name not in (*BY_LOSS, "constant")]
#: Those whose rate never rises again once it has begun to fall.
ONE_FALL = ("one_cycle", "cosine", "linear", "step", "exponential", "MultiStepLR", "PolynomialLR", "SequentialLR")
#: Losses of 60 steps: they fall, stand long enough for any patience here, fall again.
LOSSES = [1.0 / (1 + step) for step in range(15)] + [0.07] * 20 + [0.05 / (1 + step) for step in range(5)] + [0.01] * 20
STEPS = len(LOSSES)


def rates_of(name: str, steps: int = STEPS) -> list[float]:
    found = simulate(ALL[name], 0.1, steps)
    assert found is not None
    return found


def sparsities(updates: Sequence[PruningStep], steps: int, name: str = "learning_rate") -> list[float]:
    """Sparsity in each step of a fine-tune towards 0.8."""
    now, found = 0.0, []
    due = {update.step: update for update in updates}
    for step in range(steps):
        if step in due:
            now = SCHEDULES[name](due[step].progress, 0.8)
        found.append(now)
    return found


# ---- shapes


@pytest.mark.parametrize("name", SCHEDULES)
@QUICK
@given(shares=st.tuples(SHARES, SHARES), final=SPARSITIES)
def test_within_bounds_never_falling_and_exact(name: str, shares: tuple[float, float], final: float) -> None:
    shape: Callable[[float, float], float] = SCHEDULES[name]
    sooner, later = (shape(share, final) for share in sorted(shares))
    assert 0.0 <= sooner <= later + 1e-12
    assert later <= final
    assert shape(1.0, final) == final
    if name != "one_shot":
        assert shape(0.0, final) == 0.0


@pytest.mark.parametrize("name", SCHEDULES)
@QUICK
@given(data=st.data(), total=st.integers(1, 3000), shares=st.tuples(SHARES, SHARES))
def test_as_many_stay_as_the_plan_says(name: str, data: st.DataObject, total: int, shares: tuple[float, float]) -> None:
    final = data.draw(st.integers(1, total))
    sooner, later = (amount_now(total, final, share, name) for share in sorted(shares))
    assert total >= sooner >= later >= final
    assert amount_now(total, final, 1.0, name) == final
    if name != "one_shot":
        assert amount_now(total, final, 0.0, name) == total


@pytest.mark.parametrize("name", SCHEDULES)
def test_an_amount_is_the_nearest_to_the_shape(name: str) -> None:
    for progress in (0.1, 0.35, 0.5, 0.8):
        wanted = 400 * (1 - SCHEDULES[name](progress, 0.7))
        assert abs(amount_now(400, 120, progress, name) - wanted) <= 0.5 + 1e-9


# ---- timetables


@QUICK
@given(plan=PLANS, steps=st.integers(0, 200))
def test_a_timetable_is_in_order_and_ends_with_all_of_it(plan: SchedulePlan, steps: int) -> None:
    found = timetable(plan, steps, None)
    assert 1 <= len(found) <= plan.updates
    assert found[0].step == 0
    assert found[-1].progress == 1.0
    assert all(0 <= update.step < max(1, steps) for update in found)
    assert all(update.step <= plan.end * steps for update in found)
    assert all(0 < update.progress <= 1 and 0 <= update.exchange <= plan.regrowth for update in found)
    for one, next_one in pairwise(found):
        assert one.step < next_one.step
        assert one.progress <= next_one.progress
        assert one.exchange >= next_one.exchange or one.step == 0, "before the first step nothing is exchanged"


@pytest.mark.parametrize("name", SCHEDULES)
def test_as_many_updates_as_the_plan_says_where_there_is_room(name: str) -> None:
    plan = SchedulePlan(name=name, updates=7)
    assert len(timetable(plan, 100, rates_of("linear", 100))) == (1 if name == "one_shot" else 7)


# ---- schedulers


@pytest.mark.parametrize("name", ALL)
def test_every_scheduler_passes_the_check(name: str) -> None:
    """pytest makes an error of any warning of torch's."""
    check_scheduler(name, OWN, peak=0.1, steps=STEPS)


@pytest.mark.parametrize("name", [name for name in ALL if name not in BY_LOSS])
def test_rates_are_those_of_the_scheduler_on_the_optimizer_that_trains(name: str) -> None:
    weights = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))]
    optimizer = torch.optim.SGD([{"params": [weight]} for weight in weights], lr=0.1, momentum=0.9)
    real = ALL[name](optimizer, STEPS)
    expected = []
    for _ in range(STEPS):
        expected.append(optimizer.param_groups[-1]["lr"])
        optimizer.step()
        real.step()
    assert rates_of(name) == expected


@pytest.mark.parametrize("name", BY_LOSS)
def test_a_rate_by_the_loss_is_that_of_the_scheduler_on_the_optimizer_that_trains(name: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=0.1)
    real, rate = ALL[name](optimizer, STEPS), Rate(ALL[name], 0.1, STEPS)
    for loss in LOSSES:
        assert rate.value == optimizer.param_groups[0]["lr"]
        rate.advance(loss)
        real.step(loss)  # type: ignore[arg-type]
    assert rate.value < 0.1, "the losses are such that it falls"


# ---- the coupling


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("updates", [1, 2, 4, 9, STEPS])
def test_sparsity_follows_the_fall_of_any_scheduler(name: str, updates: int) -> None:
    rates = rates_of(name)
    found = timetable(SchedulePlan(name="learning_rate", updates=updates), STEPS, rates)
    sparsity = sparsities(found, STEPS)
    begins = next(step for step in range(1, STEPS) if rates[step] < rates[step - 1] * (1 - 1e-6))
    assert all(value == 0 for value in sparsity[:begins]), "nothing goes before the rate falls"
    assert all(sooner <= later for sooner, later in pairwise(sparsity))
    assert sparsity[-1] == 0.8
    assert found[-1].progress == 1.0
    assert len(found) <= updates


@pytest.mark.parametrize("name", KNOWN)
def test_sparsity_grows_at_each_step_at_which_the_rate_falls_to_a_new_low(name: str) -> None:
    """With an update before every step: the share of the fall at that step, and growth whenever it grows."""
    rates = rates_of(name)
    sparsity = sparsities(timetable(SchedulePlan(name="learning_rate", updates=STEPS), STEPS, rates), STEPS)
    falls = [max(rates[: step + 1]) - rate for step, rate in enumerate(rates)]
    for step in range(1, STEPS - 1):
        expected = 0.8 * max(falls[: step + 1]) / max(falls)
        assert sparsity[step] == pytest.approx(expected, abs=1e-8)
        new_low = falls[step] > max(falls[:step]) + 1e-6 * max(falls)
        assert (sparsity[step] > sparsity[step - 1]) == new_low, step


@pytest.mark.parametrize("name", ONE_FALL)
def test_online_and_ahead_are_the_same_for_one_fall(name: str) -> None:
    """With the peak before the lowest rate it is (peak - rate) / (peak - lowest), known ahead or not."""
    rates = rates_of(name)
    top = rates.index(max(rates))
    online = [decay_fraction_at(max(rates[: step + 1]), rate, min(rates[top:])) for step, rate in enumerate(rates)]
    assert decay_progress(rates)[top:] == pytest.approx(online[top:], abs=1e-9)
    assert decay_progress(rates)[: top + 1] == [0] * (top + 1)


@pytest.mark.parametrize("name", BY_LOSS)
@pytest.mark.parametrize("updates", [1, 3, 6, 20, STEPS])
def test_sparsity_follows_a_rate_that_follows_the_loss(name: str, updates: int) -> None:
    rate = Rate(ALL[name], 0.1, STEPS)
    runner = ScheduleRunner(SchedulePlan(name="learning_rate", updates=updates), STEPS, simulate(ALL[name], 0.1, STEPS))
    possible = {update.step: update for update in runner.updates}
    assert len(possible) == updates
    done, begins = [], STEPS
    for step, loss in enumerate(LOSSES):
        if rate.value < 0.1:
            begins = min(begins, step)
        update = runner.now(possible[step], rate.decay_fraction) if step in possible else None
        if update is not None:
            assert update.progress == 1 or update.progress == pytest.approx((0.1 - rate.value) / (0.1 - rate.lowest))
            done.append(update)
        rate.advance(loss)
    sparsity = sparsities(done, STEPS)
    last = runner.updates[-1].step
    assert all(value == 0 for value in sparsity[: min(begins, last)])
    assert all(sooner < later for sooner, later in pairwise([0.0, *(update.progress for update in done)]))
    assert sparsity[-1] == 0.8
    assert done[-1].step == last
    if updates >= 6:
        assert len(done) > 2, "it came down more than once before the last update"


@QUICK
@given(rates=st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=30), updates=st.integers(1, 12))
def test_any_rates_that_fall_give_a_timetable(rates: list[float], updates: int) -> None:
    progress = decay_progress(rates)
    assert all(0 <= sooner <= later <= 1 for sooner, later in pairwise(progress))
    if progress[-1] == 0:
        return
    assert progress[-1] == 1
    found = timetable(SchedulePlan(name="learning_rate", updates=updates), len(rates), rates)
    assert found[-1].progress == 1
    assert all(progress[update.step] > 0 for update in found)
    for one, next_one in pairwise(found):
        assert one.step < next_one.step
        assert one.progress < next_one.progress
