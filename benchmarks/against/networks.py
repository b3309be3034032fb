"""The networks of the comparison, with dense weights trained on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from studies.fashion_mnist.model import ResNet14, trained

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


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {"resnet14": ResNet14, "mobilenet": MobileNet}


def dense(name: str) -> nn.Module:
    """The trained network of that name, in eval mode; trained on the study's training data where it is not yet."""
    return trained(NETWORKS[name], FOLDER / f"{name}.safetensors")
