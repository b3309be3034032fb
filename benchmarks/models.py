"""Public architectures in their published sizes, without weights from anywhere."""

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


def vgg16() -> nn.Module:
    """Simonyan and Zisserman (2015) with batch norm and a small head, 15.3 M parameters."""
    layers: list[nn.Module] = []
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [*_conv_bn(channels, width, 3, 1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 512), nn.Linear(512, 1000))


class Inverted(nn.Module):
    """Widen, depthwise 3x3, narrow, and a shortcut where the shape allows it (Sandler et al., 2018)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.body = nn.Sequential(
            *_conv_bn(channels_in, wide, 1, 1),
            nn.ReLU6(inplace=True),
            *_conv_bn(wide, wide, 3, stride, groups=wide),
            nn.ReLU6(inplace=True),
            *_conv_bn(wide, channels_out, 1, 1),
        )
        self.adds = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H', W']."""
        y: Tensor = self.body(x)
        return x + y if self.adds else y


def mobilenet_v2() -> nn.Module:
    """3.5 M parameters."""
    blocks: list[nn.Module] = []
    channels = 32
    for expansion, width, count, stride in (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    ):
        for number in range(count):
            blocks.append(Inverted(channels, width, stride if not number else 1, expansion))
            channels = width
    stem, last = _conv_bn(3, 32, 3, 2), _conv_bn(320, 1280, 1, 1)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000))
    return nn.Sequential(*stem, nn.ReLU6(inplace=True), *blocks, *last, nn.ReLU6(inplace=True), *head)


class Dense(nn.Module):
    """Every layer reads all before it (Huang et al., 2017)."""

    def __init__(self, channels: int, growth: int, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(channels + number * growth),
                nn.ReLU(),
                nn.Conv2d(channels + number * growth, 4 * growth, 1, bias=False),
                nn.BatchNorm2d(4 * growth),
                nn.ReLU(),
                nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
            )
            for number in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C + growth * count, H, W]."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def densenet121() -> nn.Module:
    """8.0 M parameters."""
    layers: list[nn.Module] = [*_conv_bn(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for number, count in enumerate((6, 12, 24, 16)):
        layers.append(Dense(channels, 32, count))
        channels += 32 * count
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        if number < 3:
            layers += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
            channels //= 2
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


class UNet(nn.Module):
    """Ronneberger et al. (2015), 7.8 M parameters."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256, 512)) -> None:
        super().__init__()
        self.down = nn.ModuleList(_twice(a, b) for a, b in zip((3, *widths), widths, strict=False))
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in pairs)
        self.join = nn.ModuleList(_twice(2 * b, b) for _, b in pairs)
        self.out = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 2, H, W]."""
        kept: list[Tensor] = []
        for number, stage in enumerate(self.down):
            x = stage(x if not number else nn.functional.max_pool2d(x, 2))
            kept.append(x)
        for up, join, skip in zip(self.up, self.join, kept[-2::-1], strict=True):
            x = join(torch.cat([up(x), skip], 1))
        scores: Tensor = self.out(x)
        return scores


def _twice(channels_in: int, channels_out: int) -> nn.Module:
    first, second = _conv_bn(channels_in, channels_out, 3, 1), _conv_bn(channels_out, channels_out, 3, 1)
    return nn.Sequential(*first, nn.ReLU(inplace=True), *second, nn.ReLU(inplace=True))


def _conv_bn(
    channels_in: int, channels_out: int, kernel: int, stride: int, groups: int = 1
) -> tuple[nn.Module, nn.Module]:
    return (
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
    )


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()
    return nn.Sequential(*_conv_bn(channels_in, channels_out, 1, stride))
