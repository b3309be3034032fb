"""The same digit scans with plain functions as metrics, beside metrics by name."""

from __future__ import annotations

import sys
from pathlib import Path

from torch import Tensor
from torch.nn import functional

# The command line knows this script's folder; its neighbours are imported by their full names.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import autoprune
from studies.own_metrics.study import data, dense


def worst_class(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of right answers in the class with the fewest, which is no mean over samples."""
    right = (outputs.argmax(1) == targets).float()
    return min((right[targets == each].mean() for each in targets.unique()), key=float)


def task() -> autoprune.Task:
    """The search keeps up the worst class; accuracy and the calibration loss are further columns."""
    parts = data()
    return autoprune.Task(
        model=dense(),
        example_inputs=parts["search"][0][:32],
        train=parts["train"],
        search=parts["search"],
        test=parts["test"],
        loss=functional.cross_entropy,
        metrics=("accuracy", worst_class, functional.cross_entropy),
        quality="worst_class",
        directions={"cross_entropy": False},
    )


settings = autoprune.StudySettings(
    trials=8,
    objectives=("quality", "multiply_adds"),
    recovery=autoprune.RecoverySettings(steps=40),
    measure=autoprune.MeasureSettings(latency_rounds=5),
)

if __name__ == "__main__":
    autoprune.main()
