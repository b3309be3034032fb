"""Digits: how small can a residual network for 8x8 digit scans become before it misreads them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

import autoprune

CHECKPOINT = Path(__file__).parent / "dense.safetensors"


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


class DigitNet(nn.Module):
    """A residual network for [N, 1, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 10, 3, padding=1, bias=False), nn.BatchNorm2d(10), nn.ReLU())
        self.stages = nn.Sequential(Block(10, 10, 1), Block(10, 20, 2), Block(20, 40, 2))
        self.head = nn.Linear(40, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 8, 8] -> class scores [N, 10]."""
        scores: Tensor = self.head(self.stages(self.stem(x)).mean((2, 3)))
        return scores


def data() -> dict[str, tuple[Tensor, Tensor]]:
    """1,797 real scans, divided at random into train, search and test; scaled by numbers fitted on train alone."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)
    targets = torch.tensor(digits.target, dtype=torch.int64)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    parts = {"train": order[:897], "search": order[897:1347], "test": order[1347:]}
    scale = autoprune.fit_standardize(images[parts["train"]])
    return {name: (scale(images[index]), targets[index]) for name, index in parts.items()}


def dense() -> nn.Module:
    """The trained model: from its checkpoint where there is one, else trained now (about half a minute)."""
    torch.manual_seed(0)
    model = DigitNet()
    if CHECKPOINT.is_file():
        model.load_state_dict(load_file(CHECKPOINT))
        return model.eval()
    print("training the dense model ...", flush=True)
    torch.set_num_threads(1)
    images, targets = data()["train"]
    epochs, batch = 40, 64
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=epochs * (len(images) // batch))
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for start in range(0, len(images) - batch + 1, batch):
            index = order[start : start + batch]
            loss = nn.functional.cross_entropy(model(images[index]), targets[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    save_file(model.state_dict(), CHECKPOINT)
    return model.eval()


def task() -> autoprune.Task:
    """Model, data, loss and metrics."""
    splits = data()
    return autoprune.Task(
        model=dense(),
        example_inputs=splits["train"][0][:32],
        train=splits["train"],
        search=splits["search"],
        test=splits["test"],
        loss=nn.functional.cross_entropy,
        metrics=("accuracy", "recall"),
        quality="accuracy",
        batch_size=64,
    )


settings = autoprune.StudySettings(
    trials=16,
    # The rate is above the default: a small network and few scans, and the rate that the dense model was trained at.
    recovery=autoprune.RecoverySettings(steps=150, learning_rate=0.1),
    search=autoprune.SearchSettings(min_budget=0.006),
)

if __name__ == "__main__":
    autoprune.main()
