"""Records whose quality has the standard error 0.01, unless another is given."""

from __future__ import annotations

from functools import partial

from tests.unit.front import builders
from tests.unit.front.builders import DENSE_MS, front_of, latency, record, run_of

__all__ = ["DENSE_MS", "dense", "front_of", "latency", "measurement", "record", "run_of"]

measurement = partial(builders.measurement, error=0.01)
dense = partial(builders.dense, error=0.01)
