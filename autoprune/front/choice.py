"""The choice of one candidate under limits, with its certainty and its luck."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.errors import SelectionError, error_message
from autoprune.front.doubts import choice_doubts, first_left_out, worst_as_measured
from autoprune.front.lead import Lead, compare_leaders
from autoprune.front.limit_check import LimitCheck
from autoprune.front.numbers import Numbers
from autoprune.front.optimism import estimate_optimism
from autoprune.records.candidate import CandidateRecord
from autoprune.records.origins import Origin
from autoprune.records.precision import more_samples

#: Remedy where no candidate can be chosen.
NO_ONE = "Loosen a limit or run more trials."


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A chosen candidate.

    Attributes:
        record: The candidate.
        check: Limits that it keeps, and the confidence with which it does.
        among: Number of candidates that were trained to the end.
        optimism: How much better its quality looks on the search split than it is, see `front.optimism`; None where no
            error of the quality is known.
        nearest: Where only the dense model keeps the limit of the loss: the smaller candidate that comes nearest. None
            otherwise.
        doubts: Lines on costs in doubt that decide: which candidates were left out for them, or which numbers of the
            chosen one were taken as measured; none where nothing that decides is in doubt.
        slower: Sentences on the latency profiles in which it is measurably slower than the dense model.
        lead: By how much it is ahead of the next candidate; None where it is the only one.
    """

    record: CandidateRecord
    check: LimitCheck
    among: int
    optimism: float | None = None
    nearest: CandidateRecord | None = None
    doubts: tuple[str, ...] = ()
    slower: tuple[str, ...] = ()
    lead: Lead | None = None

    @property
    def remarks(self) -> list[str]:
        """Sentences on the choice: what its loss may be, which candidates come next or nearest, and how lucky it is."""
        found = []
        if self.nearest is not None:
            said = asked(self.check, self.nearest)
            found.append(f"No smaller candidate keeps {said}: the choice is the dense model itself.")
            found.append(nearest_text(self.nearest, self.check))
        elif self.record.origin is not Origin.DENSE and self.check.drop_margin(self.record) > 0:
            metric, which = self.check.problem.metric, f"candidate {self.record.number}"
            found.append(f"On the search split the {metric} of {which} is {drop_text(self.record, self.check)}.")
        found += [*self.slower, *self.doubts]
        if self.lead is not None:
            found.append(self.lead.sentence)
        luck = optimism_text(self.optimism, self.among)
        return [*found, luck] if luck else found


def optimism_text(optimism: float | None, among: int) -> str:
    """Write how lucky the best of many is.

    Args:
        optimism: See `Choice.optimism`.
        among: Number of candidates.

    Returns:
        A sentence; "" where nothing is known, or there is no luck.
    """
    if optimism is None or optimism <= 0 or among < 2:
        return ""
    return f"Chosen among {among} candidates, it looks about {optimism:.1g} better on the search split than it is."


def rank(pools: Sequence[np.ndarray], numbers: Numbers, check: LimitCheck, by: str) -> list[int]:
    """Rank the candidates within limits; of equally good ones, that with the better quality comes first.

    Args:
        pools: Positions of candidates to choose among, then of those to look at where none of the first keeps the
            limits, and so on.
        numbers: Numbers of all candidates.
        check: Limits to keep.
        by: Objective to choose by.

    Returns:
        Positions of the candidates of the first pool that has any, the best first.

    Raises:
        SelectionError: No candidate keeps the limits.
    """
    inside = check.is_known(numbers, by) & (check.worst(numbers) <= 0)
    losses = check.problem.objective(by).loss(1.0) * numbers.shown(by)
    for pool in pools:
        fitting = pool[inside[pool]]
        if len(fitting):
            order = np.lexsort((numbers.losses[fitting], losses[fitting]))
            return [int(place) for place in fitting[order]]
    raise SelectionError(_none_within(pools, numbers, check, by))


def weigh(chosen: int, pools: Sequence[np.ndarray], numbers: Numbers, check: LimitCheck, by: str) -> Choice:
    """Compare the best candidate within limits with the next one, and estimate its luck.

    Args:
        chosen: Position of the best candidate, see `rank`.
        pools: Positions of candidates to choose among first, then of all that may be chosen.
        numbers: Numbers of all candidates.
        check: Limits that it keeps.
        by: Objective that it was chosen by.

    Returns:
        The choice.
    """
    record = numbers.records[chosen]
    members = pools[0]
    violation = worst_as_measured(numbers, check)
    smaller = [place for place in members.tolist() if numbers.records[place].origin is not Origin.DENSE]
    alone = record.origin is Origin.DENSE and np.isfinite(check.largest_drop) and bool(smaller)
    nearest = min(smaller, key=lambda place: float(violation[place])) if alone else None
    if nearest is not None and violation[nearest] <= 0:
        nearest = None
    return Choice(
        record=record,
        check=check,
        among=int(numbers.complete.sum()),
        optimism=estimate_optimism(numbers, check, by),
        nearest=None if nearest is None else numbers.records[nearest],
        doubts=tuple(choice_doubts(chosen, members, numbers, check, (by,))),
        slower=slower_lines(chosen, pools, numbers, check),
        lead=_lead(chosen, pools[-1], numbers, check, by),
    )


def slower_lines(chosen: int, pools: Sequence[np.ndarray], numbers: Numbers, check: LimitCheck) -> tuple[str, ...]:
    """Tell that a chosen candidate is slower than the dense model, and which one is the quickest within the limits.

    Args:
        chosen: Position of the chosen candidate.
        pools: See `rank`.
        numbers: Numbers of all candidates.
        check: Limits that it keeps; without limits, no other candidate is named.

    Returns:
        A line for each latency profile in which it is measurably slower.
    """
    record, lines = numbers.records[chosen], []
    for cost in (one for one in check.problem.costs.values() if one.is_latency):
        found = cost.against_dense(record)
        if found is None or not found.trusted or found.low <= 1.0:
            continue
        how = "predicted to be" if found.predicted else "measurably"
        said = f"Candidate {record.number} is {how} slower than dense: it takes {found.text} of its {cost.title}."
        # What was chosen keeps the limits, and its latency is known: the ranking is never empty.
        quickest = numbers.records[rank(pools, numbers, check, cost.name)[0]] if check.limits.given else record
        compared = cost.against_dense(quickest)
        if compared is not None and compared.high < 1.0:
            said += (
                f" The quickest that keeps the limits is candidate {quickest.number} with {compared.ratio:.2f} of it: "
                f"--by {shlex.quote(cost.name)}."
            )
        elif check.limits.given:
            said += " None that keeps the limits is measurably quicker than dense."
        lines.append(said)
    return tuple(lines)


def _lead(chosen: int, every: np.ndarray, numbers: Numbers, check: LimitCheck, by: str) -> Lead | None:
    """Compare the chosen candidate with the best other one within the limits, which may be off the front."""
    try:
        runner_up = rank([every[every != chosen]], numbers, check, by)[0]
    except SelectionError:
        return None
    return compare_leaders(numbers.records[chosen], numbers.records[runner_up], check, by)


def asked(check: LimitCheck, record: CandidateRecord) -> str:
    """Write limits, and the confidence with which those of metrics are to be kept.

    Args:
        check: Limits.
        record: Candidate that is checked; without an error of a metric no confidence is asked.

    Returns:
        Such as "max_drop 0.01 with 90% confidence".
    """
    sure, each = f" with {100 * check.confidence:.4g}% confidence", check.limits.each
    return ", ".join(
        f"{name} {value:.10g}{sure if check.margin(record, each[name]) > 0 else ''}"
        for name, value in check.limits.given.items()
    )


def drop_text(record: CandidateRecord, check: LimitCheck) -> str:
    """Write how far the quality lies from the dense model's, and how large the loss may be.

    Args:
        record: Candidate.
        check: Limits, with the confidence.

    Returns:
        Such as "0.0030 below the dense model's, and with 90% confidence at most 0.0120 below it".
    """
    drop, margin = check.drop(record), check.drop_margin(record)
    worse, better = ("below", "above") if check.problem.quality.better == "higher" else ("above", "below")
    amount = f"{abs(drop):.4f}"
    measured = "the same as" if float(amount) == 0 else f"{amount} {worse if drop > 0 else better}"
    most = drop + margin
    bound = f"at most {most:.4f} {worse}" if most > 0 else f"at least {-most:.4f} {better}"
    sure = f", and with {100 * check.confidence:.4g}% confidence {bound} it" if margin > 0 else ""
    return f"{measured} the dense model's{sure}"


def nearest_text(record: CandidateRecord, check: LimitCheck) -> str:
    """Write which candidate comes nearest to a limit of the loss, and how many samples would tell.

    Args:
        record: The nearest candidate.
        check: Limits, with the confidence.

    Returns:
        One or two sentences.
    """
    said = (
        f"The nearest is candidate {record.number}: on the search split its {check.problem.metric} is "
        f"{drop_text(record, check)}."
    )
    limit, margin = check.largest_drop, check.drop_margin(record)
    if check.drop(record) <= limit < check.drop(record) + margin:
        said += (
            f" The search split tells differences of about {margin:.2g}; "
            f"{more_samples(margin, limit)} would tell {limit:.2g}, and --confidence 0.5 takes the measured quality."
        )
    return said


def _none_within(pools: Sequence[np.ndarray], numbers: Numbers, check: LimitCheck, by: str) -> str:
    members, every = pools[0], pools[-1]
    if not len(members):
        return error_message("the front", "hold a candidate", "none", "Run the study first.")
    for name in (by, *check.absolute()):
        if not np.isfinite(numbers.shown(name)[every]).any():
            remedy = check.problem.unmeasured.get(name) or check.problem.objective(name).setting
            return error_message(f"{name} of the candidates", "be measured where it decides", "no measurement", remedy)
    nearest = _nearest(members, numbers, check)
    wants = f"keep to {asked(check, nearest)}" if check.limits.given else f"have a {by} that can be trusted"
    left_out = first_left_out(pools, numbers, check, by)
    if left_out is not None:
        pool, first, titles = left_out
        got = f"none for certain: candidate {first.number} would be chosen, but its {' and '.join(titles)} is in doubt"
        doubts = choice_doubts(None, pool, numbers, check, (by,))
        return "\n".join([error_message("a candidate", wants, got), *doubts])
    against = "" if check.dense is None or nearest is check.dense else f" ({drop_text(nearest, check)})"
    has = ", ".join([f"{check.problem.metric} {nearest.search.quality:.4g}{against}", *check.told(nearest)])
    got = f"none; the nearest is candidate {nearest.number} with {has}"
    doubts = choice_doubts(None, every, numbers, check, (by,))
    return error_message("a candidate", wants, got, "\n".join([NO_ONE, *doubts]))


def _nearest(members: np.ndarray, numbers: Numbers, check: LimitCheck) -> CandidateRecord:
    """Find the member that comes nearest to the limits; not the dense model where a cost is limited."""
    smaller = [place for place in members.tolist() if numbers.records[place] is not check.dense]
    among = np.array(smaller) if smaller and check.absolute() else members
    return numbers.records[int(among[np.argmin(worst_as_measured(numbers, check)[among])])]
