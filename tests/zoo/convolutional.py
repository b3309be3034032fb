"""Small convolutional networks of the common families, randomly initialised."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv_bn(channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class Block(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
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
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """CIFAR-style residual network; `widths` of three stages, `depth` blocks each."""

    def __init__(
        self, widths: tuple[int, ...] = (8, 16, 32), depth: int = 2, channels: int = 1, classes: int = 10
    ) -> None:
        super().__init__()
        self.stem = conv_bn(channels, widths[0])
        blocks = []
        width = widths[0]
        for stage, out in enumerate(widths):
            for number in range(depth):
                blocks.append(Block(width, out, 2 if stage and not number else 1))
                width = out
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def vgg(channels: int = 1, classes: int = 10) -> nn.Module:
    return nn.Sequential(
        conv_bn(channels, 8),
        conv_bn(8, 12),
        nn.MaxPool2d(2),
        conv_bn(12, 16),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 4, 24),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(24, classes),
    )


class InvertedResidual(nn.Module):
    def __init__(self, channels: int, expand: int, out: int) -> None:
        super().__init__()
        self.expand = conv_bn(channels, channels * expand, 1)
        self.depthwise = conv_bn(channels * expand, channels * expand, 3, groups=channels * expand)
        self.project = nn.Sequential(nn.Conv2d(channels * expand, out, 1, bias=False), nn.BatchNorm2d(out))
        self.residual = channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


def mobilenet(channels: int = 1, classes: int = 10) -> nn.Module:
    return nn.Sequential(
        conv_bn(channels, 8),
        InvertedResidual(8, 3, 8),
        InvertedResidual(8, 3, 12),
        InvertedResidual(12, 3, 12),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, classes),
    )


def mlp(features: int = 20, classes: int = 5) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features, 32), nn.ReLU(), nn.Linear(32, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Linear(16, classes)
    )
