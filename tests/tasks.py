"""Small tasks that train in a second, shared by the tests."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

import autoprune
from tests.zoo.convolutional import ResNet, mlp

#: Samples of every forward of a Counting model, whichever copy of it ran.
SEEN: list[int] = []


class Counting(nn.Module):
    """Notes the batch size of each call; the list is shared by all copies that a cut makes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        SEEN.append(len(x))
        output: Tensor = self.model(x)
        return output


def blobs(samples: int = 600, classes: int = 4, side: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images [N, 1, side, side] of noisy class patterns, and their classes [N]."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(classes, 1, side, side, generator=torch.Generator().manual_seed(99))
    targets = torch.randint(classes, (samples,), generator=generator)
    return patterns[targets] + 2.5 * torch.randn(samples, 1, side, side, generator=generator), targets


#: Widths of a residual network with two blocks, which most tests share, and with three for those that need them.
TWO, THREE = (8, 12), (8, 12, 16)


@functools.cache
def trained_resnet(widths: tuple[int, ...] = TWO) -> nn.Module:
    """A small residual network, trained on `blobs` for a few steps."""
    torch.manual_seed(0)
    return _train(ResNet(widths=widths, depth=1, classes=4), *blobs())


@functools.cache
def trained_mlp() -> nn.Module:
    """A multilayer perceptron for `flat_task`; the second of its layers has a norm."""
    torch.manual_seed(0)
    images, targets = blobs()
    return _train(mlp(features=64, classes=4), images.flatten(1), targets)


def image_task(**changes: object) -> autoprune.PreparedTask:
    """A complete task on blobs; `changes` replace arguments of Task."""
    train, test = blobs(), blobs(200, seed=1)
    arguments: dict[str, object] = {
        "model": trained_resnet(),
        "example_inputs": train[0][:4],
        "train": train,
        "test": test,
        "loss": nn.functional.cross_entropy,
        "metrics": ("accuracy", "recall"),
        "quality": "accuracy",
        "batch_size": 50,
        "calibration_samples": 100,
        # Twenty scores of a model that is known to be trained; the tests of the check ask for it.
        "require_trained": False,
    }
    return autoprune.prepare(autoprune.Task(**{**arguments, **changes}))  # type: ignore[arg-type]


def flat_task(**changes: object) -> autoprune.PreparedTask:
    """The task of `image_task` for a perceptron, whose studies take a third of the time: for what no layer decides."""
    train, test = blobs(), blobs(200, seed=1)
    images = train[0].flatten(1)
    given: dict[str, object] = {
        "model": trained_mlp(),
        "example_inputs": images[:4],
        "train": (images, train[1]),
        "test": (test[0].flatten(1), test[1]),
    }
    return image_task(**{**given, **changes})


@torch.enable_grad()
def _train(model: nn.Module, images: Tensor, targets: Tensor) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(40):
        index = torch.arange(50) + (step * 50) % len(images)
        loss = nn.functional.cross_entropy(model(images[index % len(images)]), targets[index % len(images)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()
