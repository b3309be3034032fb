"""Networks that mix tokens without attention: by linear layers over places, gates, convolutions or Fourier filters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoo.vision_layers import Catalogue, DropPath, Mlp, images, stirred


class MixerBlock(nn.Module):
    """timm."""

    def __init__(self, dim: int, seq_len: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.mlp_tokens = Mlp(seq_len, dim // 2)
        self.drop_path = DropPath()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp_channels = Mlp(dim, dim * 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mlp_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2))
        return x + self.drop_path(self.mlp_channels(self.norm2(x)))


class Affine(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.rand(1, 1, dim) + 0.5)
        self.beta = nn.Parameter(torch.randn(1, 1, dim) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.beta, self.alpha, x)


class ResBlock(nn.Module):
    """ResMLP (timm)."""

    def __init__(self, dim: int, seq_len: int) -> None:
        super().__init__()
        self.norm1 = Affine(dim)
        self.linear_tokens = nn.Linear(seq_len, seq_len)
        self.drop_path = DropPath()
        self.norm2 = Affine(dim)
        self.mlp_channels = Mlp(dim, dim * 2)
        self.ls1 = nn.Parameter(torch.rand(dim) + 0.5)
        self.ls2 = nn.Parameter(torch.rand(dim) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.ls1 * self.linear_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2))
        return x + self.drop_path(self.ls2 * self.mlp_channels(self.norm2(x)))


class SpatialGatingUnit(nn.Module):
    """gMLP (timm)."""

    def __init__(self, dim: int, seq_len: int) -> None:
        super().__init__()
        gate_dim = dim // 2
        self.norm = nn.LayerNorm(gate_dim)
        self.proj = nn.Linear(seq_len, seq_len)

    def forward(self, x: Tensor) -> Tensor:
        u, v = x.chunk(2, dim=-1)
        v = self.norm(v)
        v = self.proj(v.transpose(-1, -2))
        return u * v.transpose(-1, -2)


class SpatialGatingBlock(nn.Module):
    def __init__(self, dim: int, seq_len: int) -> None:
        super().__init__()
        channel_dim = dim * 3
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, channel_dim)
        self.act = nn.GELU()
        self.gate = SpatialGatingUnit(channel_dim, seq_len)
        self.fc2 = nn.Linear(channel_dim // 2, dim)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.fc1(self.norm(x)))
        y = self.gate(y)
        return x + self.drop_path(self.fc2(y))


class MlpMixer(nn.Module):
    def __init__(self, block: type[MixerBlock | ResBlock | SpatialGatingBlock], dim: int = 24) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, dim, 4, 4)
        self.blocks = nn.Sequential(block(dim, 16), block(dim, 16))
        self.norm = Affine(dim) if block is ResBlock else nn.LayerNorm(dim)
        self.head_drop = nn.Dropout(0.1)
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = self.blocks(x)
        x = self.norm(x)
        x = x.mean(dim=1)
        x = self.head_drop(x)
        return self.head(x)


class Residual(nn.Module):
    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x) + x


def conv_mixer(dim: int = 24, kernel_size: int = 5) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, dim, kernel_size=2, stride=2),
        nn.GELU(),
        nn.BatchNorm2d(dim),
        *[
            nn.Sequential(
                Residual(
                    nn.Sequential(
                        nn.Conv2d(dim, dim, kernel_size, groups=dim, padding="same"), nn.GELU(), nn.BatchNorm2d(dim)
                    )
                ),
                nn.Conv2d(dim, dim, kernel_size=1),
                nn.GELU(),
                nn.BatchNorm2d(dim),
            )
            for _ in range(2)
        ],
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
        nn.Linear(dim, 10),
    )


class GlobalFilter(nn.Module):
    """GFNet: a learned filter per channel in the frequency domain."""

    def __init__(self, dim: int, h: int, w: int) -> None:
        super().__init__()
        self.complex_weight = nn.Parameter(torch.randn(h, w, dim, 2) * 0.5)
        self.w = w
        self.h = h

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        a = int(n**0.5)
        x = x.view(b, a, a, c)
        x = torch.fft.rfft2(x, dim=(1, 2), norm="ortho")
        weight = torch.view_as_complex(self.complex_weight)
        x = x * weight
        x = torch.fft.irfft2(x, s=(a, a), dim=(1, 2), norm="ortho")
        return x.reshape(b, n, c)


class GfBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.filter = GlobalFilter(dim, 4, 3)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, dim * 2)
        self.gamma = nn.Parameter(torch.rand(dim) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.mlp(self.norm2(self.filter(self.norm1(x))))


class GFNet(nn.Module):
    def __init__(self, dim: int = 20) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, 4, 4)
        self.pos_embed = nn.Parameter(torch.randn(1, 16, dim) * 0.3)
        self.blocks = nn.ModuleList([GfBlock(dim), GfBlock(dim)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = x + self.pos_embed
        for blk in self.blocks:
            x = blk(x)
        x = self.norm(x).mean(1)
        return self.head(x)


MIXERS: Catalogue = {
    "mlp_mixer": (stirred(lambda: MlpMixer(MixerBlock)), images()),
    "res_mlp": (stirred(lambda: MlpMixer(ResBlock)), images()),
    "g_mlp": (stirred(lambda: MlpMixer(SpatialGatingBlock)), images()),
    "conv_mixer": (stirred(conv_mixer), images()),
    "gfnet": (stirred(GFNet), images()),
}
