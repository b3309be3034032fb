"""Candidates with costs in doubt: whether they would be on the front, and what to tell a person of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from autoprune.front.believed import find_doubts
from autoprune.front.limit_check import LimitCheck
from autoprune.front.members import find_members
from autoprune.front.numbers import Numbers
from autoprune.records.candidate import CandidateRecord
from autoprune.records.comparison import Comparison
from autoprune.records.confidence import AS_MEASURED
from autoprune.records.objectives import Objective

#: Remedy for measurements in doubt.
MEASURE_AGAIN = "The same `autoprune run` command measures again what is in doubt: keep the machine idle meanwhile."
#: What `choose` does with it on demand.
_TAKE = f"--confidence {AS_MEASURED} takes it as measured."
#: Candidates that are named in full.
_NAMED = 10


def members_as_measured(numbers: Numbers) -> np.ndarray:
    """Find the front that numbers in doubt make if they are taken as measured.

    Args:
        numbers: Numbers of all candidates.

    Returns:
        Positions of its members, the most expensive first.
    """

    def work_out() -> np.ndarray:
        return numbers.places(find_members(numbers.columns, numbers.problem, as_measured=True)[0])

    return numbers.once("members as measured", work_out)


def find_undecided(numbers: Numbers, members: np.ndarray) -> np.ndarray:
    """Find the candidates off the front that would be on it by their measured numbers, some of which are in doubt.

    Args:
        numbers: Numbers of all candidates.
        members: Positions of the members of the front.

    Returns:
        Positions, the most expensive first.
    """

    def work_out() -> np.ndarray:
        doubtful = _doubtful(numbers)
        doubtful[members] = False
        if not doubtful.any():
            return np.zeros(0, dtype=np.int64)
        found = members_as_measured(numbers)
        return np.asarray(found[doubtful[found]])

    return numbers.once("undecided", work_out)


def pools_of(numbers: Numbers, members: np.ndarray, confidence: float) -> list[np.ndarray]:
    """List the candidates to choose among, those to look at first in front.

    Args:
        numbers: Numbers of all candidates.
        members: Positions of the members of the front.
        confidence: Confidence of the choice.

    Returns:
        Positions of the possible members, and of all that may be chosen: a dominated candidate may be the only one that
        keeps a limit on a cost that is no objective.
    """
    return [possible_members(numbers, members, confidence), np.flatnonzero(numbers.selectable)]


def possible_members(numbers: Numbers, members: np.ndarray, confidence: float) -> np.ndarray:
    """Find the candidates to choose among: a doubt in a cost that does not decide the choice leaves none out.

    Args:
        numbers: Numbers of all candidates.
        members: Positions of the members of the front.
        confidence: Confidence of the choice; 0.5 takes numbers in doubt as measured.

    Returns:
        Positions of the members, and of candidates off the front whose costs are in doubt; for 0.5, of the front that
        the measured numbers make.
    """
    if confidence == AS_MEASURED and _doubtful(numbers).any():
        return members_as_measured(numbers)
    return np.concatenate([members, find_undecided(numbers, members)])


def in_doubt(record: CandidateRecord, costs: Iterable[Objective]) -> list[Objective]:
    """List the costs of a candidate that are in doubt.

    Args:
        record: Candidate.
        costs: Objectives to look at.

    Returns:
        Those in doubt.
    """
    against = ((cost, cost.against_dense(record)) for cost in costs)
    return [cost for cost, found in against if found is not None and not found.trusted]


def doubt_lines(records: Sequence[CandidateRecord], costs: Sequence[Objective], numbers: Numbers) -> list[str]:
    """Write what is in doubt of candidates, and why.

    Args:
        records: Candidates.
        costs: Objectives to look at.
        numbers: Numbers of all candidates.

    Returns:
        A line for each candidate that has costs in doubt; one for all that are too many.
    """
    found = [(record, doubted) for record in records if (doubted := in_doubt(record, costs))]
    named = len(found) if len(found) == _NAMED + 1 else _NAMED  # its line is as short as that which leaves it out
    lines = [f"  candidate {one.number}: {_reasons(one, doubted, numbers)}" for one, doubted in found[:named]]
    rest = found[named:]
    return [*lines, f"  and candidates {', '.join(str(one.number) for one, _ in rest)}"] if rest else lines


def front_doubts(numbers: Numbers, members: np.ndarray, as_good_as: Mapping[int, int]) -> list[str]:
    """Write which candidates of a front, or beside it, have objectives in doubt, and what to do.

    Args:
        numbers: Numbers of all candidates.
        members: Positions of the members of the front.
        as_good_as: Number of a member that is dominated within noise -> the one that it is as good as.

    Returns:
        Lines; none where nothing is in doubt.
    """
    costs = [row for row in numbers.problem.rows if row.is_compared]
    beside = [numbers.records[place] for place in find_undecided(numbers, members).tolist()]
    missing = doubt_lines(beside, costs, numbers)
    if missing:
        missing.insert(0, "Not on the front, as what is in doubt decides nothing, but on it by their measured numbers:")
    on_it = [numbers.records[place] for place in members.tolist()]
    told = missing
    for alike, why in (
        (False, "On the front by other numbers, as these are in doubt:"),
        (True, "On the front as they are as good as another member by other numbers, as these are in doubt:"),
    ):
        lines = doubt_lines([one for one in on_it if (one.number in as_good_as) is alike], costs, numbers)
        told += [why, *lines] if lines else []
    return [*told, f"{MEASURE_AGAIN} `autoprune choose` with {_TAKE}"] if told else []


def deciding(check: LimitCheck, by: Iterable[str]) -> list[Objective]:
    """List the costs that decide a choice, of those that can be in doubt.

    Args:
        check: Limits.
        by: Objectives to choose by.

    Returns:
        Costs that are limited, or chosen by.
    """
    names = {*by, *check.absolute()}
    return [cost for name, cost in check.problem.costs.items() if cost.is_compared and name in names]


def worst_as_measured(numbers: Numbers, check: LimitCheck) -> np.ndarray:
    """Find the largest violation of each candidate, where numbers in doubt are taken as measured.

    Args:
        numbers: Numbers of all candidates.
        check: Limits, with the confidence at which all other numbers count.

    Returns:
        Violations [records]; <= 0 when all limits are kept, and infinite where a number was not measured.
    """
    measured = replace(check, confidence=AS_MEASURED).excesses(numbers)
    unclear = {cost.name: _unclear(numbers, cost) for cost in deciding(check, ())}
    found = check.excesses(numbers)
    known = [np.where(unclear.get(name, False), measured[name], excess) for name, excess in found.items()]
    return np.max(known, axis=0) if known else np.zeros(len(numbers.records))


def find_left_out(
    chosen: int | None, places: np.ndarray, numbers: Numbers, check: LimitCheck, by: Sequence[str]
) -> np.ndarray:
    """Find the candidates that a doubt leaves out: by their measured numbers, they would be chosen before the chosen.

    Args:
        chosen: Position of the chosen candidate; None for none.
        places: Positions of the candidates to choose among.
        numbers: Numbers of all candidates.
        check: Limits, with the confidence; 0.5 leaves none out.
        by: Objectives to choose by.

    Returns:
        Positions, the best by the first objective first.
    """
    doubtful = np.zeros(len(numbers.records), dtype=bool)
    for cost in deciding(check, by) if check.confidence > AS_MEASURED else ():
        doubtful |= _unclear(numbers, cost)
    if doubtful.any():
        doubtful &= worst_as_measured(numbers, check) <= 0
    losses = [check.problem.objective(name).loss(1.0) * numbers.shown(name) for name in by]
    if chosen is not None:
        even = np.all([loss == loss[chosen] for loss in losses], axis=0)
        better = np.any([loss < loss[chosen] for loss in losses], axis=0)
        doubtful &= better | (even & (numbers.losses < numbers.losses[chosen]))
    found = places[doubtful[places]]
    return np.asarray(found[np.lexsort((numbers.losses[found], losses[0][found]))])


def first_left_out(
    pools: Sequence[np.ndarray], numbers: Numbers, check: LimitCheck, by: str
) -> tuple[np.ndarray, CandidateRecord, tuple[str, ...]] | None:
    """Find the candidate that would be chosen if numbers in doubt counted, where none is chosen without them.

    Args:
        pools: See `pools_of`.
        numbers: Numbers of all candidates.
        check: Limits, with the confidence.
        by: Objective to choose by.

    Returns:
        The pool that it is in, the candidate, and the titles of its costs in doubt; None where a doubt leaves none out.
    """
    for pool in pools:
        left_out = find_left_out(None, pool, numbers, check, (by,))
        if len(left_out):
            record = numbers.records[int(left_out[0])]
            return pool, record, tuple(cost.title for cost in in_doubt(record, deciding(check, (by,))))
    return None


def choice_doubts(
    chosen: int | None, places: np.ndarray, numbers: Numbers, check: LimitCheck, by: Sequence[str]
) -> list[str]:
    """Write which candidates a doubt left out, see `find_left_out`, or which numbers in doubt were taken as measured.

    Args:
        chosen: Position of the chosen candidate; None for none.
        places: Positions of the candidates that were chosen among.
        numbers: Numbers of all candidates.
        check: Limits, with the confidence.
        by: Objectives that were chosen by.

    Returns:
        Lines; none where nothing that decides is in doubt.
    """
    costs = deciding(check, by)
    told = _scale_in_doubt(check, costs)
    if check.confidence == AS_MEASURED:
        lines = [] if chosen is None else doubt_lines([numbers.records[chosen]], costs, numbers)
        told += ["Taken as measured, though it is in doubt:", *lines] if lines else []
        return [*told, MEASURE_AGAIN] if told else []
    others = [numbers.records[place] for place in np.sort(find_left_out(chosen, places, numbers, check, by)).tolist()]
    lines = doubt_lines(others, costs, numbers)
    if lines:
        of_doubt = {cost.name for record in others for cost in in_doubt(record, costs)}
        each, given = check.limits.each, check.limits.given
        names = [f"{name} {given[name]:g}" for name, one in each.items() if one.objective in of_doubt]
        why = f"it cannot be said that they keep {', '.join(names)}" if names else "what they are chosen by is in doubt"
        told += [f"Left out, as {why}:", *lines]
    return [*told, f"{MEASURE_AGAIN} {_TAKE}"] if told else []


def _scale_in_doubt(check: LimitCheck, costs: Sequence[Objective]) -> list[str]:
    """Tell where a limit in milliseconds or millijoules rests on a number of the dense model that is in doubt."""
    told, limits = [], [one for one in check.limits.each.values() if not one.is_relative]
    for cost in costs:
        found = None if check.dense is None else cost.comparison(check.dense.search)
        if found is not None and not found.trusted and any(one.objective == cost.name for one in limits):
            told.append(
                f"Each {cost.title} in {cost.unit} is a ratio times the dense model's {found.dense:{cost.form}} "
                f"{cost.unit}, which is in doubt ({_why(found)})."
            )
    return told


def _unclear(numbers: Numbers, cost: Objective) -> np.ndarray:
    """Tell of which candidates a cost was measured, and is in doubt. Bool [records]."""
    return np.asarray(np.isfinite(numbers.shown(cost.name)) & np.isnan(numbers.spread(cost.name)))


def _doubtful(numbers: Numbers) -> np.ndarray:
    """Tell which candidates that may be chosen have an objective in doubt. Bool [records]."""
    found = find_doubts(numbers.columns, np.arange(len(numbers.records)), numbers.problem).any(axis=1)
    return np.asarray(found & numbers.selectable)


def _reasons(record: CandidateRecord, costs: Sequence[Objective], numbers: Numbers) -> str:
    whole = None if numbers.dense is None else numbers.dense.search
    parts = []
    for cost in costs:
        found = cost.against_dense(record)
        assert found is not None, "a cost in doubt was compared"
        value = f"{cost.title} {cost.shown(record.search, whole):{cost.form}} {cost.unit}"
        parts.append(f"{value}, {found.ratio:.2f} of dense ({_why(found)})")
    return "; ".join(parts)


def _why(found: Comparison) -> str:
    return " ".join(found.doubts).removesuffix(".")
