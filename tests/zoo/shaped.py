"""Parameters of several axes that products take in another shape: einsum, tensordot, a convolution by hand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from autoprune.task.data import Inputs


def _drawn(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) * 0.4)


class EinsumAttention(nn.Module):
    """Attention whose projections have heads and their width as axes of their own."""

    def __init__(self, width: int = 12, heads: int = 3, each: int = 5) -> None:
        super().__init__()
        self.inp, self.out = nn.Linear(6, width), nn.Linear(width, 4)
        self.q, self.k, self.v = (_drawn(width, heads, each) for _ in range(3))
        self.proj = _drawn(heads, each, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        q, k, v = (torch.einsum("bnd,dhe->bnhe", x, weight) for weight in (self.q, self.k, self.v))
        weights = (torch.einsum("bnhe,bmhe->bhnm", q, k) * q.shape[-1] ** -0.5).softmax(-1)
        made: Tensor = self.out((x + torch.einsum("bhnm,bmhe,hed->bnd", weights, v, self.proj)).mean(1))
        return made


class ConvolvedByHand(nn.Module):
    """Patches times a flattened kernel; then a product with two axes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(6, 4)
        self.kernel, self.bias, self.sides = _drawn(10, 6, 3, 3), nn.Parameter(torch.randn(10)), _drawn(10, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        patches = nn.functional.unfold(x, 3, padding=1)
        made = (self.kernel.view(len(self.kernel), -1) @ patches).view(len(x), -1, *x.shape[2:])
        pooled = torch.relu(made + self.bias[:, None, None]).mean((2, 3))
        result: Tensor = self.out(torch.relu(torch.tensordot(pooled, self.sides, dims=1)).flatten(1))
        return result


SHAPED: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "einsum_attention": (EinsumAttention, lambda: torch.randn(2, 7, 6)),
    "convolved_by_hand": (ConvolvedByHand, lambda: torch.randn(2, 1, 6, 6)),
}
