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
from autoprune.records.device_profile import DeviceProfile, TimedModel
from autoprune.records.layer_table import LayerTable
from autoprune.records.measurement import DEFAULT_PROFILE, PREDICTION, Latency
from autoprune.search.allocation.allowed_widths import AllowedWidths
from autoprune.search.allocation.cost_model import CostModel, CostPolynomial

#: Fewest different architectures for a fit.
MIN_TIMED_MODELS = 8
#: Folds of the cross-validation.
_FOLDS = 10
#: Relative error of the model itself, which is added to that of each measurement.
_MODEL_ERROR = 0.02
#: Number of further prices: of padded work, of work off the grain, of work below one grain.
_FURTHER = 3
#: Units whose work may take longer off the grain and below it.
_SLOWER_UNITS = ("multiply_adds", "outputs")
#: Half the 95 % interval of errors with a median magnitude of 1.
_INTERVAL = 1.96 / 0.6745
#: Penalties of the squared shares of the dense latency: of a price that all layers of a kind have in common, and of
#: what one layer pays beyond it.
_COMMON, _OWN = 1e-4, 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatencyModel:
    """Latency as a share of the dense model's: a constant, and prices of the work of each layer.

    Work counts by the widths as they are, and by these padded to the next fast ones: the next multiple of the group's
    grain, or below one grain its half, its quarter and so on. How much of the price is for which, models off the grain
    tell. Work of layers with a width that is above one grain and no multiple of it, and work of layers with a width
    below one grain, have further prices. All prices are >= 0, so that latency never falls as the number of multiples
    grows.

    Attributes:
        table: Work of the layers.
        grain: Distance between fast widths of each group, [groups].
        prices: Price of each entry of the table's work, and the constant, [work + 1].
        further: Prices of padded work, of work off the grain and of work below one grain, [3, work].
        error: Median relative error for models that were held out.
        worst: Largest relative error for models that were held out.
        rank: Rank correlation of the predictions for held-out models with the measurements.
        models: Number of timed models.
        dense_ms: Milliseconds of the dense model; NaN where they are not known.
        backend: Name of the runtime; "" where it is not known.
    """

    table: LayerTable
    grain: np.ndarray
    prices: np.ndarray
    further: np.ndarray
    error: float
    worst: float
    rank: float
    models: int
    dense_ms: float = math.nan
    backend: str = ""

    @property
    def grains(self) -> dict[str, int]:
        """Group name -> distance between fast widths."""
        return dict(zip(self.table.names, self.grain.astype(int).tolist(), strict=True))

    def ratio(self, widths: Mapping[str, int], dropped: Sequence[str] = ()) -> float:
        """Predict the latency of a cut model.

        Args:
            widths: Group name -> width; whole for a group that is not named.
            dropped: Names of the blocks that are dropped.

        Returns:
            Share of the dense model's latency.
        """
        one = TimedModel(widths=widths, dropped=tuple(dropped), ratio=1.0, half_width=0.0)
        work, further = _work(self.table, self.grain, [one])
        return float((work @ self.prices)[0] + (further[0] * self.further).sum())

    def layers(self, widths: Mapping[str, int], dropped: Sequence[str] = ()) -> dict[str, float]:
        """Predict the latency of each layer of a cut model. What all share is in none, such as the call itself.

        Args:
            widths: Group name -> width; whole for a group that is not named.
            dropped: Names of the blocks that are dropped.

        Returns:
            Layer -> milliseconds, in the order of the forward; NaN where those of the dense model are not known.
        """
        one = TimedModel(widths=widths, dropped=tuple(dropped), ratio=1.0, half_width=0.0)
        work, further = _work(self.table, self.grain, [one])
        shares = work[0, :-1] * self.prices[:-1] + (further[0] * self.further).sum(axis=0)
        found: dict[str, float] = {}
        for part, share in zip(self.table.work, shares.tolist(), strict=True):
            found[part.layer] = found.get(part.layer, 0.0) + self.dense_ms * share
        return found

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
        """Build the cost "latency_ms" for a solver. It holds for multiples of the grain, and is too low off it.

        Args:
            dropped: Names of the blocks that are dropped.
            leaders: Ties of the groups, see CostTable.tied; None for none.

        Returns:
            The cost model, whose dense cost is that of the model with all of its blocks.
        """
        costs, prices = self.table.costs(), self.prices.copy()
        prices[:-1] += self.further[0]
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
    prices, more = problem.prices(problem.solve(np.ones(len(timed), dtype=bool)))
    return LatencyModel(
        table=table,
        grain=spacing,
        prices=prices,
        further=more,
        error=float(np.median(errors)),
        worst=float(errors.max()),
        rank=float(np.nan_to_num(rank_correlation(predicted, problem.ratios))),
        models=len(timed),
    )


def _work(table: LayerTable, grain: np.ndarray, models: Sequence[TimedModel]) -> tuple[np.ndarray, np.ndarray]:
    """Return the work of each model with a 1 for the constant, [n, work + 1], and that with further prices.

    The latter, [n, 3, work], is the work at padded widths, the work off the grain, and that below one grain.
    """
    dense = np.array(table.channels, dtype=np.float64)
    widths = np.array(
        [[one.widths.get(name, whole) for name, whole in zip(table.names, dense, strict=True)] for one in models],
        dtype=np.float64,
    ).reshape(len(models), len(dense))
    whole = (np.ceil(dense / grain) * grain).astype(int).tolist()  # a runtime pads the dense width as well
    fast = AllowedWidths.of([1] * len(dense), grain.astype(int).tolist(), whole)
    work, filled = np.split(_sizes(table, [*models, *models], np.concatenate([widths, fast.up(widths)])), 2)
    touched = np.zeros((len(dense), len(table.work)))
    for entry, part in enumerate(table.work):
        if part.unit in _SLOWER_UNITS:
            touched[list(table.groups_of(entry)), entry] = 1.0
    off, narrow = (widths > grain) & (widths % grain != 0), widths < grain
    slower = [work[:, :-1] * (where.astype(np.float64) @ touched > 0) for where in (off, narrow)]
    return work, np.stack([filled[:, :-1], *slower], axis=1)


def _sizes(table: LayerTable, models: Sequence[TimedModel], widths: np.ndarray) -> np.ndarray:
    """Compute the work of models of these widths without their dropped blocks, and a 1, [n, work + 1]."""
    costs = table.costs()
    polynomial = CostPolynomial.of(costs, np.array([term.multiply_adds for term in costs.terms]))
    work = np.zeros((len(models), len(costs.terms)))
    work[:, [term.multiply_adds != 0 for term in costs.terms]] = polynomial.sizes(widths) * polynomial.prices
    for row, one in enumerate(models):
        work[row, list(table.dropped(one.dropped))] = 0.0
    return work


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Problem:
    """The least-squares problem. Features are shares of the dense model's work.

    Attributes:
        ratios: Measured ratios, [n].
        certainty: Weight of each row, with mean 1, [n].
        features: Value of each feature, [n, features].
        basis: Prices that each feature adds.
    """

    ratios: np.ndarray
    certainty: np.ndarray
    features: np.ndarray
    basis: _Basis

    @classmethod
    def of(cls, table: LayerTable, grain: np.ndarray, timed: Sequence[TimedModel]) -> _Problem:
        basis = _Basis.of(table, grain)
        work, further = _work(table, grain, timed)
        ratios = np.array([one.ratio for one in timed])
        spread = np.hypot([one.half_width / 2 for one in timed], _MODEL_ERROR)
        certainty = 1.0 / spread
        return cls(
            ratios=ratios,
            certainty=certainty / certainty.mean(),
            features=work @ basis.prices.T + further.reshape(len(timed), -1) @ basis.further.T,
            basis=basis,
        )

    def solve(self, rows: np.ndarray) -> np.ndarray:
        """Return the coefficient of each feature by some rows."""
        from scipy.optimize import nnls  # heavy, and needed here alone

        certainty = self.certainty[rows]
        scaled = self.features[rows] * (certainty / self.ratios[rows])[:, None]
        ridge = np.diag(np.sqrt(self.basis.penalties * rows.sum()))
        target = np.concatenate([certainty, np.zeros(len(ridge))])
        return np.asarray(nnls(np.vstack([scaled, ridge]), target, maxiter=50 * len(ridge))[0])

    def held_out(self) -> np.ndarray:
        """Predict each model by a fit to the models of other folds, [n]."""
        predicted, fold = np.zeros(len(self.ratios)), np.arange(len(self.ratios)) % _FOLDS
        for part in range(min(_FOLDS, len(self.ratios))):
            predicted[fold == part] = self.features[fold == part] @ self.solve(fold != part)
        return predicted

    def prices(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the prices of the work, [work + 1], and the further ones, [3, work]."""
        return coefficients @ self.basis.prices, (coefficients @ self.basis.further).reshape(_FURTHER, -1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Basis:
    """Prices that each feature adds.

    Attributes:
        prices: Prices of the work and the constant, [features, work + 1].
        further: Further prices, [features, 3 work].
        penalties: Penalty of each feature's square, [features].
    """

    prices: np.ndarray
    further: np.ndarray
    penalties: np.ndarray

    @classmethod
    def of(cls, table: LayerTable, grain: np.ndarray) -> _Basis:
        """Build the features: the constant, common prices of the layers of a kind, and prices of single layers."""
        whole = _sizes(table, [TimedModel(widths={}, ratio=1.0, half_width=0.0)], np.array([table.channels], float))
        dense, count = whole[0, :-1], len(table.work)
        rows = [(np.append(np.zeros(count), 1.0), np.zeros(_FURTHER * count), 0.0)]
        for kind, unit in dict.fromkeys((one.kind, one.unit) for one in table.work):
            common = np.array([(one.kind, one.unit) == (kind, unit) for one in table.work]) * (dense > 0)
            if not common.any():
                continue
            prices = common / (dense @ common)
            rows.append((np.append(prices, 0.0), np.zeros(_FURTHER * count), _COMMON))
            fitting = np.eye(_FURTHER)[: _FURTHER if unit in _SLOWER_UNITS else 1]
            if unit != "calls" and (grain > 1).any():
                rows += [(np.zeros(count + 1), np.kron(one, prices), _COMMON) for one in fitting]
        for entry, one in enumerate(table.work):
            if one.unit != "calls" and dense[entry] > 0:
                own = np.zeros(count + 1)
                own[entry] = 1.0 / dense[entry]
                rows.append((own, np.zeros(_FURTHER * count), _OWN))
        prices, further, penalties = zip(*rows, strict=True)
        return cls(prices=np.array(prices), further=np.array(further), penalties=np.array(penalties))
