"""Findings of a report in words: each sentence compares a number with its noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from autoprune.front.doubts import MEASURE_AGAIN, in_doubt
from autoprune.front.front import Front
from autoprune.front.limit_check import NO_DENSE
from autoprune.front.rung_audit import audit_rungs, training_saved
from autoprune.front.suggestion import noise_of
from autoprune.records.candidate import CandidateRecord
from autoprune.records.confidence import CONFIDENCE
from autoprune.records.measurement import Latency
from autoprune.records.objectives import Objective
from autoprune.records.origins import Origin

#: Lower end of a ratio to dense from which a model is called slow: of many intervals around 1, some begin above.
_SLOW = 1.05


def findings(front: Front) -> list[tuple[str, bool]]:
    """Write the findings of a study, the most important first.

    Args:
        front: Front of a study.

    Returns:
        (sentence, whether it is a warning).
    """
    dense = front.dense
    if dense is None:
        return [(NO_DENSE, True)]
    lines = [_dense(front, dense), *limit_findings(front)]
    lines += _seen_in_training(front, dense)
    lines += _against_uniform(front)
    lines += _latency(front)
    lines += slow_widths(front)
    lines += _undecided(front)
    lines += _predicted(front)
    lines += _masks(front, dense)
    lines += _stopped_early(front)
    failed = [record for record in front.records if record.note]
    if failed:
        who = "1 candidate" if len(failed) == 1 else f"{len(failed)} candidates"
        lines.append((f"{who} diverged in the fine-tune and kept the weights from before it.", True))
    return lines


def limit_findings(front: Front) -> list[tuple[str, bool]]:
    """Write how many candidates keep the limits of the search.

    Args:
        front: Front of a study.

    Returns:
        (sentence, whether it is a warning); none without limits. A warning when no candidate keeps them.
    """
    if not front.problem.limits.given:
        return []
    asked = ", ".join(f"{name} {value:g}" for name, value in front.problem.limits.given.items())
    if front.dense is None and front.problem.limits.relative:
        return [(f"The candidates within the limits of the search ({asked}) are unknown. {NO_DENSE}", True)]
    inside = len(front.within(front.problem.limits))
    if not inside:
        return [(f"No candidate keeps the limits of the search ({asked}).", True)]
    sure = len(front.within(front.problem.limits, CONFIDENCE))
    costs = [cost for name, cost in front.problem.costs.items() if name in front.absolute_limits(front.problem.limits)]
    unclear = sum(bool(in_doubt(record, costs)) for record in front.within(front.problem.limits))
    doubt = f", {sure} of them with {CONFIDENCE:.0%} confidence" if sure < inside else ""
    doubt += f" (the {_titles(costs)} of {unclear} is in doubt)" if unclear else ""
    return [(f"{inside} of {len(front.complete)} candidates keep the limits of the search ({asked}){doubt}.", False)]


def _titles(costs: Sequence[Objective]) -> str:
    return " or ".join(cost.title for cost in costs if cost.is_compared)


def slow_widths(front: Front) -> list[tuple[str, bool]]:
    """Tell of pruned models that are slower than the dense one: a runtime is slow at some widths.

    Args:
        front: Front of a study.

    Returns:
        (sentence, True) for each latency profile in which a candidate with fewer multiply-adds is measurably slower.
    """
    dense = front.dense
    pruned = [one for one in front.records if dense is not None and _multiply_adds(one) < _multiply_adds(dense)]
    lines = []
    for cost in (one for one in front.problem.costs.values() if one.is_latency):
        found = [one for record in pruned if (one := cost.comparison(record.search)) is not None]
        slower = [one.ratio for one in found if one.trusted and one.low > _SLOW]
        doubted = sum(not one.trusted for one in found)
        if slower:
            where = "" if cost.title == "latency" else f" ({cost.title})"
            models = f"{len(slower)} of {len(found)} pruned models {'is' if len(slower) == 1 else 'are'}"
            unclear = f" ({doubted} more {'is' if doubted == 1 else 'are'} in doubt)" if doubted else ""
            said = (
                f"{models} slower than dense{where}, at {max(slower):.2f} times its latency{unclear}: runtimes are "
                "slow at some widths. structure.round_to=device keeps to widths that are fast, and "
                "search.cost=latency_ms makes budgets shares of the latency (docs/device_profile.md)."
            )
            lines.append((said, True))
    return lines


def _dense(front: Front, dense: CandidateRecord) -> tuple[str, bool]:
    search = dense.search
    test = (
        "" if dense.test is None else f", {dense.test.quality:.4f} ± {dense.test.quality_error:.4f} on the test split"
    )
    return (
        f"Dense: {front.metric} {search.quality:.4f} ± {search.quality_error:.4f} on the search split{test}; "
        f"{search.parameters:,} parameters, {search.multiply_adds:,} multiply-adds.",
        False,
    )


def _seen_in_training(front: Front, dense: CandidateRecord) -> list[tuple[str, bool]]:
    """Warn of a dense model that is better on search than on test: it was probably trained on the search split."""
    if dense.test is None:
        return []
    ahead = front.problem.quality.gain(dense.search.quality, dense.test.quality)
    if ahead <= 1.96 * math.hypot(dense.search.quality_error, dense.test.quality_error):
        return []
    return [
        (
            f"The dense model is better on the search split than on the test split by {ahead:.4f}, more than the "
            "noise: it has probably been trained on the search split, so losses look too large there. Give a "
            "search split that it has not seen.",
            True,
        )
    ]


def _against_uniform(front: Front) -> list[tuple[str, bool]]:
    """Compare the study with the uniform sweep: the best quality at no more multiply-adds than each point.

    The compute is not equal: a point of the sweep was trained once, its rival may have been polished.
    """
    quality = front.problem.quality
    known = sorted((r for r in front.records if math.isfinite(r.search.quality)), key=_multiply_adds)
    sweep = [record for record in known if record.origin == "uniform"]
    rivals = [record for record in known if record.origin not in ("uniform", "dense")]
    gains, best, position = [], None, 0
    for point in sweep:
        while position < len(rivals) and _multiply_adds(rivals[position]) <= _multiply_adds(point):
            best = min(filter(None, (best, rivals[position])), key=lambda record: quality.loss(record.search.quality))
            position += 1
        if best is not None:
            gains.append((quality.gain(best.search.quality, point.search.quality), noise_of(best.search, point.search)))
    if not gains:
        return []
    clear = sum(gain > noise for gain, noise in gains)
    worse = sum(gain < -noise for gain, noise in gains)
    median = statistics.median(gain for gain, _ in gains)
    verdict = " The rest is within the noise." if clear + worse < len(gains) else ""
    return [
        (
            f"Against the uniform sweep's {len(gains)} points at no more multiply-adds: clearly better at {clear}, "
            f"clearly worse at {worse}; median difference {median:+.4f}.{verdict}",
            clear == 0,
        )
    ]


def _latency(front: Front) -> list[tuple[str, bool]]:
    """Tell for each latency profile whether members are faster, and of energy: neither need follow multiply-adds."""
    return [line for cost in front.problem.costs.values() if cost.is_compared for line in _by_the_clock(front, cost)]


def _by_the_clock(front: Front, cost: Objective) -> list[tuple[str, bool]]:
    pruned = [record for record in front.members if record.origin is not Origin.DENSE]
    found = [(record.number, one) for record in pruned if (one := cost.against_dense(record)) is not None]
    measured = [(number, one) for number, one in found if one.trusted]
    lines = []
    if len(measured) < len(found):
        lines.append(
            (
                f"The {cost.title} of {len(found) - len(measured)} of {len(found)} members is in doubt, and decides "
                "nothing: the machine was busy. The same command measures it again.",
                True,
            )
        )
    if not measured:
        return lines
    less = [(one.ratio, number, one) for number, one in measured if one.high < 1.0]
    if not less:
        return [*lines, (f"No member of the front {_better(cost, 'is')}.", True)]
    _, number, best = min(less, key=lambda entry: entry[:2])
    its = "quickest" if cost.is_latency else "thriftiest"
    said = (
        f"{len(less)} of {len(measured)} members {_better(cost, 'are')}; the {its}, candidate {number}, takes "
        f"{best.text} of its {'time' if cost.is_latency else cost.title}."
    )
    return [*lines, (said, False)]


def _better(cost: Objective, verb: str) -> str:
    if not cost.is_latency:
        return f"{'takes' if verb == 'is' else 'take'} measurably less {cost.title} than dense"
    where = "" if cost.title == "latency" else f" ({cost.title})"
    return f"{verb} measurably quicker than dense{' on this machine' if verb == 'is' else ''}{where}"


def _undecided(front: Front) -> list[tuple[str, bool]]:
    """Name the candidates off the front that their measured numbers, some of them in doubt, would put on it."""
    numbers = [str(record.number) for record in front.undecided]
    if not numbers:
        return []
    who = f"Candidate {numbers[0]} is" if len(numbers) == 1 else f"Candidates {', '.join(numbers)} are"
    return [(f"{who} not on the front only as some of their measurements are in doubt. {MEASURE_AGAIN}", True)]


def _predicted(front: Front) -> list[tuple[str, bool]]:
    """Say how many latencies are predicted and not measured."""
    count = sum(bool(record.search.predicted) for record in front.records)
    if not count:
        return []
    members = sum(bool(record.search.predicted) for record in front.members)
    rest = f"; {members} of them are on the front" if members else "; those of the front are measured"
    return [(f"The latency of {count} of {len(front.records)} candidates is predicted{rest}.", members > 0)]


def _masks(front: Front, dense: CandidateRecord) -> list[tuple[str, bool]]:
    """Tell the effect of masks of single weights: fewer bytes, and rarely less time."""
    masked = [record for record in front.records if _is_masked(record)]
    if not masked:
        return []
    members = [record for record in front.members if record.origin != "dense"]
    on_front = [record for record in members if _is_masked(record)]
    smallest = min(on_front or masked, key=lambda record: record.search.size_bytes)
    search = smallest.search
    lines = [
        (
            f"Masks: {len(on_front)} of {len(members)} members have them, {len(masked)} of all candidates. The "
            f"smallest, candidate {smallest.number}, has {search.nonzero_parameters:,} of {search.parameters:,} "
            f"parameters other than zero and a file of {search.size_bytes:,} bytes, "
            f"{search.size_bytes / max(dense.search.size_bytes, 1):.1%} of dense.",
            False,
        )
    ]
    return lines + _masks_by_the_clock(
        [latency for record in masked if (latency := record.search.mask_latency) is not None and latency.trusted]
    )


def _masks_by_the_clock(measured: Sequence[Latency]) -> list[tuple[str, bool]]:
    """Tell whether masks saved time: most kernels multiply zeros like other numbers."""
    if not measured:
        return []
    ratios = sorted(latency.ratio for latency in measured)
    spread = f"{ratios[0]:.2f}" if len(ratios) == 1 else f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    faster = sum(latency.ratio_high < 1.0 for latency in measured)
    one, many = len(measured) == 1, f"{len(measured)} masked candidates"
    none = "Masks did not make the one masked candidate" if one else f"Masks made none of {many}"
    some = "Masks made the one masked candidate" if one else f"Masks made {faster} of {many}"
    than = f"measurably faster than the same model without masks (ratio {spread})"
    if not faster:
        return [(f"{none} {than}; they save bytes only.", True)]
    if faster <= _by_chance(len(measured)):
        return [(f"{some} {than}, no more than chance does; they save bytes only.", True)]
    return [(f"{some} {than}.", False)]


def _by_chance(count: int) -> int:
    """Largest number of `count` 95 % intervals of one ratio that lie below it in 19 of 20 studies; each does 1 time in
    40.
    """
    below, so_far = 0, 0.975**count
    while so_far < 0.95:
        below += 1
        so_far += math.comb(count, below) * 0.025**below * 0.975 ** (count - below)
    return below


def _stopped_early(front: Front) -> list[tuple[str, bool]]:
    """Tell the training that early stopping saved, and whether its rungs can be trusted."""
    rungs = audit_rungs(front.records)
    if not rungs:
        return []
    stopped = len(front.records) - len(front.complete)
    lines = [
        (
            f"Early stopping ended {stopped} of {len(front.records)} candidates, which left out "
            f"{training_saved(front.records):.0%} of the training.",
            False,
        )
    ]
    doubtful = [f"at {row.share:.0%} of the training ({row.remark})" for row in rungs if row.remark]
    if doubtful:
        many = "Rungs do" if len(doubtful) > 1 else "A rung does"
        lines.append((f"{many} not show which candidate is better in the end: {'; '.join(doubtful)}.", True))
    return lines


def _is_masked(record: CandidateRecord) -> bool:
    weights = record.plan.weights
    return weights is not None and (weights.target > 0 or any(weights.layers.values()))


def _multiply_adds(record: CandidateRecord) -> int:
    return record.search.multiply_adds
