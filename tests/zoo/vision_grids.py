"""Attention within blocks and grids (MaxViT), windows with decomposed positions (SAM), neighbourhoods (VOLO)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.vision_layers import Catalogue, DropPath, Mlp, images, stirred


class RelativePositionalMultiHeadAttention(nn.Module):
    """torchvision's MaxViT, over [B, G, P, D]."""

    relative_position_index: Tensor

    def __init__(self, feat_dim: int, head_dim: int, side: int) -> None:
        super().__init__()
        self.n_heads = feat_dim // head_dim
        self.head_dim = head_dim
        self.size = side
        self.max_seq_len = side**2
        self.to_qkv = nn.Linear(feat_dim, self.n_heads * self.head_dim * 3)
        self.scale_factor = feat_dim**-0.5
        self.merge = nn.Linear(self.head_dim * self.n_heads, feat_dim)
        self.relative_position_bias_table = nn.Parameter(torch.randn((2 * side - 1) ** 2, self.n_heads))
        coords = torch.flatten(torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")), 1)
        relative = (coords[:, :, None] - coords[:, None, :]).permute(1, 2, 0) + side - 1
        self.register_buffer("relative_position_index", relative[..., 0] * (2 * side - 1) + relative[..., 1])

    def get_relative_positional_bias(self) -> Tensor:
        bias_index = self.relative_position_index.view(-1)
        relative_bias = self.relative_position_bias_table[bias_index].view(self.max_seq_len, self.max_seq_len, -1)
        relative_bias = relative_bias.permute(2, 0, 1).contiguous()
        return relative_bias.unsqueeze(0)

    def forward(self, x: Tensor) -> Tensor:
        b, g, p, d = x.shape
        h, dh = self.n_heads, self.head_dim
        qkv = self.to_qkv(x)
        q, k, v = torch.chunk(qkv, 3, dim=-1)
        q = q.reshape(b, g, p, h, dh).permute(0, 1, 3, 2, 4)
        k = k.reshape(b, g, p, h, dh).permute(0, 1, 3, 2, 4)
        v = v.reshape(b, g, p, h, dh).permute(0, 1, 3, 2, 4)
        k = k * self.scale_factor
        dot_prod = torch.einsum("B G H I D, B G H J D -> B G H I J", q, k)
        pos_bias = self.get_relative_positional_bias()
        dot_prod = F.softmax(dot_prod + pos_bias, dim=-1)
        out = torch.einsum("B G H I J, B G H J D -> B G H I D", dot_prod, v)
        out = out.permute(0, 1, 3, 2, 4).reshape(b, g, p, d)
        return self.merge(out)


class SwapAxes(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.a = a
        self.b = b

    def forward(self, x: Tensor) -> Tensor:
        return torch.swapaxes(x, self.a, self.b)


class WindowPartition(nn.Module):
    def forward(self, x: Tensor, p: int) -> Tensor:
        b, c, h, w = x.shape
        x = x.reshape(b, c, h // p, p, w // p, p)
        x = x.permute(0, 2, 4, 3, 5, 1)
        return x.reshape(b, (h // p) * (w // p), p * p, c)


class WindowDepartition(nn.Module):
    def forward(self, x: Tensor, p: int, h_partitions: int, w_partitions: int) -> Tensor:
        b, _, _, c = x.shape
        hp, wp = h_partitions, w_partitions
        x = x.reshape(b, hp, wp, p, p, c)
        x = x.permute(0, 5, 1, 3, 2, 4)
        return x.reshape(b, c, hp * p, wp * p)


class PartitionAttentionLayer(nn.Module):
    """Blocks of `partition_size`, or a grid: the same with its axes swapped."""

    def __init__(self, channels: int, head_dim: int, partition_size: int, side: int, grid: bool) -> None:
        super().__init__()
        self.n_partitions = side // partition_size
        self.p, self.g = (self.n_partitions, partition_size) if grid else (partition_size, self.n_partitions)
        self.partition_op = WindowPartition()
        self.departition_op = WindowDepartition()
        self.partition_swap = SwapAxes(-2, -3) if grid else nn.Identity()
        self.departition_swap = SwapAxes(-2, -3) if grid else nn.Identity()
        self.attn_layer = nn.Sequential(
            nn.LayerNorm(channels),
            RelativePositionalMultiHeadAttention(channels, head_dim, partition_size),
            nn.Dropout(0.1),
        )
        self.mlp_layer = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, channels * 2), nn.GELU(), nn.Linear(channels * 2, channels)
        )
        self.stochastic_dropout = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        gh, gw = x.shape[-2] // self.p, x.shape[-1] // self.p
        torch._assert(x.shape[-1] % self.p == 0, "Grid size must be divisible by partition size.")
        x = self.partition_op(x, self.p)
        x = self.partition_swap(x)
        x = x + self.stochastic_dropout(self.attn_layer(x))
        x = x + self.stochastic_dropout(self.mlp_layer(x))
        x = self.departition_swap(x)
        return self.departition_op(x, self.p, gh, gw)


class MaxVitMBConv(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        mid = out_channels * 2
        self.proj: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.proj = nn.Sequential(
                nn.AvgPool2d(kernel_size=3, stride=stride, padding=1),
                nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=True),
            )
        self.pre_norm = nn.BatchNorm2d(in_channels)
        self.conv_a = nn.Sequential(nn.Conv2d(in_channels, mid, 1, bias=False), nn.BatchNorm2d(mid), nn.GELU())
        self.conv_b = nn.Sequential(
            nn.Conv2d(mid, mid, 3, stride, 1, groups=mid, bias=False), nn.BatchNorm2d(mid), nn.GELU()
        )
        self.fc1 = nn.Conv2d(mid, 6, 1)
        self.fc2 = nn.Conv2d(6, mid, 1)
        self.conv_c = nn.Conv2d(mid, out_channels, kernel_size=1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        res = self.proj(x)
        x = self.conv_b(self.conv_a(self.pre_norm(x)))
        scale = F.adaptive_avg_pool2d(x, 1)
        x = torch.sigmoid(self.fc2(F.silu(self.fc1(scale)))) * x
        return res + self.conv_c(x)


def maxvit() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1),
        MaxVitMBConv(12, 16, 1),
        PartitionAttentionLayer(16, 8, 4, 8, grid=False),
        PartitionAttentionLayer(16, 8, 4, 8, grid=True),
        MaxVitMBConv(16, 24, 2),
        PartitionAttentionLayer(24, 8, 2, 4, grid=False),
        PartitionAttentionLayer(24, 8, 2, 4, grid=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.LayerNorm(24),
        nn.Linear(24, 24),
        nn.Tanh(),
        nn.Linear(24, 10, bias=False),
    )


def get_rel_pos(q_size: int, k_size: int, rel_pos: Tensor) -> Tensor:
    max_rel_dist = int(2 * max(q_size, k_size) - 1)
    if rel_pos.shape[0] != max_rel_dist:
        rel_pos_resized = F.interpolate(
            rel_pos.reshape(1, rel_pos.shape[0], -1).permute(0, 2, 1), size=max_rel_dist, mode="linear"
        )
        rel_pos_resized = rel_pos_resized.reshape(-1, max_rel_dist).permute(1, 0)
    else:
        rel_pos_resized = rel_pos
    q_coords = torch.arange(q_size)[:, None] * max(k_size / q_size, 1.0)
    k_coords = torch.arange(k_size)[None, :] * max(q_size / k_size, 1.0)
    relative_coords = (q_coords - k_coords) + (k_size - 1) * max(q_size / k_size, 1.0)
    return rel_pos_resized[relative_coords.long()]


def add_decomposed_rel_pos(attn: Tensor, q: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor, h: int, w: int) -> Tensor:
    r_h = get_rel_pos(h, h, rel_pos_h)
    r_w = get_rel_pos(w, w, rel_pos_w)
    b, _, dim = q.shape
    r_q = q.reshape(b, h, w, dim)
    rel_h = torch.einsum("bhwc,hkc->bhwk", r_q, r_h)
    rel_w = torch.einsum("bhwc,wkc->bhwk", r_q, r_w)
    attn = attn.view(b, h, w, h, w) + rel_h[:, :, :, :, None] + rel_w[:, :, :, None, :]
    return attn.view(b, h * w, h * w)


class SamAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int, side: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        head_dim = dim // num_heads
        self.scale = head_dim**-0.5
        self.qkv = nn.Linear(dim, dim * 3, bias=True)
        self.proj = nn.Linear(dim, dim)
        self.use_rel_pos = True
        self.rel_pos_h = nn.Parameter(torch.randn(2 * side - 1, head_dim))
        self.rel_pos_w = nn.Parameter(torch.randn(2 * side - 1, head_dim))

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, _ = x.shape
        qkv = self.qkv(x).reshape(b, h * w, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.reshape(3, b * self.num_heads, h * w, -1).unbind(0)
        attn = (q * self.scale) @ k.transpose(-2, -1)
        if self.use_rel_pos:
            attn = add_decomposed_rel_pos(attn, q, self.rel_pos_h, self.rel_pos_w, h, w)
        attn = attn.softmax(dim=-1)
        x = (attn @ v).view(b, self.num_heads, h, w, -1).permute(0, 2, 3, 1, 4).reshape(b, h, w, -1)
        return self.proj(x)


class SamBlock(nn.Module):
    def __init__(self, dim: int, window_size: int, side: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = SamAttention(dim, 2, side)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, dim * 2)
        self.window_size = window_size

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.norm1(x)
        b, h, w, c = x.shape
        ws = self.window_size
        if ws > 0:
            pad_h, pad_w = (ws - h % ws) % ws, (ws - w % ws) % ws
            x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))
            hp, wp = h + pad_h, w + pad_w
            x = x.view(b, hp // ws, ws, wp // ws, ws, c).permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, ws, ws, c)
        x = self.attn(x)
        if ws > 0:
            x = x.view(b, hp // ws, wp // ws, ws, ws, -1).permute(0, 1, 3, 2, 4, 5).contiguous().view(b, hp, wp, -1)
            x = x[:, :h, :w, :].contiguous()
        x = shortcut + x
        return x + self.mlp(self.norm2(x))


class SamLayerNorm2d(nn.Module):
    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(num_channels) + 0.5)
        self.bias = nn.Parameter(torch.randn(num_channels) * 0.3)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        u = x.mean(1, keepdim=True)
        s = (x - u).pow(2).mean(1, keepdim=True)
        x = (x - u) / torch.sqrt(s + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class SamEncoder(nn.Module):
    """The image encoder; its global block's positions are stretched to the size of the image."""

    def __init__(self, dim: int = 24) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, 3, 3)
        self.pos_embed = nn.Parameter(torch.randn(1, 5, 5, dim) * 0.3)
        self.blocks = nn.ModuleList([SamBlock(dim, 3, 3), SamBlock(dim, 0, 4)])
        self.neck = nn.Sequential(
            nn.Conv2d(dim, 16, kernel_size=1, bias=False),
            SamLayerNorm2d(16),
            nn.Conv2d(16, 16, kernel_size=3, padding=1, bias=False),
            SamLayerNorm2d(16),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).permute(0, 2, 3, 1)
        x = x + self.pos_embed
        for blk in self.blocks:
            x = blk(x)
        return self.neck(x.permute(0, 3, 1, 2))


class OutlookAttention(nn.Module):
    """VOLO (timm): weights of a neighbourhood from its centre, values unfolded and folded."""

    def __init__(self, dim: int, num_heads: int, kernel_size: int = 3, padding: int = 1, stride: int = 2) -> None:
        super().__init__()
        head_dim = dim // num_heads
        self.num_heads = num_heads
        self.kernel_size = kernel_size
        self.padding = padding
        self.stride = stride
        self.scale = head_dim**-0.5
        self.v = nn.Linear(dim, dim, bias=False)
        self.attn = nn.Linear(dim, kernel_size**4 * num_heads)
        self.proj = nn.Linear(dim, dim)
        self.unfold = nn.Unfold(kernel_size=kernel_size, padding=padding, stride=stride)
        self.pool = nn.AvgPool2d(kernel_size=stride, stride=stride, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        b, height, width, c = x.shape
        v = self.v(x).permute(0, 3, 1, 2)
        h, w = -(-height // self.stride), -(-width // self.stride)
        k2 = self.kernel_size * self.kernel_size
        v = self.unfold(v).reshape(b, self.num_heads, c // self.num_heads, k2, h * w).permute(0, 1, 4, 3, 2)
        attn = self.pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        attn = self.attn(attn).reshape(b, h * w, self.num_heads, k2, k2).permute(0, 2, 1, 3, 4)
        attn = attn * self.scale
        attn = attn.softmax(dim=-1)
        x = (attn @ v).permute(0, 1, 4, 3, 2).reshape(b, c * k2, h * w)
        x = F.fold(x, (height, width), self.kernel_size, padding=self.padding, stride=self.stride)
        return self.proj(x.permute(0, 2, 3, 1))


class Volo(nn.Module):
    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, 2, 2)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = OutlookAttention(dim, 2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, dim * 2)
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).permute(0, 2, 3, 1)
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(x.mean((1, 2)))


GRIDS: Catalogue = {
    "maxvit": (stirred(maxvit), images()),
    "sam_encoder": (stirred(SamEncoder), images()),
    "volo": (stirred(Volo), images()),
}
