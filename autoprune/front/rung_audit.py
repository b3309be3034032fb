"""Audit of the rungs: does the quality on the way tell which candidate is better in the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from autoprune.front.record import CandidateRecord

#: Candidates from which a correlation says something.
MIN_CANDIDATES = 10
#: Correlation below which decisions at a rung are warned of.
LOW_CORRELATION = 0.5
#: Correlations beyond it are taken for it where 1 would be infinite.
_ALMOST = 1.0 - 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class RungAudit:
    """One rung against the end, over the candidates that were trained to the end.

    share: of the fine-tune's steps done. candidates: how many passed it. stopped: how many were stopped there.
    correlation: Spearman's rank correlation of the quality there and in the end, in [-1, 1]; not a number with fewer
        than four candidates or where all are alike. low, high: its 95 % interval.
    """

    share: float
    candidates: int
    stopped: int
    correlation: float
    low: float
    high: float

    @property
    def remark(self) -> str:
        """Why decisions at this rung are not to be trusted; "" when nothing speaks against them."""
        if self.candidates < MIN_CANDIDATES:
            return f"too few candidates to tell, {self.candidates} of {MIN_CANDIDATES}"
        if not math.isfinite(self.correlation):
            return "all candidates are alike there or in the end"
        if self.low <= 0.0:
            return "what is ahead there need not be ahead in the end: the interval holds 0"
        if self.correlation < LOW_CORRELATION:
            return f"low: below {LOW_CORRELATION:g}"
        return ""


def audit_rungs(records: Sequence[CandidateRecord]) -> list[RungAudit]:
    """One row for each rung that was looked at, in the order of their shares.

    Candidates that diverged are left out. Those that were stopped have no end to compare with: they are counted, and
    the interval is that of what was let through, which is more alike than all of them.
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
    """Share of all fine-tune steps planned that stopped candidates did not take, in [0, 1)."""
    planned = sum(record.plan.recovery.steps for record in records)
    left = sum((1.0 - record.fidelity) * record.plan.recovery.steps for record in records)
    return left / planned if planned else 0.0


def _with_interval(pairs: np.ndarray) -> tuple[float, float, float]:
    """Spearman's correlation of the columns [n, 2] and its 95 % interval; not numbers where there is none.

    Fisher's transformation with the variance (1 + r^2 / 2) / (n - 3). Resampling candidates instead makes ties that
    are not there, and near 1 an interval that does not hold the correlation itself.

    Source: Bonett, Wright, Sample size requirements for estimating Pearson, Kendall and Spearman correlations, 2000.
    """
    found = _spearman(pairs)
    if not math.isfinite(found):
        return math.nan, math.nan, math.nan
    reach = 1.96 * math.sqrt((1.0 + found**2 / 2.0) / (len(pairs) - 3))
    middle = math.atanh(min(max(found, -_ALMOST), _ALMOST))
    return found, min(math.tanh(middle - reach), found), max(math.tanh(middle + reach), found)


def _spearman(pairs: np.ndarray) -> float:
    """Correlation of ranks, of equal values the mean rank; not a number when a column is all alike."""
    if len(pairs) < 4 or (np.ptp(pairs, axis=0) == 0).any():
        return math.nan
    ranked = pd.DataFrame(pairs).rank().to_numpy()
    return float(np.corrcoef(ranked, rowvar=False)[0, 1])
