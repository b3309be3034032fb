"""Convolutions and attention together: MobileViT of both versions, XCiT, CLIP's attention pool."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.convolutional import conv_bn
from tests.zoo.vision_layers import Catalogue, DropPath, Mlp, images, stirred


class TokenBlock(nn.Module):
    """timm's plain block, with a fused qkv."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, dim * 2, act_layer=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))
        return x + self.mlp(self.norm2(x))


class MobileVitBlock(nn.Module):
    """timm: attention among the pixels of the same place in every patch."""

    def __init__(self, in_chs: int, transformer_dim: int) -> None:
        super().__init__()
        self.conv_kxk = conv_bn(in_chs, in_chs, 3)
        self.conv_1x1 = nn.Conv2d(in_chs, transformer_dim, kernel_size=1, bias=False)
        self.transformer = nn.Sequential(TokenBlock(transformer_dim, 4), TokenBlock(transformer_dim, 4))
        self.norm = nn.LayerNorm(transformer_dim)
        self.conv_proj = conv_bn(transformer_dim, in_chs, 1)
        self.conv_fusion = conv_bn(2 * in_chs, in_chs, 3)
        self.patch_size = (2, 2)
        self.patch_area = 4

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.conv_kxk(x)
        x = self.conv_1x1(x)
        patch_h, patch_w = self.patch_size
        b, c, h, w = x.shape
        new_h, new_w = math.ceil(h / patch_h) * patch_h, math.ceil(w / patch_w) * patch_w
        num_patch_h, num_patch_w = new_h // patch_h, new_w // patch_w
        num_patches = num_patch_h * num_patch_w
        interpolate = False
        if new_h != h or new_w != w:
            x = F.interpolate(x, size=(new_h, new_w), mode="bilinear", align_corners=False)
            interpolate = True
        x = x.reshape(b * c * num_patch_h, patch_h, num_patch_w, patch_w).transpose(1, 2)
        x = x.reshape(b, c, num_patches, self.patch_area).transpose(1, 3).reshape(b * self.patch_area, num_patches, -1)
        x = self.transformer(x)
        x = self.norm(x)
        x = x.contiguous().view(b, self.patch_area, num_patches, -1)
        x = x.transpose(1, 3).reshape(b * c * num_patch_h, num_patch_w, patch_h, patch_w)
        x = x.transpose(1, 2).reshape(b, c, num_patch_h * patch_h, num_patch_w * patch_w)
        if interpolate:
            x = F.interpolate(x, size=(h, w), mode="bilinear", align_corners=False)
        x = self.conv_proj(x)
        return self.conv_fusion(torch.cat((shortcut, x), dim=1))


class LinearSelfAttention(nn.Module):
    """MobileViTv2 (timm): one score per pixel, a context, and a gate."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.qkv_proj = nn.Conv2d(embed_dim, 1 + (2 * embed_dim), bias=True, kernel_size=1)
        self.out_proj = nn.Conv2d(embed_dim, embed_dim, bias=True, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv_proj(x)
        query, key, value = qkv.split([1, self.embed_dim, self.embed_dim], dim=1)
        context_scores = F.softmax(query, dim=-1)
        context_vector = (key * context_scores).sum(dim=-1, keepdim=True)
        out = F.relu(value) * context_vector.expand_as(value)
        return self.out_proj(out)


class LinearTransformerBlock(nn.Module):
    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(1, embed_dim)
        self.attn = LinearSelfAttention(embed_dim)
        self.norm2 = nn.GroupNorm(1, embed_dim)
        self.mlp = Mlp(embed_dim, 2 * embed_dim, act_layer=nn.SiLU, use_conv=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class MobileVitV2Block(nn.Module):
    def __init__(self, in_chs: int, transformer_dim: int) -> None:
        super().__init__()
        self.conv_kxk = conv_bn(in_chs, in_chs, 3, groups=in_chs)
        self.conv_1x1 = nn.Conv2d(in_chs, transformer_dim, kernel_size=1, bias=False)
        self.transformer = LinearTransformerBlock(transformer_dim)
        self.norm = nn.GroupNorm(1, transformer_dim)
        self.conv_proj = nn.Sequential(nn.Conv2d(transformer_dim, in_chs, 1, bias=False), nn.BatchNorm2d(in_chs))
        self.patch_size = (2, 2)
        self.patch_area = 4

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_1x1(self.conv_kxk(x))
        patch_h, patch_w = self.patch_size
        b, c, h, w = x.shape
        num_patch_h, num_patch_w = h // patch_h, w // patch_w
        num_patches = num_patch_h * num_patch_w
        x = x.reshape(b, c, num_patch_h, patch_h, num_patch_w, patch_w).permute(0, 1, 3, 5, 2, 4)
        x = x.reshape(b, c, -1, num_patches)
        x = self.transformer(x)
        x = self.norm(x)
        x = x.reshape(b, c, patch_h, patch_w, num_patch_h, num_patch_w).permute(0, 1, 4, 2, 5, 3)
        x = x.reshape(b, c, num_patch_h * patch_h, num_patch_w * patch_w)
        return self.conv_proj(x)


def mobilevit(block: type[MobileVitBlock | MobileVitV2Block]) -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 12, 3, 2),
        block(12, 16),
        conv_bn(12, 16, 3, 2),
        block(16, 20),
        conv_bn(16, 32, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


class PositionalEncodingFourier(nn.Module):
    def __init__(self, hidden_dim: int, dim: int) -> None:
        super().__init__()
        self.token_projection = nn.Conv2d(hidden_dim * 2, dim, kernel_size=1)
        self.scale = 2 * math.pi
        self.temperature = 10000
        self.hidden_dim = hidden_dim
        self.eps = 1e-6

    def forward(self, b: int, h: int, w: int) -> Tensor:
        dtype = self.token_projection.weight.dtype
        y_embed = torch.arange(1, h + 1).to(torch.float32).unsqueeze(1).repeat(1, 1, w)
        x_embed = torch.arange(1, w + 1).to(torch.float32).repeat(1, h, 1)
        y_embed = y_embed / (y_embed[:, -1:, :] + self.eps) * self.scale
        x_embed = x_embed / (x_embed[:, :, -1:] + self.eps) * self.scale
        dim_t = torch.arange(self.hidden_dim, dtype=torch.float32)
        dim_t = self.temperature ** (2 * torch.div(dim_t, 2, rounding_mode="floor") / self.hidden_dim)
        pos_x = x_embed[:, :, :, None] / dim_t
        pos_y = y_embed[:, :, :, None] / dim_t
        pos_x = torch.stack([pos_x[:, :, :, 0::2].sin(), pos_x[:, :, :, 1::2].cos()], dim=4).flatten(3)
        pos_y = torch.stack([pos_y[:, :, :, 0::2].sin(), pos_y[:, :, :, 1::2].cos()], dim=4).flatten(3)
        pos = torch.cat((pos_y, pos_x), dim=3).permute(0, 3, 1, 2)
        pos = self.token_projection(pos.to(dtype))
        return pos.repeat(b, 1, 1, 1)


class XCA(nn.Module):
    """Cross-covariance attention: channels of a head attend to each other."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.temperature = nn.Parameter(torch.rand(num_heads, 1, 1) + 0.5)
        self.qkv = nn.Linear(dim, dim * 3)
        self.attn_drop = nn.Dropout(0.1)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 4, 1)
        q, k, v = qkv.unbind(0)
        q = F.normalize(q, p=2.0, dim=-1) * self.temperature
        k = F.normalize(k, p=2.0, dim=-1)
        attn = q @ k.transpose(-2, -1)
        attn = attn.softmax(dim=-1)
        attn = self.attn_drop(attn)
        x = attn @ v
        x = x.permute(0, 3, 1, 2).reshape(b, n, c)
        return self.proj(x)


class LPI(nn.Module):
    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_features, in_features, 3, padding=1, groups=in_features)
        self.act = nn.GELU()
        self.bn = nn.BatchNorm2d(in_features)
        self.conv2 = nn.Conv2d(in_features, in_features, 3, padding=1, groups=in_features)

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        b, n, c = x.shape
        x = x.permute(0, 2, 1).reshape(b, c, h, w)
        x = self.conv1(x)
        x = self.act(x)
        x = self.bn(x)
        x = self.conv2(x)
        return x.reshape(b, c, n).permute(0, 2, 1)


class XCABlock(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = XCA(dim, num_heads)
        self.drop_path = DropPath()
        self.norm3 = nn.LayerNorm(dim)
        self.local_mp = LPI(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, dim * 2)
        self.gamma1 = nn.Parameter(torch.rand(dim) + 0.5)
        self.gamma3 = nn.Parameter(torch.rand(dim) + 0.5)
        self.gamma2 = nn.Parameter(torch.rand(dim) + 0.5)

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        x = x + self.drop_path(self.gamma1 * self.attn(self.norm1(x)))
        x = x + self.drop_path(self.gamma3 * self.local_mp(self.norm3(x), h, w))
        return x + self.drop_path(self.gamma2 * self.mlp(self.norm2(x)))


class SplitTransposeBlock(nn.Module):
    """EdgeNeXt's: parts of the channels, the last one narrower, convolved and added up; then attention and an MLP."""

    def __init__(self, dim: int, parts: int, num_heads: int) -> None:
        super().__init__()
        width = -(-dim // parts)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, groups=width) for _ in range(parts - 1))
        self.norm_xca = nn.LayerNorm(dim)
        self.gamma_xca = nn.Parameter(torch.rand(dim) + 0.5)
        self.xca = XCA(dim, num_heads)
        self.norm = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, dim * 4)

    def forward(self, x: Tensor) -> Tensor:
        parts = x.chunk(len(self.convs) + 1, dim=1)
        made, part = [], torch.zeros((), dtype=x.dtype)
        for conv, given in zip(self.convs, parts, strict=False):
            part = conv(part + given)
            made.append(part)
        b, c, h, w = x.shape
        y = torch.cat([*made, parts[-1]], 1).reshape(b, c, h * w).permute(0, 2, 1)
        y = y + self.gamma_xca * self.xca(self.norm_xca(y))
        y = self.mlp(self.norm(y))
        return x + y.permute(0, 2, 1).reshape(b, c, h, w)


def edgenext() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, 4),
        SplitTransposeBlock(16, 3, 2),
        conv_bn(16, 22),
        SplitTransposeBlock(22, 3, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(22, 5),
    )


class ClassAttentionBlock(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim)
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, dim * 2)
        self.gamma1 = nn.Parameter(torch.rand(dim) + 0.5)
        self.gamma2 = nn.Parameter(torch.rand(dim) + 0.5)

    def attend(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q = self.q(x[:, 0:1]).reshape(b, 1, self.num_heads, c // self.num_heads).permute(0, 2, 1, 3)
        k, v = self.kv(x).reshape(b, n, 2, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        attn = ((q * (c // self.num_heads) ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
        return (attn @ v).transpose(1, 2).reshape(b, 1, c)

    def forward(self, x: Tensor) -> Tensor:
        x_norm1 = self.norm1(x)
        x_attn = torch.cat([self.attend(x_norm1), x_norm1[:, 1:]], dim=1)
        x = x + self.gamma1 * x_attn
        x = torch.cat([self.norm2(x[:, 0:1]), x[:, 1:]], dim=1)
        x_res = x
        cls_token = x[:, 0:1]
        cls_token = self.gamma2 * self.mlp(cls_token)
        x = torch.cat([cls_token, x[:, 1:]], dim=1)
        return x_res + x


class Xcit(nn.Module):
    def __init__(self, dim: int = 24) -> None:
        super().__init__()
        self.patch_embed = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, dim // 2, 3, 2, 1, bias=False), nn.BatchNorm2d(dim // 2)),
            nn.GELU(),
            nn.Sequential(nn.Conv2d(dim // 2, dim, 3, 2, 1, bias=False), nn.BatchNorm2d(dim)),
        )
        self.pos_embed = PositionalEncodingFourier(6, dim)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.blocks = nn.ModuleList([XCABlock(dim, 4), XCABlock(dim, 4)])
        self.cls_attn_blocks = nn.ModuleList([ClassAttentionBlock(dim, 4)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        b = x.shape[0]
        x = self.patch_embed(x)
        h, w = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2)
        pos_encoding = self.pos_embed(b, h, w).reshape(b, -1, x.shape[1]).permute(0, 2, 1)
        x = x + pos_encoding
        for blk in self.blocks:
            x = blk(x, h, w)
        x = torch.cat((self.cls_token.expand(b, -1, -1), x), dim=1)
        for blk in self.cls_attn_blocks:
            x = blk(x)
        x = self.norm(x)
        return self.head(x[:, 0])


class AttentionPool2d(nn.Module):
    """CLIP's ResNet: attention of the mean to all places, on the weights of linear layers."""

    def __init__(self, spacial_dim: int, embed_dim: int, num_heads: int, output_dim: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(spacial_dim**2 + 1, embed_dim) / embed_dim**0.5)
        self.k_proj = nn.Linear(embed_dim, embed_dim)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.v_proj = nn.Linear(embed_dim, embed_dim)
        self.c_proj = nn.Linear(embed_dim, output_dim)
        self.num_heads = num_heads

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(x.shape[0], x.shape[1], x.shape[2] * x.shape[3]).permute(2, 0, 1)
        x = torch.cat([x.mean(dim=0, keepdim=True), x], dim=0)
        x = x + self.positional_embedding[:, None, :].to(x.dtype)
        x, _ = F.multi_head_attention_forward(
            query=x[:1],
            key=x,
            value=x,
            embed_dim_to_check=x.shape[-1],
            num_heads=self.num_heads,
            q_proj_weight=self.q_proj.weight,
            k_proj_weight=self.k_proj.weight,
            v_proj_weight=self.v_proj.weight,
            in_proj_weight=None,
            in_proj_bias=torch.cat([self.q_proj.bias, self.k_proj.bias, self.v_proj.bias]),
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=self.c_proj.weight,
            out_proj_bias=self.c_proj.bias,
            use_separate_proj_weight=True,
            training=self.training,
            need_weights=False,
        )
        return x.squeeze(0)


def clip_resnet() -> nn.Module:
    return nn.Sequential(conv_bn(3, 12), conv_bn(12, 16), nn.AvgPool2d(4), AttentionPool2d(4, 16, 2, 12))


HYBRIDS: Catalogue = {
    "mobilevit": (stirred(lambda: mobilevit(MobileVitBlock)), images()),
    "mobilevit_v2": (stirred(lambda: mobilevit(MobileVitV2Block)), images()),
    "xcit": (stirred(Xcit), images()),
    "edgenext": (stirred(edgenext), images()),
    "clip_resnet": (stirred(clip_resnet), images()),
}
