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


class Bottleneck(nn.Module):
    """1x1, 3x3 (possibly grouped), 1x1 convolutions and a shortcut, as in ResNet-50 and ResNeXt."""

    def __init__(self, channels_in: int, width: int, out: int, groups: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv_bn(channels_in, width, 1)
        self.conv2 = conv_bn(width, width, 3, stride, groups)
        self.conv3 = nn.Sequential(nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out))
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv3(self.conv2(self.conv1(x))) + self.shortcut(x))


def bottleneck_resnet(groups: int = 1, classes: int = 10) -> nn.Module:
    return nn.Sequential(
        conv_bn(1, 8),
        Bottleneck(8, 8, 16, groups),
        Bottleneck(16, 8, 16, groups),
        Bottleneck(16, 12, 24, groups, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, classes),
    )


class DenseLayer(nn.Module):
    """Norm, activation, convolution; its output is joined to its input."""

    def __init__(self, channels_in: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels_in)
        self.conv = nn.Conv2d(channels_in, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(torch.relu(self.norm(x)))], 1)


def densenet(classes: int = 10) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, 1, 1),
        DenseLayer(6, 4),
        DenseLayer(10, 4),
        nn.BatchNorm2d(14),
        nn.Conv2d(14, 8, 1),
        nn.AvgPool2d(2),
        DenseLayer(8, 4),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, classes),
    )


class SqueezeExcite(nn.Module):
    """A gate per channel, computed from all of them."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, reduced, 1)
        self.up = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))


def squeeze_excite(classes: int = 10) -> nn.Module:
    return nn.Sequential(
        conv_bn(1, 8),
        SqueezeExcite(8, 4),
        conv_bn(8, 12, stride=2),
        SqueezeExcite(12, 4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, classes),
    )


class Decoder(nn.Module):
    """Down and up again with a skip connection; the output is an image."""

    def __init__(self) -> None:
        super().__init__()
        self.down = conv_bn(1, 8)
        self.inner = conv_bn(8, 12)
        self.up = nn.ConvTranspose2d(12, 8, 2, 2)
        self.norm = nn.BatchNorm2d(8)
        self.join = conv_bn(16, 10)
        self.up2 = nn.ConvTranspose2d(10, 6, 3, 1, 1, bias=False)
        self.out = nn.Conv2d(6, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        inner = self.inner(nn.functional.max_pool2d(skip, 2))
        joined = self.join(torch.cat([skip, torch.relu(self.norm(self.up(inner)))], 1))
        return self.out(torch.relu(self.up2(joined)))


def conv1d(classes: int = 5) -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 8, 5, padding=2),
        nn.BatchNorm1d(8),
        nn.PReLU(8),
        nn.MaxPool1d(2),
        nn.Conv1d(8, 12, 3, padding=1),
        nn.LeakyReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(12, classes),
    )


def conv3d(classes: int = 5) -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm3d(6),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(6, 8, 3, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(8 * 8, classes),
    )


class PaddedShortcut(nn.Module):
    """Option A of the ResNet paper: the shortcut is subsampled and padded with channels of zeros."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = conv_bn(1, 8)
        self.conv1 = conv_bn(8, 12, stride=2)
        self.conv2 = nn.Sequential(nn.Conv2d(12, 12, 3, 1, 1, bias=False), nn.BatchNorm2d(12))
        self.head = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        shortcut = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return self.head(torch.relu(self.conv2(self.conv1(x)) + shortcut).mean((2, 3)))


def depthwise_multiplier(classes: int = 10) -> nn.Module:
    return nn.Sequential(
        conv_bn(1, 6),
        conv_bn(6, 12, groups=6),
        conv_bn(12, 8, 1),
        nn.Conv2d(8, 24, 3, padding=1, groups=8),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, classes),
    )


class UsedTwice(nn.Module):
    """One convolution and one norm called twice in a forward, at two resolutions."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = conv_bn(1, 8)
        self.shared = nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.wide = nn.Conv2d(8, 12, 1)
        self.head = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.shared(self.stem(x))))
        x = torch.relu(self.norm(self.shared(nn.functional.avg_pool2d(x, 2))))
        return self.head(torch.relu(self.wide(x)).mean((2, 3)))


class TiedWeights(nn.Module):
    """Two depthwise convolutions and two linear layers that share a weight without a bias of their own."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.depthwise_again = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.depthwise_again.weight = self.depthwise.weight
        self.expand = nn.Linear(8, 12, bias=False)
        self.middle = nn.Linear(12, 8)
        self.expand_again = nn.Linear(8, 12, bias=False)
        self.expand_again.weight = self.expand.weight
        self.head = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.depthwise_again(torch.relu(self.depthwise(torch.relu(self.first(x))))))
        x = torch.relu(self.middle(torch.relu(self.expand(x.mean((2, 3))))))
        return self.head(torch.relu(self.expand_again(x)))


def layer_norm_net(classes: int = 5) -> nn.Module:
    """The channels of the first group are normalised together; those of the second are not."""
    return nn.Sequential(
        nn.Linear(20, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, classes)
    )


def group_norm_net(classes: int = 5) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        conv_bn(8, 12),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, classes),
    )


def deep_mlp(classes: int = 5) -> nn.Module:
    """No norm, one without a bias, square layers."""
    return nn.Sequential(
        nn.Linear(20, 16),
        nn.Tanh(),
        nn.Linear(16, 16, bias=False),
        nn.Sigmoid(),
        nn.Linear(16, 16),
        nn.ELU(),
        nn.Linear(16, classes),
    )


def one_number_mlp(features: int = 1) -> nn.Module:
    """One feature in, one number out: a curve fit, or the head of a yes/no question."""
    return nn.Sequential(nn.Linear(features, 16), nn.Tanh(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 1))


class ResidualMlp(nn.Module):
    """Residual blocks over sequences [N, L, C]."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 12)
        self.up = nn.Linear(12, 24)
        self.down = nn.Linear(24, 12)
        self.head = nn.Linear(12, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        x = x + self.down(torch.nn.functional.gelu(self.up(x)))
        return self.head(x.mean(1))


class GatedLinear(nn.Module):
    """One projection whose halves are value and gate (GLU)."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.project = nn.Linear(20, 24)
        self.head = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.project(x).chunk(2, 1)
        return self.head(value * torch.sigmoid(gate))


class HeadGate(nn.Module):
    """Features read as a grid of heads times width, each head with a gate: both sides of the grid can shrink."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.features = nn.Linear(20, 4 * 6)
        self.gate = nn.Linear(20, 4)
        self.head = nn.Linear(4 * 6, classes)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        grid = torch.relu(self.features(x)).unflatten(1, (gate.shape[1], -1))
        return self.head((grid * gate.unsqueeze(2)).flatten(1))


class GroupedDecoder(nn.Module):
    """A grouped transposed convolution: its channels have to stay."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(1, 8)
        self.inner = conv_bn(8, 8)
        self.up = nn.ConvTranspose2d(8, 12, 2, 2, groups=2)
        self.out = nn.Conv2d(12, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.up(self.inner(self.stem(x)))))
