"""Digit scans again, with the latency of a device elsewhere as an objective."""

from __future__ import annotations

import sys
from pathlib import Path

# The command line knows this script's folder; its neighbours are imported by their full names.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import autoprune
from studies.own_metrics import functions

#: The function stands for what reaches your device: "module:function", or a command such as "./bench.sh {model}".
DEVICE = autoprune.LatencyProfile(
    name="board", backend="remote", batch_size=1, command="studies.remote_device.device:milliseconds"
)


def task() -> autoprune.Task:
    """Model, data, loss and metrics of studies/own_metrics."""
    return functions.task()


settings = autoprune.StudySettings(
    trials=12,
    objectives=("quality", "latency_ms[board]"),
    recovery=autoprune.RecoverySettings(steps=40),
    measure=autoprune.MeasureSettings(latency_rounds=5, profiles=(DEVICE,)),
)

if __name__ == "__main__":
    autoprune.main()
