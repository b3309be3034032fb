"""A proved model, and a context on a small task, shared by the tests of this folder."""

from __future__ import annotations

import pytest

from autoprune.trial.context import TrialContext
from tests.tasks import image_task


@pytest.fixture(scope="session")
def context() -> TrialContext:
    return TrialContext.of(image_task())
