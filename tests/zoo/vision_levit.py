"""LeViT and EfficientFormer: attention with learned biases by distance, norms over batches."""

from __future__ import annotations

from collections import OrderedDict
from typing import Self

import torch
from torch import Tensor, nn

from tests.zoo.vision_layers import Catalogue, DropPath, LayerScale, Mlp, images, stirred


class ConvNorm(nn.Module):
    def __init__(self, in_chs: int, out_chs: int, kernel_size: int = 1, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.linear = nn.Conv2d(in_chs, out_chs, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_chs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.linear(x))


class LinearNorm(nn.Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.bn = nn.BatchNorm1d(out_features)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return self.bn(x.flatten(0, 1)).reshape_as(x)


class NormLinear(nn.Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(in_features)
        self.drop = nn.Dropout(0.1)
        self.linear = nn.Linear(in_features, out_features, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.drop(self.bn(x)))


class LevitAttention(nn.Module):
    """`cached`: as in Facebook's own code, the biases are looked up when the model goes to eval mode and kept."""

    ab: Tensor
    attention_bias_idxs: Tensor

    def __init__(self, dim: int, key_dim: int, num_heads: int, attn_ratio: float, side: int, cached: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = key_dim**-0.5
        self.key_dim = key_dim
        self.key_attn_dim = key_dim * num_heads
        self.val_dim = int(attn_ratio * key_dim)
        self.val_attn_dim = int(attn_ratio * key_dim) * num_heads
        self.cached = cached
        self.qkv = LinearNorm(dim, self.val_attn_dim + self.key_attn_dim * 2)
        self.proj = nn.Sequential(OrderedDict([("act", nn.Hardswish()), ("ln", LinearNorm(self.val_attn_dim, dim))]))
        self.attention_biases = nn.Parameter(torch.randn(num_heads, side * side))
        pos = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        rel_pos = (pos[..., :, None] - pos[..., None, :]).abs()
        rel_pos = (rel_pos[0] * side) + rel_pos[1]
        self.register_buffer("attention_bias_idxs", rel_pos, persistent=False)

    @torch.no_grad()
    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.cached:
            if mode and hasattr(self, "ab"):
                del self.ab
            else:
                self.ab = self.attention_biases[:, self.attention_bias_idxs]
        return self

    def get_attention_biases(self) -> Tensor:
        if self.cached and not self.training:
            return self.ab
        return self.attention_biases[:, self.attention_bias_idxs]

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, self.num_heads, -1).split([self.key_dim, self.key_dim, self.val_dim], dim=3)
        q = q.permute(0, 2, 1, 3)
        k = k.permute(0, 2, 3, 1)
        v = v.permute(0, 2, 1, 3)
        attn = q @ k * self.scale + self.get_attention_biases()
        attn = attn.softmax(dim=-1)
        x = (attn @ v).transpose(1, 2).reshape(b, n, self.val_attn_dim)
        return self.proj(x)


class Subsample(nn.Module):
    def __init__(self, stride: int, side: int) -> None:
        super().__init__()
        self.stride = stride
        self.resolution = (side, side)

    def forward(self, x: Tensor) -> Tensor:
        b, _, c = x.shape
        x = x.view(b, self.resolution[0], self.resolution[1], c)
        x = x[:, :: self.stride, :: self.stride]
        return x.reshape(b, -1, c)


class AttentionDownsample(nn.Module):
    attention_bias_idxs: Tensor

    def __init__(self, in_dim: int, out_dim: int, key_dim: int, num_heads: int, attn_ratio: float, side: int) -> None:
        super().__init__()
        self.stride = 2
        self.num_heads = num_heads
        self.key_dim = key_dim
        self.key_attn_dim = key_dim * num_heads
        self.val_dim = int(attn_ratio * key_dim)
        self.val_attn_dim = self.val_dim * self.num_heads
        self.scale = key_dim**-0.5
        self.kv = LinearNorm(in_dim, self.val_attn_dim + self.key_attn_dim)
        layers: list[tuple[str, nn.Module]] = [
            ("down", Subsample(self.stride, side)),
            ("ln", LinearNorm(in_dim, self.key_attn_dim)),
        ]
        self.q = nn.Sequential(OrderedDict(layers))
        layers = [("act", nn.Hardswish()), ("ln", LinearNorm(self.val_attn_dim, out_dim))]
        self.proj = nn.Sequential(OrderedDict(layers))
        self.attention_biases = nn.Parameter(torch.randn(num_heads, side * side))
        grid = torch.arange(side)
        k_pos = torch.stack(torch.meshgrid(grid, grid, indexing="ij")).flatten(1)
        q_pos = torch.stack(torch.meshgrid(grid[::2], grid[::2], indexing="ij")).flatten(1)
        rel_pos = (q_pos[..., :, None] - k_pos[..., None, :]).abs()
        self.register_buffer("attention_bias_idxs", (rel_pos[0] * side) + rel_pos[1], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        k, v = self.kv(x).view(b, n, self.num_heads, -1).split([self.key_dim, self.val_dim], dim=3)
        k = k.permute(0, 2, 3, 1)
        v = v.permute(0, 2, 1, 3)
        q = self.q(x).view(b, -1, self.num_heads, self.key_dim).permute(0, 2, 1, 3)
        attn = q @ k * self.scale + self.attention_biases[:, self.attention_bias_idxs]
        attn = attn.softmax(dim=-1)
        x = (attn @ v).transpose(1, 2).reshape(b, -1, self.val_attn_dim)
        return self.proj(x)


class LevitMlp(nn.Module):
    def __init__(self, in_features: int, hidden_features: int) -> None:
        super().__init__()
        self.ln1 = LinearNorm(in_features, hidden_features)
        self.act = nn.Hardswish()
        self.drop = nn.Dropout(0.1)
        self.ln2 = LinearNorm(hidden_features, in_features)

    def forward(self, x: Tensor) -> Tensor:
        x = self.ln1(x)
        x = self.act(x)
        x = self.drop(x)
        return self.ln2(x)


class LevitBlock(nn.Module):
    def __init__(self, dim: int, key_dim: int, num_heads: int, side: int, cached: bool) -> None:
        super().__init__()
        self.attn = LevitAttention(dim, key_dim, num_heads, 2.0, side, cached)
        self.drop_path1 = DropPath()
        self.mlp = LevitMlp(dim, dim * 2)
        self.drop_path2 = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.attn(x))
        return x + self.drop_path2(self.mlp(x))


class Levit(nn.Module):
    def __init__(self, cached: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, 12, 3, 2, 1), nn.Hardswish(), ConvNorm(12, 16, 3, 2, 1))
        self.stages = nn.Sequential(
            LevitBlock(16, 4, 3, 4, cached), AttentionDownsample(16, 24, 4, 4, 3.0, 4), LevitBlock(24, 6, 2, 2, cached)
        )
        self.head = NormLinear(24, 10)
        self.head_dist = NormLinear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x.flatten(2).transpose(1, 2)
        x = self.stages(x)
        x = x.mean(dim=1)
        x, x_dist = self.head(x), self.head_dist(x)
        return (x + x_dist) / 2


class EfficientFormerAttention(nn.Module):
    attention_bias_idxs: Tensor

    def __init__(self, dim: int, key_dim: int, num_heads: int, attn_ratio: int, side: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = key_dim**-0.5
        self.key_dim = key_dim
        self.key_attn_dim = key_dim * num_heads
        self.val_dim = int(attn_ratio * key_dim)
        self.val_attn_dim = self.val_dim * num_heads
        self.qkv = nn.Linear(dim, self.key_attn_dim * 2 + self.val_attn_dim)
        self.proj = nn.Linear(self.val_attn_dim, dim)
        pos = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        rel_pos = (pos[..., :, None] - pos[..., None, :]).abs()
        self.attention_biases = nn.Parameter(torch.randn(num_heads, side * side))
        self.register_buffer("attention_bias_idxs", (rel_pos[0] * side) + rel_pos[1])

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = self.qkv(x)
        qkv = qkv.reshape(b, n, self.num_heads, -1).permute(0, 2, 1, 3)
        q, k, v = qkv.split([self.key_dim, self.key_dim, self.val_dim], dim=3)
        attn = (q @ k.transpose(-2, -1)) * self.scale
        attn = attn + self.attention_biases[:, self.attention_bias_idxs]
        attn = attn.softmax(dim=-1)
        x = (attn @ v).transpose(1, 2).reshape(b, n, self.val_attn_dim)
        return self.proj(x)


class LayerScale2d(LayerScale):
    def forward(self, x: Tensor) -> Tensor:
        gamma = self.gamma.view(1, -1, 1, 1)
        return x.mul_(gamma) if self.inplace else x * gamma


class ConvMlpWithNorm(nn.Module):
    def __init__(self, in_features: int, hidden_features: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(in_features, hidden_features, 1)
        self.norm1 = nn.BatchNorm2d(hidden_features)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden_features, in_features, 1)
        self.norm2 = nn.BatchNorm2d(in_features)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm1(self.fc1(x)))
        return self.norm2(self.fc2(x))


class MetaBlock2d(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        self.mlp = ConvMlpWithNorm(dim, dim * 2)
        self.ls1 = LayerScale2d(dim)
        self.ls2 = LayerScale2d(dim)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.ls1(self.pool(x) - x))
        return x + self.drop_path(self.ls2(self.mlp(x)))


class MetaBlock1d(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.token_mixer = EfficientFormerAttention(dim, 4, 3, 3, 4)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, dim * 2)
        self.ls1 = LayerScale(dim)
        self.ls2 = LayerScale(dim)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.ls1(self.token_mixer(self.norm1(x))))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


class Flat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


class EfficientFormer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.stages = nn.Sequential(
            MetaBlock2d(12), ConvNorm(12, 20, 3, 2, 1), MetaBlock2d(20), Flat(), MetaBlock1d(20)
        )
        self.norm = nn.LayerNorm(20)
        self.head = nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stages(self.stem(x)))
        return self.head(x.mean(dim=1))


LEVITS: Catalogue = {
    "levit": (stirred(lambda: Levit(cached=False)), images()),
    "levit_cached": (stirred(lambda: Levit(cached=True)), images()),
    "efficientformer": (stirred(EfficientFormer), images()),
}
