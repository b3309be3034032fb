"""Models whose sizes and scales lie where few look: in a tuple, in a shared config, beside a projection, inline."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.task.data import Inputs


class ChannelScale(nn.Module):
    """PoolFormer's scale, the shape of which is kept in a tuple."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shape = (width, 1, 1)
        self.scale = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.view(self.shape)


class PoolFormer(nn.Module):
    """Pooling mixes the places, two convolutions the channels; each branch is scaled."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.norms = nn.ModuleList([nn.GroupNorm(1, width) for _ in range(2)])
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.mlp = nn.Sequential(nn.Conv2d(width, 4 * width, 1), nn.GELU(), nn.Conv2d(4 * width, width, 1))
        self.scales = nn.ModuleList([ChannelScale(width) for _ in range(2)])
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        mixed = self.norms[0](x)
        x = x + self.scales[0](self.pool(mixed) - mixed)
        x = x + self.scales[1](self.mlp(self.norms[1](x)))
        return self.head(x.mean((2, 3)))


class FusedAttention(nn.Module):
    """Phi-3's: one projection, cut by numbers of a config that all layers share."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.config = config
        self.head_dim = config.width // config.heads
        self.num_key_value_groups = config.heads // config.kv_heads
        rows = (config.heads + 2 * config.kv_heads) * self.head_dim
        self.qkv_proj = nn.Linear(config.width, rows, bias=False)
        self.o_proj = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, places, _ = x.shape
        queries, keys = self.config.heads * self.head_dim, self.config.kv_heads * self.head_dim
        qkv = self.qkv_proj(x)
        parts = (qkv[..., :queries], qkv[..., queries : queries + keys], qkv[..., queries + keys :])
        q, k, v = (part.view(batch, places, -1, self.head_dim).transpose(1, 2) for part in parts)
        k, v = (part.repeat_interleave(self.num_key_value_groups, 1) for part in (k, v))
        weights = (q @ k.transpose(-1, -2) * self.head_dim**-0.5).softmax(-1)
        return self.o_proj((weights @ v).transpose(1, 2).reshape(batch, places, -1))


class ConfiguredModel(nn.Module):
    """Two layers with one config, which says the same of both until one of them loses heads."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(width=24, heads=4, kv_heads=2, vocab_size=11, num_hidden_layers=2)
        self.embed = nn.Embedding(11, 24)
        self.layers = nn.ModuleList([FusedAttention(self.config) for _ in range(2)])
        self.head = nn.Linear(24, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


class SplitBiasAttention(nn.Module):
    """BEiT's: biases of queries and values beside the projection, none of keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, places, width = x.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).reshape(batch, places, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, places, width))


class ScaledAttention(nn.Module):
    """Takes its width from its input; its scale from the head width, or as it was once and for all."""

    def __init__(self, width: int, heads: int, *, fixed: bool) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, (width // heads) ** -0.5 if fixed else None
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, places, width = x.shape
        qkv = self.qkv(x).reshape(batch, places, 3, self.num_heads, width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(mixed.transpose(1, 2).reshape(batch, places, width))


class Layers(nn.Module):
    """Attentions on one residual width. transposed: what comes in lies the other way round in memory."""

    def __init__(self, *layers: nn.Module, width: int = 16, transposed: bool = False) -> None:
        super().__init__()
        self.embed = nn.Conv1d(5, width, 1) if transposed else nn.Linear(5, width)
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.transpose(1, 2)).transpose(1, 2) if isinstance(self.embed, nn.Conv1d) else self.embed(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x.mean(1))


class InlineAttention(nn.Module):
    """Attention written in the forward of the model itself."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.num_heads = heads
        self.embed, self.qkv, self.proj = nn.Linear(5, width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        batch, places, width = x.shape
        qkv = self.qkv(x).reshape(batch, places, 3, self.num_heads, width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, places, width)
        return self.head((x + self.proj(mixed)).mean(1))


class CosineAttention(nn.Module):
    """SwinV2's: queries and keys of length one, and biases by place that a small network makes, one for each head."""

    def __init__(self, width: int = 16, heads: int = 4, places: int = 6) -> None:
        super().__init__()
        self.num_attention_heads, self.attention_head_size, self.all_head_size = heads, width // heads, width
        self.logit_scale = nn.Parameter(torch.rand(heads, 1, 1) + 1)
        self.bias_mlp = nn.Sequential(nn.Linear(2, 10), nn.ReLU(), nn.Linear(10, heads, bias=False))
        self.register_buffer("offsets", torch.randn(1, 2 * places - 1, 2), persistent=False)
        self.register_buffer("index", torch.arange(places)[:, None] - torch.arange(places) + places - 1)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, places, _ = x.shape
        heads = (batch, -1, self.num_attention_heads, self.attention_head_size)
        q, k, v = (layer(x).view(heads).transpose(1, 2) for layer in (self.query, self.key, self.value))
        logits = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.logit_scale.exp()
        table = self.bias_mlp(self.offsets).view(-1, self.num_attention_heads)
        bias = table[self.index.view(-1)].view(places, places, -1).permute(2, 0, 1).contiguous()
        mixed = (logits + 4 * torch.sigmoid(bias).unsqueeze(0)).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).contiguous().view(batch, places, self.all_head_size))


class SeparableAttention(nn.Module):
    """MobileViTv2's: one channel of queries beside keys and values as wide as the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.qkv, self.proj = nn.Linear(width, 1 + 2 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).split([1, self.width, self.width], -1)
        return self.proj(F.relu(v) * (q.softmax(1) * k).sum(1, keepdim=True))


class PartlyConvolved(nn.Module):
    """MambaOut's gate: some of the gated channels are convolved first; all widths lie in a tuple."""

    def __init__(self, width: int, hidden: int = 12, convolved: int = 5) -> None:
        super().__init__()
        self.parts = (hidden, hidden - convolved, convolved)
        self.expand, self.proj = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)
        self.conv = nn.Conv1d(convolved, convolved, 3, padding=1, groups=convolved)

    def forward(self, x: Tensor) -> Tensor:
        gate, plain, convolved = self.expand(x).split(self.parts, -1)
        convolved = self.conv(convolved.transpose(1, 2)).transpose(1, 2)
        return self.proj(F.silu(gate) * torch.cat((plain, convolved), -1))


class StateSpace(nn.Module):
    """Mamba's parts of unequal width, as many states as places of a kernel whose weights are reshaped before."""

    def __init__(self, width: int, states: int = 4, rank: int = 3) -> None:
        super().__init__()
        self.rank, self.states = rank, states
        self.conv = nn.Conv1d(width, width, states, groups=width, padding=states - 1)
        self.parts, self.steps = nn.Linear(width, rank + 2 * states), nn.Linear(rank, width)
        self.decay = nn.Parameter(torch.rand(width, states))

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.conv.weight.view(x.shape[-1], -1)
        padded = F.pad(x.transpose(1, 2), (kernel.shape[1] - 1, 0))
        x = F.silu(F.conv1d(padded, kernel.unsqueeze(1), self.conv.bias, groups=x.shape[-1])).transpose(1, 2)
        steps, given, read = self.parts(x).split([self.rank, self.states, self.states], -1)
        steps = F.softplus(self.steps(steps))
        state = torch.einsum("bpw,ws,bps->bpws", steps * x, torch.exp(-self.decay), given).cumsum(1)
        return torch.einsum("bpws,bps->bpw", state, read)


class WindowsByHead(nn.Module):
    """CoaT's positions: heads in sets of unequal number, each with a convolution; several layers share it."""

    def __init__(self, width: int, heads: tuple[int, ...]) -> None:
        super().__init__()
        self.parts = [width * count for count in heads]
        self.convs = nn.ModuleList(
            nn.Conv1d(part, part, 2 * number + 1, padding=number, groups=part) for number, part in enumerate(self.parts)
        )

    def forward(self, q: Tensor, v: Tensor) -> Tensor:
        batch, heads, places, width = v.shape
        parts = v.transpose(-1, -2).reshape(batch, heads * width, places).split(self.parts, 1)
        made = torch.cat([conv(part) for conv, part in zip(self.convs, parts, strict=True)], 1)
        return q * made.reshape(batch, heads, width, places).transpose(-1, -2)


class FactorisedAttention(nn.Module):
    """CoaT's, with the width of its input."""

    def __init__(self, width: int, heads: int, windows: WindowsByHead) -> None:
        super().__init__()
        self.num_heads, self.scale, self.windows = heads, (width // heads) ** -0.5, windows
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, places, width = x.shape
        qkv = self.qkv(x).reshape(batch, places, 3, self.num_heads, width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = self.scale * (q @ (k.softmax(2).transpose(-1, -2) @ v)) + self.windows(q, v)
        return self.proj(mixed.transpose(1, 2).reshape(batch, places, width))


def _windows() -> nn.Module:
    shared = WindowsByHead(3, (2, 3, 3))
    return Layers(*(FactorisedAttention(24, 8, shared) for _ in range(2)), width=24)


def _places(width: int = 5) -> Callable[[], Inputs]:
    return lambda: torch.randn(2, 6, width)


def _scaled(*fixed: bool) -> nn.Module:
    return Layers(*(ScaledAttention(16, 2, fixed=one) for one in fixed))


NUMBERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "shape_in_a_tuple": (PoolFormer, lambda: torch.randn(2, 1, 8, 8)),
    "counts_in_a_config": (ConfiguredModel, lambda: torch.randint(11, (2, 7))),
    "biases_beside_qkv": (lambda: Layers(SplitBiasAttention(16, 2)), _places()),
    "transposed_attention": (lambda: Layers(ScaledAttention(16, 2, fixed=False), transposed=True), _places()),
    "one_scale_is_fixed": (lambda: _scaled(False, True, True, False), _places()),
    "inline_attention": (InlineAttention, _places()),
    "separable_attention": (lambda: Layers(SeparableAttention(16)), _places()),
    "partly_convolved": (lambda: Layers(PartlyConvolved(16)), _places()),
    "state_space": (lambda: Layers(StateSpace(16)), _places()),
    "windows_by_head": (_windows, _places()),
    "cosine_attention": (lambda: Layers(CosineAttention()), _places()),
}
