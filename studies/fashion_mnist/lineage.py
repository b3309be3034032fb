"""Fashion-MNIST: a good front for little training, along one lineage of solved allocations.

The model of study.py in nine candidates: dense, and eight budgets from three quarters of the multiply-adds down to a
hundredth. Each takes its widths from the sensitivity scan and its weights from the candidate before it, is repaired by
least squares, and learns from the dense model's outputs at a constant rate, with the weights of its last steps
averaged. A step of a small model is cheap, so small ones train for longer. Nothing is sampled: it is what a search
starts from, and where there is little to train with it is the whole of it. Every study begins with such a chain by
default; here it is with each setting said, for comparisons.
"""

from __future__ import annotations

import sys
from pathlib import Path

# The command line knows this script's folder; its neighbours are imported by their full names.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import autoprune
from studies.fashion_mnist.study import task

__all__ = ["settings", "task"]

POINTS = 8

settings = autoprune.StudySettings(
    trials=POINTS + 1,
    objectives=("quality", "multiply_adds"),
    structure=autoprune.StructureSettings(kinds=("channels",), criteria=("l2",)),
    recovery=autoprune.RecoverySettings(
        reconstruction=(512,),
        steps=54,
        length_exponent=0.5,
        schedulers=("constant",),
        learning_rate=0.015,
        averaging=(0.6,),
        distillation=(0.9,),
    ),
    search=autoprune.SearchSettings(
        uniform_points=0, solved_points=POINTS, polish=0.0, early_stopping="none", min_budget=0.01, scan_samples=20_000
    ),
    measure=autoprune.MeasureSettings(latency_rounds=0),
)

if __name__ == "__main__":
    autoprune.main()
