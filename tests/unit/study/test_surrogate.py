"""The model that screens children."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.search.samplers.surrogate import Surrogate, fit

FAMILY = 40


def worth(rough: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """Three of forty matter; how much follows from the place on the front."""
    pulled = 2.0 * fine[:, 3] - 1.5 * fine[:, 20] + fine[:, 33] + 4.0 * fine[:, 3] ** 2
    return np.stack([(1.0 - rough[:, 0]) * (1.0 + pulled), rough[:, 0]], axis=1)


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((count, 1)), 0.2 * rng.normal(size=(count, FAMILY))


@pytest.fixture(scope="module")
def model() -> Surrogate:
    rough, fine = drawn(60, 0)
    return fit(rough, fine, worth(rough, fine))


def test_it_foresees_points_that_it_has_not_seen(model: Surrogate) -> None:
    rough, fine = drawn(200, 1)
    expected, true = model.predict(rough, fine), model.scaled(worth(rough, fine))
    for column, least in ((0, 0.88), (1, 0.99)):
        assert np.corrcoef(expected[:, column], true[:, column])[0, 1] > least


def test_few_that_matter_are_found_among_many(model: Surrogate) -> None:
    slopes = model.slopes(np.array([0.3]), np.zeros(FAMILY))[:, 0]
    assert set(np.argsort(-np.abs(slopes))[:3]) == {3, 20, 33}
    assert slopes[3] > 0 > slopes[20]


def test_slopes_are_those_of_its_predictions(model: Surrogate) -> None:
    rough, fine = drawn(1, 2)
    slopes = model.slopes(rough[0], fine[0])
    step = 1e-5
    for coordinate in range(FAMILY):
        moved = step * np.eye(FAMILY)[[coordinate]]
        numeric = (model.predict(rough, fine + moved) - model.predict(rough, fine - moved))[0] / (2 * step)
        assert slopes[coordinate] == pytest.approx(numeric, abs=1e-6)


def test_fitted_losses_are_scaled_onto_zero_and_one(model: Surrogate) -> None:
    rough, fine = drawn(60, 0)
    scaled = model.scaled(worth(rough, fine))
    assert scaled.min(axis=0) == pytest.approx(0.0)
    assert scaled.max(axis=0) == pytest.approx(1.0)


@pytest.mark.parametrize("family", [0, 1, 2, 3])
def test_small_families_and_one_value_for_all(family: int) -> None:
    rough, fine = np.linspace(0, 1, 5)[:, None], np.zeros((5, family))
    model = fit(rough, fine, np.array([[1.0, place] for place in rough[:, 0]]))
    expected = model.predict(rough, fine)
    assert expected[:, 0] == pytest.approx(0.0)
    assert (np.diff(expected[:, 1]) > 0.1).all()
    assert model.slopes(rough[0], fine[0]).shape == (family, 2)
