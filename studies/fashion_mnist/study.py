"""Fashion-MNIST: which channels, blocks and settings of recovery matter once a residual network has to be small."""

from __future__ import annotations

import sys
from pathlib import Path

from torch import nn

# The command line knows this script's folder; its neighbours are imported as benchmarks import them.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import autoprune
from studies.fashion_mnist.data import splits
from studies.fashion_mnist.model import dense


def task() -> autoprune.Task:
    """Model, data, loss and metrics."""
    data = splits()
    return autoprune.Task(
        model=dense(data),
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
    trials=64,
    uniform_points=8,
    solved_points=4,
    polish=0.4,
    space=autoprune.SpaceSettings(
        min_budget=0.02,
        steps=200,
        # What goes.
        kinds=("channels", "blocks"),
        # By what it is chosen, for each group on its own.
        criteria=("l2", "fpgm", "taylor", "mean_activation"),
        criterion_per_group=True,
        # How the model recovers.
        learning_rate=(0.02, 0.2),
        distillation=(0.5, 0.0, 0.9),
    ),
)

if __name__ == "__main__":
    autoprune.main()
