"""The networks of the comparison, with dense weights trained on first use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from autoprune.plan.recovery import RecoveryPlan
from studies.fashion_mnist.model import MakeOptimizer, ResNet14, sgd, trained

#: Where dense weights are kept.
FOLDER = Path("benchmarks") / "out"


class Inverted(nn.Module):
    """Expand by a 1x1 convolution, a depthwise 3x3, project by a 1x1; a shortcut where shapes allow it.

    Source: Sandler et al., MobileNetV2, 2018.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = channels_in * expand
        self.expand = nn.Sequential(nn.Conv2d(channels_in, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()
        )
        self.project = nn.Sequential(nn.Conv2d(wide, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out))
        self.shortcut = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H', W']."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


class MobileNet(nn.Module):
    """MobileNetV2 for [N, 1, 28, 28]: the sixteen expanding blocks of the original at a quarter of its width."""

    #: Blocks, channels and first stride of each stage.
    STAGES = ((2, 8, 1), (3, 12, 2), (4, 16, 2), (3, 24, 1), (3, 40, 1), (1, 80, 1))

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        channels = 12
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU6())
        blocks: list[nn.Module] = []
        for count, width, stride in self.STAGES:
            for number in range(count):
                blocks.append(Inverted(channels, width, stride if number == 0 else 1, 4))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(nn.Conv2d(channels, 160, 1, bias=False), nn.BatchNorm2d(160), nn.ReLU6())
        self.head = nn.Linear(160, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 28, 28] -> class scores [N, classes]."""
        scores: Tensor = self.head(self.last(self.blocks(self.stem(x))).mean((2, 3)))
        return scores


class Plain(nn.Module):
    """Like VGG for [N, 1, 28, 28]: six convolutions in three stages and a hidden linear layer.

    Source: Simonyan and Zisserman, Very deep convolutional networks, 2014.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width in (16, 32, 64):
            for _ in range(2):
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(channels * 9, 64), nn.ReLU())
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, classes]."""
        scores: Tensor = self.head(self.hidden(self.features(x)))
        return scores


class Layer(nn.Module):
    """Attention and a perceptron, each on what a LayerNorm gives and added to what comes in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[N, tokens, width] -> the same."""
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        added: Tensor = x + self.perceptron(self.norm2(x))
        return added


class VisionTransformer(nn.Module):
    """For [N, 1, 28, 28]: 49 patches, four layers of four heads (Dosovitskiy et al. 2021), the mean of the tokens."""

    def __init__(self, width: int = 64, layers: int = 4, heads: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.places = nn.Parameter(0.02 * torch.randn(1, 49, width))
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, classes]."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        scores: Tensor = self.head(self.norm(self.layers(tokens)).mean(1))
        return scores


def adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """What suits networks with LayerNorm."""
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05)


NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], MakeOptimizer]] = {
    "resnet14": (ResNet14, sgd),
    "mobilenet": (MobileNet, sgd),
    "plain": (Plain, sgd),
    "vit": (VisionTransformer, adamw),
}


def recovery(name: str) -> RecoveryPlan:
    """How the sweeps fine-tune that network: by the optimizer that trained it."""
    if NETWORKS[name][1] is adamw:
        return RecoveryPlan(optimizer="adamw", learning_rate=1e-3)
    return RecoveryPlan(learning_rate=0.05)


def dense(name: str) -> nn.Module:
    """The trained network of that name, in eval mode; trained on the study's training data where it is not yet."""
    build, make_optimizer = NETWORKS[name]
    return trained(build, FOLDER / f"{name}.safetensors", make_optimizer=make_optimizer)
