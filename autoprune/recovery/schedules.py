"""Pruning schedules: how sparsity rises from zero to its target during a fine-tune."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from autoprune.errors import ConfigurationError, UnknownNameError, error_message
from autoprune.plan.recovery import SchedulePlan

#: (progress in [0, 1], final sparsity in [0, 1]) -> sparsity in [0, final], non-decreasing in progress, and exactly
#: final at progress 1.
Schedule = Callable[[float, float], float]

#: Below this many steps the cycle of `one_cycle` has no room to rise and fall; the rate stays constant.
SHORTEST_CYCLE = 8
#: Rounding noise of learning rates: a smaller relative difference is no fall.
_NOISE = 1e-9


def one_shot(progress: float, final: float) -> float:  # noqa: ARG001  # the signature of a schedule
    """Reach the final sparsity at once: s.

    Args:
        progress: Progress t of the schedule, in [0, 1].
        final: Final sparsity s, in [0, 1].

    Returns:
        Sparsity, in [0, final].
    """
    return final


def iterative(progress: float, final: float) -> float:
    """Raise sparsity by the same amount at each pruning step: s * t.

    Source: Molchanov et al., 2017, in equal steps.

    Args:
        progress: Progress t of the schedule, in [0, 1].
        final: Final sparsity s, in [0, 1].

    Returns:
        Sparsity, in [0, final].
    """
    return min(final, final * progress)


def cubic(progress: float, final: float) -> float:
    """Prune much at first and little near the end: s * (1 - (1 - t)^3).

    Source: Zhu and Gupta, To Prune, or Not to Prune, 2017.

    Args:
        progress: Progress t of the schedule, in [0, 1].
        final: Final sparsity s, in [0, 1].

    Returns:
        Sparsity, in [0, final].
    """
    left = 1.0 - progress
    return min(final, final * (1.0 - left * left * left))


def exponential(progress: float, final: float) -> float:
    """Prune the same share of the remaining entries at each pruning step: 1 - (1 - s)^t.

    Source: Han et al., 2015; Frankle and Carbin, The Lottery Ticket Hypothesis, 2019.

    Args:
        progress: Progress t of the schedule, in [0, 1].
        final: Final sparsity s, in [0, 1].

    Returns:
        Sparsity, in [0, final].
    """
    return final if progress >= 1.0 else min(final, 1.0 - (1.0 - final) ** progress)


def learning_rate(progress: float, final: float) -> float:
    """Raise sparsity as the learning rate falls: s * t, where t comes from `decay_progress`.

    The coupling is our own. Nearest to it: One-Cycle Pruning (Hubens et al., 2021) prunes all through one training
    cycle; how well a network recovers depends on the learning rate that is still to come (Renda et al., 2020; Le and
    Hua, 2021).

    Args:
        progress: Progress t of the decay, in [0, 1].
        final: Final sparsity s, in [0, 1].

    Returns:
        Sparsity, in [0, final].
    """
    return min(final, final * progress)


SCHEDULES: Mapping[str, Schedule] = {
    "one_shot": one_shot,
    "iterative": iterative,
    "cubic": cubic,
    "exponential": exponential,
    "learning_rate": learning_rate,
}


def schedule(name: str) -> Schedule:
    """Look up a schedule by name.

    Args:
        name: Name in SCHEDULES.

    Returns:
        The schedule.

    Raises:
        UnknownNameError: There is no schedule of that name; the message lists the known ones.
    """
    if name not in SCHEDULES:
        raise UnknownNameError("a schedule", name, SCHEDULES)
    return SCHEDULES[name]


def amount_now(total: int, final: int, progress: float, name: str) -> int:
    """Count the channels or entries that stay at one point of a schedule.

    Args:
        total: Number before the first pruning step.
        final: Number after the last one, 0 <= final <= total.
        progress: Progress of the schedule, in [0, 1].
        name: Name of the schedule.

    Returns:
        The number, rounded to nearest; never below `final`, and exactly `final` at progress 1.
    """
    assert 0 <= final <= total, (total, final)
    if progress >= 1.0 or final == total:
        return final
    gone = schedule(name)(progress, (total - final) / total)
    return min(total, max(final, round(total * (1.0 - gone))))


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningStep:
    """One point of a fine-tune at which sparsity is raised.

    Attributes:
        step: Optimizer step before which it happens, in [0, steps); 0 when the fine-tune has no steps.
        progress: Progress that the schedule is called with, in (0, 1]; exactly 1 for the last pruning step.
        exchange: Share of the non-zero weights of masked layers that are replaced by others, in [0, 1); 0 before step
            0,
            where there are no gradients yet.
    """

    step: int
    progress: float
    exchange: float = 0.0


def timetable(plan: SchedulePlan, steps: int, rates: Sequence[float] | None) -> tuple[PruningStep, ...]:
    """List the pruning steps of a fine-tune.

    Pruning step i of k happens before optimizer step floor((i - 1) / k * end * steps) and has progress i / k.

    - "one_shot" has one pruning step, of progress 1 before step 0. Where weights are exchanged, the pruning steps after
    it
      only exchange weights.
    - "learning_rate" has up to k pruning steps, before steps floor(i / (k + 1) * steps), since the rate has not fallen
    yet
      at step 0. Their progress is `decay_progress` there, and 1 for the last. Pruning steps that change nothing are
          left
      out. The last one is not before the rate begins to fall.
    - Without optimizer steps there is one pruning step, of progress 1.
    - Weights are exchanged at every pruning step after step 0.

    Args:
        plan: Schedule of the plan.
        steps: Optimizer steps of the fine-tune, >= 0.
        rates: Learning rate of each step, from `simulate`; only "learning_rate" uses them. None when they depend on the
            loss: the pruning steps then have progress 0, the lower bound, except for the last, which has 1;
            ScheduleRunner finds the rest during training.

    Returns:
        Pruning steps in the order of their optimizer steps, no two of them the same.

    Raises:
        ConfigurationError: The rates never fall under "learning_rate".
    """
    if steps == 0:
        return (PruningStep(step=0, progress=1.0),)
    if plan.name == "learning_rate":
        found = _possible_steps(plan, steps) if rates is None else _coupled_steps(plan, steps, rates)
    else:
        found = _even_steps(plan, steps)
    # Pruning steps at one optimizer step become one, with the largest progress.
    return tuple({update.step: update for update in found}.values())


def check_regrowth(plan: SchedulePlan, steps: int, updates: Sequence[PruningStep]) -> None:
    """Check that the timetable has a pruning step that can exchange weights, if the plan asks for regrowth.

    Args:
        plan: Schedule of the plan.
        steps: Optimizer steps of the fine-tune.
        updates: Pruning steps of the timetable.

    Raises:
        ConfigurationError: Regrowth is asked for, and no pruning step can exchange weights.
    """
    if plan.regrowth > 0 and not any(update.exchange > 0 for update in updates):
        raise ConfigurationError(
            error_message(
                "the regrowth of masks",
                "have an update after step 0, as there are no gradients before it",
                f"updates={plan.updates}, end={plan.end:g} and {steps} steps",
                "Take more updates, more steps, or regrowth=0.",
            )
        )


def decay_progress(rates: Sequence[float]) -> list[float]:
    """Work out how far the learning rate has fallen before each step.

    The value is the largest (peak so far - rate) up to the step, divided by the largest of all steps. That divisor is
    the
    peak minus the lowest rate after it, unless the rate falls further before its peak.

    Args:
        rates: Learning rate of each step.

    Returns:
        Progress of each step, in [0, 1], non-decreasing; all 0 when the rate never falls.
    """
    peak = furthest = 0.0
    falls = []
    for rate in rates:
        peak = max(peak, rate)
        furthest = max(furthest, peak - rate)
        falls.append(furthest)
    if furthest <= _NOISE * peak:
        return [0.0] * len(falls)
    return [_without_noise(fall / furthest) for fall in falls]


def decay_fraction_at(peak: float, rate: float, lowest: float) -> float:
    """Work out how far the learning rate has fallen when the coming rates are not known.

    Args:
        peak: Highest rate so far.
        rate: Current rate.
        lowest: Lowest rate that the scheduler can reach.

    Returns:
        (peak - rate) / (peak - lowest), in [0, 1].
    """
    room = peak - lowest
    return 0.0 if room <= _NOISE * peak else _without_noise(min(1.0, max(0.0, (peak - rate) / room)))


class ScheduleRunner:
    """Tells a training loop what to prune and when.

    The loop trains up to the step of each of `updates`, calls `now`, and prunes by what it returns.

    Args:
        plan: Schedule of the plan.
        steps: Optimizer steps of the fine-tune.
        rates: As for `timetable`.

    Attributes:
        updates: The timetable. Under "learning_rate" with rates that depend on the loss, its progress values are lower
            bounds, and `now` returns the actual ones.
        last_progress: Progress of the last of these actual ones; 0 before.
    """

    def __init__(self, plan: SchedulePlan, steps: int, rates: Sequence[float] | None) -> None:
        """rates: as for `timetable`."""
        self.updates = timetable(plan, steps, rates)
        self._follows_loss = plan.name == "learning_rate" and rates is None
        self.last_progress = 0.0

    def now(self, update: PruningStep, decay_fraction: float) -> PruningStep | None:
        """Work out one pruning step at the time it is due.

        Args:
            update: One of `updates`, in their order.
            decay_fraction: `Rate.decay_fraction` before the pruning step, in [0, 1].

        Returns:
            The pruning step with its actual progress; None when it changes nothing.
        """
        if not self._follows_loss:
            return update
        update = replace(update, progress=max(update.progress, decay_fraction, self.last_progress))
        if not _does_something(update, self.last_progress):
            return None
        self.last_progress = update.progress
        return update


def _even_steps(plan: SchedulePlan, steps: int) -> list[PruningStep]:
    at_once = plan.name == "one_shot"
    total = 1 if at_once and plan.regrowth == 0 else plan.updates
    found: list[PruningStep] = []
    for number in range(1, total + 1):
        update = PruningStep(
            step=(step := min(steps - 1, math.floor((number - 1) * plan.end * steps / total))),
            progress=1.0 if at_once else number / total,
            exchange=_exchange(plan, step, (number - 1) / total),
        )
        if _does_something(update, found[-1].progress if found else 0.0):
            found.append(update)
    return found


def _possible_steps(plan: SchedulePlan, steps: int) -> list[PruningStep]:
    total = plan.updates
    return [
        PruningStep(
            step=(step := number * steps // (total + 1)),
            progress=1.0 if number == total else 0.0,
            exchange=_exchange(plan, step, number / (total + 1)),
        )
        for number in range(1, total + 1)
    ]


def _coupled_steps(plan: SchedulePlan, steps: int, rates: Sequence[float]) -> list[PruningStep]:
    assert len(rates) == steps, f"{len(rates)} rates for {steps} steps"
    progress = decay_progress(rates)
    if progress[-1] == 0:
        raise ConfigurationError(
            error_message(
                "the learning rate under the schedule 'learning_rate'",
                "fall",
                f"{rates[0]:.3g} to {rates[-1]:.3g} over {steps} steps without a fall",
                _remedy(rates),
            )
        )
    begins = next(number for number, reached in enumerate(progress) if reached > 0)
    found: list[PruningStep] = []
    for update in _possible_steps(plan, steps):
        if update.progress == 1:  # the last one
            update = replace(update, step=max(update.step, begins))
        else:
            update = replace(update, progress=progress[update.step])
        if _does_something(update, found[-1].progress if found else 0.0):
            found.append(update)
    return found


def _remedy(rates: Sequence[float]) -> str:
    """Advice for rates that never fall."""
    if len(rates) == 1:
        return "One step has one rate, whatever the scheduler: take more steps, or another schedule."
    if len(rates) < SHORTEST_CYCLE:
        return f"Choose another scheduler or schedule, or more steps: one_cycle is constant below {SHORTEST_CYCLE}."
    return "Choose another scheduler or schedule."


def _does_something(update: PruningStep, before: float) -> bool:
    """Whether the pruning step raises sparsity, or exchanges weights."""
    return update.progress > before or (update.exchange > 0 and update.progress > 0)


def _exchange(plan: SchedulePlan, step: int, passed: float) -> float:
    """Share of weights to exchange: it falls along a cosine, to 0 at the end of the schedule.

    passed: share of the schedule that is over, in [0, 1). Before the first step there are no gradients to grow by.
    Source: Evci et al., Rigging the Lottery, 2020.
    """
    return plan.regrowth * (1.0 + math.cos(math.pi * passed)) / 2.0 if step > 0 else 0.0


def _without_noise(progress: float) -> float:
    """Progress without rounding noise next to 0 and 1, which would add a pruning step or lose one."""
    if progress < _NOISE:
        return 0.0
    return 1.0 if progress > 1.0 - _NOISE else progress
