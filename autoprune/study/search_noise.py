"""Whether the search split tells a loss of quality as small as the limit, before any work is done."""

from __future__ import annotations

import math

from autoprune.measure.quality import evaluate
from autoprune.records.candidate import CandidateRecord
from autoprune.records.confidence import CONFIDENCE
from autoprune.records.limits import Limits
from autoprune.records.paired import quantile
from autoprune.records.precision import needed_factor
from autoprune.study.rungs import rung_split
from autoprune.task.evaluation import Evaluation
from autoprune.task.prepare import PreparedTask

#: Samples on which the dense model is evaluated where it has no record.
_SAMPLES = 512


def search_noise_note(task: PreparedTask, limits: Limits, dense: CandidateRecord | None = None) -> str:
    """Say that a search split is too small for the limit of the loss of quality.

    The standard error of the difference between a candidate and the dense model is taken to be the dense model's own,
    which is cautious: candidates that answer much like it have less (docs/benchmarks.md).

    Args:
        task: Task of the study.
        limits: Limits of the search.
        dense: Record of the dense model; None before it was measured, which evaluates it on some search samples.

    Returns:
        A sentence; "" where the split is large enough, or nothing is known or limited.
    """
    if not any(limit.drop for limit in limits.each.values()) or isinstance(task.search_split, Evaluation):
        return ""
    quality, error, samples = _precision(task, dense)
    limit = limits.largest_drop(quality)
    tells = quantile() * error
    if tells <= limit or not math.isfinite(tells):
        return ""
    if limit <= 0:
        remedy = "No number of samples tells that nothing is lost: give a limit above 0."
    else:
        wanted = samples * needed_factor(tells, limit)
        remedy = f"Give about {_rounded(wanted):,} search samples, or a limit that these can tell."
    return (
        f"{samples:,} search samples tell differences in {task.quality} of about {tells:.2g} ({CONFIDENCE:.0%} "
        f"confidence), smaller ones only of candidates that answer much like the dense model; the limit of its loss is "
        f"{limit:.2g}. {remedy}"
    )


def _precision(task: PreparedTask, dense: CandidateRecord | None) -> tuple[float, float, int]:
    """Return quality of the dense model on the search split, its standard error, and the number of samples."""
    split = task.search_split
    if dense is not None and split.samples is not None:
        return dense.search.quality, dense.search.quality_error, split.samples
    found = evaluate(task, task.dense, split if split.samples is None else rung_split(task, _SAMPLES))
    samples = found.samples if split.samples is None else split.samples
    return found.value, found.error * math.sqrt(found.samples / samples), samples


def _rounded(number: float) -> int:
    """Round up to two digits."""
    unit = int(10 ** max(math.floor(math.log10(number)) - 1, 0))
    return math.ceil(number / unit) * unit
