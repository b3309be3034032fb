"""Attention that looks at some places: in windows (Twins), and at places that it computes (Deformable DETR)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.convolutional import conv_bn
from tests.zoo.vision_layers import Catalogue, Mlp, images, stirred


class LocallyGroupedAttention(nn.Module):
    """timm's: every window by itself, as wide as the input."""

    def __init__(self, dim: int, num_heads: int, ws: int) -> None:
        super().__init__()
        self.num_heads, self.ws = num_heads, ws
        self.scale = (dim // num_heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, dim * 3), nn.Linear(dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        b, n, c = x.shape
        h, w = size[0] // self.ws, size[1] // self.ws
        x = x.view(b, *size, c).reshape(b, h, self.ws, w, self.ws, c).transpose(2, 3)
        qkv = self.qkv(x).reshape(b, h * w, self.ws * self.ws, 3, self.num_heads, c // self.num_heads)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v)
        x = x.transpose(2, 3).reshape(b, h, w, self.ws, self.ws, c)
        return self.proj(x.transpose(2, 3).reshape(b, n, c))


class GlobalSubSampleAttention(nn.Module):
    """timm's: all places look at every other one of them, which a convolution sums up."""

    def __init__(self, dim: int, num_heads: int, sr_ratio: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(dim, dim * 2), nn.Linear(dim, dim)
        self.sr, self.norm = nn.Conv2d(dim, dim, sr_ratio, sr_ratio), nn.LayerNorm(dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        b, n, c = x.shape
        q = self.q(x).reshape(b, n, self.num_heads, c // self.num_heads).permute(0, 2, 1, 3)
        x = self.sr(x.permute(0, 2, 1).reshape(b, c, *size)).reshape(b, c, -1).permute(0, 2, 1)
        kv = self.kv(self.norm(x)).reshape(b, -1, 2, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, *kv.unbind(0))
        return self.proj(x.transpose(1, 2).reshape(b, n, c))


class TwinsBlock(nn.Module):
    def __init__(self, dim: int, num_heads: int, *, local: bool) -> None:
        super().__init__()
        self.norm1, self.norm2, self.mlp = nn.LayerNorm(dim), nn.LayerNorm(dim), Mlp(dim, dim * 4)
        self.attn: nn.Module = (
            LocallyGroupedAttention(dim, num_heads, 2) if local else GlobalSubSampleAttention(dim, num_heads, 2)
        )

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = x + self.attn(self.norm1(x), size)
        return x + self.mlp(self.norm2(x))


class Twins(nn.Module):
    """Windows and all places in turn, a convolution for positions between them."""

    def __init__(self, dim: int = 24, num_heads: int = 3) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, 4, 4)
        self.blocks = nn.ModuleList(TwinsBlock(dim, num_heads, local=local) for local in (True, False))
        self.pos = nn.Conv2d(dim, dim, 3, 1, 1, groups=dim)
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        size = x.shape[2], x.shape[3]
        x = x.flatten(2).transpose(1, 2)
        for number, block in enumerate(self.blocks):
            x = block(x, size)
            if number == 0:
                places = x.transpose(1, 2).view(len(x), -1, *size)
                x = (self.pos(places) + places).flatten(2).transpose(1, 2)
        return self.head(self.norm(x).mean(1))


class DeformableAttention(nn.Module):
    """Each head looks at a few places of each map, which are computed from the query, and weighs what is there."""

    def __init__(self, dim: int, n_heads: int, n_levels: int, n_points: int) -> None:
        super().__init__()
        self.d_model, self.n_heads, self.n_levels, self.n_points = dim, n_heads, n_levels, n_points
        self.sampling_offsets = nn.Linear(dim, n_heads * n_levels * n_points * 2)
        self.attention_weights = nn.Linear(dim, n_heads * n_levels * n_points)
        self.value_proj, self.output_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, query: Tensor, reference: Tensor, maps: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
        b, n, _ = query.shape
        value = self.value_proj(maps).view(b, -1, self.n_heads, self.d_model // self.n_heads)
        offsets = self.sampling_offsets(query).view(b, n, self.n_heads, self.n_levels, self.n_points, 2)
        weights = self.attention_weights(query).view(b, n, self.n_heads, self.n_levels * self.n_points).softmax(-1)
        sizes = torch.tensor([[w, h] for h, w in shapes], dtype=query.dtype)
        places = reference[:, :, None, None, None] + offsets / sizes[None, None, None, :, None]
        grids = 2 * places - 1
        sampled = []
        for level, (part, (h, w)) in enumerate(zip(value.split([h * w for h, w in shapes], 1), shapes, strict=True)):
            part = part.flatten(2).transpose(1, 2).reshape(b * self.n_heads, -1, h, w)
            grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
            sampled.append(F.grid_sample(part, grid, align_corners=False))
        weights = weights.transpose(1, 2).reshape(b * self.n_heads, 1, n, self.n_levels * self.n_points)
        mixed = (torch.stack(sampled, -2).flatten(-2) * weights).sum(-1)
        return self.output_proj(mixed.view(b, -1, n).transpose(1, 2))


class DeformableDetr(nn.Module):
    """Two maps of one width, queries that are learned with the places that they refer to, boxes."""

    def __init__(self, dim: int = 24, queries: int = 5, points: int = 3) -> None:
        super().__init__()
        self.first, self.second = conv_bn(3, 12), conv_bn(12, 16)
        self.projections = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in (12, 16))
        self.queries, self.reference = nn.Embedding(queries, dim), nn.Embedding(queries, 2)
        self.cross_attn, self.norm1 = DeformableAttention(dim, 4, 2, points), nn.LayerNorm(dim)
        self.mlp, self.norm2 = Mlp(dim, dim * 2), nn.LayerNorm(dim)
        self.class_embed, self.bbox_embed = nn.Linear(dim, 4), nn.Linear(dim, 4)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        first = self.first(F.max_pool2d(images, 2))
        second = self.second(F.max_pool2d(first, 2))
        maps = [project(each) for project, each in zip(self.projections, (first, second), strict=True)]
        shapes = [(each.shape[2], each.shape[3]) for each in maps]
        memory = torch.cat([each.flatten(2).transpose(1, 2) for each in maps], 1)
        x = self.queries.weight.expand(len(images), -1, -1)
        reference = self.reference.weight.sigmoid().expand(len(images), -1, -1)
        x = self.norm1(x + self.cross_attn(x, reference, memory, shapes))
        x = self.norm2(x + self.mlp(x))
        return self.class_embed(x), self.bbox_embed(x)


LOCAL: Catalogue = {
    "twins": (stirred(Twins), images()),
    "deformable_detr": (stirred(DeformableDetr), images()),
}
