"""The dense network of the study, trained on first use and kept beside this file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from autoprune.records.atomic import write_atomically
from autoprune.task.checkpoint import read_weights, serialize
from studies.fashion_mnist.data import Datasets, datasets

CHECKPOINT = Path(__file__).parent / "dense.safetensors"
#: Passes over train, and samples of a step.
EPOCHS, BATCH = 10, 128
#: Parameters -> what trains them, at the peak of the rate.
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """What suits networks with BatchNorm."""
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)


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


def base_model(data: Datasets | None = None) -> nn.Module:
    """The study's ResNet14, trained, in eval mode; see `trained`."""
    return trained(ResNet14, CHECKPOINT, data)


def trained(
    build: Callable[[], nn.Module],
    checkpoint: Path,
    data: Datasets | None = None,
    epochs: int = EPOCHS,
    make_optimizer: MakeOptimizer = sgd,
) -> nn.Module:
    """What `build` gives with the weights of its checkpoint, in eval mode; trained and written where there is none.

    data: what to train on, read when it is needed and not given. epochs: >= 1; ten of ResNet14 take some six minutes on
    one core.
    """
    if not checkpoint.is_file():
        print(f"training {checkpoint.stem} on Fashion-MNIST ...", flush=True)
        images, targets = (datasets() if data is None else data)["train"]
        write_atomically(checkpoint, serialize(train(build, images, targets, epochs, make_optimizer).state_dict()))
    # Read back also when just written, so that the first run and every later one hold the very same model.
    model = build()
    model.load_state_dict(read_weights(checkpoint))
    return model.eval()


def train(
    build: Callable[[], nn.Module], images: Tensor, targets: Tensor, epochs: int, make_optimizer: MakeOptimizer = sgd
) -> nn.Module:
    """A trained model: a one-cycle schedule, images [N, 1, H, W] mirrored at random; classes int64 [N].

    The caller's random numbers and threads are left as they were.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums are the same wherever there is one thread
    try:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            return _train(build(), images, targets, epochs, make_optimizer)
    finally:
        torch.set_num_threads(threads)


def _train(model: nn.Module, images: Tensor, targets: Tensor, epochs: int, make_optimizer: MakeOptimizer) -> nn.Module:
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth less time on a CPU
    optimizer = make_optimizer(model.parameters())
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=optimizer.param_groups[0]["lr"], total_steps=steps, pct_start=0.25, cycle_momentum=False
    )
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for start in range(0, len(images) - BATCH + 1, BATCH):
            index = order[start : start + BATCH]
            mirrored = torch.rand(len(index), 1, 1, 1) < 0.5
            batch = torch.where(mirrored, images[index].flip(3), images[index])
            scores = model(batch.contiguous(memory_format=torch.channels_last))
            loss = nn.functional.cross_entropy(scores, targets[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model
