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
HEAVY = ("torch", "optuna", "torchmetrics", "scipy", "plotly", "plotly.basedatatypes", "jinja2", "pandas")
PAGE = ("plotly", "jinja2")
#: Arguments of a command, the run folder left out -> heavy packages that it may import.
COMMANDS = [
    (["front"], ()),
    (["choose", "--max-drop", "0.05"], ()),
    (["importances"], ()),
    (["solve", "--budget", "0.3"], ()),
    (["front", "--json"], ()),
    (["front", "--csv"], ()),
    (["mark", "3"], ()),
    (["note", "a text"], ()),
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


#: Modules that cannot be imported, tests that pass without them, and slow ones among these.
WITHOUT = [
    (("torch", "optuna"), ("tests/unit/front", "tests/unit/test_codec.py"), "not chance and not standard_error"),
    (
        ("torch",),
        ("tests/unit/search", "tests/unit/study/test_surrogate.py"),
        "not many and not killed and not optuna_export and not qmc",
    ),
]


@pytest.mark.parametrize(("missing", "tests", "quick"), WITHOUT, ids=["records and front", "search"])
def test_plain_folders_work_where_there_is_no_torch(
    missing: tuple[str, ...], tests: tuple[str, ...], quick: str
) -> None:
    """Their tests pass in a process that cannot import it."""
    script = (
        f"import sys\n"
        f"sys.modules.update(dict.fromkeys({missing!r}))\n"
        f"import pytest\n"
        f"options = ['-q', '-x', '--noconftest', '-p', 'no:cacheprovider', '-k', {quick!r}]\n"
        f"sys.exit(pytest.main([*options, *{tests!r}]))\n"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), cwd=ROOT)
    assert result.returncode == 0, result.stdout[-3000:]
