"""A quick model of the objectives, which screens what an evolutionary sampler proposes before any of it is trained.

A Gaussian process mean whose kernel is a product: nearness in the few coordinates that decide where on the front a
point lies (a budget, the mean ratio, a learning rate), times one plus a linear and a quadratic kernel in the many that
say how groups share it. With a hundred groups and a few dozen trials only such a model learns anything: what moving one
group is worth is carried from one end of the front to the other. Weights of groups are found by fitting again with
each group weighted by what it was worth before (automatic relevance determination in the manner of Wipf and Nagarajan,
"A new view of automatic relevance determination", 2007), since a few groups matter more than all others. Neighbours
in the forward are often alike, so runs of them are features too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Lengths over which the first factor forgets, for one coordinate of [0, 1]: the mean of two Matern 5/2, one to follow
#: the front where it bends, one to carry what was learned along it.
_LENGTHS = (0.15, 0.6)
#: Deviations of this size count as one.
_SCALE = 0.3
#: Variance of the linear and of the quadratic part beside the constant's, and of what neither explains.
_LINEAR, _QUADRATIC, _NOISE = 1.0, 1.0, 1e-2
#: How often weights are found anew, and the least weight of a feature as a share of the mean one.
_ROUNDS, _LEAST = 2, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate:
    """A fitted model; make it with `fit`.

    rough: float [points, r]. features: float [points, f]. weights: float [objectives, f].
    low, span: of the losses, [objectives]. mean: of the scaled losses. alpha: float [points, objectives].
    """

    context: np.ndarray
    features: np.ndarray
    spans: np.ndarray
    weights: np.ndarray
    low: np.ndarray
    span: np.ndarray
    mean: np.ndarray
    alpha: np.ndarray

    def scaled(self, losses: np.ndarray) -> np.ndarray:
        """Losses [n, objectives] such that those of the fitted points lie in [0, 1]."""
        return np.asarray((losses - self.low) / self.span)

    def predict(self, context: np.ndarray, allocation: np.ndarray) -> np.ndarray:
        """Scaled losses [n, objectives] at rough [n, r] and fine [n, d] coordinates."""
        near, features = _near(context, self.context), _features(allocation, self.spans)
        columns = [
            mean + (near * (1.0 + (features * weights) @ self.features.T)) @ alpha
            for mean, weights, alpha in zip(self.mean, self.weights, self.alpha.T, strict=True)
        ]
        return np.stack(columns, axis=1)

    def slopes(self, context: np.ndarray, allocation: np.ndarray) -> np.ndarray:
        """Slopes [d, objectives] of the scaled losses in the fine coordinates, at one point: rough [r], fine [d]."""
        pulls = _near(context[None], self.context)[0][:, None] * self.alpha
        rates = self.weights.T * (self.features.T @ pulls)
        half = len(rates) // 2
        dimensions = len(allocation)
        linear, square = (part[:dimensions] + self.spans @ part[dimensions:] for part in (rates[:half], rates[half:]))
        return np.asarray(linear / _SCALE + 2.0 * allocation[:, None] * square / _SCALE**2)


def fit(context: np.ndarray, allocation: np.ndarray, losses: np.ndarray) -> Surrogate:
    """Fit the model.

    rough: float [n, r], coordinates in [0, 1] in which the losses may do anything. fine: float [n, d], deviations
    around 0 in the order of the forward; d may be 0. losses: float [n, objectives], finite.
    """
    low, span = losses.min(axis=0), np.ptp(losses, axis=0)
    span = np.where(span > 0, span, 1.0)
    targets = (losses - low) / span
    mean = targets.mean(axis=0)
    spans = _spans(allocation.shape[1])
    near, features = _near(context, context), _features(allocation, spans)
    solved = [_relevant(near, features, column) for column in (targets - mean).T]
    return Surrogate(
        context=context,
        features=features,
        spans=spans,
        weights=np.stack([weights for weights, _ in solved]),
        low=low,
        span=span,
        mean=mean,
        alpha=np.stack([alpha for _, alpha in solved], axis=1),
    )


def _relevant(near: np.ndarray, features: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the features and the solution for them."""
    half = features.shape[1] // 2
    prior = np.concatenate([np.full(half, _LINEAR / max(half, 1)), np.full(half, _QUADRATIC / max(half, 1))])
    weights, noise = prior, _NOISE * np.eye(len(targets))
    for attempt in range(_ROUNDS + 1):
        kernel = near * (1.0 + (features * weights) @ features.T)
        alpha = np.linalg.solve(kernel + noise, targets)
        if attempt == _ROUNDS or not half:
            break
        worth = np.abs(weights * (features.T @ alpha)) / prior
        worth = worth + _LEAST * worth.mean() + 1e-12
        weights = prior * worth / worth.mean()
    return weights, alpha


def _near(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Nearness [n, m] in [0, 1]; lengths grow with the root of the number of coordinates, as distances do."""
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None] - 2.0 * one @ other.T
    apart = np.sqrt(5.0 * np.maximum(squares, 0.0)) / np.sqrt(max(1.0, one.shape[1] / 2))
    near = np.zeros_like(apart)
    for length in _LENGTHS:
        far = apart / length
        near += (1.0 + far + far**2 / 3.0) * np.exp(-far) / len(_LENGTHS)
    return np.asarray(near)


def _features(allocation: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Deviations and sums over runs of them, then the same of their squares: float [n, 2 (d + runs)]."""
    linear = allocation / _SCALE
    return np.concatenate([linear, linear @ spans, linear**2, linear**2 @ spans], axis=1)


def _spans(dimensions: int) -> np.ndarray:
    """Half-overlapping runs of a half, a quarter, ... of the coordinates: float [d, runs], unit columns."""
    columns = []
    for halvings in range(1, 5):
        length = dimensions >> halvings
        if length < 2:
            break
        for start in range(0, dimensions - length + 1, max(length // 2, 1)):
            column = np.zeros(dimensions)
            column[start : start + length] = length**-0.5
            columns.append(column)
    return np.stack(columns, axis=1) if columns else np.zeros((dimensions, 0))
