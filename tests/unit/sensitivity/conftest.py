"""A proved model, and a bench on a small task, shared by the tests of this folder."""

from __future__ import annotations

import pytest

from autoprune.candidate import Bench
from tests.tasks import image_task


@pytest.fixture(scope="session")
def bench() -> Bench:
    return Bench.of(image_task(), latency_rounds=0)
