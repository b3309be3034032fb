"""Attention whose masks, positions and choices are worked out by many small operators, as large models do.

None of these operators moves a channel, so one small model shows what takes several large ones otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.task.data import Inputs
from tests.zoo.transformers_hub import VOCAB, ids


def causal(length: int) -> Tensor:
    """Which positions may be looked at [length, length], by ones, triu and a bitwise not."""
    return ~torch.ones(length, length, dtype=torch.bool).triu(1)


def distances(length: int) -> Tensor:
    """Logarithmic buckets of distances [length, length], as DeBERTa and MPNet have them."""
    places = torch.linspace(0, length - 1, length)
    away = places[:, None] - places
    far = torch.minimum(torch.ceil(torch.log2(away.abs() + 1)), torch.full_like(away, 2.0))
    return (torch.sign(away) * far).long() + 2


class MaskedAttention(nn.Module):
    """Two products that begin with a bias, then torch's own attention on rolled tokens under a mask."""

    def __init__(self, width: int = 12, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.embed, self.norm = nn.Embedding(VOCAB, width), nn.LayerNorm(width)
        self.bias = nn.Embedding(5, heads)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 20), nn.Linear(20, width)
        self.out = nn.Linear(width, 5)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def biased(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Scores start from a bias of the distance, as in torch's slow path."""
        batch, _, length, width = q.shape
        start = self.bias(distances(length)).movedim(-1, 0).repeat(batch, 1, 1)
        start = start.masked_fill_(~causal(length), float("-inf"))
        scores = torch.baddbmm(start, q.flatten(0, 1), k.flatten(0, 1).mT / width**0.5)
        return (scores.softmax(-1) @ v.flatten(0, 1)).unflatten(0, (batch, -1))

    def windowed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Tokens rolled by one, those that came around the edge masked."""
        length = q.shape[2]
        region = q.new_zeros(length)
        region[-1:].fill_(1)
        allowed = region[:, None] == region
        if not allowed.any():
            raise ValueError("nothing to look at")
        rolled = (torch.roll(x, 1, 2) for x in (q, k, v))
        return torch.roll(F.scaled_dot_product_attention(*rolled, attn_mask=allowed), -1, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for attend in (self.biased, self.windowed):
            h = self.norm(x)
            mixed = attend(*(self.split(layer(h)) for layer in (self.q, self.k, self.v)))
            x = x + self.o(mixed.transpose(1, 2).flatten(2))
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        # The largest token ends a text, as in CLIP.
        return self.out(x[torch.arange(len(x)), tokens.argmax(-1)])


MASKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "masked_attention": (MaskedAttention, ids),
}
