"""Transformers over tokens with attention of their own kind: rotary, talking heads, class attention, latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.vision_layers import Catalogue, DropPath, Mlp, images, stirred


def rot(x: Tensor) -> Tensor:
    return torch.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)


def apply_rot_embed_cat(x: Tensor, emb: Tensor) -> Tensor:
    sin_emb, cos_emb = emb.tensor_split(2, -1)
    return x * cos_emb + rot(x) * sin_emb


class RotaryEmbeddingCat(nn.Module):
    pos_embed: Tensor

    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        bands = 1.0 / (100.0 ** (torch.arange(0, dim // 2, 2).float() / (dim // 2)))
        t = torch.arange(side).float()
        grid = torch.stack(torch.meshgrid(t, t, indexing="ij"), dim=-1).unsqueeze(-1)
        pos = (grid * bands).reshape(side * side, -1)
        sin_emb = pos.sin().repeat_interleave(2, -1)
        cos_emb = pos.cos().repeat_interleave(2, -1)
        self.register_buffer("pos_embed", torch.cat([sin_emb, cos_emb], dim=-1), persistent=False)

    def get_embed(self) -> Tensor:
        return self.pos_embed


class EvaAttention(nn.Module):
    """timm's EVA-02 attention: q and v have biases, k has none; rotary positions for all but the class token."""

    k_bias: Tensor

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = self.head_dim**-0.5
        self.num_prefix_tokens = 1
        self.qkv = nn.Linear(dim, dim * 3, bias=False)
        self.q_bias = nn.Parameter(torch.randn(dim) * 0.3)
        self.register_buffer("k_bias", torch.zeros(dim), persistent=False)
        self.v_bias = nn.Parameter(torch.randn(dim) * 0.3)
        self.norm = nn.LayerNorm(dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, rope: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv_bias = torch.cat((self.q_bias, self.k_bias, self.v_bias))
        qkv = F.linear(x, weight=self.qkv.weight, bias=qkv_bias)
        qkv = qkv.reshape(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        npt = self.num_prefix_tokens
        q = torch.cat([q[:, :, :npt, :], apply_rot_embed_cat(q[:, :, npt:, :], rope)], dim=2).type_as(v)
        k = torch.cat([k[:, :, :npt, :], apply_rot_embed_cat(k[:, :, npt:, :], rope)], dim=2).type_as(v)
        x = F.scaled_dot_product_attention(q, k, v)
        x = x.transpose(1, 2).reshape(b, n, c)
        x = self.norm(x)
        return self.proj(x)


class SwiGLU(nn.Module):
    def __init__(self, in_features: int, hidden_features: int) -> None:
        super().__init__()
        self.fc1_g = nn.Linear(in_features, hidden_features)
        self.fc1_x = nn.Linear(in_features, hidden_features)
        self.act = nn.SiLU()
        self.norm = nn.LayerNorm(hidden_features)
        self.fc2 = nn.Linear(hidden_features, in_features)

    def forward(self, x: Tensor) -> Tensor:
        x_gate = self.fc1_g(x)
        x = self.fc1_x(x)
        x = self.act(x_gate) * x
        x = self.norm(x)
        return self.fc2(x)


class SwiGLUPacked(nn.Module):
    """DINOv2: gate and value from one projection."""

    def __init__(self, in_features: int, hidden_features: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(in_features, 2 * hidden_features)
        self.w3 = nn.Linear(hidden_features, in_features)

    def forward(self, x: Tensor) -> Tensor:
        x12 = self.w12(x)
        x1, x2 = x12.chunk(2, dim=-1)
        hidden = F.silu(x1) * x2
        return self.w3(hidden)


class EvaBlock(nn.Module):
    def __init__(self, dim: int, packed: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = EvaAttention(dim, 3)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = SwiGLUPacked(dim, 32) if packed else SwiGLU(dim, 32)
        self.gamma_1 = nn.Parameter(torch.rand(dim) + 0.5)
        self.gamma_2 = nn.Parameter(torch.rand(dim) + 0.5)
        self.drop_path = DropPath()

    def forward(self, x: Tensor, rope: Tensor) -> Tensor:
        x = x + self.drop_path(self.gamma_1 * self.attn(self.norm1(x), rope=rope))
        return x + self.drop_path(self.gamma_2 * self.mlp(self.norm2(x)))


class Eva(nn.Module):
    def __init__(self, dim: int = 24) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, 4, 4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, 17, dim) * 0.3)
        self.rope = RotaryEmbeddingCat(dim // 3, 4)
        self.blocks = nn.ModuleList([EvaBlock(dim, packed=False), EvaBlock(dim, packed=True)])
        self.fc_norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + self.pos_embed
        rot_pos_embed = self.rope.get_embed()
        for blk in self.blocks:
            x = blk(x, rope=rot_pos_embed)
        return self.head(self.fc_norm(x[:, 1:].mean(dim=1)))


class TalkingHeadAttn(nn.Module):
    """CaiT (timm): linear layers over the heads, before and after the softmax."""

    def __init__(self, dim: int, num_heads: int = 4) -> None:
        super().__init__()
        self.num_heads = num_heads
        head_dim = dim // num_heads
        self.scale = head_dim**-0.5
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        self.proj_l = nn.Linear(num_heads, num_heads)
        self.proj_w = nn.Linear(num_heads, num_heads)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0] * self.scale, qkv[1], qkv[2]
        attn = q @ k.transpose(-2, -1)
        attn = self.proj_l(attn.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        attn = attn.softmax(dim=-1)
        attn = self.proj_w(attn.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = (attn @ v).transpose(1, 2).reshape(b, n, c)
        return self.proj(x)


class ClassAttn(nn.Module):
    def __init__(self, dim: int, num_heads: int = 4) -> None:
        super().__init__()
        self.num_heads = num_heads
        head_dim = dim // num_heads
        self.scale = head_dim**-0.5
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q = self.q(x[:, 0]).unsqueeze(1).reshape(b, 1, self.num_heads, c // self.num_heads).permute(0, 2, 1, 3)
        k = self.k(x).reshape(b, n, self.num_heads, c // self.num_heads).permute(0, 2, 1, 3)
        v = self.v(x).reshape(b, n, self.num_heads, c // self.num_heads).permute(0, 2, 1, 3)
        q = q * self.scale
        attn = q @ k.transpose(-2, -1)
        attn = attn.softmax(dim=-1)
        x_cls = attn @ v
        x_cls = x_cls.transpose(1, 2).reshape(b, 1, c)
        return self.proj(x_cls)


class LayerScaleBlock(nn.Module):
    def __init__(self, dim: int, of_class: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = ClassAttn(dim) if of_class else TalkingHeadAttn(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, dim * 2)
        self.gamma_1 = nn.Parameter(torch.rand(dim) + 0.5)
        self.gamma_2 = nn.Parameter(torch.rand(dim) + 0.5)

    def forward(self, x: Tensor, x_cls: Tensor | None = None) -> Tensor:
        if x_cls is not None:
            u = torch.cat((x_cls, x), dim=1)
            x_cls = x_cls + self.gamma_1 * self.attn(self.norm1(u))
            return x_cls + self.gamma_2 * self.mlp(self.norm2(x_cls))
        x = x + self.gamma_1 * self.attn(self.norm1(x))
        return x + self.gamma_2 * self.mlp(self.norm2(x))


class Cait(nn.Module):
    def __init__(self, dim: int = 24) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, 4, 4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, 16, dim) * 0.3)
        self.blocks = nn.Sequential(LayerScaleBlock(dim, False), LayerScaleBlock(dim, False))
        self.blocks_token_only = nn.ModuleList([LayerScaleBlock(dim, True)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = x + self.pos_embed
        x = self.blocks(x)
        cls_tokens = self.cls_token.expand(x.shape[0], -1, -1)
        for blk in self.blocks_token_only:
            cls_tokens = blk(x, cls_tokens)
        x = torch.cat((cls_tokens, x), dim=1)
        x = self.norm(x)
        return self.head(x[:, 0])


class CrossAttention(nn.Module):
    """Perceiver (lucidrains): queries of the latents, keys and values of the data."""

    def __init__(self, query_dim: int, context_dim: int | None = None, heads: int = 2, dim_head: int = 12) -> None:
        super().__init__()
        inner_dim = dim_head * heads
        context_dim = context_dim or query_dim
        self.scale = dim_head**-0.5
        self.heads = heads
        self.to_q = nn.Linear(query_dim, inner_dim, bias=False)
        self.to_kv = nn.Linear(context_dim, inner_dim * 2, bias=False)
        self.to_out = nn.Linear(inner_dim, query_dim)

    def _split(self, t: Tensor) -> Tensor:
        b, n, _ = t.shape
        return t.view(b, n, self.heads, -1).permute(0, 2, 1, 3).reshape(b * self.heads, n, -1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        q = self.to_q(x)
        context = x if context is None else context
        k, v = self.to_kv(context).chunk(2, dim=-1)
        q, k, v = self._split(q), self._split(k), self._split(v)
        sim = torch.einsum("b i d, b j d -> b i j", q, k) * self.scale
        attn = sim.softmax(dim=-1)
        out = torch.einsum("b i j, b j d -> b i d", attn, v)
        out = out.view(-1, self.heads, out.shape[1], out.shape[2]).permute(0, 2, 1, 3).flatten(2)
        return self.to_out(out)


class GEGLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x, gates = x.chunk(2, dim=-1)
        return x * F.gelu(gates)


class PerceiverLayer(nn.Module):
    def __init__(self, dim: int, context_dim: int) -> None:
        super().__init__()
        self.norm_cross = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(context_dim)
        self.cross = CrossAttention(dim, context_dim)
        self.norm_self = nn.LayerNorm(dim)
        self.latent = CrossAttention(dim, heads=4, dim_head=6)
        self.norm_ff = nn.LayerNorm(dim)
        self.ff = nn.Sequential(nn.Linear(dim, dim * 4), GEGLU(), nn.Linear(dim * 2, dim))

    def forward(self, x: Tensor, data: Tensor) -> Tensor:
        x = self.cross(self.norm_cross(x), context=self.norm_context(data)) + x
        x = self.latent(self.norm_self(x)) + x
        return self.ff(self.norm_ff(x)) + x


class Perceiver(nn.Module):
    """One layer used twice; the pixels get Fourier features of their places."""

    def __init__(self, num_latents: int = 6, dim: int = 20) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(num_latents, dim))
        self.layer = PerceiverLayer(dim, 3 + 2 * 5)
        self.to_logits = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 10))

    @staticmethod
    def fourier_encode(x: Tensor, num_bands: int = 2) -> Tensor:
        x = x.unsqueeze(-1)
        orig_x = x
        scales = torch.linspace(1.0, 5.0, num_bands, device=x.device, dtype=x.dtype)
        x = x * scales[(*((None,) * (len(x.shape) - 1)), Ellipsis)] * torch.pi
        x = torch.cat([x.sin(), x.cos()], dim=-1)
        return torch.cat((x, orig_x), dim=-1)

    def forward(self, data: Tensor) -> Tensor:
        data = data.permute(0, 2, 3, 1)
        b, *axis, _ = data.shape
        axis_pos = [torch.linspace(-1.0, 1.0, steps=size, device=data.device, dtype=data.dtype) for size in axis]
        pos = torch.stack(torch.meshgrid(*axis_pos, indexing="ij"), dim=-1)
        enc_pos = self.fourier_encode(pos).flatten(-2)
        enc_pos = enc_pos.unsqueeze(0).expand(b, -1, -1, -1)
        data = torch.cat((data, enc_pos), dim=-1).flatten(1, 2)
        x = self.latents.unsqueeze(0).repeat(b, 1, 1)
        for _ in range(2):
            x = self.layer(x, data)
        return self.to_logits(x.mean(dim=1))


TOKENS: Catalogue = {
    "eva_rotary": (stirred(Eva), images()),
    "cait": (stirred(Cait), images()),
    "perceiver": (stirred(Perceiver), images(8)),
}
