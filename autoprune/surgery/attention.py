"""Define multi-head attention for any number of heads and any head width."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SlimMultiheadAttention(nn.MultiheadAttention):
    """nn.MultiheadAttention for any number and width of heads, with the attention scale of the dense model.

    The forward of torch requires heads times head width to be `embed_dim`, so a cut attention becomes one of these. It
    takes and returns the same values and keeps the names of the parameters. It is written in the subset of Python that
    torch.jit.script supports.

    Attributes:
        num_heads: Number of heads.
        head_dim: Width of queries and keys; that of values follows from the weights.
        logit_scale: Factor on the products of queries and keys, 1 / sqrt(head width before the cut).
    """

    if TYPE_CHECKING:  # torch.jit.script reads annotations of a class, and knows none that are text
        logit_scale: float

    @classmethod
    def adopt(cls, module: nn.Module) -> None:
        """Turn an nn.MultiheadAttention into this class, in place.

        Args:
            module: Any module; others, and subclasses with another forward, are left unchanged.
        """
        if not isinstance(module, nn.MultiheadAttention) or type(module).forward is not nn.MultiheadAttention.forward:
            return
        module.__dict__["logit_scale"] = 1.0 / math.sqrt(module.head_dim)
        module._qkv_same_embed_dim = False  # keeps nn.TransformerEncoderLayer from its fused kernel
        module.__class__ = cls

    def forward(  # noqa: PLR0913, PLR0917  # torch's own signature
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; arguments and outputs as in nn.MultiheadAttention.forward."""
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        batched = query.dim() == 3
        first = 0 if self.batch_first or not batched else 1
        if not batched:
            query, key, value = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
            key_padding_mask = key_padding_mask.unsqueeze(0) if key_padding_mask is not None else None
        q, k, v = self._project(query.movedim(first, 0), key.movedim(first, 0), value.movedim(first, 0))
        bias = self._bias(q, attn_mask, key_padding_mask)
        if bias is not None and bias.shape[-1] < k.shape[-2]:
            bias = F.pad(bias, (0, k.shape[-2] - bias.shape[-1]))
        weights: Tensor | None = None
        if need_weights:
            logits = (q * self.logit_scale) @ k.transpose(-2, -1)
            weights = torch.softmax(logits if bias is None else logits + bias, dim=-1)
            mixed = F.dropout(weights, self.dropout, self.training) @ v
        else:
            dropout = self.dropout if self.training else 0.0
            mixed = F.scaled_dot_product_attention(q, k, v, bias, dropout, scale=self.logit_scale)
        out = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if not batched:
            return out.squeeze(0), weights.squeeze(0) if weights is not None else None
        return out.movedim(0, first), weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the heads of queries, keys and values, [batch, heads, length, width]."""
        bias: Tensor | None = self.in_proj_bias
        bias_k: Tensor | None = self.bias_k
        bias_v: Tensor | None = self.bias_v
        # An attribute of the module, so that torch.jit.script leaves out the branch whose weights are None.
        if self.in_proj_weight is not None:
            wq, wk, wv = self.in_proj_weight.chunk(3)
        else:
            wq, wk, wv = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight  # type: ignore[unreachable]
        if bias is None:
            q, k, v = F.linear(query, wq), F.linear(key, wk), F.linear(value, wv)
        else:
            bq, bk, bv = bias.split([len(wq), len(wk), len(wv)])
            q, k, v = F.linear(query, wq, bq), F.linear(key, wk, bk), F.linear(value, wv, bv)
        if bias_k is not None and bias_v is not None:
            k = torch.cat([k, bias_k.expand(len(k), 1, -1)], dim=1)
            v = torch.cat([v, bias_v.expand(len(v), 1, -1)], dim=1)
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        return self._heads(q), self._heads(k), self._heads(v)

    def _heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.num_heads, -1))
        return heads.transpose(1, 2)

    def _bias(self, query: Tensor, attn_mask: Tensor | None, key_padding_mask: Tensor | None) -> Tensor | None:
        """Combine both masks to values that are added to the logits, [batch or 1, heads or 1, queries or 1, keys]."""
        bias: Tensor | None = None
        if attn_mask is not None:
            mask = _additive(attn_mask, query)
            bias = mask.unsqueeze(0).unsqueeze(0)
            if mask.dim() == 3:
                bias = mask.unflatten(0, (len(query), self.num_heads))
        if key_padding_mask is not None:
            padding = _additive(key_padding_mask, query).unsqueeze(1).unsqueeze(1)
            bias = padding if bias is None else bias + padding
        return bias


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    """Turn a bool mask into values to add: True ("leave out") becomes minus infinity."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, -math.inf)
