"""Layers as people write them: additions in the model around them, norms that come last, equal layers in a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from autoprune.task.data import Inputs


def feed_forward(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class AddedOutside(nn.Module):
    """Residual MLP whose additions stand in the forward of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.out = nn.Linear(20, 16), nn.Linear(16, 3)
        self.layers = nn.ModuleList(feed_forward(16, 24) for _ in range(3))
        self.gain, self.drop = nn.Parameter(torch.rand(3, 16) + 0.5), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        for layer, gain in zip(self.layers, self.gain, strict=True):
            x = x + self.drop(gain * layer(x))
        return self.out(x)


class Inline(nn.Module):
    """Pre-norm layer that calls norm, attention and both halves of its feed-forward one by one."""

    def __init__(self, width: int = 16, parallel: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.fc1, self.fc2, self.parallel = nn.Linear(width, 24), nn.Linear(24, width), parallel

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        attended = self.attn(y, y, y, need_weights=False)[0]
        if self.parallel:
            return x + attended + self.fc2(torch.relu(self.fc1(y)))
        x = x + attended
        x += self.fc2(torch.relu(self.fc1(self.norm2(x))))
        return x


class Sequences(nn.Module):
    """Linear, layers over a sequence, mean, linear."""

    def __init__(self, *layers: nn.Module, width: int = 16) -> None:
        super().__init__()
        self.inp, self.layers, self.out = nn.Linear(8, width), nn.ModuleList(layers), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        for layer in self.layers:
            x = layer(x)
        return self.out(x.mean(1))


class PostNorm(nn.Module):
    """Norms after the additions, with the scale of a deep network on what is carried on."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.attn, self.mlp = nn.MultiheadAttention(width, 2, batch_first=True), feed_forward(width, 24)[1:]
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(1.3 * x + self.attn(x, x, x, need_weights=False)[0])
        return self.norm2(1.3 * x + self.mlp(x))


def equal_convolutions() -> nn.Module:
    """A stack as in VGG, each convolution with a norm and channels of its own."""
    body = [part for _ in range(3) for part in (nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())]
    return nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3))


DEPTH: Mapping[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "added_outside": (AddedOutside, lambda: torch.randn(2, 20)),
    "inline_halves": (lambda: Sequences(Inline(), Inline()), lambda: torch.randn(2, 5, 8)),
    "parallel_halves": (lambda: Sequences(Inline(parallel=True)), lambda: torch.randn(2, 5, 8)),
    "post_norm_scaled": (lambda: Sequences(PostNorm(), PostNorm()), lambda: torch.randn(2, 5, 8)),
    "equal_convolutions": (equal_convolutions, lambda: torch.randn(2, 1, 8, 8)),
}
