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
#: Commands, the run folder left out; all may import the same heavy packages, and run in one process.
PLAIN = (
    ["front"],
    ["choose", "--max-drop", "0.05"],
    ["importances"],
    ["solve", "--budget", "0.3"],
    ["front", "--csv"],
    ["mark", "3"],
    ["note", "a text"],
    ["front", "--json"],
)
COMMANDS = {"plain": (PLAIN, ()), "page": ((["report"],), PAGE)}
SCRIPT = """
import sys
from autoprune.cli.app import app
for name, *options in {commands!r}:
    try:
        app([name, {run!r}, *options])
    except SystemExit as end:
        assert not end.code, (name, options, end.code)
    found = set({heavy!r}) & set(sys.modules) - set({allowed!r})
    assert not found, (name, options, found)
"""


@pytest.mark.parametrize(("commands", "allowed"), COMMANDS.values(), ids=COMMANDS)
def test_a_command_that_looks_loads_what_it_needs(
    commands: tuple[list[str], ...], allowed: tuple[str, ...], tmp_path: Path
) -> None:
    run = shutil.copytree(ROOT / "tests" / "golden" / "runs" / "v3", tmp_path / "run")
    script = SCRIPT.format(commands=commands, run=str(run), heavy=HEAVY, allowed=allowed)
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment()
    )
    assert result.returncode == 0, result.stderr
    if "--json" in commands[-1]:
        assert json.loads(result.stdout[result.stdout.rindex("\n[") :])


#: Modules that cannot be imported, tests that pass without them, and which of these run: some of each kind, and the
#: search policy from the first proposal to the last. The modules of all of them are imported.
WITHOUT = [
    (
        ("torch", "optuna"),
        ("tests/unit/front", "tests/unit/test_codec.py"),
        "test_front or test_choice and bend or column_for_people or two_parameters or there_and_back",
    ),
    (
        ("torch",),
        ("tests/unit/search", "tests/unit/study/test_surrogate.py"),
        "rungs_are_passed or goes_on_in_its_folder or test_known or test_noise or test_written or test_surrogate",
    ),
]


@pytest.mark.parametrize(("missing", "tests", "chosen"), WITHOUT, ids=["records and front", "search"])
def test_plain_folders_work_where_there_is_no_torch(
    missing: tuple[str, ...], tests: tuple[str, ...], chosen: str
) -> None:
    """Their tests pass in a process that cannot import it."""
    script = (
        f"import sys\n"
        f"sys.modules.update(dict.fromkeys({missing!r}))\n"
        f"import pytest\n"
        f"options = ['-q', '-x', '--noconftest', '-p', 'no:cacheprovider', '-k', {chosen!r}]\n"
        f"sys.exit(pytest.main([*options, *{tests!r}]))\n"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), cwd=ROOT)
    assert result.returncode == 0, result.stdout[-3000:]
