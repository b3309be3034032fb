"""Cost of the commands that only read a finished run: processor seconds of a whole process, from start to end.

    python -m benchmarks.commands [--run runs/digits] [--repetitions 5]

Without --run the run of the golden files is read, which has 16 candidates.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import typer

from benchmarks.reporting import print_machine, print_table, spread

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "runs" / "v3"
#: Arguments of each command; RUN stands for the run folder.
COMMANDS = (
    ("--help",),
    ("front", "RUN"),
    ("front", "RUN", "--json"),
    ("choose", "RUN", "--max-drop", "0.05"),
    ("importances", "RUN"),
    ("solve", "RUN", "--budget", "0.3"),
    ("report", "RUN"),
)


def main(run: Path = GOLDEN, repetitions: int = 5) -> None:
    """Run every command several times and print the processor seconds it takes."""
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(run, Path(folder) / "run")  # the report is written into a run folder
        rows = []
        for command in COMMANDS:
            arguments = [str(copy) if part == "RUN" else part for part in command]
            took = sorted(processor_seconds(arguments) for _ in range(repetitions))
            rows.append([f"`autoprune {' '.join(command)}`", spread(took, 2)])
    print_table("Commands that read a finished run", ("command", "processor time, s"), rows)


def processor_seconds(arguments: Sequence[str]) -> float:
    """Run a command in a separate process; return its user and system time."""
    command = [sys.executable, "-m", "autoprune", *arguments]
    # Popen is not waited for: wait4 gives the times of this one process.
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    typer.run(main)
