"""Commands that only look at a finished run load what they need and nothing else: no torch, no Optuna."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.script import ROOT, environment

#: Packages that take long to import.
HEAVY = ("torch", "optuna", "torchmetrics", "scipy", "plotly", "jinja2", "pandas")
FRAMES, PAGE = ("pandas",), ("plotly", "jinja2")
#: Arguments of a command, the run folder left out -> heavy packages that it may import.
COMMANDS = [
    (["front"], ()),
    (["choose", "--max-drop", "0.05"], ()),
    (["importances"], ()),
    (["solve", "--budget", "0.3"], ()),
    (["front", "--json"], FRAMES),
    (["front", "--csv"], FRAMES),
    (["report"], PAGE),
]
SCRIPT = """
import sys
from autoprune.cli.app import app
try:
    app({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
found = set({heavy!r}) & set(sys.modules) - set({allowed!r})
assert not found, found
"""


@pytest.mark.parametrize(("command", "allowed"), COMMANDS, ids=" ".join)
def test_a_command_that_looks_loads_what_it_needs(command: list[str], allowed: tuple[str, ...], tmp_path: Path) -> None:
    run = shutil.copytree(ROOT / "tests" / "golden" / "runs" / "v3", tmp_path / "run")
    name, *options = command
    script = SCRIPT.format(arguments=[name, str(run), *options], heavy=HEAVY, allowed=allowed)
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment()
    )
    assert result.returncode == 0, result.stderr
    if "--json" in command:
        assert json.loads(result.stdout)


def test_records_and_fronts_work_where_there_is_no_torch_and_no_optuna() -> None:
    """Their tests pass in a process that can import neither."""
    script = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['optuna'] = None\n"
        "import pytest\n"
        "options = ['-q', '-x', '--noconftest', '-p', 'no:cacheprovider', '-k', 'not chance and not standard_error']\n"
        "sys.exit(pytest.main([*options, 'tests/unit/front', 'tests/unit/test_codec.py']))\n"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), cwd=ROOT)
    assert result.returncode == 0, result.stdout[-3000:]
