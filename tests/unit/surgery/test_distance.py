"""How far outputs are apart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from autoprune.proof.distance import Tolerance, distance


def values(count: int = 12) -> Tensor:
    return torch.arange(1.0, count + 1, dtype=torch.float64)


def test_a_difference_is_relative_to_its_value_and_the_usual_one() -> None:
    expected = values()
    got = expected.clone()
    got[7] += 1.2  # of 8, where a quarter of the values are up to 4, and the one that differs is 8
    assert distance([got], [expected]) == pytest.approx(1.2 / (8 + 8))
    assert distance([expected], [expected]) == 0.0


def test_one_value_of_many_is_found() -> None:
    expected = values(300_000)
    got = expected.clone()
    got[123_457] *= 1.5
    assert distance([got], [expected]) == pytest.approx(0.25)


def test_what_is_not_finite_alike_is_alike() -> None:
    expected = values()
    expected[2], expected[5], expected[8] = math.inf, math.nan, -math.inf
    got = expected.clone()
    got[0] += 1e-6
    assert 0 < distance([got], [expected]) < 1e-6
    for place in (2, 5, 8):
        wrong = expected.clone()
        wrong[place] = 3.0
        assert distance([wrong], [expected]) == math.inf


def test_masked_scores_do_not_hide_a_difference() -> None:
    expected = torch.cat((values(), torch.full((20,), -1e9, dtype=torch.float64)))
    got = expected.clone()
    got[0] += 0.5
    assert distance([got], [expected]) > 0.02


def test_classes_and_complex_numbers_count_too() -> None:
    assert distance([torch.tensor([1, 2])], [torch.tensor([1, 3])]) > 0.1
    assert distance([torch.tensor([True, False])], [torch.tensor([True, True])]) > 0.1
    assert distance([torch.tensor([1 + 1j])], [torch.tensor([1 + 2j])]) > 0.1
    assert distance([torch.zeros(2)], [torch.zeros(3)]) == math.inf


def test_what_silencing_changed_is_asked_only_where_it_counts() -> None:
    tolerance = Tolerance.of({torch.float64})

    def unasked() -> float:
        raise AssertionError

    assert tolerance.allows(tolerance.noise / 2, unasked)
    assert not tolerance.allows(2 * tolerance.most, unasked)
    assert tolerance.allows(1.2e-8, lambda: 1.0) == (tolerance.most > 1.2e-8)
