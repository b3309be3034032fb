"""Attention by torch's own modules and by hand, and models of images with text, tables, graphs, sets and points."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.task.data import Inputs
from tests.zoo.sequence import drawn, made
from tests.zoo.transformers_hub import VOCAB, ids


class EncoderClassifier(nn.Module):
    """nn.TransformerEncoder over embedded tokens; in eval mode torch may take its fused path."""

    def __init__(self, norm_first: bool = False, nested: bool = False, d_model: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, d_model)
        self.pos_embedding = nn.Parameter(torch.randn(1, 6, d_model))
        layer = nn.TransformerEncoderLayer(d_model, 4, 24, 0.1, "gelu", batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=nested)
        self.classifier = nn.Linear(d_model, 5)

    def forward(self, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
        x = self.embedding(tokens) + self.pos_embedding[:, : tokens.size(1)]
        return self.classifier(self.encoder(x, src_key_padding_mask=padding).mean(dim=1))


class Translator(nn.Module):
    """nn.Transformer with embeddings scaled by the root of the width, a causal mask and time first."""

    def __init__(self, d_model: int = 16) -> None:
        super().__init__()
        self.d_model = d_model
        self.src_embed, self.tgt_embed = nn.Embedding(VOCAB, d_model), nn.Embedding(VOCAB, d_model)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "enable_nested_tensor")  # time first has no fused path
            self.transformer = nn.Transformer(d_model, 4, 1, 1, dim_feedforward=24)
        self.generator = nn.Linear(d_model, VOCAB)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        source = self.src_embed(src.t()) * math.sqrt(self.d_model)
        target = self.tgt_embed(tgt.t()) * math.sqrt(self.d_model)
        mask = torch.triu(torch.full((target.size(0), target.size(0)), float("-inf"), dtype=target.dtype), diagonal=1)
        return self.generator(self.transformer(source, target, tgt_mask=mask)).transpose(0, 1)


class QueryDecoder(nn.Module):
    """nn.TransformerDecoder from learned queries to a memory, as in DETR."""

    def __init__(self, d_model: int = 16, num_queries: int = 5) -> None:
        super().__init__()
        self.input_proj = nn.Linear(10, d_model)
        self.query_embed = nn.Embedding(num_queries, d_model)
        layer = nn.TransformerDecoderLayer(d_model, nhead=2, dim_feedforward=24, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, num_layers=2, norm=nn.LayerNorm(d_model))
        self.class_embed, self.bbox_embed = nn.Linear(d_model, 3), nn.Linear(d_model, 4)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        memory = self.input_proj(features)
        queries = self.query_embed.weight.unsqueeze(0).repeat(features.size(0), 1, 1)
        h = self.decoder(queries, memory)
        return {"pred_logits": self.class_embed(h), "pred_boxes": self.bbox_embed(h).sigmoid()}


class AttentionBlock(nn.Module):
    """nn.MultiheadAttention in a residual block, its map is an output too."""

    def __init__(self, embed_dim: int = 16, num_heads: int = 4, **options: bool) -> None:
        super().__init__()
        self.inp = nn.Linear(10, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.attn = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True, **options)
        self.out = nn.Linear(embed_dim, 3)

    def forward(self, x: Tensor, key_padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.inp(x)
        h = self.norm(x)
        h, weights = self.attn(h, h, h, key_padding_mask=key_padding_mask, need_weights=True)
        return self.out(x + h), weights


class CrossAttention(nn.Module):
    """Queries of one width look at keys and values of two other widths."""

    def __init__(self, embed_dim: int = 16) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(10, embed_dim), nn.Linear(6, 12), nn.Linear(6, 8)
        self.attn = nn.MultiheadAttention(embed_dim, 4, kdim=12, vdim=8, batch_first=True)
        self.norm = nn.LayerNorm(embed_dim)
        self.out = nn.Linear(embed_dim, 3)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q = self.query(x)
        h, _ = self.attn(q, self.key(context), self.value(context), need_weights=False)
        return self.out(self.norm(q + h))


class RMSNorm(nn.Module):
    def __init__(self, hidden_size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


class SwiGLU(nn.Module):
    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class GELUMLP(nn.Sequential):
    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__(
            nn.Linear(hidden_size, intermediate_size), nn.GELU(), nn.Linear(intermediate_size, hidden_size)
        )


class SoftMoE(nn.Module):
    """Every expert sees every token; a gate weighs them. Experts are modules whose outputs are stacked."""

    def __init__(self, hidden_size: int, intermediate_size: int, num_experts: int = 3) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden_size, num_experts, bias=False)
        self.experts = nn.ModuleList([GELUMLP(hidden_size, intermediate_size) for _ in range(num_experts)])

    def forward(self, x: Tensor) -> Tensor:
        weights = F.softmax(self.gate(x), dim=-1)
        outputs = torch.stack([expert(x) for expert in self.experts], dim=2)
        return torch.einsum("bte,bteh->bth", weights, outputs)


class BatchedMoE(nn.Module):
    """The same with the experts' matrices stacked in one parameter each."""

    def __init__(self, hidden_size: int, intermediate_size: int, num_experts: int = 3) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden_size, num_experts)
        self.w1 = nn.Parameter(torch.randn(num_experts, hidden_size, intermediate_size))
        self.w2 = nn.Parameter(torch.randn(num_experts, intermediate_size, hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(torch.einsum("bth,ehi->beti", x, self.w1))
        out = torch.einsum("beti,eih->beth", h, self.w2)
        return (self.gate(x).softmax(-1).transpose(1, 2).unsqueeze(-1) * out).sum(dim=1)


def rotate_half(x: Tensor) -> Tensor:
    x1, x2 = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((-x2, x1), dim=-1)


def repeat_kv(x: Tensor, n_rep: int) -> Tensor:
    b, kv_heads, t, head_dim = x.shape
    if n_rep == 1:
        return x
    return x[:, :, None, :, :].expand(b, kv_heads, n_rep, t, head_dim).reshape(b, kv_heads * n_rep, t, head_dim)


class GroupedQueryAttention(nn.Module):
    """Llama: rotary embedding, and each head of keys and values serves several heads of queries."""

    inv_freq: Tensor

    def __init__(self, hidden_size: int, num_heads: int = 4, num_kv_heads: int = 2) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, hidden_size // num_heads
        self.q_proj = nn.Linear(hidden_size, num_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(hidden_size, num_kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(hidden_size, num_kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(num_heads * self.head_dim, hidden_size, bias=False)
        inv_freq = 1.0 / (10000 ** (torch.arange(0, self.head_dim, 2).float() / self.head_dim))
        self.register_buffer("inv_freq", inv_freq, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q_proj(x).view(b, t, self.num_heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(b, t, self.num_kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(b, t, self.num_kv_heads, self.head_dim).transpose(1, 2)
        freqs = torch.outer(torch.arange(t, dtype=self.inv_freq.dtype), self.inv_freq)
        angles = torch.cat((freqs, freqs), dim=-1)
        cos, sin = angles.cos(), angles.sin()
        q, k = q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin
        k = repeat_kv(k, self.num_heads // self.num_kv_heads)
        v = repeat_kv(v, self.num_heads // self.num_kv_heads)
        scores = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(self.head_dim)
        scores = scores + torch.full((t, t), float("-inf"), dtype=x.dtype).triu(1)
        out = torch.matmul(F.softmax(scores, dim=-1), v)
        return self.o_proj(out.transpose(1, 2).contiguous().view(b, t, -1))


class MultiQueryAttention(nn.Module):
    """One projection holds all queries and the one head of keys and values that they share."""

    def __init__(self, hidden_size: int, num_heads: int = 4) -> None:
        super().__init__()
        self.hidden_size, self.num_heads, self.head_dim = hidden_size, num_heads, hidden_size // num_heads
        self.c_attn = nn.Linear(hidden_size, hidden_size + 2 * self.head_dim)
        self.c_proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = self.c_attn(x).split((self.hidden_size, self.head_dim, self.head_dim), dim=2)
        q = q.view(b, t, self.num_heads, self.head_dim).transpose(1, 2)
        attn = (q @ k.unsqueeze(1).transpose(-2, -1)) * self.head_dim**-0.5
        out = attn.softmax(dim=-1) @ v.unsqueeze(1)
        return self.c_proj(out.transpose(1, 2).reshape(b, t, self.hidden_size))


class SDPAttention(nn.Module):
    """torch's attention function with its own scale, from three projections."""

    def __init__(self, hidden_size: int, num_heads: int = 4) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            projection(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class AlibiAttention(nn.Module):
    """A penalty for distance, steeper from head to head; query, key and value by one projection as in timm."""

    slopes: Tensor

    def __init__(self, hidden_size: int, num_heads: int = 4) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, (hidden_size // num_heads) ** -0.5
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)
        self.register_buffer("slopes", torch.tensor([2 ** (-8 * (i + 1) / num_heads) for i in range(num_heads)]))

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        position = torch.arange(n)
        distance = (position[None, :] - position[:, None]).abs()
        attn = (q * self.scale) @ k.transpose(-2, -1) - self.slopes.view(-1, 1, 1) * distance
        return self.proj((attn.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, c))


class RelativeBiasAttention(nn.Module):
    """T5: no scale, an inner width of its own, and a learned bias of each head for buckets of distances."""

    def __init__(self, d_model: int, n_heads: int = 4, d_kv: int = 6, num_buckets: int = 8) -> None:
        super().__init__()
        self.n_heads, self.d_kv, self.num_buckets = n_heads, d_kv, num_buckets
        self.q, self.k, self.v = (nn.Linear(d_model, n_heads * d_kv, bias=False) for _ in range(3))
        self.o = nn.Linear(n_heads * d_kv, d_model, bias=False)
        self.relative_attention_bias = nn.Embedding(num_buckets, n_heads)

    def compute_bias(self, length: int) -> Tensor:
        position = torch.arange(length)
        relative = (position[None, :] - position[:, None]).clamp(-(self.num_buckets // 2), self.num_buckets // 2 - 1)
        return self.relative_attention_bias(relative + self.num_buckets // 2).permute(2, 0, 1).unsqueeze(0)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (proj(x).view(b, t, self.n_heads, self.d_kv) for proj in (self.q, self.k, self.v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) + self.compute_bias(t)
        context = torch.einsum("bhqk,bkhd->bqhd", F.softmax(scores, dim=-1).type_as(scores), v)
        return self.o(context.contiguous().view(b, t, self.n_heads * self.d_kv))


Part = Callable[..., nn.Module]


class DecoderLayer(nn.Module):
    def __init__(self, hidden_size: int, attention: Part, mlp: Part, norm: Part) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = norm(hidden_size), norm(hidden_size)
        self.self_attn = attention(hidden_size)
        self.mlp = mlp(hidden_size, 24)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class LanguageModel(nn.Module):
    """Two layers with any attention, feed-forward and norm."""

    def __init__(self, attention: Part, mlp: Part = GELUMLP, norm: Part = nn.LayerNorm, hidden_size: int = 16) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCAB, hidden_size)
        self.layers = nn.ModuleList([DecoderLayer(hidden_size, attention, mlp, norm) for _ in range(2)])
        self.norm = norm(hidden_size)
        self.lm_head = nn.Linear(hidden_size, VOCAB, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed_tokens(input_ids)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.norm(x))


class CausalSelfAttention(nn.Module):
    """nanoGPT: one projection split into three, the causal mask is a buffer."""

    bias: Tensor

    def __init__(self, n_embd: int, n_head: int = 4, block_size: int = 8) -> None:
        super().__init__()
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)
        self.c_proj = nn.Linear(n_embd, n_embd)
        self.n_head, self.n_embd = n_head, n_embd
        self.register_buffer("bias", torch.tril(torch.ones(block_size, block_size)).view(1, 1, block_size, block_size))

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.size()  # noqa: N806  # as in nanoGPT
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = att.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf"))
        y = F.softmax(att, dim=-1) @ v
        return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))


class NanoGPT(nn.Module):
    """Learned positions; the embedding of tokens is the head too."""

    def __init__(self, n_embd: int = 16) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCAB, n_embd), nn.Embedding(8, n_embd)
        self.h = nn.ModuleList([DecoderLayer(n_embd, CausalSelfAttention, GELUMLP, nn.LayerNorm) for _ in range(2)])
        self.ln_f = nn.LayerNorm(n_embd)
        self.lm_head = nn.Linear(n_embd, VOCAB, bias=False)
        self.wte.weight = self.lm_head.weight

    def forward(self, idx: Tensor) -> Tensor:
        x = self.wte(idx) + self.wpe(torch.arange(idx.size(1)))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x)[:, [-1], :])


class ConformerBlock(nn.Module):
    """Half a feed-forward, attention, gated depthwise convolution, the other half."""

    def __init__(self, dim: int = 16, kernel_size: int = 3) -> None:
        super().__init__()
        self.ffn1, self.ffn2 = (
            nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 24), nn.SiLU(), nn.Linear(24, dim)) for _ in range(2)
        )
        self.attn_norm, self.conv_norm, self.final_norm = (nn.LayerNorm(dim) for _ in range(3))
        self.attn = nn.MultiheadAttention(dim, 4, batch_first=True)
        self.pointwise_conv1 = nn.Conv1d(dim, 2 * dim, 1)
        self.depthwise_conv = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.batch_norm = nn.BatchNorm1d(dim)
        self.pointwise_conv2 = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.ffn1(x)
        h = self.attn_norm(x)
        x = x + self.attn(h, h, h, need_weights=False)[0]
        h = F.glu(self.pointwise_conv1(self.conv_norm(x).transpose(1, 2)), dim=1)
        h = self.pointwise_conv2(F.silu(self.batch_norm(self.depthwise_conv(h))))
        x = x + h.transpose(1, 2)
        return self.final_norm(x + 0.5 * self.ffn2(x))


def conformer() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 16), ConformerBlock(), ConformerBlock(), nn.Linear(16, 5))


class DLRM(nn.Module):
    """Dense features and categories become vectors; the products of all pairs go to the top."""

    def __init__(self, num_dense: int = 7, cardinalities: tuple[int, ...] = (5, 9, 6), dim: int = 6) -> None:
        super().__init__()
        self.bottom_mlp = nn.Sequential(nn.Linear(num_dense, 12), nn.ReLU(), nn.Linear(12, dim), nn.ReLU())
        self.embeddings = nn.ModuleList([nn.Embedding(size, dim) for size in cardinalities])
        num_features = len(cardinalities) + 1
        self.top_mlp = nn.Sequential(
            nn.Linear(dim + num_features * (num_features - 1) // 2, 14), nn.ReLU(), nn.Linear(14, 1)
        )

    def forward(self, dense: Tensor, categories: Tensor) -> Tensor:
        x = self.bottom_mlp(dense)
        vectors = [x, *(embedding(categories[:, i]) for i, embedding in enumerate(self.embeddings))]
        stacked = torch.stack(vectors, dim=1)
        interactions = torch.bmm(stacked, stacked.transpose(1, 2))
        row, column = torch.triu_indices(stacked.size(1), stacked.size(1), offset=1)
        return torch.sigmoid(self.top_mlp(torch.cat([x, interactions[:, row, column]], dim=1))).squeeze(1)


class WideAndDeep(nn.Module):
    def __init__(self, num_dense: int = 7, num_categories: int = 3, cardinality: int = 9, dim: int = 4) -> None:
        super().__init__()
        self.wide = nn.EmbeddingBag(num_categories * cardinality, 1, mode="sum")
        self.embedding = nn.Embedding(num_categories * cardinality, dim)
        self.deep = nn.Sequential(
            nn.Linear(num_dense + num_categories * dim, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10), nn.ReLU()
        )
        self.head = nn.Linear(10, 1)
        self.register_buffer("offsets", torch.arange(num_categories) * cardinality)

    def forward(self, dense: Tensor, categories: Tensor) -> dict[str, Tensor]:
        ids = categories + self.get_buffer("offsets")
        deep = self.deep(torch.cat([dense, self.embedding(ids).flatten(1)], dim=1))
        return {"logits": self.wide(ids) + self.head(deep)}


class Siamese(nn.Module):
    """One encoder for both images; the head sees the distance of their features."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 16, 12)
        )
        self.fc = nn.Linear(12, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.fc(torch.abs(self.encoder(left) - self.encoder(right)))


class GCN(nn.Module):
    """Graphs as dense adjacency matrices: A @ X @ W."""

    def __init__(self, in_features: int = 6, hidden: int = 12, num_classes: int = 4) -> None:
        super().__init__()
        self.weight1 = nn.Parameter(torch.randn(in_features, hidden))
        self.bias1 = nn.Parameter(torch.zeros(hidden))
        self.conv2 = nn.Linear(hidden, 10, bias=False)
        self.readout = nn.Linear(10, num_classes)

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        h = F.relu(torch.matmul(adj, torch.matmul(x, self.weight1)) + self.bias1)
        h = F.relu(torch.bmm(adj, self.conv2(h)))
        return self.readout(h.mean(dim=1))


class TNet(nn.Module):
    """A matrix for the points' channels, near the identity."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k
        self.conv1, self.conv2 = nn.Conv1d(k, 10, 1), nn.Conv1d(10, 14, 1)
        self.bn1, self.bn2 = nn.BatchNorm1d(10), nn.BatchNorm1d(14)
        self.fc1, self.fc2 = nn.Linear(14, 12), nn.Linear(12, k * k)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        x = torch.max(x, 2, keepdim=True)[0].view(-1, 14)
        x = self.fc2(F.relu(self.fc1(x)))
        return (x + torch.eye(self.k, dtype=x.dtype).view(1, self.k * self.k)).view(-1, self.k, self.k)


class PointNet(nn.Module):
    """Points [B, 3, N]: turned in space, turned among features, then the maximum over all points."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.stn, self.fstn = TNet(3), TNet(8)
        self.conv1, self.bn1 = nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8)
        self.conv2, self.bn2 = nn.Conv1d(8, 16, 1), nn.BatchNorm1d(16)
        self.fc = nn.Linear(16, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.bmm(x.transpose(2, 1), self.stn(x)).transpose(2, 1)
        x = F.relu(self.bn1(self.conv1(x)))
        x = torch.bmm(x.transpose(2, 1), self.fstn(x)).transpose(2, 1)
        return self.fc(torch.max(self.bn2(self.conv2(x)), 2)[0])


class DeepSets(nn.Module):
    """Equivariant layers subtract the set's maximum; the sum over the set goes to the head."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.lambd = nn.Linear(4, 12), nn.Linear(4, 12, bias=False)
        self.phi = nn.Sequential(nn.Linear(12, 10), nn.ELU())
        self.rho = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.elu(self.gamma(x) - self.lambd(x.amax(dim=1, keepdim=True)))
        return self.rho(self.phi(x).sum(dim=1))


class BilinearNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 8), nn.Linear(5, 10)
        self.bilinear = nn.Bilinear(8, 10, 12)
        self.fc = nn.Linear(12, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.bilinear(torch.relu(self.left(left)), torch.relu(self.right(right)))))


class FiLM(nn.Module):
    """A condition scales and shifts the channels of the image."""

    def __init__(self, channels: int = 12) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2, self.bn = nn.Conv2d(8, channels, 3, padding=1), nn.BatchNorm2d(channels, affine=False)
        self.condition = nn.Sequential(nn.Linear(5, 10), nn.ReLU(), nn.Linear(10, 2 * channels))
        self.fc = nn.Linear(channels, 3)

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        gamma, beta = self.condition(condition).chunk(2, dim=1)
        x = self.bn(self.conv2(F.relu(self.conv1(image))))
        x = F.relu((1 + gamma[:, :, None, None]) * x + beta[:, :, None, None])
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def padding() -> Tensor:
    """The second of two sentences is two steps shorter."""
    return torch.arange(6) >= torch.tensor([[6], [4]])


def table() -> Inputs:
    return {"dense": torch.randn(2, 7), "categories": torch.randint(5, (2, 3))}


def graph() -> Inputs:
    adj = ((links := torch.rand(2, 5, 5)) + links.transpose(1, 2) > 1).float() + torch.eye(5)
    return {"x": torch.randn(2, 5, 6), "adj": adj / adj.sum(-1, keepdim=True)}


ATTENTION: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "encoder_post_norm": (made(EncoderClassifier), ids),
    "encoder_pre_norm": (made(EncoderClassifier, norm_first=True), ids),
    "encoder_padded": (made(EncoderClassifier), lambda: {"tokens": ids(), "padding": padding()}),
    "encoder_nested": (made(EncoderClassifier, nested=True), lambda: {"tokens": ids(), "padding": padding()}),
    "translator": (made(Translator), lambda: (ids(), ids(5))),
    "query_decoder": (made(QueryDecoder), drawn(7, 10)),
    "attention_block": (made(AttentionBlock), drawn(6, 10)),
    "attention_bias_kv": (made(AttentionBlock, add_bias_kv=True, add_zero_attn=True), drawn(6, 10)),
    "attention_padded": (made(AttentionBlock), lambda: {"x": torch.randn(2, 6, 10), "key_padding_mask": padding()}),
    "cross_attention": (made(CrossAttention), lambda: (torch.randn(2, 5, 10), torch.randn(2, 7, 6))),
    "grouped_query": (made(LanguageModel, attention=GroupedQueryAttention, mlp=SwiGLU, norm=RMSNorm), ids),
    "grouped_query_rms": (made(LanguageModel, attention=GroupedQueryAttention, mlp=SwiGLU, norm=nn.RMSNorm), ids),
    "multi_query": (made(LanguageModel, attention=MultiQueryAttention), ids),
    "sdp_attention": (made(LanguageModel, attention=SDPAttention), ids),
    "alibi": (made(LanguageModel, attention=AlibiAttention), ids),
    "relative_bias": (made(LanguageModel, attention=RelativeBiasAttention, norm=RMSNorm), ids),
    "soft_moe": (made(LanguageModel, attention=SDPAttention, mlp=SoftMoE), ids),
    "batched_moe": (made(LanguageModel, attention=SDPAttention, mlp=BatchedMoE), ids),
    "nano_gpt": (made(NanoGPT), ids),
    "conformer": (made(conformer), drawn(6, 10)),
    "dlrm": (made(DLRM), table),
    "wide_and_deep": (made(WideAndDeep), table),
    "siamese": (made(Siamese), lambda: (torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8))),
    "gcn": (made(GCN), graph),
    "pointnet": (made(PointNet), drawn(3, 9)),
    "deep_sets": (made(DeepSets), drawn(7, 4)),
    "bilinear": (made(BilinearNet), lambda: (torch.randn(2, 6), torch.randn(2, 5))),
    "film": (made(FiLM), lambda: {"image": torch.randn(2, 1, 8, 8), "condition": torch.randn(2, 5)}),
}
