"""Models with parameters that they read in training mode alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from autoprune.task.data import Inputs


class MaskedPlaces(nn.Module):
    """Wav2vec 2's: in training, a learned vector takes the place of spans that NumPy draws; dropout by function."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Linear(5, width)
        self.mask_vector = nn.Parameter(torch.rand(width))
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.training:
            x[torch.from_numpy(np.random.rand(*x.shape[:2]) < 0.5)] = self.masking(x)
        x = functional.dropout(x, 0.1, training=self.training)
        return self.head((x + self.mlp(self.norm(x))).mean(1))

    def masking(self, x: Tensor) -> Tensor:
        """The vector in the place of masked values."""
        return self.mask_vector.to(x.dtype)


class MaskedByWidth(MaskedPlaces):
    """The same, but the vector depends on how many channels there are."""

    def masking(self, x: Tensor) -> Tensor:
        return super().masking(x) * x.shape[-1]


class AuxiliaryHead(nn.Module):
    """GoogLeNet's: a second classifier, in training alone."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.auxiliary = nn.Sequential(
            nn.Conv2d(width, 8, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
        )
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.stem(x)
        out: Tensor = self.head(self.body(x).mean((2, 3)))
        return (out, self.auxiliary(x)) if self.training else out


TRAINING: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "masked_places": (MaskedPlaces, lambda: torch.randn(2, 6, 5)),
    "auxiliary_head": (AuxiliaryHead, lambda: torch.randn(2, 1, 8, 8)),
}
