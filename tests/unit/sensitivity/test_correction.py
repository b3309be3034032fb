"""What finished candidates say of a scan: wrong ones get better, right ones stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoprune.plan.weights import WeightPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.sensitivity import Sensitivity
from autoprune.search.allocation.correction import (
    MAX_FACTOR,
    MIN_TRIALS_FOR_CORRECTION,
    Observation,
    correct_scan,
    observe,
)
from autoprune.sensitivity.scan import KEEP_SHARES
from tests.unit.front.builders import measurement, problem_of, record

GROUPS = 12
NAMES = [f"g{number}" for number in range(GROUPS)]


def scan_of(weights: np.ndarray) -> Sensitivity:
    """Losses -weight * log(share)."""
    return Sensitivity(
        keep_shares=KEEP_SHARES,
        added_loss={
            name: tuple(float(-weight * np.log(share)) for share in KEEP_SHARES)
            for name, weight in zip(NAMES, weights, strict=True)
        },
        criterion="l2",
        samples_forward=0,
        samples_trained=0,
    )


def observed(weights: np.ndarray, count: int, *, noise: float = 0.0, seed: int = 0) -> list[Observation]:
    """Candidates of random widths: quality lost is 1 - exp(-loss), which saturates as accuracies do."""
    random, found = np.random.default_rng(seed), []
    for _ in range(count):
        shares = np.exp(random.uniform(-1.5, 0.0) + random.uniform(-0.7, 0.7, GROUPS)).clip(0.05, 1.0)
        lost = 1.0 - float(np.exp(weights @ np.log(shares))) + noise * random.normal()
        keep = dict(zip(NAMES, shares.tolist(), strict=True))
        found.append(Observation(keep=keep, lost=float(lost), noise=max(noise, 1e-3), trained=100))
    return found


TRUE = np.exp(np.random.default_rng(5).normal(0.0, 1.0, GROUPS)) / 40
WRONG = TRUE * np.exp(np.random.default_rng(6).normal(0.0, 1.0, GROUPS))


def off(found: Sensitivity) -> float:
    """Spread of the logarithm of what the scan says over what is true, the groups counted by what they matter."""
    wrong = np.log([found.added_loss[name][1] for name in NAMES]) - np.log(TRUE)
    return float(np.sqrt(np.average((wrong - np.average(wrong, weights=TRUE)) ** 2, weights=TRUE)))


@pytest.mark.parametrize(("count", "left"), [(40, 1.0), (150, 0.75)])
def test_a_wrong_scan_is_put_right(count: int, left: float) -> None:
    for seed in range(3):
        found = correct_scan(scan_of(WRONG), observed(TRUE, count, noise=0.005, seed=seed))
        assert found.observations == count
        assert off(found.sensitivity) < left * off(scan_of(WRONG))


def test_a_right_scan_stays() -> None:
    for seed in range(5):
        found = correct_scan(scan_of(TRUE), observed(TRUE, 40, noise=0.01, seed=seed))
        assert off(found.sensitivity) < 0.05


def test_noise_alone_says_nothing() -> None:
    random = np.random.default_rng(0)
    blind = [replace(one, lost=float(abs(random.normal()))) for one in observed(TRUE, 40)]
    assert set(correct_scan(scan_of(WRONG), blind).factors.values()) == {1.0}


def test_training_is_not_taken_for_a_group() -> None:
    """Those that keep little of g0 were trained longer, which halves what they lose each time."""
    plain = observed(TRUE, 60)
    trained = [replace(one, trained=int(100 * 4 ** (4 * (1 - one.keep["g0"])))) for one in plain]
    helped = [
        replace(after, lost=before.lost * (100 / after.trained) ** 0.3)
        for before, after in zip(plain, trained, strict=True)
    ]
    assert correct_scan(scan_of(TRUE), helped).factors["g0"] == pytest.approx(1.0, abs=0.35)


def test_factors_stay_within_their_bounds() -> None:
    far = TRUE.copy()
    far[0], far[1] = TRUE[0] * 100, TRUE[1] / 100
    factors = correct_scan(scan_of(far), observed(TRUE, 200)).factors
    assert min(factors.values()) >= 1 / MAX_FACTOR - 1e-9
    assert max(factors.values()) <= MAX_FACTOR + 1e-9
    assert factors["g0"] < 0.5


def test_the_shape_of_each_curve_is_kept() -> None:
    scan = scan_of(WRONG)
    found = correct_scan(scan, observed(TRUE, 60))
    for name, losses in scan.added_loss.items():
        assert found.sensitivity.added_loss[name] == pytest.approx([found.factors[name] * loss for loss in losses])
    assert found.sensitivity.samples_forward == scan.samples_forward


def test_it_is_a_function() -> None:
    scan, seen = scan_of(WRONG), observed(TRUE, 40, noise=0.01)
    assert correct_scan(scan, seen) == correct_scan(scan, seen)


@pytest.mark.parametrize(
    "seen", [[], observed(TRUE, MIN_TRIALS_FOR_CORRECTION - 1), [replace(o, lost=-0.1) for o in observed(TRUE, 30)]]
)
def test_too_little_to_tell(seen: list[Observation]) -> None:
    found = correct_scan(scan_of(WRONG), seen)
    assert set(found.factors.values()) == {1.0}
    assert found.sensitivity == scan_of(WRONG)


WIDTHS = {"a": 4, "z": 10}


def dense_record() -> CandidateRecord:
    kept = {name: tuple(range(width)) for name, width in WIDTHS.items()}
    return record(0, measurement(0.9), origin="dense", kept=kept)


def test_what_is_observed() -> None:
    found = observe(
        [dense_record(), record(1, measurement(0.7, error=0.02), samples_trained=50)], WIDTHS, problem_of().quality
    )
    assert found == [Observation(keep={"a": 0.5, "z": 0.2}, lost=pytest.approx(0.2), noise=0.02, trained=50)]
    (lower,) = observe(
        [dense_record(), record(1, measurement(0.95))], WIDTHS, problem_of(higher_is_better=False).quality
    )
    assert lower.lost == pytest.approx(0.05), "of an error, more is worse"


def test_what_is_not_observed() -> None:
    """Other things went than channels, training was not over, nothing went, or there is nothing to compare with."""
    usual = record(1, measurement(0.7))
    others = [
        record(9, measurement(float("nan"))),
        record(2, measurement(0.7), weights=WeightPlan(sparsity=0.5)),
        replace(record(3, measurement(0.7)), dropped=("block",)),
        replace(record(4, measurement(0.7)), fidelity=0.5),
        replace(dense_record(), number=5, origin="enqueued"),
    ]
    assert len(observe([dense_record(), usual, *others], WIDTHS, problem_of().quality)) == 1
    assert observe([usual], WIDTHS, problem_of().quality) == []
