"""ResNet-18 and ResNet-50 shapes (He et al., 2016) and a VGG-16, without weights from anywhere."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv_bn(channels_in, width, 3, stride), nn.ReLU(inplace=True), *_conv_bn(width, width, 3, 1)
        )
        self.shortcut = _shortcut(channels_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H', W']."""
        return torch.relu(self.body(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut."""

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv_bn(channels_in, width, 1, 1),
            nn.ReLU(inplace=True),
            *_conv_bn(width, width, 3, stride),
            nn.ReLU(inplace=True),
            *_conv_bn(width, width * 4, 1, 1),
        )
        self.shortcut = _shortcut(channels_in, width * 4, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H', W']."""
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """ImageNet-style residual network."""

    def __init__(self, block: type[Basic] | type[Bottleneck], depths: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv_bn(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
        stages: list[nn.Module] = []
        channels = 64
        for stage, depth in enumerate(depths):
            width = 64 * 2**stage
            for number in range(depth):
                stages.append(block(channels, width, 2 if stage and not number else 1))
                channels = width * block.expansion
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 1000]."""
        scores: Tensor = self.head(self.stages(self.stem(x)).mean((2, 3)))
        return scores


def resnet18() -> nn.Module:
    """11.7 M parameters."""
    return ResNet(Basic, (2, 2, 2, 2))


def resnet50() -> nn.Module:
    """25.6 M parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3))


def resnet20() -> nn.Module:
    """0.3 M parameters: a CIFAR-sized network, where fixed costs weigh most."""

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            blocks: list[nn.Module] = []
            channels = 16
            for stage, width in enumerate((16, 32, 64)):
                for number in range(3):
                    blocks.append(Basic(channels, width, 2 if stage and not number else 1))
                    channels = width
            self.body = nn.Sequential(*_conv_bn(3, 16, 3, 1), nn.ReLU(inplace=True), *blocks)
            self.head = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.head(self.body(x).mean((2, 3)))
            return scores

    return Small()


def _conv_bn(channels_in: int, channels_out: int, kernel: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return (
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
    )


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()
    return nn.Sequential(*_conv_bn(channels_in, channels_out, 1, stride))
