"""Runs of a module whose processes die, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.end_to_end.script import ROOT, environment


def victims(module: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What `python -m tests.faults.MODULE FOLDER` gave; it has to end well itself."""
    result = subprocess.run(
        [sys.executable, "-m", f"tests.faults.{module}", str(folder)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result
