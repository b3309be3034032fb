"""Digit scans with a function as the whole evaluation: how sure is the smaller model of its right answers."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

import autoprune


def data() -> dict[str, tuple[Tensor, Tensor]]:
    """1,797 real scans as 64 numbers, divided at random into train, search and test."""
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    targets = torch.tensor(digits.target, dtype=torch.int64)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    parts = {"train": order[:897], "search": order[897:1347], "test": order[1347:]}
    return {name: (images[index], targets[index]) for name, index in parts.items()}


def dense() -> nn.Module:
    """Three linear layers, trained in a few seconds."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 10))
    images, targets = data()["train"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        for index in torch.randperm(len(images)).split(128):
            optimizer.zero_grad()
            functional.cross_entropy(model(images[index]), targets[index]).backward()
            optimizer.step()
    return model.eval()


def judged(model: nn.Module, split: str) -> dict[str, object]:
    """Accuracy as the quality; further numbers: the mean confidence, and the share of confident mistakes."""
    images, targets = data()[split]
    confidence, answers = model(images).softmax(1).max(1)
    wrong = answers != targets
    return {
        "quality": 1 - wrong.float().mean(),
        "confidence": confidence.mean(),
        "confident_mistakes": (wrong & (confidence > 0.9)).float().mean(),
    }


def task() -> autoprune.Task:
    """The search sees the search split alone; `evaluate_test` is called for the final front."""
    return autoprune.Task(
        model=dense(),
        example_inputs=data()["search"][0][:32],
        train=data()["train"],
        loss=functional.cross_entropy,
        evaluate=lambda model: judged(model, "search"),
        evaluate_test=lambda model: judged(model, "test"),
        directions={"confident_mistakes": False},
    )


settings = autoprune.StudySettings(
    trials=8,
    objectives=("quality", "peak_memory_bytes"),
    recovery=autoprune.RecoverySettings(steps=40),
    measure=autoprune.MeasureSettings(latency_rounds=5),
)

if __name__ == "__main__":
    autoprune.main()
