"""A dashboard on a folder that is missing, of a later version, half-written or hostile."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoprune.dashboard.serve import Dashboard
from autoprune.errors import AutopruneError
from tests.faults.test_hostile_folder import HARMS, folder

__all__ = ["folder"]  # a fixture


@pytest.mark.parametrize("name", HARMS)
def test_it_does_not_start_and_says_why(name: str, folder: Path) -> None:  # pytest's way
    harm, message = HARMS[name]
    harm(folder)
    with pytest.raises(AutopruneError, match=r"(?s).+") as caught:
        Dashboard([folder])
    assert message in str(caught.value)
