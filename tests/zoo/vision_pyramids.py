"""Transformers over pyramids (PVT, SegFormer) and for detection (DETR, by nn.Transformer and by hand)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.convolutional import Block as ConvBlock
from tests.zoo.vision_layers import Catalogue, DropPath, FrozenBatchNorm2d, images, stirred


class SpatialReductionAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int, sr_ratio: int) -> None:
        super().__init__()
        self.dim = dim
        self.num_heads = num_heads
        head_dim = dim // num_heads
        self.scale = head_dim**-0.5
        self.q = nn.Linear(dim, dim, bias=True)
        self.kv = nn.Linear(dim, dim * 2, bias=True)
        self.attn_drop = nn.Dropout(0.1)
        self.proj = nn.Linear(dim, dim)
        self.sr_ratio = sr_ratio
        if sr_ratio > 1:
            self.sr = nn.Conv2d(dim, dim, kernel_size=sr_ratio, stride=sr_ratio)
            self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        b, n, c = x.shape
        q = self.q(x).reshape(b, n, self.num_heads, c // self.num_heads).permute(0, 2, 1, 3)
        if self.sr_ratio > 1:
            x_ = x.permute(0, 2, 1).reshape(b, c, h, w)
            x_ = self.sr(x_).reshape(b, c, -1).permute(0, 2, 1)
            x_ = self.norm(x_)
            kv = self.kv(x_).reshape(b, -1, 2, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        else:
            kv = self.kv(x).reshape(b, -1, 2, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        k, v = kv[0], kv[1]
        attn = (q @ k.transpose(-2, -1)) * self.scale
        attn = attn.softmax(dim=-1)
        attn = self.attn_drop(attn)
        x = (attn @ v).transpose(1, 2).reshape(b, n, c)
        return self.proj(x)


class DWConv(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, 1, 1, bias=True, groups=dim)

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        b, _, c = x.shape
        x = x.transpose(1, 2).view(b, c, h, w)
        x = self.dwconv(x)
        return x.flatten(2).transpose(1, 2)


class ConvMlp(nn.Module):
    def __init__(self, in_features: int, hidden_features: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.dwconv = DWConv(hidden_features)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_features, in_features)

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        x = self.fc1(x)
        x = self.dwconv(x, h, w)
        x = self.act(x)
        return self.fc2(x)


class PvtBlock(nn.Module):
    def __init__(self, dim: int, num_heads: int, sr_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = SpatialReductionAttention(dim, num_heads, sr_ratio)
        self.drop_path = DropPath()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = ConvMlp(dim, dim * 2)

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), h, w))
        return x + self.drop_path(self.mlp(self.norm2(x), h, w))


class OverlapPatchEmbed(nn.Module):
    def __init__(self, in_chans: int, embed_dim: int, patch_size: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, stride, patch_size // 2)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        x = self.proj(x)
        _, _, h, w = x.shape
        x = x.flatten(2).transpose(1, 2)
        x = self.norm(x)
        return x, h, w


class MixVisionTransformer(nn.Module):
    """PVTv2 and SegFormer's encoder: features of every stage."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed1 = OverlapPatchEmbed(3, 16, 7, 2)
        self.block1 = nn.ModuleList([PvtBlock(16, 2, 2)])
        self.norm1 = nn.LayerNorm(16)
        self.patch_embed2 = OverlapPatchEmbed(16, 24, 3, 2)
        self.block2 = nn.ModuleList([PvtBlock(24, 3, 1)])
        self.norm2 = nn.LayerNorm(24)

    def forward(self, x: Tensor) -> list[Tensor]:
        b = x.shape[0]
        outs = []
        for i in range(2):
            patch_embed = getattr(self, f"patch_embed{i + 1}")
            block = getattr(self, f"block{i + 1}")
            norm = getattr(self, f"norm{i + 1}")
            x, h, w = patch_embed(x)
            for blk in block:
                x = blk(x, h, w)
            x = norm(x)
            x = x.reshape(b, h, w, -1).permute(0, 3, 1, 2).contiguous()
            outs.append(x)
        return outs


class Pvt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = MixVisionTransformer()
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x)[-1]
        return self.head(x.mean(dim=(-1, -2)))


class SegFormer(nn.Module):
    def __init__(self, embedding_dim: int = 16) -> None:
        super().__init__()
        self.encoder = MixVisionTransformer()
        self.linear_c2 = nn.Linear(24, embedding_dim)
        self.linear_c1 = nn.Linear(16, embedding_dim)
        self.linear_fuse = nn.Sequential(
            nn.Conv2d(embedding_dim * 2, embedding_dim, 1, bias=False), nn.BatchNorm2d(embedding_dim), nn.ReLU()
        )
        self.dropout = nn.Dropout2d(0.1)
        self.linear_pred = nn.Conv2d(embedding_dim, 5, kernel_size=1)

    @staticmethod
    def embed(proj: nn.Module, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        x = proj(x.flatten(2).transpose(1, 2))
        return x.permute(0, 2, 1).reshape(n, -1, h, w)

    def forward(self, x: Tensor) -> Tensor:
        c1, c2 = self.encoder(x)
        _c2 = self.embed(self.linear_c2, c2)
        _c2 = F.interpolate(_c2, size=c1.size()[2:], mode="bilinear", align_corners=False)
        _c1 = self.embed(self.linear_c1, c1)
        _c = self.linear_fuse(torch.cat([_c2, _c1], dim=1))
        x = self.dropout(_c)
        return self.linear_pred(x)


class DetrDemo(nn.Module):
    """The one of DETR's notebook, with nn.Transformer."""

    def __init__(self, hidden_dim: int = 16, nheads: int = 2, num_queries: int = 5) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(), ConvBlock(12, 20, 2))
        self.conv = nn.Conv2d(20, hidden_dim, 1)
        self.transformer = nn.Transformer(hidden_dim, nheads, 2, 2, dim_feedforward=24, batch_first=True)
        self.linear_class = nn.Linear(hidden_dim, 6)
        self.linear_bbox = nn.Linear(hidden_dim, 4)
        self.query_pos = nn.Parameter(torch.rand(num_queries, hidden_dim))
        self.row_embed = nn.Parameter(torch.rand(8, hidden_dim // 2))
        self.col_embed = nn.Parameter(torch.rand(8, hidden_dim // 2))

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        x = self.backbone(inputs)
        h = self.conv(x)
        rows, columns = h.shape[-2:]
        pos = torch.cat(
            [
                self.col_embed[:columns].unsqueeze(0).repeat(rows, 1, 1),
                self.row_embed[:rows].unsqueeze(1).repeat(1, columns, 1),
            ],
            dim=-1,
        )
        pos = pos.flatten(0, 1).unsqueeze(0)
        queries = self.query_pos.unsqueeze(0).repeat(len(x), 1, 1)
        h = self.transformer(pos + 0.1 * h.flatten(2).permute(0, 2, 1), queries)
        return {"pred_logits": self.linear_class(h), "pred_boxes": self.linear_bbox(h).sigmoid()}


def with_pos_embed(tensor: Tensor, pos: Tensor | None) -> Tensor:
    return tensor if pos is None else tensor + pos


class DetrEncoderLayer(nn.Module):
    def __init__(self, d_model: int, nhead: int, dim_feedforward: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(d_model, nhead, dropout=0.1)
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.dropout = nn.Dropout(0.1)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)

    def forward(self, src: Tensor, pos: Tensor, key_padding_mask: Tensor) -> Tensor:
        q = k = with_pos_embed(src, pos)
        src2 = self.self_attn(q, k, value=src, key_padding_mask=key_padding_mask)[0]
        src = src + src2
        src = self.norm1(src)
        src2 = self.linear2(self.dropout(F.relu(self.linear1(src))))
        src = src + src2
        return self.norm2(src)


class DetrDecoderLayer(nn.Module):
    def __init__(self, d_model: int, nhead: int, dim_feedforward: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(d_model, nhead, dropout=0.1)
        self.multihead_attn = nn.MultiheadAttention(d_model, nhead, dropout=0.1)
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.norm3 = nn.LayerNorm(d_model)

    def forward(self, tgt: Tensor, memory: Tensor, key_padding_mask: Tensor, pos: Tensor, query_pos: Tensor) -> Tensor:
        q = k = with_pos_embed(tgt, query_pos)
        tgt = self.norm1(tgt + self.self_attn(q, k, value=tgt)[0])
        tgt2 = self.multihead_attn(
            query=with_pos_embed(tgt, query_pos),
            key=with_pos_embed(memory, pos),
            value=memory,
            key_padding_mask=key_padding_mask,
        )[0]
        tgt = self.norm2(tgt + tgt2)
        return self.norm3(tgt + self.linear2(F.relu(self.linear1(tgt))))


class DetrMlp(nn.Module):
    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int) -> None:
        super().__init__()
        self.num_layers = num_layers
        h = [hidden_dim] * (num_layers - 1)
        self.layers = nn.ModuleList(nn.Linear(n, k) for n, k in zip([input_dim, *h], [*h, output_dim], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = F.relu(layer(x)) if i < self.num_layers - 1 else layer(x)
        return x


class Detr(nn.Module):
    """Facebook's: frozen norms, a padding mask, positions added in every layer, answers of every decoder layer."""

    def __init__(self, d_model: int = 16, num_queries: int = 5) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 12, 3, 2, 1, bias=False),
            FrozenBatchNorm2d(12),
            nn.ReLU(inplace=True),
            nn.Conv2d(12, 20, 3, 2, 1, bias=False),
            FrozenBatchNorm2d(20),
            nn.ReLU(inplace=True),
        )
        self.input_proj = nn.Conv2d(20, d_model, kernel_size=1)
        self.query_embed = nn.Embedding(num_queries, d_model)
        self.row_embed = nn.Embedding(8, d_model // 2)
        self.col_embed = nn.Embedding(8, d_model // 2)
        self.encoder = nn.ModuleList([DetrEncoderLayer(d_model, 2, 24)])
        self.decoder = nn.ModuleList(DetrDecoderLayer(d_model, 4, 24) for _ in range(2))
        self.norm = nn.LayerNorm(d_model)
        self.class_embed = nn.Linear(d_model, 6)
        self.bbox_embed = DetrMlp(d_model, 12, 4, 3)

    def positions(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        x_emb = self.col_embed(torch.arange(w, device=x.device))
        y_emb = self.row_embed(torch.arange(h, device=x.device))
        pos = torch.cat([x_emb.unsqueeze(0).repeat(h, 1, 1), y_emb.unsqueeze(1).repeat(1, w, 1)], dim=-1)
        return pos.permute(2, 0, 1).unsqueeze(0).repeat(x.shape[0], 1, 1, 1)

    def forward(self, samples: Tensor, mask: Tensor) -> dict[str, Tensor | list[dict[str, Tensor]]]:
        features = self.backbone(samples)
        small = F.interpolate(mask[None].float(), size=features.shape[-2:]).to(torch.bool)[0].flatten(1)
        pos = self.positions(features).flatten(2).permute(2, 0, 1)
        memory = self.input_proj(features).flatten(2).permute(2, 0, 1)
        query_embed = self.query_embed.weight.unsqueeze(1).repeat(1, len(samples), 1)
        tgt = torch.zeros_like(query_embed)
        for layer in self.encoder:
            memory = layer(memory, pos=pos, key_padding_mask=small)
        intermediate = []
        for layer in self.decoder:
            tgt = layer(tgt, memory, key_padding_mask=small, pos=pos, query_pos=query_embed)
            intermediate.append(self.norm(tgt))
        hs = torch.stack(intermediate).transpose(1, 2)
        logits = self.class_embed(hs)
        boxes = self.bbox_embed(hs).sigmoid()
        aux = [{"pred_logits": a, "pred_boxes": b} for a, b in zip(logits[:-1], boxes[:-1], strict=True)]
        return {"pred_logits": logits[-1], "pred_boxes": boxes[-1], "aux_outputs": aux}


def padded_images() -> dict[str, Tensor]:
    """Images and a mask that is true where one of them is padded."""
    mask = torch.zeros(2, 16, 16, dtype=torch.bool)
    mask[1, :, 10:] = True
    return {"samples": torch.randn(2, 3, 16, 16), "mask": mask}


PYRAMIDS: Catalogue = {
    "pvt_v2": (stirred(Pvt), images()),
    "segformer": (stirred(SegFormer), images()),
    "detr_demo": (stirred(DetrDemo), images()),
    "detr": (stirred(Detr), padded_images),
}
