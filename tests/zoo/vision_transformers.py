"""Small versions of the vision transformers of timm, torchvision and others, written as they are there."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.vision_hybrids import HYBRIDS
from tests.zoo.vision_layers import Catalogue, DropPath, LayerScale, Mlp, images, stirred
from tests.zoo.vision_levit import LEVITS
from tests.zoo.vision_local import LOCAL
from tests.zoo.vision_mixers import MIXERS
from tests.zoo.vision_pyramids import PYRAMIDS
from tests.zoo.vision_tokens import TOKENS
from tests.zoo.vision_windows import WINDOWS


class PatchEmbed(nn.Module):
    def __init__(self, embed_dim: int, patch_size: int = 4) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        x = x.flatten(2).transpose(1, 2)
        return self.norm(x)


class Attention(nn.Module):
    def __init__(self, dim: int, num_heads: int, qk_norm: bool = False, fused_attn: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = self.head_dim**-0.5
        self.fused_attn = fused_attn
        self.qkv = nn.Linear(dim, dim * 3, bias=True)
        self.q_norm = nn.LayerNorm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(self.head_dim) if qk_norm else nn.Identity()
        self.attn_drop = nn.Dropout(0.1)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.fused_attn:
            x = F.scaled_dot_product_attention(q, k, v, dropout_p=self.attn_drop.p if self.training else 0.0)
        else:
            q = q * self.scale
            attn = q @ k.transpose(-2, -1)
            attn = attn.softmax(dim=-1)
            attn = self.attn_drop(attn)
            x = attn @ v
        x = x.transpose(1, 2).reshape(b, n, c)
        x = self.proj(x)
        return self.proj_drop(x)


class Block(nn.Module):
    def __init__(self, dim: int, num_heads: int, qk_norm: bool = False, fused_attn: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads, qk_norm, fused_attn)
        self.ls1 = LayerScale(dim)
        self.drop_path1 = DropPath()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, dim * 2)
        self.ls2 = LayerScale(dim)
        self.drop_path2 = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class VisionTransformer(nn.Module):
    """timm; with register tokens the patches alone have positions and are averaged in the end."""

    def __init__(self, fused_attn: bool, qk_norm: bool = False, reg_tokens: int = 0, dim: int = 24) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(dim)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.reg_token = nn.Parameter(torch.randn(1, reg_tokens, dim)) if reg_tokens else None
        self.num_prefix_tokens = 1 + reg_tokens
        self.no_embed_class = reg_tokens > 0
        self.pos_embed = nn.Parameter(torch.randn(1, 16 + (0 if self.no_embed_class else 1), dim) * 0.3)
        self.pos_drop = nn.Dropout(p=0.1)
        self.blocks = nn.Sequential(*(Block(dim, 3, qk_norm, fused_attn) for _ in range(2)))
        self.norm = nn.Identity() if reg_tokens else nn.LayerNorm(dim)
        self.fc_norm = nn.LayerNorm(dim) if reg_tokens else nn.Identity()
        self.head = nn.Linear(dim, 10)

    def _pos_embed(self, x: Tensor) -> Tensor:
        to_cat = [self.cls_token.expand(x.shape[0], -1, -1)]
        if self.reg_token is not None:
            to_cat.append(self.reg_token.expand(x.shape[0], -1, -1))
        if self.no_embed_class:
            x = x + self.pos_embed
            x = torch.cat([*to_cat, x], dim=1)
        else:
            x = torch.cat([*to_cat, x], dim=1)
            x = x + self.pos_embed
        return self.pos_drop(x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = self._pos_embed(x)
        x = self.blocks(x)
        x = self.norm(x)
        x = x[:, self.num_prefix_tokens :].mean(dim=1) if self.no_embed_class else x[:, 0]
        x = self.fc_norm(x)
        return self.head(x)


class VisionTransformerDistilled(nn.Module):
    """DeiT; both heads answer, as in distilled training."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(dim)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.dist_token = nn.Parameter(torch.randn(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, 18, dim) * 0.3)
        self.blocks = nn.Sequential(Block(dim, 2), Block(dim, 4))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 10)
        self.head_dist = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.patch_embed(x)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), self.dist_token.expand(x.shape[0], -1, -1), x), dim=1)
        x = x + self.pos_embed
        x = self.blocks(x)
        x = self.norm(x)
        x, x_dist = x[:, 0], x[:, 1]
        x = self.head(x)
        x_dist = self.head_dist(x_dist)
        return x, x_dist


class MLPBlock(nn.Sequential):
    def __init__(self, in_dim: int, mlp_dim: int, dropout: float = 0.1) -> None:
        super().__init__(
            nn.Linear(in_dim, mlp_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_dim, in_dim), nn.Dropout(dropout)
        )


class EncoderBlock(nn.Module):
    """torchvision."""

    def __init__(self, num_heads: int, hidden_dim: int, mlp_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.ln_1 = nn.LayerNorm(hidden_dim)
        self.self_attention = nn.MultiheadAttention(hidden_dim, num_heads, dropout=0.1, batch_first=True)
        self.dropout = nn.Dropout(0.1)
        self.ln_2 = nn.LayerNorm(hidden_dim)
        self.mlp = MLPBlock(hidden_dim, mlp_dim)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # as in torchvision
        torch._assert(input.dim() == 3, f"Expected (batch_size, seq_length, hidden_dim) got {input.shape}")
        x = self.ln_1(input)
        x, _ = self.self_attention(x, x, x, need_weights=False)
        x = self.dropout(x)
        x = x + input
        y = self.ln_2(x)
        y = self.mlp(y)
        return x + y


class Encoder(nn.Module):
    def __init__(self, seq_length: int, num_layers: int, num_heads: int, hidden_dim: int) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.randn(1, seq_length, hidden_dim) * 0.3)
        self.dropout = nn.Dropout(0.1)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(num_layers):
            layers[f"encoder_layer_{i}"] = EncoderBlock(num_heads, hidden_dim, 2 * hidden_dim)
        self.layers = nn.Sequential(layers)
        self.ln = nn.LayerNorm(hidden_dim)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # as in torchvision
        input = input + self.pos_embedding  # noqa: A001
        return self.ln(self.layers(self.dropout(input)))


class TorchvisionViT(nn.Module):
    def __init__(self, hidden_dim: int = 24) -> None:
        super().__init__()
        self.image_size = 16
        self.patch_size = 4
        self.hidden_dim = hidden_dim
        self.conv_proj = nn.Conv2d(3, hidden_dim, kernel_size=4, stride=4)
        self.class_token = nn.Parameter(torch.randn(1, 1, hidden_dim))
        self.encoder = Encoder(17, 2, 4, hidden_dim)
        heads_layers: OrderedDict[str, nn.Module] = OrderedDict()
        heads_layers["pre_logits"] = nn.Linear(hidden_dim, 20)
        heads_layers["act"] = nn.Tanh()
        heads_layers["head"] = nn.Linear(20, 10)
        self.heads = nn.Sequential(heads_layers)

    def _process_input(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        p = self.patch_size
        torch._assert(h == self.image_size, f"Wrong image height! Expected {self.image_size} but got {h}!")
        n_h = h // p
        n_w = w // p
        x = self.conv_proj(x)
        x = x.reshape(n, self.hidden_dim, n_h * n_w)
        return x.permute(0, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self._process_input(x)
        n = x.shape[0]
        batch_class_token = self.class_token.expand(n, -1, -1)
        x = torch.cat([batch_class_token, x], dim=1)
        x = self.encoder(x)
        x = x[:, 0]
        return self.heads(x)


class PreNorm(nn.Module):
    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn

    def forward(self, x: Tensor, **kwargs: Tensor) -> Tensor:
        return self.fn(self.norm(x), **kwargs)


class ChunkAttention(nn.Module):
    """lucidrains' vit-pytorch, einops written out; the heads are wider or narrower than the tokens."""

    def __init__(self, dim: int, heads: int = 4, dim_head: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        inner_dim = dim_head * heads
        self.heads = heads
        self.scale = dim_head**-0.5
        self.attend = nn.Softmax(dim=-1)
        self.to_qkv = nn.Linear(dim, inner_dim * 3, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner_dim, dim), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = self.to_qkv(x).chunk(3, dim=-1)
        q, k, v = (t.view(b, n, self.heads, -1).transpose(1, 2) for t in qkv)
        dots = torch.matmul(q, k.transpose(-1, -2)) * self.scale
        attn = self.attend(dots)
        out = torch.matmul(attn, v)
        out = out.transpose(1, 2).reshape(b, n, -1)
        return self.to_out(out)


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(dim, hidden_dim), nn.GELU(), nn.Dropout(0.1), nn.Linear(hidden_dim, dim), nn.Dropout(0.1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class LucidViT(nn.Module):
    def __init__(self, dim: int = 20) -> None:
        super().__init__()
        self.patch = 4
        patch_dim = 3 * self.patch**2
        self.to_patch_embedding = nn.Sequential(nn.LayerNorm(patch_dim), nn.Linear(patch_dim, dim), nn.LayerNorm(dim))
        self.pos_embedding = nn.Parameter(torch.randn(1, 17, dim))
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.layers = nn.ModuleList(
            nn.ModuleList([PreNorm(dim, ChunkAttention(dim)), PreNorm(dim, FeedForward(dim, 32))]) for _ in range(2)
        )
        self.mlp_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 10))

    def forward(self, img: Tensor) -> Tensor:
        b, c, h, w = img.shape
        p = self.patch
        x = img.view(b, c, h // p, p, w // p, p).permute(0, 2, 4, 3, 5, 1).reshape(b, (h // p) * (w // p), p * p * c)
        x = self.to_patch_embedding(x)
        b, n, _ = x.shape
        cls_tokens = self.cls_token.expand(b, -1, -1)
        x = torch.cat((cls_tokens, x), dim=1)
        x += self.pos_embedding[:, : (n + 1)]
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleList)
            attn, ff = layer
            x = attn(x) + x
            x = ff(x) + x
        x = x[:, 0]
        return self.mlp_head(x)


@dataclass
class ModelOutput:
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None


class ViTSelfAttention(nn.Module):
    """Hugging Face: three projections, transpose_for_scores."""

    def __init__(self, hidden_size: int, heads: int) -> None:
        super().__init__()
        self.num_attention_heads = heads
        self.attention_head_size = hidden_size // heads
        self.all_head_size = self.num_attention_heads * self.attention_head_size
        self.query = nn.Linear(hidden_size, self.all_head_size)
        self.key = nn.Linear(hidden_size, self.all_head_size)
        self.value = nn.Linear(hidden_size, self.all_head_size)
        self.dropout = nn.Dropout(0.1)

    def transpose_for_scores(self, x: Tensor) -> Tensor:
        new_x_shape = x.size()[:-1] + (self.num_attention_heads, self.attention_head_size)  # noqa: RUF005
        x = x.view(new_x_shape)
        return x.permute(0, 2, 1, 3)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        mixed_query_layer = self.query(hidden_states)
        key_layer = self.transpose_for_scores(self.key(hidden_states))
        value_layer = self.transpose_for_scores(self.value(hidden_states))
        query_layer = self.transpose_for_scores(mixed_query_layer)
        attention_scores = torch.matmul(query_layer, key_layer.transpose(-1, -2))
        attention_scores = attention_scores / (self.attention_head_size**0.5)
        attention_probs = self.dropout(nn.functional.softmax(attention_scores, dim=-1))
        context_layer = torch.matmul(attention_probs, value_layer)
        context_layer = context_layer.permute(0, 2, 1, 3).contiguous()
        new_context_layer_shape = context_layer.size()[:-2] + (self.all_head_size,)  # noqa: RUF005
        return context_layer.view(new_context_layer_shape), attention_probs


class ViTLayer(nn.Module):
    def __init__(self, hidden_size: int, heads: int) -> None:
        super().__init__()
        self.attention = ViTSelfAttention(hidden_size, heads)
        self.output = nn.Linear(hidden_size, hidden_size)
        self.intermediate = nn.Linear(hidden_size, 2 * hidden_size)
        self.dense = nn.Linear(2 * hidden_size, hidden_size)
        self.layernorm_before = nn.LayerNorm(hidden_size)
        self.layernorm_after = nn.LayerNorm(hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        attention_output = self.output(self.attention(self.layernorm_before(hidden_states))[0])
        hidden_states = attention_output + hidden_states
        layer_output = self.layernorm_after(hidden_states)
        layer_output = nn.functional.gelu(self.intermediate(layer_output))
        return self.dense(layer_output) + hidden_states


class HuggingFaceViT(nn.Module):
    """Answers with a dataclass of logits and every layer's tokens."""

    def __init__(self, hidden_size: int = 24) -> None:
        super().__init__()
        self.patch_embeddings = PatchEmbed(hidden_size)
        self.cls_token = nn.Parameter(torch.randn(1, 1, hidden_size))
        self.position_embeddings = nn.Parameter(torch.randn(1, 17, hidden_size))
        self.layer = nn.ModuleList(ViTLayer(hidden_size, 3) for _ in range(2))
        self.layernorm = nn.LayerNorm(hidden_size)
        self.classifier = nn.Linear(hidden_size, 10)

    def forward(self, pixel_values: Tensor) -> ModelOutput:
        embeddings = self.patch_embeddings(pixel_values)
        embeddings = torch.cat((self.cls_token.expand(len(pixel_values), -1, -1), embeddings), dim=1)
        hidden_states = embeddings + self.position_embeddings
        all_hidden_states: tuple[Tensor, ...] = ()
        for layer_module in self.layer:
            all_hidden_states = (*all_hidden_states, hidden_states)
            hidden_states = layer_module(hidden_states)
        sequence_output = self.layernorm(hidden_states)
        return ModelOutput(logits=self.classifier(sequence_output[:, 0, :]), hidden_states=all_hidden_states)


VISION_TRANSFORMERS: Catalogue = {
    "vit": (stirred(lambda: VisionTransformer(fused_attn=False)), images()),
    "vit_fused": (stirred(lambda: VisionTransformer(fused_attn=True)), images()),
    "vit_qk_norm": (stirred(lambda: VisionTransformer(fused_attn=True, qk_norm=True)), images()),
    "vit_registers": (stirred(lambda: VisionTransformer(fused_attn=True, reg_tokens=3)), images()),
    "deit_distilled": (stirred(VisionTransformerDistilled), images()),
    "vit_torchvision": (stirred(TorchvisionViT), images()),
    "vit_lucidrains": (stirred(LucidViT), images()),
    "vit_huggingface": (stirred(HuggingFaceViT), lambda: {"pixel_values": torch.randn(2, 3, 16, 16)}),
    **TOKENS,
    **WINDOWS,
    **HYBRIDS,
    **LEVITS,
    **PYRAMIDS,
    **MIXERS,
    **LOCAL,
}
