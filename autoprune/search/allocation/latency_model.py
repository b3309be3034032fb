"""Latency of any widths, learned from the measured candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoprune.errors import ConfigurationError, error_message
from autoprune.records.candidate import CandidateRecord
from autoprune.records.cost_table import CostTable, Monomial
from autoprune.search.allocation.cost_model import CostModel, CostPolynomial

#: Fewest measured candidates for a fit.
MIN_TRIALS_FOR_LATENCY = 8
#: Folds of the cross-validation.
_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyFit:
    """A model of the cost "latency_ms", as a share of the dense model's latency.

    Attributes:
        model: The cost model.
        error: Median relative error on held-out candidates.
        worst: Largest relative error on held-out candidates.
        candidates: Number of measured candidates.
    """

    model: CostModel
    error: float
    worst: float
    candidates: int


def fit_latency(
    table: CostTable, records: Sequence[CandidateRecord], leaders: Sequence[int] | None = None
) -> LatencyFit:
    """Fit the latency of a multiply-add and of a byte of each layer to the measured ratios to dense.

    ratio = constant + sum over layers of a_l multiply_adds_l + b_l bytes_l + a multiply_adds + b bytes, all
    coefficients >= 0, by non-negative least squares of the relative errors. So latency never falls as a width grows.
    Candidates with dropped blocks or masks are left out: they have other layers.
    Source: Lawson and Hanson, Solving Least Squares Problems, 1974.

    Args:
        table: Table of costs.
        records: Finished candidates.
        leaders: Ties of the groups of the resulting model, see CostTable.tied; None for none.

    Returns:
        The fitted model.

    Raises:
        ConfigurationError: Fewer than MIN_TRIALS_FOR_LATENCY different architectures were measured.
    """
    measured = {
        tuple(sorted(record.widths.items())): record
        for record in records
        if record.search.latency is not None and not record.dropped and record.plan.weights is None
    }
    if len(measured) < MIN_TRIALS_FOR_LATENCY:
        expected = f"have {MIN_TRIALS_FOR_LATENCY} different measured candidates"
        raise ConfigurationError(
            error_message("the cost latency_ms", expected, len(measured), "Latency is learned from trials.")
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
    whole = replace(
        table, terms=(*table.terms, Monomial(lengths=(), multiply_adds=0.0, parameters=0.0, size_bytes=0.0))
    )
    whole = whole if leaders is None else whole.tied(leaders)
    return LatencyFit(
        model=CostModel.priced(whole, "latency_ms", prices @ found),
        error=float(np.median(errors)),
        worst=float(errors.max()),
        candidates=len(ratios),
    )


def _features(table: CostTable, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features of each candidate [n, features], and each feature as prices of the terms and a constant [terms + 1,
    features].

    The features are shares of the dense model's cost.
    """
    count = len(table.terms)
    sizes = CostPolynomial.of(table, np.ones(count))
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
    """Relative errors of held-out candidates, [n]."""
    errors = np.zeros(len(ratios))
    for part in range(_FOLDS):
        out = np.arange(len(ratios)) % _FOLDS == part
        errors[out] = np.abs(features[out] @ _fit(features[~out], ratios[~out]) / ratios[out] - 1.0)
    return errors
