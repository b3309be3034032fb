from __future__ import annotations

import pytest
import torch

import autoprune
from autoprune.errors import ConfigurationError
from autoprune.task.preprocessing import Scope

TRAIN = torch.randn(50, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 0.1]).view(
    1, 3, 1, 1
) + torch.tensor([0.0, -2.0, 7.0]).view(1, 3, 1, 1)


@pytest.mark.parametrize(
    ("scope", "dims", "shape"),
    [("all", (0, 1, 2, 3), (1, 1, 1, 1)), ("channel", (0, 2, 3), (1, 3, 1, 1)), ("feature", (0,), (1, 3, 4, 4))],
)
def test_standardize_and_normalize_in_each_scope(scope: Scope, dims: tuple[int, ...], shape: tuple[int, ...]) -> None:
    standardize = autoprune.fit_standardize(TRAIN, scope=scope)
    assert standardize.shift.shape == standardize.scale.shape == shape
    scaled = standardize(TRAIN)
    torch.testing.assert_close(scaled.mean(dims), torch.zeros_like(scaled.mean(dims)), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(dims, correction=0), torch.ones_like(scaled.mean(dims)), atol=1e-4, rtol=0)
    normal = autoprune.fit_normalize(TRAIN, scope=scope)(TRAIN)
    torch.testing.assert_close(normal.amin(dims), torch.zeros_like(normal.amin(dims)), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.amax(dims), torch.ones_like(normal.amax(dims)), atol=1e-5, rtol=0)


def test_other_splits_are_scaled_by_the_numbers_of_train() -> None:
    """Test data that lies elsewhere must stay elsewhere; were it fitted too, it would come out like train."""
    standardize = autoprune.fit_standardize(TRAIN, scope="all")
    mean, std = TRAIN.mean(), TRAIN.std(correction=0)
    other = torch.full((4, 3, 4, 4), 100.0)
    torch.testing.assert_close(standardize(other), (other - mean) / std)
    assert autoprune.fit_normalize(TRAIN, scope="all")(other).min() > 1.0
    torch.testing.assert_close(standardize(TRAIN[:1]), (TRAIN[:1] - mean) / std)


def test_data_is_not_changed_in_place() -> None:
    before = TRAIN.clone()
    scaled = autoprune.fit_standardize(TRAIN)(TRAIN)
    assert torch.equal(TRAIN, before)
    assert scaled is not TRAIN


# 0.1 has no exact float: its computed deviation is tiny, not zero.
@pytest.mark.parametrize("value", [0.0, 2.0, 0.1, 1000.1])
def test_a_constant_channel_is_shifted_not_scaled(value: float) -> None:
    train = TRAIN.clone()
    train[:, 1] = value
    moved = train + 1.0
    for fit in (autoprune.fit_standardize, autoprune.fit_normalize):
        scaler = fit(train, scope="channel")
        torch.testing.assert_close(scaler(train)[:, 1], torch.zeros(50, 4, 4), atol=1e-3, rtol=0)
        torch.testing.assert_close(scaler(moved)[:, 1], torch.ones(50, 4, 4), atol=1e-3, rtol=0)


@pytest.mark.parametrize("fit", [autoprune.fit_standardize, autoprune.fit_normalize])
@pytest.mark.parametrize("train", [TRAIN[:0], TRAIN.int(), torch.tensor(3.0)], ids=["empty", "int", "scalar"])
def test_what_can_not_be_fitted_on(fit: object, train: torch.Tensor) -> None:
    with pytest.raises(ConfigurationError, match="must be a non-empty floating point tensor"):
        fit(train)  # type: ignore[operator]


def test_an_unknown_scope() -> None:
    with pytest.raises(ConfigurationError, match="scope must be one of all, channel, feature, but got 'image'"):
        autoprune.fit_standardize(TRAIN, scope="image")  # type: ignore[arg-type]


def test_a_flat_tensor_has_one_scale_for_each_column() -> None:
    flat = torch.randn(20, 5) * torch.arange(1.0, 6.0)
    torch.testing.assert_close(
        autoprune.fit_standardize(flat, scope="channel")(flat), autoprune.fit_standardize(flat, scope="feature")(flat)
    )
