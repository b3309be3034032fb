"""Audit of the rungs: how well the quality at a rung predicts the order of the final qualities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.front.dominance import rank_correlation
from autoprune.records.candidate import CandidateRecord

#: Smallest number of candidates for a meaningful correlation.
MIN_CANDIDATES = 10
#: Correlation below which a rung gets a warning.
LOW_CORRELATION = 0.5
#: Largest correlation in Fisher's transformation, which is infinite at 1.
_ALMOST = 1.0 - 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class RungAudit:
    """Comparison of one rung with the end of training, over the candidates that were trained to the end.

    Attributes:
        share: Fraction of the fine-tune's steps done at the rung, in (0, 1).
        candidates: Number of these candidates that passed the rung.
        stopped: Number of candidates that were stopped at the rung.
        correlation: Spearman's rank correlation of the quality at the rung and in the end, in [-1, 1]; NaN with fewer
            than four candidates or where all are equal.
        low: Lower end of the correlation's 95 % interval.
        high: Upper end of the correlation's 95 % interval.
    """

    share: float
    candidates: int
    stopped: int
    correlation: float
    low: float
    high: float

    @property
    def remark(self) -> str:
        """Reason not to trust decisions at this rung; "" where there is none."""
        if self.candidates < MIN_CANDIDATES:
            return f"too few candidates to tell, {self.candidates} of {MIN_CANDIDATES}"
        if not math.isfinite(self.correlation):
            return "all candidates are alike there or in the end"
        if self.low <= 0.0:
            return "the order there need not be the order in the end: the interval holds 0"
        if self.correlation < LOW_CORRELATION:
            return f"low: below {LOW_CORRELATION:g}"
        return ""


def audit_rungs(records: Sequence[CandidateRecord]) -> list[RungAudit]:
    """Compare each rung with the end of training.

    Diverged candidates are left out. Stopped candidates have no final quality: they are only counted, and the interval
    covers the candidates that passed, which differ less than all candidates.

    Args:
        records: Candidates of a study.

    Returns:
        One audit for each rung, by rising share.
    """
    looked = [record for record in records if record.rungs and not record.note]
    rows = []
    for share in sorted({share for record in looked for share, _ in record.rungs}):
        pairs = np.array(
            [(dict(r.rungs)[share], r.search.quality) for r in looked if not r.stopped and share in dict(r.rungs)]
        ).reshape(-1, 2)
        pairs = pairs[np.isfinite(pairs).all(axis=1)]
        correlation, low, high = _with_interval(pairs)
        rows.append(
            RungAudit(
                share=share,
                candidates=len(pairs),
                stopped=sum(record.stopped and record.rungs[-1][0] == share for record in looked),
                correlation=correlation,
                low=low,
                high=high,
            )
        )
    return rows


def training_saved(records: Sequence[CandidateRecord]) -> float:
    """Compute the share of all planned fine-tune steps that early stopping saved.

    Args:
        records: Candidates of a study.

    Returns:
        Share in [0, 1).
    """
    planned = sum(record.plan.recovery.steps for record in records)
    left = sum((1.0 - record.fidelity) * record.plan.recovery.steps for record in records)
    return left / planned if planned else 0.0


def _with_interval(pairs: np.ndarray) -> tuple[float, float, float]:
    """Compute Spearman's correlation of the columns [n, 2] and its 95 % interval; NaN where there is none.

    Fisher's transformation with the variance (1 + r^2 / 2) / (n - 3). Resampling the candidates instead creates ties,
    and near 1 an interval that does not contain the correlation.

    Source: Bonett, Wright, Sample size requirements for estimating Pearson, Kendall and Spearman correlations, 2000.
    """
    found = _spearman(pairs)
    if not math.isfinite(found):
        return math.nan, math.nan, math.nan
    reach = 1.96 * math.sqrt((1.0 + found**2 / 2.0) / (len(pairs) - 3))
    middle = math.atanh(min(max(found, -_ALMOST), _ALMOST))
    return found, min(math.tanh(middle - reach), found), max(math.tanh(middle + reach), found)


def _spearman(pairs: np.ndarray) -> float:
    """Correlate the ranks of two columns; NaN for fewer than four rows, and where a column is constant."""
    return rank_correlation(pairs[:, 0], pairs[:, 1]) if len(pairs) >= 4 else math.nan
