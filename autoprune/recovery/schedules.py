"""When during a fine-tune how much of what is to go goes: shapes by name, and the timetable that they give."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from autoprune.errors import ConfigurationError, UnknownNameError, error_message
from autoprune.plan.recovery import SchedulePlan

#: (progress in [0, 1], final sparsity in [0, 1]) -> sparsity in [0, final], which never falls as progress grows and is
#: exactly the final one at progress 1.
Schedule = Callable[[float, float], float]

#: Below this many steps the cycle of `one_cycle` has no room to rise and fall; the rate stays constant.
SHORTEST_CYCLE = 8
#: Rates are sums and products of floats: a difference of less than this share is no fall.
_NOISE = 1e-9


def one_shot(progress: float, final: float) -> float:  # noqa: ARG001  # the signature of a schedule
    """All of it at once: s."""
    return final


def iterative(progress: float, final: float) -> float:
    """The same amount at each update: s * t. Source: Molchanov et al., 2017, in equal steps."""
    return min(final, final * progress)


def cubic(progress: float, final: float) -> float:
    """Much while there is much to take: s * (1 - (1 - t)^3). Source: Zhu and Gupta, To Prune, or Not to Prune, 2017."""
    left = 1.0 - progress
    return min(final, final * (1.0 - left * left * left))


def exponential(progress: float, final: float) -> float:
    """Each update takes the same share of what is left: 1 - (1 - s)^t.

    Source: Han et al., 2015; Frankle and Carbin, The Lottery Ticket Hypothesis, 2019.
    """
    return final if progress >= 1.0 else min(final, 1.0 - (1.0 - final) ** progress)


def learning_rate(progress: float, final: float) -> float:
    """As much as the learning rate has come down: s * t, where t is what `declines` gives.

    The coupling is our own. Nearest to it: One-Cycle Pruning (Hubens et al., 2021) prunes all through one training
    cycle; how well a network recovers is up to the rate that is still to come (Renda et al., 2020; Le and Hua, 2021).
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
    """The shape of that name; UnknownNameError lists the known ones."""
    if name not in SCHEDULES:
        raise UnknownNameError("a schedule", name, SCHEDULES)
    return SCHEDULES[name]


def amount_now(total: int, final: int, progress: float, name: str) -> int:
    """How many of `total` stay at that progress on the way to `final` of them, by the shape of that name.

    0 <= final <= total; progress in [0, 1]. Rounded to nearest; never fewer than `final`, and exactly that at progress
    1.
    """
    assert 0 <= final <= total, (total, final)
    if progress >= 1.0 or final == total:
        return final
    gone = schedule(name)(progress, (total - final) / total)
    return min(total, max(final, round(total * (1.0 - gone))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One time at which the amount is brought up.

    step: the optimizer step before which it happens, in [0, steps); 0 when there are none.
    progress: what the shape is asked with, in (0, 1]; exactly 1 for the last update.
    exchange: share of the non-zero weights of masked layers that give way to others, in [0, 1); 0 before step 0, where
        there are no gradients yet.
    """

    step: int
    progress: float
    exchange: float = 0.0


def timetable(plan: SchedulePlan, steps: int, rates: Sequence[float] | None) -> tuple[Update, ...]:
    """All updates of a fine-tune of `steps` steps, in the order of their steps, no two of which are the same.

    Update i of k lies before step floor((i - 1) / k * end * steps) and has progress i / k. "one_shot" has one, of
    progress 1 before step 0; where weights are exchanged those after it do only that. "learning_rate" has k possible
    ones before steps floor(i / (k + 1) * steps), since at step 0 no rate has fallen, with the progress of `declines`
    there, the last with 1; one that changes nothing is left out, and the last is not before the rate begins to fall.
    Without steps there is one update of progress 1. Weights are exchanged at every update after step 0.

    rates: the learning rate of each step, as `simulate` gives them; only "learning_rate" looks at them. None there when
    they depend on the loss: the possible updates then have progress 0, the least that is certain, but the last has 1.
    Pace makes out the rest as it comes.
    Raises ConfigurationError when rates never fall under "learning_rate".
    """
    if steps == 0:
        return (Update(step=0, progress=1.0),)
    if plan.name == "learning_rate":
        found = _possible(plan, steps) if rates is None else _coupled_updates(plan, steps, rates)
    else:
        found = _even_updates(plan, steps)
    # Updates of one step are one, with the progress of the furthest.
    return tuple({update.step: update for update in found}.values())


def check_regrowth(plan: SchedulePlan, steps: int, updates: Sequence[Update]) -> None:
    """Raise ConfigurationError where weights are to be exchanged and no update of the timetable can."""
    if plan.regrowth > 0 and not any(update.exchange > 0 for update in updates):
        raise ConfigurationError(
            error_message(
                "the regrowth of masks",
                "have an update after step 0, as there are no gradients before it",
                f"updates={plan.updates}, end={plan.end:g} and {steps} steps",
                "Take more updates, more steps, or regrowth=0.",
            )
        )


def declines(rates: Sequence[float]) -> list[float]:
    """How far the learning rate has come down before each step, in [0, 1]; never falls.

    The largest (peak so far - rate) up to that step over the largest of all steps, which is the peak minus the lowest
    rate after it, unless the rate falls further before its peak. All 0 when the rate never falls.
    """
    peak = furthest = 0.0
    falls = []
    for rate in rates:
        peak = max(peak, rate)
        furthest = max(furthest, peak - rate)
        falls.append(furthest)
    if furthest <= _NOISE * peak:
        return [0.0] * len(falls)
    return [_cleared(fall / furthest) for fall in falls]


def coupled(peak: float, rate: float, lowest: float) -> float:
    """(peak - rate) / (peak - lowest) in [0, 1]: the progress at one step when the rates to come are not known.

    peak: the highest rate so far. lowest: the least that the rate can come to.
    """
    room = peak - lowest
    return 0.0 if room <= _NOISE * peak else _cleared(min(1.0, max(0.0, (peak - rate) / room)))


class Pace:
    """What is to go when, for a training loop: train up to each of `updates`, ask what it is `now`, and do that.

    updates: the timetable. Only under "learning_rate" with a rate that depends on the loss do they say too little; each
        is then made out as it comes.
    """

    def __init__(self, plan: SchedulePlan, steps: int, rates: Sequence[float] | None) -> None:
        """rates: as for `timetable`."""
        self.updates = timetable(plan, steps, rates)
        self._follows = plan.name == "learning_rate" and rates is None
        self._given = 0.0

    def now(self, update: Update, declined: float) -> Update | None:
        """The next of `updates`, as it is when the rate has come down that far; None when there is nothing to do.

        declined: `Rate.declined` before the update's step, in [0, 1].
        """
        if not self._follows:
            return update
        update = replace(update, progress=max(update.progress, declined, self._given))
        if not _does_something(update, self._given):
            return None
        self._given = update.progress
        return update


def _even_updates(plan: SchedulePlan, steps: int) -> list[Update]:
    at_once = plan.name == "one_shot"
    total = 1 if at_once and plan.regrowth == 0 else plan.updates
    found: list[Update] = []
    for number in range(1, total + 1):
        update = Update(
            step=(step := min(steps - 1, math.floor((number - 1) * plan.end * steps / total))),
            progress=1.0 if at_once else number / total,
            exchange=_exchange(plan, step, (number - 1) / total),
        )
        if _does_something(update, found[-1].progress if found else 0.0):
            found.append(update)
    return found


def _possible(plan: SchedulePlan, steps: int) -> list[Update]:
    total = plan.updates
    return [
        Update(
            step=(step := number * steps // (total + 1)),
            progress=1.0 if number == total else 0.0,
            exchange=_exchange(plan, step, number / (total + 1)),
        )
        for number in range(1, total + 1)
    ]


def _coupled_updates(plan: SchedulePlan, steps: int, rates: Sequence[float]) -> list[Update]:
    assert len(rates) == steps, f"{len(rates)} rates for {steps} steps"
    progress = declines(rates)
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
    found: list[Update] = []
    for update in _possible(plan, steps):
        if update.progress == 1:  # the last one
            update = replace(update, step=max(update.step, begins))
        else:
            update = replace(update, progress=progress[update.step])
        if _does_something(update, found[-1].progress if found else 0.0):
            found.append(update)
    return found


def _remedy(rates: Sequence[float]) -> str:
    """What helps against rates that never fall."""
    if len(rates) == 1:
        return "One step has one rate, whatever the scheduler: take more steps, or another schedule."
    if len(rates) < SHORTEST_CYCLE:
        return f"Choose another scheduler or schedule, or more steps: one_cycle is constant below {SHORTEST_CYCLE}."
    return "Choose another scheduler or schedule."


def _does_something(update: Update, before: float) -> bool:
    """Whether there is more to take, or weights to exchange for some that are masked already or now."""
    return update.progress > before or (update.exchange > 0 and update.progress > 0)


def _exchange(plan: SchedulePlan, step: int, passed: float) -> float:
    """Falls along a cosine, to 0 where the updates end. Source: Evci et al., Rigging the Lottery, 2020.

    passed: share of the time of the updates, in [0, 1). Before the first step there are no gradients to grow by.
    """
    return plan.regrowth * (1.0 + math.cos(math.pi * passed)) / 2.0 if step > 0 else 0.0


def _cleared(progress: float) -> float:
    """Without the noise of floats next to 0 and to 1, where it would be taken for an update or for a missing one."""
    if progress < _NOISE:
        return 0.0
    return 1.0 if progress > 1.0 - _NOISE else progress
