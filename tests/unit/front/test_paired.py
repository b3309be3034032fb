"""The noise of a difference: common luck counts once, folds that differ count, unknown errors are independent."""

from __future__ import annotations

import json
import math

import pytest

from autoprune.errors import ConfigurationError, StorageError
from autoprune.records.measurement import Measurement
from autoprune.records.paired import difference_error, difference_errors, quantile
from tests.unit.front.answers import answers, scored
from tests.unit.front.builders import measurement


def test_what_two_candidates_get_wrong_together_is_no_noise() -> None:
    one, other, apart = scored(answers(range(20))), scored(answers(range(4, 24))), scored(answers(range(100, 120)))
    independent = math.hypot(one.quality_error, other.quality_error)
    assert difference_error(one, other) == pytest.approx(3 / 400, rel=1e-6), "eight samples, and one more"
    assert difference_error(one, other) < 0.6 * independent
    assert difference_error(one, apart) == pytest.approx(independent, rel=0.06)


def test_it_is_the_adjusted_error_of_matched_proportions() -> None:
    """Agresti and Min add one discordant pair: sqrt(b + c + 1) / n where b = c."""
    for count in (1, 2, 5):
        one, other = scored(answers(range(count))), scored(answers(range(50, 50 + count)))
        assert difference_error(one, other) == pytest.approx(math.sqrt(2 * count + 1) / 400, rel=1e-6)


def test_candidates_that_no_sample_tells_apart_are_not_certainly_equal() -> None:
    one, other = scored(answers(range(5))), scored(answers(range(5)))
    assert difference_error(one, other) == pytest.approx(1 / 400, rel=0.02)
    assert difference_error(one, one) == 0.0


def test_several_are_compared_at_once() -> None:
    found = [scored(answers(range(count))) for count in (3, 5, 9)]
    assert difference_errors(found[0], found).tolist() == [difference_error(found[0], one) for one in found]
    assert difference_errors(found[0], []).shape == (0,)


def test_without_deviations_errors_are_independent() -> None:
    old, other = measurement(0.9, error=0.03), measurement(0.8, error=0.04)
    assert difference_error(old, other) == pytest.approx(0.05)
    assert difference_error(scored(answers(range(5))), other) == pytest.approx(0.04, rel=0.02), (
        "folds of one are unknown"
    )
    assert difference_error(measurement(0.9, error=0.0), measurement(0.8, error=0.0)) == 0.0


def test_quantiles_are_one_sided() -> None:
    assert (quantile(0.5), quantile(0.9)) == pytest.approx((0.0, 1.2816), abs=1e-4)


@pytest.mark.parametrize("confidence", [0.49, 1.0, -1.0, math.nan])
def test_other_confidences_are_refused(confidence: float) -> None:
    with pytest.raises(ConfigurationError, match=r"confidence must lie in \[0.5, 1\)"):
        quantile(confidence)


def test_deviations_are_stored_and_older_records_have_none() -> None:
    one = scored(answers(range(5), samples=20))
    written = json.loads(json.dumps(one.to_dict()))
    assert Measurement.from_dict(written) == one
    del written["deviations"]
    assert Measurement.from_dict(written).deviations == ()
    with pytest.raises(StorageError, match="deviations"):
        Measurement.from_dict({**written, "deviations": [0.1, "0.2"]})
    with pytest.raises(StorageError, match="deviations"):
        Measurement.from_dict({**written, "deviations": [0.1, math.nan]})
