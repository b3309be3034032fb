"""Texts of charts for the candidate under the pointer."""

from __future__ import annotations

import math
from collections.abc import Container

import numpy as np

from autoprune.display import signed_text
from autoprune.front.front import Front
from autoprune.front.limit_check import INTERVAL
from autoprune.records.candidate import CandidateRecord
from autoprune.records.objectives import Objective
from autoprune.report.labels import hover

#: Costs whose share of dense is always told.
_SHARES = ("multiply_adds", "size_bytes")


def hover_texts(front: Front, only: Container[int] | None = None) -> list[str]:
    """Write what charts say of each candidate: origin and parent, quality with its noise, and costs against dense.

    Args:
        front: Front of a study.
        only: Numbers of the candidates to write of; None for all.

    Returns:
        A text for each of `front.records`; "" for those that are left out.
    """
    return [
        "" if only is not None and record.number not in only else hover(hover_lines(front, record))
        for record in front.records
    ]


def hover_lines(front: Front, record: CandidateRecord) -> list[str]:
    """Write what charts say of one candidate, see `hover_texts`.

    Args:
        front: Front of a study.
        record: One of its candidates.

    Returns:
        Lines of text that is not escaped.
    """
    dense = front.dense
    lines = [_who(front, record), *_quality(front, record)]
    if dense is not None and record is not dense:
        gain = front.problem.quality.gain(record.search.quality, dense.search.quality)
        noise = INTERVAL * front.numbers.dense_errors[front.numbers.places([record])].item()
        lines.append(f"{signed_text(front.problem.quality.change(gain))} against dense; up to {noise:.4f} is noise")
    costs = [cost for name, cost in front.problem.costs.items() if name in _SHARES or cost.is_compared]
    costs += [cost for cost in front.problem.rows if cost.is_cost and cost not in costs]
    return lines + [text for cost in costs if (text := _cost(cost, record, dense))]


def _who(front: Front, record: CandidateRecord) -> str:
    parent = f", from candidate {record.parent}" if record.parent is not None else ""
    state = f", stopped at {record.fidelity:.0%} of its training" if record.stopped else ""
    within = front.as_good_as.get(record.number)
    good = "" if within is None else f", as good as candidate {within} within noise"
    return f"candidate {record.number}: {record.origin}{parent}{state}{good}"


def _quality(front: Front, record: CandidateRecord) -> list[str]:
    found = [(one.split, one.quality, one.quality_error) for one in (record.search, record.test) if one is not None]
    return [f"{front.metric} {value:.4f} ± {error:.4f} on {split}" for split, value, error in found]


def _cost(cost: Objective, record: CandidateRecord, dense: CandidateRecord | None) -> str:
    value = cost.shown(record.search, None if dense is None else dense.search)
    if not np.isfinite(value):
        return ""
    number = f"{cost.title} {value:{cost.form}}{f' {cost.unit}' if cost.unit else ''}"
    found = cost.against_dense(record)
    if found is not None:
        return f"{number}: {found.text} of dense{found.remark}"
    whole = math.nan if dense is None else cost.shown(dense.search, dense.search)
    return number if not whole > 0 else f"{number}: {value / whole:.1%} of dense"
