"""Bounds of the errors of differences: they never say what the exact errors do not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoprune.records.measurement import Measurement
from autoprune.records.paired import bound_errors, difference_errors


def measured(deviations: tuple[float, ...], error: float | None = None) -> Measurement:
    return Measurement(
        split="search",
        quality=0.5,
        quality_error=math.hypot(*deviations) if error is None else error,
        metrics={},
        parameters=1,
        multiply_adds=1,
        size_bytes=1,
        deviations=deviations,
    )


@pytest.mark.parametrize("folds", [0, 1, 7, 200])
@pytest.mark.parametrize("alike", [0.0, 0.9, 1.0])
def test_exact_errors_lie_within_their_bounds(folds: int, alike: float) -> None:
    rng = np.random.default_rng(folds)
    common = rng.normal(size=folds)
    rows = [tuple((alike * common + (1 - alike) * rng.normal(size=folds)).tolist()) for _ in range(8)]
    found = [measured(row, None if folds else 0.1 * number) for number, row in enumerate(rows)]
    found.append(measured(tuple((2 * common).tolist())))
    found.append(measured((0.0,) * (folds - 1) + (3.0,) if folds else ()))
    low, high = bound_errors(found, found)
    for row, one in enumerate(found):
        exact = difference_errors(one, found)
        others = np.arange(len(found)) != row  # none for the same measurement
        assert (low[row] <= exact + 1e-12)[others].all()
        assert (exact <= high[row] + 1e-12).all()
    assert bound_errors([], found)[0].shape == (0, len(found))


def test_bounds_are_tight_where_candidates_have_most_of_their_noise_in_common() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(size=200)
    found = [measured(tuple((common + 0.1 * rng.normal(size=200)).tolist())) for _ in range(5)]
    low, high = bound_errors(found[:1], found[1:])
    assert (high < 1.5 * low).all()
    assert (high < 0.2 * (found[0].quality_error + found[1].quality_error)).all()
