"""Self-attention as people write it: the layout of its projections times the scale of its logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Heads = tuple[Tensor, Tensor, Tensor]
Mix = Callable[["Attention", Tensor, Tensor, Tensor], Tensor]


class Attention(nn.Module):
    """Four heads of six. `layout` gives [batch, heads, time, width] of queries, keys and values, `mix` their result."""

    def __init__(self, layout: str, mix: Mix, width: int = 20) -> None:
        super().__init__()
        self.layout, self.mix = layout, mix
        self.num_heads, self.head_dim = 4, 6
        self.scale = self.head_dim**-0.5
        if layout == "separate":
            self.q, self.k, self.v = (nn.Linear(width, 24) for _ in range(3))
        else:
            self.qkv = nn.Linear(width, 72)
        self.proj = nn.Linear(24, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(self, *LAYOUTS[self.layout](self, x))
        return self.proj(y.transpose(1, 2).flatten(2))


def separate(m: Attention, x: Tensor) -> Heads:
    q, k, v = (y.view(*x.shape[:2], m.num_heads, m.head_dim).transpose(1, 2) for y in (m.q(x), m.k(x), m.v(x)))
    return q, k, v


def thirds(m: Attention, x: Tensor) -> Heads:
    q, k, v = m.qkv(x).view(*x.shape[:2], 3, m.num_heads, m.head_dim).permute(2, 0, 3, 1, 4)
    return q, k, v


def chunks(m: Attention, x: Tensor) -> Heads:
    q, k, v = (y.unflatten(-1, (m.num_heads, -1)).transpose(1, 2) for y in m.qkv(x).chunk(3, -1))
    return q, k, v


def alternating(m: Attention, x: Tensor) -> Heads:
    q, k, v = m.qkv(x).view(*x.shape[:2], m.num_heads, 3 * m.head_dim).transpose(1, 2).chunk(3, -1)
    return q, k, v


def by_attribute(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(m.head_dim), -1) @ v


def by_shape(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax((q * q.size(-1) ** -0.5) @ k.transpose(-2, -1), -1) @ v


def by_default(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def stored(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax((q @ k.transpose(-2, -1)) * m.scale, -1) @ v


LAYOUTS: Mapping[str, Callable[[Attention, Tensor], Heads]] = {
    "separate": separate,
    "thirds": thirds,
    "chunks": chunks,
    "alternating": alternating,
}
MIXES: Mapping[str, Mix] = {
    "attribute": by_attribute,
    "shape": by_shape,
    "default": by_default,
    "stored": stored,
}


class Model(nn.Module):
    """Embedding, attention in a residual sum, head."""

    def __init__(self, attn: nn.Module, width: int = 20) -> None:
        super().__init__()
        self.inp, self.norm, self.attn, self.out = nn.Linear(10, width), nn.LayerNorm(width), attn, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        return self.out(x + self.attn(self.norm(x)))
