"""Fashion-MNIST: what to prune, by which criterion, when and with which recovery, all searched together."""

from __future__ import annotations

import sys
from pathlib import Path

from torch import nn

# The command line knows this script's folder; its neighbours are imported by their full names.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import autoprune
from studies.fashion_mnist.data import datasets
from studies.fashion_mnist.model import base_model


def task() -> autoprune.Task:
    """Model, data, loss and metrics."""
    data = datasets()
    return autoprune.Task(
        model=base_model(data),
        example_inputs=data["train"][0][:32],
        train=data["train"],
        search=data["search"],
        test=data["test"],
        loss=nn.functional.cross_entropy,
        metrics=("accuracy", "recall"),
        quality="accuracy",
        batch_size=128,
    )


settings = autoprune.StudySettings(
    trials=80,
    objectives=("quality", "size_bytes", "multiply_adds"),
    # Channels, by a criterion for each group, residual blocks whole, and single weights.
    structure=autoprune.StructureSettings(
        kinds=("channels", "blocks", "weights"),
        criteria=("l2", "fpgm", "taylor", "mean_activation"),
        criterion_per_group=True,
    ),
    masks=autoprune.MaskSettings(patterns=("none", "unstructured"), sparsity=(0.3, 0.9)),
    schedule=autoprune.ScheduleSettings(names=("one_shot", "cubic", "learning_rate")),
    recovery=autoprune.RecoverySettings(
        steps=60,
        # As long for all, so that the length is not found to matter.
        length_exponent=0.0,
        averaging=(0.0,),
        schedulers=("one_cycle", "cosine"),
        learning_rate=(0.01, 0.2),
        distillation=(0.5, 0.0, 0.9),
        max_norm=(0.0, 2.0),
        reconstruction=(0, 256),
    ),
    # At random, and each to its end: the question is what matters, and every choice needs its turn. A sampler that
    # learns from warm starts, which hold the first of each, hardly tries another.
    search=autoprune.SearchSettings(
        sampler="random",
        early_stopping="none",
        solved_points=3,
        uniform_points=5,
        polish=0.15,
        min_budget=0.05,
        scan_samples=None,
    ),
    measure=autoprune.MeasureSettings(latency_rounds=0),
)

if __name__ == "__main__":
    autoprune.main()
