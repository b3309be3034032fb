"""Candidates whose accuracy comes from answers to the same samples, right or wrong."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from autoprune.records.candidate import CandidateRecord
from autoprune.records.measurement import Measurement
from tests.unit.front.builders import measurement, record


def scored(right: np.ndarray, multiply_adds: int = 1000) -> Measurement:
    """The accuracy of answers, with one fold for each sample."""
    share = float(right.mean())
    deviations = tuple((right - share) / len(right))
    return replace(measurement(share, multiply_adds, error=math.hypot(*deviations)), deviations=deviations)


def answers(*wrong: range, samples: int = 400) -> np.ndarray:
    """Answers that are right but for some samples."""
    found = np.ones(samples)
    for each in wrong:
        found[list(each)] = 0
    return found


def candidate(number: int, right: np.ndarray, multiply_adds: int, origin: str = "sampled") -> CandidateRecord:
    """A finished candidate."""
    return record(number, scored(right, multiply_adds), origin=origin)
