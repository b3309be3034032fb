"""Standard errors of every named metric are near a bootstrap's: `python -m benchmarks.quality_noise` in small."""

from __future__ import annotations

from autoprune.task.metrics import METRICS
from benchmarks.quality_noise import cases, compare


def test_standard_errors_of_every_named_metric_are_near_the_bootstraps() -> None:
    """60 resamples are within 9 % of the truth, and 200 folds within 5 % (one sigma); the benchmark takes 2,000."""
    found = list(compare(60, pairs=False))
    assert {row.metric for row in found} == set(METRICS)
    assert [(row.case, row.metric, row.ratio) for row in found if not 0.75 < row.ratio < 1.33] == []


def test_one_data_set_is_imbalanced() -> None:
    shares = {case.name: float((case.targets == 1).float().mean()) for case in cases(pairs=False)}
    assert shares["eights"] < 0.1
