"""The choice of one candidate under limits, with what is certain of it and what is luck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.errors import SelectionError, error_message
from autoprune.front.limit_check import LimitCheck
from autoprune.front.optimism import estimate_optimism
from autoprune.records.candidate import CandidateRecord
from autoprune.records.origins import Origin
from autoprune.records.precision import more_samples

#: Remedy for latencies in doubt.
_BUSY = "The same command of `run` measures them again; --confidence 0.5 takes them as they are."


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
        in_doubt: Number of members of the front that were left out, as a latency that decides is in doubt.
    """

    record: CandidateRecord
    check: LimitCheck
    among: int
    optimism: float | None = None
    nearest: CandidateRecord | None = None
    in_doubt: int = 0

    @property
    def remarks(self) -> list[str]:
        """Sentences on the choice: what its loss may be, how lucky it is, and which candidate comes nearest."""
        found = []
        if self.nearest is not None:
            said = asked(self.check, self.nearest)
            found.append(f"No smaller candidate keeps {said}: the choice is the dense model itself.")
            found.append(nearest_text(self.nearest, self.check))
        elif self.record.origin is not Origin.DENSE and self.check.drop_margin(self.record) > 0:
            found.append(f"On search its {self.check.problem.metric} is {drop_text(self.record, self.check)}.")
        if self.in_doubt:
            found.append(f"Members of the front left out, as their latency is in doubt: {self.in_doubt}. {_BUSY}")
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
    return f"Chosen among {among}: looks about {optimism:.1g} better on the search split than it is."


def choose(records: Sequence[Sequence[CandidateRecord]], check: LimitCheck, by: str) -> CandidateRecord:
    """Choose the best candidate within limits; of equally good ones, that with the best quality.

    Args:
        records: Candidates to choose among, then those to look at where none of the first keeps the limits, and so on.
        check: Limits to keep.
        by: Objective to choose by.

    Returns:
        The candidate.

    Raises:
        SelectionError: No candidate keeps the limits.
    """
    best_by, quality = check.problem.objective(by), check.problem.quality
    for pool in records:
        inside = [record for record in pool if not _is_unknown(record, check, by) and check.worst(record) <= 0]
        if inside:
            return min(
                inside,
                key=lambda record: (best_by.loss(check.value(record, by)), quality.loss(record.search.quality)),
            )
    raise SelectionError(_none_within(records[0], records[-1], check, by))


def weigh(
    record: CandidateRecord,
    members: Sequence[CandidateRecord],
    records: Sequence[CandidateRecord],
    check: LimitCheck,
    by: str,
) -> Choice:
    """Say of a chosen candidate what is certain and what is luck.

    Args:
        record: Chosen candidate.
        members: Members of the front.
        records: All candidates that were trained to the end.
        check: Limits that it keeps.
        by: Objective that it was chosen by.

    Returns:
        The choice.
    """
    smaller = [one for one in members if one.origin is not Origin.DENSE]
    alone = record.origin is Origin.DENSE and np.isfinite(check.largest_drop) and bool(smaller)
    nearest = min(smaller, key=check.worst) if alone else None
    if nearest is not None and check.worst(nearest) <= 0:
        nearest = None
    return Choice(
        record=record,
        check=check,
        among=len(records),
        optimism=estimate_optimism(records, check, by),
        nearest=nearest,
        in_doubt=sum(_is_in_doubt(one, check, by) for one in members),
    )


def asked(check: LimitCheck, record: CandidateRecord) -> str:
    """Write limits, and the confidence with which those of the quality are to be kept.

    Args:
        check: Limits.
        record: Candidate that is checked; without an error of its quality no confidence is asked.

    Returns:
        Such as "max_drop 0.01 with 90% confidence".
    """
    sure = f" with {100 * check.confidence:.4g}% confidence" if check.drop_margin(record) > 0 else ""
    each = check.limits.each
    return ", ".join(
        f"{name} {value}{sure if check.is_of_quality(each[name]) else ''}" for name, value in check.limits.given.items()
    )


def drop_text(record: CandidateRecord, check: LimitCheck) -> str:
    """Write the difference to dense, and how large the loss may be.

    Args:
        record: Candidate.
        check: Limits, with the confidence.

    Returns:
        Such as "-0.003 to dense, and at most 0.012 below it with 90% confidence".
    """
    drop, margin = check.drop(record), check.drop_margin(record)
    most = drop + margin
    bound = f"at most {most:.3g} below it" if most > 0 else f"at least {-most:.3g} above it"
    sure = f", and {bound} with {100 * check.confidence:.4g}% confidence" if margin > 0 else ""
    return f"{0.0 - drop:+.4g} to dense{sure}"


def nearest_text(record: CandidateRecord, check: LimitCheck) -> str:
    """Write which candidate comes nearest to a limit of the loss, and how many samples would tell.

    Args:
        record: The nearest candidate.
        check: Limits, with the confidence.

    Returns:
        One or two sentences.
    """
    said = f"The nearest is candidate {record.number}, {drop_text(record, check)} on search."
    limit, margin = check.largest_drop, check.drop_margin(record)
    if check.drop(record) <= limit < check.drop(record) + margin:
        said += (
            f" The search split tells differences of about {margin:.2g}; "
            f"{more_samples(margin, limit)} would tell {limit:.2g}, and --confidence 0.5 takes the measured quality."
        )
    return said


def _is_unknown(record: CandidateRecord, check: LimitCheck, name: str) -> bool:
    """Tell whether a number is missing, or in doubt where the confidence asks for one that is not."""
    cost = name in check.problem.costs
    return not np.isfinite(check.bounded(record, name) if cost else check.value(record, name))


def _is_in_doubt(record: CandidateRecord, check: LimitCheck, by: str) -> bool:
    """Tell whether a number that decides is in doubt, and none is missing."""
    names = (by, *check.absolute())
    unknown = any(_is_unknown(record, check, name) for name in names)
    return unknown and all(np.isfinite(check.value(record, name)) for name in names)


def _none_within(
    members: Sequence[CandidateRecord], records: Sequence[CandidateRecord], check: LimitCheck, by: str
) -> str:
    if not members:
        return error_message("the front", "hold a candidate", "none", "Run the study first.")
    for name in (by, *check.absolute()):
        if all(_is_unknown(record, check, name) for record in records):
            in_doubt = any(np.isfinite(check.value(record, name)) for record in records)
            got, remedy = ("only numbers in doubt", _BUSY) if in_doubt else ("no measurement", "")
            if check.problem.objective(name).is_timed and not in_doubt:
                remedy = "measure.latency_rounds says how often; 0 leaves it out."
            return error_message(f"{name} of the candidates", "be measured where it decides", got, remedy)
    nearest = min(members, key=check.worst)
    against = "" if check.dense is None else f" ({drop_text(nearest, check)})"
    numbers = {
        limit.objective: check.value(nearest, limit.objective)
        if limit.objective in check.problem.costs
        else check.problem.bound(limit, nearest)
        for limit in check.limits.each.values()
        if not check.is_of_quality(limit)
    }
    others = "".join(f", {name} {value:.6g}" for name, value in numbers.items() if np.isfinite(value))
    quality = f"{check.problem.metric} {nearest.search.quality:.4g}{against}"
    limited = check.absolute()
    doubtful = sum(any(_is_unknown(one, check, name) for name in limited) for one in records)
    unknown = f"; for {doubtful} more a cost is missing or in doubt" if doubtful else ""
    got = f"none; the nearest is candidate {nearest.number} with {quality}{others}{unknown}"
    remedy = "Loosen a limit or run more trials."
    if any(_is_in_doubt(one, check, by) for one in records):
        remedy += f" Some latencies are in doubt: {_BUSY[0].lower()}{_BUSY[1:]}"
    return error_message("a candidate", f"keep to {asked(check, nearest)}", got, remedy)
