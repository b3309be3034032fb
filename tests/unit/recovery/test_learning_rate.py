"""The rates of built-in schedulers by hand, the rate apart from the optimizer that trains, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
)

from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.recovery.learning_rate import SCHEDULERS, Rate, SchedulerFactory, check_scheduler, scheduler, simulate
from autoprune.task.validation import BUILT_IN_SCHEDULERS


def rates(name: str, steps: int, peak: float = 1.0) -> list[float]:
    found = simulate(scheduler(name), peak, steps)
    assert found is not None
    return found


def halved(optimizer: Optimizer, steps: int) -> LRScheduler:
    return MultiStepLR(optimizer, [steps // 2], gamma=0.5)


# ---- by hand


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cosine", [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        ("linear", [1.0, 0.75, 0.5, 0.25]),
        ("step", [1.0, 1.0, 0.1, 0.01]),
        ("exponential", [1.0, 10**-0.5, 0.1, 10**-1.5]),
        ("constant", [1.0, 1.0, 1.0, 1.0]),
        ("one_cycle", [1.0, 1.0, 1.0, 1.0]),  # four steps are too few for a cycle
    ],
)
def test_four_steps_by_hand(name: str, expected: list[float]) -> None:
    assert rates(name, 4) == pytest.approx(expected)
    assert rates(name, 4, 0.3) == pytest.approx([0.3 * rate for rate in expected])


def test_three_restarts_each_twice_as_long() -> None:
    """Of seven steps: a cycle of one, of two and of four."""
    half, most, least = 0.5, (1 + math.sqrt(0.5)) / 2, (1 - math.sqrt(0.5)) / 2
    assert rates("warm_restarts", 7) == pytest.approx([1.0, 1.0, half, 1.0, most, half, least])
    # 40 steps: cycles of 6 and 12, and of 24 which the end cuts off; nothing begins anew just before it.
    forty = rates("warm_restarts", 40)
    assert [step for step, rate in enumerate(forty) if rate == pytest.approx(1.0)] == [0, 6, 18]
    assert forty[-1] < 0.05


def test_one_cycle_is_what_torch_gives_on_the_model_that_trains() -> None:
    optimizer = SGD([{"params": [nn.Parameter(torch.ones(2))]}, {"params": [nn.Parameter(torch.ones(1))]}], lr=0.05)
    cycle = OneCycleLR(optimizer, max_lr=0.05, total_steps=40, pct_start=0.25, cycle_momentum=False, div_factor=10.0)
    expected = []
    for _ in range(40):
        expected.append(optimizer.param_groups[1]["lr"])
        optimizer.step()
        cycle.step()
    assert rates("one_cycle", 40, 0.05) == expected
    assert expected[0] == pytest.approx(0.005)
    assert max(expected) == expected[9] == pytest.approx(0.05)
    assert expected[-1] < 1e-5


def test_eight_steps_are_a_cycle_and_seven_are_not() -> None:
    assert len(set(rates("one_cycle", 7))) == 1
    assert rates("one_cycle", 8)[:2] == pytest.approx([0.1, 1.0])


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name != "plateau"])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 50])
def test_any_number_of_steps_within_the_peak(name: str, steps: int) -> None:
    found = rates(name, steps, 0.2)
    assert len(found) == steps
    assert max(found) == pytest.approx(0.2, rel=1e-3)  # the top of a cycle may lie between two steps
    assert max(found) <= 0.2
    assert min(found) >= 0
    assert name == "one_cycle" or found[0] == pytest.approx(0.2)


def test_no_steps_have_no_rates() -> None:
    assert simulate(scheduler("cosine"), 0.1, 0) == []


# ---- step by step


def test_a_rate_holds_for_the_coming_step_and_no_more_than_there_are() -> None:
    rate = Rate(scheduler("linear"), 1.0, 4)
    seen = []
    for _ in range(7):
        seen.append(rate.value)
        rate.advance(0.0)
    assert seen == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.25, 0.25, 0.25])


def test_a_table_of_exactly_the_steps_is_enough() -> None:
    """After the last step nobody needs a rate, so that a scheduler is not asked for one."""
    table = [3.0, 2.0, 1.0]
    assert simulate(lambda optimizer, _: LambdaLR(optimizer, table.__getitem__), 0.1, 3) == pytest.approx(
        [0.3, 0.2, 0.1]
    )


def test_the_rate_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    simulate(scheduler("one_cycle"), 0.1, 20)
    assert torch.rand(1) == expected


def test_plateau_halves_when_no_new_low_comes_for_longer_than_a_tenth() -> None:
    """Of 40 steps: patience is 4, so that the fifth loss without a new low is one too many."""
    rate = Rate(scheduler("plateau"), 0.8, 40)
    assert rate.follows_loss
    assert rate.lowest == pytest.approx(0.8e-2)
    for loss in (1.0, 0.9, 0.8, 0.7, 0.6):
        rate.advance(loss)
        assert rate.value == 0.8
    seen = []
    for _ in range(10):
        rate.advance(0.7)
        seen.append(rate.value)
    assert seen == [0.8] * 4 + [0.4] * 5 + [0.2]
    rate.advance(0.5)  # a new low: the count begins again
    for _ in range(4):
        rate.advance(0.7)
        assert rate.value == 0.2
    rate.advance(0.7)
    assert rate.value == 0.1


def test_plateau_stops_at_a_hundredth_of_any_peak() -> None:
    for peak in (0.5, 1e-7):
        rate = Rate(scheduler("plateau"), peak, 500)
        for _ in range(499):
            rate.advance(1.0)
        assert rate.value == pytest.approx(peak / 100)
        assert rate.decay_fraction == 1


def test_the_patience_of_plateau_grows_with_the_steps() -> None:
    short = Rate(scheduler("plateau"), 0.5, 30)
    long = Rate(scheduler("plateau"), 0.5, 300)
    for _ in range(29):
        short.advance(1.0)
        long.advance(1.0)
    assert short.value < long.value == 0.5


def test_how_far_a_rate_has_come_down_never_falls() -> None:
    """From 0.8 towards 0.1, up again in between: a rate that follows the loss by a `step` of its own."""

    class Told(LRScheduler):
        def get_lr(self) -> list[float | torch.Tensor]:
            return [self.optimizer.param_groups[0]["lr"]]

        def step(self, loss: float | None = None) -> None:  # type: ignore[override]
            self.last_epoch += 1
            if loss is not None:
                self.optimizer.param_groups[0]["lr"] = loss

    class Needs(Told):
        min_lrs = (0.1,)

        def _initial_step(self) -> None:
            """A metric that is not there yet."""

        def step(self, metric: float) -> None:  # type: ignore[override]
            super().step(metric)

    rate = Rate(lambda optimizer, _: Needs(optimizer), 0.8, 10)
    assert rate.follows_loss
    assert rate.decay_fraction == 0
    seen = []
    for told in (0.8, 0.45, 0.8, 0.45, 0.1, 0.3):
        rate.advance(told)
        seen.append(rate.decay_fraction)
    assert seen == pytest.approx([0, 0.5, 0.5, 0.5, 1, 1])


def test_only_a_scheduler_that_asks_for_the_loss_follows_it() -> None:
    assert [name for name in SCHEDULERS if simulate(scheduler(name), 0.1, 20) is None] == ["plateau"]
    own = simulate(lambda optimizer, _: ReduceLROnPlateau(optimizer, min_lr=0.01), 0.1, 20)
    assert own is None
    assert Rate(lambda optimizer, _: ReduceLROnPlateau(optimizer), 0.1, 5).lowest == 0
    assert Rate(scheduler("cosine"), 0.1, 5).lowest == 0


# ---- names


def test_an_unknown_name_lists_the_built_in_and_the_tasks_own() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'halved'") as error:
        scheduler("halve", {"halved": halved})
    assert all(name in str(error.value) for name in (*SCHEDULERS, "halved"))
    with pytest.raises(UnknownNameError, match="a scheduler must be one of"):
        check_scheduler("cosin", {}, peak=0.1, steps=4)


def test_a_scheduler_of_the_tasks() -> None:
    assert scheduler("halved", {"halved": halved}) is halved
    assert simulate(halved, 0.2, 4) == pytest.approx([0.2, 0.2, 0.1, 0.1])
    check_scheduler("halved", {"halved": halved}, peak=0.2, steps=4)
    assert simulate(CosineAnnealingLR, 0.2, 4) == pytest.approx(rates("cosine", 4, 0.2)), "a class is a factory, too"


def test_a_task_knows_the_names_of_what_is_built_in() -> None:
    assert tuple(SCHEDULERS) == BUILT_IN_SCHEDULERS


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [0, 1, 40])
def test_what_is_built_in_passes_the_check(name: str, steps: int) -> None:
    check_scheduler(name, {}, peak=0.1, steps=steps)


# ---- what is refused


def on_another(_: Optimizer, steps: int) -> LRScheduler:
    return halved(SGD([nn.Parameter(torch.ones(1))], lr=0.1), steps)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda optimizer, steps: 1 / 0, r"must build one from \(optimizer, steps\), but got ZeroDivisionError"),
        (lambda optimizer: None, r"must build one from \(optimizer, steps\), but got TypeError"),
        (lambda optimizer, steps: 0.1, "must return a scheduler, but got float. Return a torch.optim.lr_scheduler"),
        (lambda optimizer, steps: None, "must return a scheduler, but got NoneType"),
        (lambda optimizer, steps: LambdaLR, "must return a scheduler, but got type"),
        (on_another, "must build it on the optimizer that it is given, but got one on another"),
        (lambda optimizer, steps: LambdaLR(optimizer, lambda step: 1 - step), "must be finite and >= 0, but got -0.1"),
        (lambda optimizer, steps: LambdaLR(optimizer, lambda step: math.nan), "must be finite and >= 0, but got nan"),
        (
            lambda optimizer, steps: LambdaLR(optimizer, [1.0, 1.0, 1.0].__getitem__),
            "must give a rate for every step, but got IndexError",
        ),
        (
            lambda optimizer, steps: OneCycleLR(optimizer, max_lr=0.1, total_steps=2, cycle_momentum=False),
            "must give a rate for every step, but got ValueError",
        ),
    ],
    ids=["raises", "signature", "number", "nothing", "class", "other", "negative", "nan", "short table", "short cycle"],
)
def test_what_is_no_scheduler_is_refused_before_training(factory: SchedulerFactory, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^scheduler 'mine': .*{message}"):
        check_scheduler("mine", {"mine": factory}, peak=0.1, steps=5)
    with pytest.raises(ConfigurationError, match=message):
        simulate(factory, 0.1, 5)
