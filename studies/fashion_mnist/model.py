"""Two networks for 28x28 images, trained on first use and kept beside this file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from autoprune.task.checkpoint import read_weights, serialize, write_atomically
from studies.fashion_mnist.data import Splits, splits

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained: SGD under a one-cycle schedule, images mirrored at random.

    epochs: passes over train, >= 1. rate: peak of the learning rate. batch: samples of a step.
    """

    epochs: int
    rate: float = 0.1
    batch: int = 128


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H', W']."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet14(nn.Module):
    """A residual network of three stages with two blocks each for [N, 1, 28, 28] (He et al. 2016)."""

    def __init__(self, widths: tuple[int, int, int] = (16, 32, 64), classes: int = 10) -> None:
        super().__init__()
        first = widths[0]
        self.stem = nn.Sequential(nn.Conv2d(1, first, 3, 2, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU())
        blocks: list[nn.Module] = []
        channels = first
        for stage, width in enumerate(widths):
            blocks += [Block(channels, width, 2 if stage else 1), Block(width, width, 1)]
            channels = width
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 28, 28] -> class scores [N, classes]."""
        scores: Tensor = self.head(self.stages(self.stem(x)).mean((2, 3)))
        return scores


class Inverted(nn.Module):
    """1x1 up, depthwise 3x3, 1x1 down, and a shortcut where shapes allow it (Sandler et al. 2018)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.shortcut = stride == 1 and channels_in == channels_out
        self.body = nn.Sequential(
            *(nn.Conv2d(channels_in, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU()),
            *(nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU()),
            *(nn.Conv2d(hidden, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H', W']."""
        y: Tensor = self.body(x)
        return x + y if self.shortcut else y


#: Stages of MobileNet: channels, stride of the first block, expansion, blocks.
STAGES = ((12, 1, 2, 1), (16, 2, 3, 3), (24, 1, 3, 4), (32, 1, 3, 3), (48, 2, 3, 4), (64, 1, 3, 3))


class MobileNet(nn.Module):
    """Eighteen inverted residual blocks for [N, 1, 28, 28]: 26 groups of channels where ResNet14 has nine."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        channels, last = 16, 96
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        blocks: list[nn.Module] = []
        for width, stride, expansion, count in STAGES:
            for number in range(count):
                blocks.append(Inverted(channels, width, 1 if number else stride, expansion))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.tail = nn.Sequential(nn.Conv2d(channels, last, 1, bias=False), nn.BatchNorm2d(last), nn.ReLU())
        self.head = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 28, 28] -> class scores [N, classes]."""
        scores: Tensor = self.head(self.tail(self.blocks(self.stem(x))).mean((2, 3)))
        return scores


def dense(data: Splits | None = None) -> nn.Module:
    """The study's ResNet14, trained: from its checkpoint where there is one, else trained now (about five minutes).

    data: what to train on, read when it is needed and not given.
    """
    return trained(ResNet14, HERE / "dense.safetensors", Recipe(epochs=10), data)


def mobile(data: Splits | None = None) -> nn.Module:
    """A MobileNet of twice as many layers and three times as many groups, trained likewise (about six minutes)."""
    return trained(MobileNet, HERE / "mobile.safetensors", Recipe(epochs=8), data)


def trained(build: Callable[[], nn.Module], checkpoint: Path, recipe: Recipe, data: Splits | None = None) -> nn.Module:
    """A network with the weights of its checkpoint, in eval mode; they are trained and written where there is none."""
    if not checkpoint.is_file():
        print(f"training {checkpoint.stem} for {checkpoint.parent.name} ...", flush=True)
        torch.manual_seed(0)
        weights = train(build(), *(data or splits())["train"], recipe).state_dict()
        write_atomically(checkpoint, serialize(weights))
    # Read back also when just written, so that the first run and every later one hold the very same model.
    model = build()
    model.load_state_dict(read_weights(checkpoint))
    return model.eval()


def train(model: nn.Module, images: Tensor, targets: Tensor, recipe: Recipe) -> nn.Module:
    """Train a model in place on images [N, 1, H, W] and classes int64 [N]; gives it back in eval mode."""
    torch.set_num_threads(1)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth less time on a CPU
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = recipe.epochs * (len(images) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.rate, total_steps=steps, pct_start=0.25, cycle_momentum=False
    )
    for _ in range(recipe.epochs):
        for index in _batches(len(images), recipe.batch):
            mirrored = torch.rand(len(index), 1, 1, 1) < 0.5
            batch = torch.where(mirrored, images[index].flip(3), images[index])
            scores = model(batch.contiguous(memory_format=torch.channels_last))
            loss = nn.functional.cross_entropy(scores, targets[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def _batches(samples: int, size: int) -> Iterator[Tensor]:
    """Positions of one pass in random order; a short last batch is left out."""
    order = torch.randperm(samples)
    for start in range(0, samples - size + 1, size):
        yield order[start : start + size]
