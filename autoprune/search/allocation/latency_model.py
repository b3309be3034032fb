"""Latency of any widths and dropped blocks, learned from models that were timed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoprune.errors import ConfigurationError, error_message
from autoprune.front.dominance import rank_correlation
from autoprune.records.candidate import CandidateRecord
from autoprune.records.cost_table import Monomial
from autoprune.records.device_profile import DeviceProfile, TimedModel, rounding_of
from autoprune.records.layer_table import LayerTable
from autoprune.records.measurement import DEFAULT_PROFILE, PREDICTION, Latency
from autoprune.search.allocation.cost_model import CostModel, CostPolynomial

#: Fewest different architectures for a fit.
MIN_TIMED_MODELS = 8
#: Folds of the cross-validation.
_FOLDS = 10
#: Relative error of the model itself, which is added to that of each measurement.
_MODEL_ERROR = 0.02
#: Units whose work may take longer where a width is off its grain.
_OFF_GRAIN_UNITS = ("multiply_adds", "outputs")
#: Half the 95 % interval of errors with a median magnitude of 1.
_INTERVAL = 1.96 / 0.6745
#: Penalties of the squared shares of the dense latency: of a price that all layers of a kind have in common, and of
#: what one layer pays beyond it.
_COMMON, _OWN = 1e-4, 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatencyModel:
    """Latency as a share of the dense model's: a constant, and prices of the work of each layer.

    Widths count as the next multiple of their group's grain, as runtimes pad them; work on widths off the grain has a
    further price. All prices are >= 0, so that latency never falls as the number of multiples grows.

    Attributes:
        table: Work of the layers.
        grains: Distance between fast widths of each group, [groups].
        prices: Price of each entry of the table's work, and the constant, [work + 1].
        off_grain: Further price of each entry where a width is off its grain, [work].
        error: Median relative error for models that were held out.
        worst: Largest relative error for models that were held out.
        rank: Rank correlation of the predictions for held-out models with the measurements.
        models: Number of timed models.
        dense_ms: Milliseconds of the dense model; NaN where they are not known.
        backend: Name of the runtime; "" where it is not known.
    """

    table: LayerTable
    grains: np.ndarray
    prices: np.ndarray
    off_grain: np.ndarray
    error: float
    worst: float
    rank: float
    models: int
    dense_ms: float = math.nan
    backend: str = ""

    @property
    def rounding(self) -> dict[str, int]:
        """Group name -> grain for its widths, see `rounding_of`."""
        grains = self.grains.astype(int).tolist()
        return rounding_of(self.table, dict(zip(self.table.names, grains, strict=True)))

    def ratio(self, widths: Mapping[str, int], dropped: Sequence[str] = ()) -> float:
        """Predict the latency of a cut model.

        Args:
            widths: Group name -> width; whole for a group that is not named.
            dropped: Names of the blocks that are dropped.

        Returns:
            Share of the dense model's latency.
        """
        one = TimedModel(widths=widths, dropped=tuple(dropped), ratio=1.0, half_width=0.0)
        aligned, off = _work(self.table, self.grains, [one])
        return float((aligned @ self.prices)[0] + (off @ self.off_grain)[0])

    def predict(self, widths: Mapping[str, int], dropped: Sequence[str] = ()) -> Latency:
        """Predict the latency of a cut model.

        Args:
            widths: Group name -> width; whole for a group that is not named.
            dropped: Names of the blocks that are dropped.

        Returns:
            The latency, with an interval by the errors for held-out models, and without a measurement.
        """
        ratio, spread = self.ratio(widths, dropped), math.exp(_INTERVAL * self.error)
        return Latency(
            latency_ms=self.dense_ms * ratio,
            low_ms=self.dense_ms * ratio / spread,
            high_ms=self.dense_ms * ratio * spread,
            dense_ms=self.dense_ms,
            ratio=ratio,
            ratio_low=ratio / spread,
            ratio_high=ratio * spread,
            backend=self.backend,
            rounds=0,
            clock=PREDICTION,
        )

    def cost_model(self, dropped: Sequence[str] = (), leaders: Sequence[int] | None = None) -> CostModel:
        """Build the cost "latency_ms" for a solver. It holds for widths on the grain, and is linear between them.

        Args:
            dropped: Names of the blocks that are dropped.
            leaders: Ties of the groups, see CostTable.tied; None for none.

        Returns:
            The cost model, whose dense cost is that of the model with all of its blocks.
        """
        costs, prices = self.table.costs(), self.prices.copy()
        prices[list(self.table.dropped(dropped))] = 0.0
        merged: dict[tuple[int, ...], float] = {}
        for term, price in zip(costs.terms, prices.tolist(), strict=True):
            merged[term.lengths] = merged.get(term.lengths, 0.0) + price * term.multiply_adds
        costs = replace(costs, terms=tuple(Monomial.bare(lengths) for lengths in merged))
        tied = costs if leaders is None else costs.tied(leaders)
        model = CostModel.priced(tied, "latency_ms", np.array(list(merged.values())))
        model.dense = self.ratio({})
        return model


def timed_models(records: Sequence[CandidateRecord], profile: str = DEFAULT_PROFILE) -> list[TimedModel]:
    """Collect the measured latencies of candidates without masks, which change the work of layers.

    Args:
        records: Finished candidates.
        profile: Name of the latency profile.

    Returns:
        Timed models.
    """
    found = []
    for record in records:
        latency = record.search.latencies.get(profile)
        if latency is not None and not latency.is_predicted and record.plan.weights is None:
            half_width = (latency.ratio_high - latency.ratio_low) / 2 / latency.ratio
            found.append(
                TimedModel(widths=record.widths, dropped=record.dropped, ratio=latency.ratio, half_width=half_width)
            )
    return found


def latency_model_of(profile: DeviceProfile, further: Sequence[TimedModel] = ()) -> LatencyModel:
    """Fit the model of a device profile, whose models cover what there is to prune, however few they are.

    Args:
        profile: The profile.
        further: Models that were timed later, such as candidates.

    Returns:
        The model.
    """
    found = fit_latency(profile.layers, [*profile.models, *further], profile.grains, least=1)
    return replace(found, dense_ms=profile.dense_ms, backend=profile.device.backend)


def fit_latency(
    table: LayerTable,
    timed: Sequence[TimedModel],
    grains: Mapping[str, int] | None = None,
    least: int = MIN_TIMED_MODELS,
) -> LatencyModel:
    """Fit prices of work to measured ratios to the dense model, by non-negative least squares.

    Layers of one kind have common prices, and each layer what it takes beyond them, which is drawn towards 0: with few
    models the common prices decide, with many each layer has its own. Squared relative errors count as the measurements
    are certain.
    Source: Lawson and Hanson, Solving Least Squares Problems, 1974.

    Args:
        table: Work of the layers.
        timed: Models with their latencies.
        grains: Group name -> distance between fast widths; 1 for a group that is not named.
        least: Fewest different models.

    Returns:
        The model.

    Raises:
        ConfigurationError: Fewer different models were timed.
    """
    different = {(tuple(sorted(one.widths.items())), one.dropped) for one in timed}
    if len(different) < least:
        remedy = "Latency is learned from trials, or from a device profile: autoprune profile."
        expected = f"have {least} different measured models"
        raise ConfigurationError(error_message("the cost latency_ms", expected, len(different), remedy))
    named = grains or {}
    spacing = np.array([float(named.get(name, 1)) for name in table.names])
    problem = _Problem.of(table, spacing, timed)
    predicted = problem.held_out()
    errors = np.abs(predicted / problem.ratios - 1.0)
    prices, off_grain = problem.prices(problem.solve(np.ones(len(timed), dtype=bool)))
    return LatencyModel(
        table=table,
        grains=spacing,
        prices=prices,
        off_grain=off_grain,
        error=float(np.median(errors)),
        worst=float(errors.max()),
        rank=float(np.nan_to_num(rank_correlation(predicted, problem.ratios))),
        models=len(timed),
    )


def _work(table: LayerTable, grains: np.ndarray, models: Sequence[TimedModel]) -> tuple[np.ndarray, np.ndarray]:
    """Return the work of each model with a 1 for the constant, [n, work + 1], and that off the grain, [n, work]."""
    costs, dense = table.costs(), np.array(table.channels, dtype=np.float64)
    polynomial = CostPolynomial.of(costs, np.array([term.multiply_adds for term in costs.terms]))
    widths = np.array(
        [[one.widths.get(name, whole) for name, whole in zip(table.names, dense, strict=True)] for one in models],
        dtype=np.float64,
    ).reshape(len(models), len(dense))
    sizes = polynomial.sizes(np.ceil(widths / grains - 1e-9) * grains) * polynomial.prices
    work = np.zeros((len(models), len(costs.terms)))
    work[:, [term.multiply_adds != 0 for term in costs.terms]] = sizes
    for row, one in enumerate(models):
        work[row, list(table.dropped(one.dropped))] = 0.0
    touched = np.zeros((len(dense), len(table.work)))
    for entry, part in enumerate(table.work):
        if part.unit in _OFF_GRAIN_UNITS:
            touched[list(table.groups_of(entry)), entry] = 1.0
    off = (widths % grains != 0).astype(np.float64) @ touched > 0
    return work, work[:, :-1] * off


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Problem:
    """The least-squares problem. Features are shares of the dense model's work.

    Attributes:
        ratios: Measured ratios, [n].
        certainty: Weight of each row, with mean 1, [n].
        features: Value of each feature, [n, features].
        aligned: What each feature adds to the prices, [features, work + 1].
        off: What each feature adds to the prices off the grain, [features, work].
        penalties: Penalty of each feature's square, [features].
    """

    ratios: np.ndarray
    certainty: np.ndarray
    features: np.ndarray
    aligned: np.ndarray
    off: np.ndarray
    penalties: np.ndarray

    @classmethod
    def of(cls, table: LayerTable, grains: np.ndarray, timed: Sequence[TimedModel]) -> _Problem:
        aligned, off, penalties = _features(table, grains)
        work, off_work = _work(table, grains, timed)
        ratios = np.array([one.ratio for one in timed])
        spread = np.hypot([one.half_width / 2 for one in timed], _MODEL_ERROR)
        certainty = 1.0 / spread
        return cls(
            ratios=ratios,
            certainty=certainty / certainty.mean(),
            features=work @ aligned.T + off_work @ off.T,
            aligned=aligned,
            off=off,
            penalties=penalties,
        )

    def solve(self, rows: np.ndarray) -> np.ndarray:
        """Return the coefficient of each feature by some rows."""
        from scipy.optimize import nnls  # heavy, and needed here alone

        certainty = self.certainty[rows]
        scaled = self.features[rows] * (certainty / self.ratios[rows])[:, None]
        ridge = np.diag(np.sqrt(self.penalties * rows.sum()))
        target = np.concatenate([certainty, np.zeros(len(ridge))])
        return np.asarray(nnls(np.vstack([scaled, ridge]), target, maxiter=50 * len(ridge))[0])

    def held_out(self) -> np.ndarray:
        """Predict each model by a fit to the models of other folds, [n]."""
        predicted, fold = np.zeros(len(self.ratios)), np.arange(len(self.ratios)) % _FOLDS
        for part in range(min(_FOLDS, len(self.ratios))):
            predicted[fold == part] = self.features[fold == part] @ self.solve(fold != part)
        return predicted

    def prices(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the prices of the work and of work off the grain."""
        return coefficients @ self.aligned, coefficients @ self.off


def _features(table: LayerTable, grains: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Build the rows `aligned` and `off` of each feature, and its penalty."""
    whole = _work(table, grains, [TimedModel(widths={}, ratio=1.0, half_width=0.0)])[0][0, :-1]
    count = len(table.work)
    aligned, off, penalties = [np.append(np.zeros(count), 1.0)], [np.zeros(count)], [0.0]

    def add(prices: np.ndarray, off_grain: np.ndarray, penalty: float) -> None:
        aligned.append(np.append(prices, 0.0))
        off.append(off_grain)
        penalties.append(penalty)

    for kind, unit in dict.fromkeys((one.kind, one.unit) for one in table.work):
        common = np.array([(one.kind, one.unit) == (kind, unit) for one in table.work]) * (whole > 0)
        if not common.any():
            continue
        prices = common / (whole @ common)
        add(prices, np.zeros(count), _COMMON)
        if unit in _OFF_GRAIN_UNITS and (grains > 1).any():
            add(np.zeros(count), prices, _COMMON)
    for entry, one in enumerate(table.work):
        if one.unit != "calls" and whole[entry] > 0:
            own = np.zeros(count)
            own[entry] = 1.0 / whole[entry]
            add(own, np.zeros(count), _OWN)
    return np.array(aligned), np.array(off), np.array(penalties)
