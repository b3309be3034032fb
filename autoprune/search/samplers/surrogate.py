"""Surrogate of the objectives: screens the evolutionary sampler's children before training.

The mean of a Gaussian process whose kernel is a product: similarity in the few features that decide where on the front
a point lies (budget, mean ratio, learning rate), times one plus a linear and a quadratic kernel in the many features
that describe the allocation among groups. With a hundred groups and a few dozen trials only such a model learns: the
worth of a change to one group carries over from one end of the front to the other. Feature weights are found by
refitting with each feature weighted by its previous worth (automatic relevance determination in the manner of Wipf and
Nagarajan, "A new view of automatic relevance determination", 2007), since a few groups matter most. Neighbouring layers
are often alike, so sums over spans of them are features, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Length scales of the first factor, for one feature in [0, 1]: the mean of two Matern 5/2 kernels, a short one for
#: bends of the front and a long one along it.
_LENGTHS = (0.15, 0.6)
#: Allocation deviation that is scaled to 1.
_SCALE = 0.3
#: Variance of the linear and the quadratic part relative to the constant's, and of the noise.
_LINEAR, _QUADRATIC, _NOISE = 1.0, 1.0, 1e-2
#: Rounds of reweighting, and the smallest weight of a feature as a share of the mean weight.
_ROUNDS, _LEAST = 2, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate:
    """A fitted model; make it with `fit`.

    Attributes:
        context: Context features of the fitted points, float [points, r].
        features: Allocation features of the fitted points, float [points, f].
        spans: Unit columns of the spans, float [d, spans].
        weights: Weights of the features, float [objectives, f].
        low: Smallest loss, float [objectives].
        span: Range of the losses, float [objectives].
        mean: Mean of the scaled losses, float [objectives].
        alpha: Solution of the kernel system, float [points, objectives].
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
        """Scale losses so that those of the fitted points lie in [0, 1].

        Args:
            losses: Float [n, objectives].
        """
        return np.asarray((losses - self.low) / self.span)

    def predict(self, context: np.ndarray, allocation: np.ndarray) -> np.ndarray:
        """Predict scaled losses, float [n, objectives].

        Args:
            context: Context features, float [n, r].
            allocation: Allocation features, float [n, d].
        """
        near, features = _near(context, self.context), _features(allocation, self.spans)
        columns = [
            mean + (near * (1.0 + (features * weights) @ self.features.T)) @ alpha
            for mean, weights, alpha in zip(self.mean, self.weights, self.alpha.T, strict=True)
        ]
        return np.stack(columns, axis=1)

    def slopes(self, context: np.ndarray, allocation: np.ndarray) -> np.ndarray:
        """Return the gradient of the scaled losses in the allocation features at one point, float [d, objectives].

        Args:
            context: Context features, float [r].
            allocation: Allocation features, float [d].
        """
        pulls = _near(context[None], self.context)[0][:, None] * self.alpha
        rates = self.weights.T * (self.features.T @ pulls)
        half = len(rates) // 2
        dimensions = len(allocation)
        linear, square = (part[:dimensions] + self.spans @ part[dimensions:] for part in (rates[:half], rates[half:]))
        return np.asarray(linear / _SCALE + 2.0 * allocation[:, None] * square / _SCALE**2)


def fit(context: np.ndarray, allocation: np.ndarray, losses: np.ndarray) -> Surrogate:
    """Fit the surrogate.

    Args:
        context: Context features in [0, 1], float [n, r]; the losses may depend on them in any way.
        allocation: Allocation features in the order of the layers, float [n, d]: deviations around 0. d may be 0.
        losses: Finite losses, float [n, objectives].
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
    """Return the feature weights and the kernel solution for them."""
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
    """Return similarities in [0, 1], float [n, m]; length scales grow with the root of the number of features."""
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None] - 2.0 * one @ other.T
    apart = np.sqrt(5.0 * np.maximum(squares, 0.0)) / np.sqrt(max(1.0, one.shape[1] / 2))
    near = np.zeros_like(apart)
    for length in _LENGTHS:
        far = apart / length
        near += (1.0 + far + far**2 / 3.0) * np.exp(-far) / len(_LENGTHS)
    return np.asarray(near)


def _features(allocation: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Return deviations, their sums over spans, and the same of their squares, float [n, 2 (d + spans)]."""
    linear = allocation / _SCALE
    return np.concatenate([linear, linear @ spans, linear**2, linear**2 @ spans], axis=1)


def _spans(dimensions: int) -> np.ndarray:
    """Return half-overlapping spans of a half, a quarter, ... of the features, as unit columns, float [d, spans]."""
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
