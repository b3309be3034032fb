"""Latency of any widths, learned from the candidates that were measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoprune.errors import ConfigurationError, error_message
from autoprune.front.record import CandidateRecord
from autoprune.sensitivity.cost_model import CostModel, Terms
from autoprune.sensitivity.cost_table import CostTable, Term

#: Fewer measured candidates than this say too little.
FEWEST = 8
#: Parts of the candidates, each of which is predicted from the others.
_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyFit:
    """A cost named "latency_ms", in shares of the dense model's latency.

    model: a CostModel like that of any other cost. error, worst: median and largest relative error on candidates that
    were left out of the fit. candidates: how many were measured.
    """

    model: CostModel
    error: float
    worst: float
    candidates: int


def fit_latency(
    table: CostTable, records: Sequence[CandidateRecord], leaders: Sequence[int] | None = None
) -> LatencyFit:
    """What a multiply-add and a byte of each layer takes, so that the measured ratios to dense come out.

    ratio = constant + sum over layers of a_l multiply_adds_l + b_l bytes_l + a multiply_adds + b bytes, all
    coefficients >= 0, by non-negative least squares of the relative errors. So latency never falls with a width.
    Candidates without some blocks or with masks are left out: their layers are others.
    leaders: ties of the model that comes out, see CostTable.tied; None for none.
    Raises ConfigurationError with fewer than FEWEST different models measured.
    Source: Lawson and Hanson, Solving Least Squares Problems, 1974.
    """
    measured = {
        tuple(sorted(record.widths.items())): record
        for record in records
        if record.search.latency is not None and not record.dropped and record.plan.weights is None
    }
    if len(measured) < FEWEST:
        expected = f"have {FEWEST} different candidates that were measured"
        raise ConfigurationError(
            error_message("the cost latency_ms", expected, len(measured), "Latency is known from trials.")
        )
    widths = np.array(
        [
            [record.widths.get(name, channels) for name, channels in zip(table.names, table.channels, strict=True)]
            for record in measured.values()
        ],
        dtype=np.float64,
    )
    ratios = np.array([record.search.latency.ratio for record in measured.values() if record.search.latency])
    features, prices = _features(table, widths)
    errors = _left_out(features, ratios)
    found = _fit(features, ratios)
    whole = replace(table, terms=(*table.terms, Term(lengths=(), multiply_adds=0.0, parameters=0.0, size_bytes=0.0)))
    whole = whole if leaders is None else whole.tied(leaders)
    return LatencyFit(
        model=CostModel.priced(whole, "latency_ms", prices @ found),
        error=float(np.median(errors)),
        worst=float(errors.max()),
        candidates=len(ratios),
    )


def _features(table: CostTable, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each candidate [n, features]; and what each feature is in prices of the terms and a constant [terms + 1, f].

    The features are shares of the dense model's cost.
    """
    count = len(table.terms)
    sizes = Terms.of(table, np.ones(count))
    operations = np.array([term.multiply_adds for term in table.terms])
    size_bytes = np.array([term.size_bytes for term in table.terms])
    dense = sizes.sizes(sizes.channels)
    columns = [np.append(np.zeros(count), 1.0)]
    for price in (operations / max(operations @ dense, 1.0), size_bytes / max(size_bytes @ dense, 1.0)):
        columns.append(np.append(price, 0.0))
        columns += [np.append(np.where(np.arange(count) == row, price, 0.0), 0.0) for row in np.flatnonzero(price)]
    prices = np.stack(columns, axis=1)
    return np.hstack([sizes.sizes(widths), np.ones((len(widths), 1))]) @ prices, prices


def _fit(features: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    from scipy.optimize import nnls  # heavy, and needed here alone

    return np.asarray(nnls(features / ratios[:, None], np.ones(len(ratios)))[0])


def _left_out(features: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """Relative errors of candidates that the fit has not seen, [n]."""
    errors = np.zeros(len(ratios))
    for part in range(_FOLDS):
        out = np.arange(len(ratios)) % _FOLDS == part
        errors[out] = np.abs(features[out] @ _fit(features[~out], ratios[~out]) / ratios[out] - 1.0)
    return errors
