"""Detectors: features of several levels through heads that all levels share or not."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.convolutional import Block, conv_bn
from tests.zoo.vision_layers import Catalogue, images, stirred


class FeaturePyramidNetwork(nn.Module):
    """torchvision.ops.FeaturePyramidNetwork, with its max pooled extra level."""

    def __init__(self, in_channels_list: list[int], out_channels: int) -> None:
        super().__init__()
        self.inner_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(c, out_channels, 1)) for c in in_channels_list)
        self.layer_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(out_channels, out_channels, 3, padding=1)) for _ in in_channels_list
        )

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        names = list(x.keys())
        values = list(x.values())
        last_inner = self.inner_blocks[-1](values[-1])
        results = [self.layer_blocks[-1](last_inner)]
        for idx in range(len(values) - 2, -1, -1):
            inner_lateral = self.inner_blocks[idx](values[idx])
            feat_shape = inner_lateral.shape[-2:]
            inner_top_down = F.interpolate(last_inner, size=feat_shape, mode="nearest")
            last_inner = inner_lateral + inner_top_down
            results.insert(0, self.layer_blocks[idx](last_inner))
        names.append("pool")
        results.append(F.max_pool2d(results[-1], kernel_size=1, stride=2, padding=0))
        return OrderedDict(list(zip(names, results, strict=True)))


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.layer1 = Block(8, 12, 2)
        self.layer2 = Block(12, 16, 2)
        self.layer3 = Block(16, 20, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        c2 = self.layer1(self.stem(x))
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return {"0": c2, "1": c3, "2": c4}


class RetinaNetHead(nn.Module):
    """One tower for all levels; the answers of the levels are joined along the anchors."""

    def __init__(self, channels: int, columns: int, num_anchors: int = 2) -> None:
        super().__init__()
        self.columns = columns
        self.conv = nn.Sequential(
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()),
        )
        self.logits = nn.Conv2d(channels, num_anchors * columns, kernel_size=3, stride=1, padding=1)

    def forward(self, x: list[Tensor]) -> Tensor:
        all_logits = []
        for features in x:
            logits = self.conv(features)
            logits = self.logits(logits)
            n, _, h, w = logits.shape
            logits = logits.view(n, -1, self.columns, h, w)
            logits = logits.permute(0, 3, 4, 1, 2)
            logits = logits.reshape(n, -1, self.columns)
            all_logits.append(logits)
        return torch.cat(all_logits, dim=1)


class RetinaNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.fpn = FeaturePyramidNetwork([12, 16, 20], 16)
        self.classification_head = RetinaNetHead(16, 5)
        self.regression_head = RetinaNetHead(16, 4)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = list(self.fpn(self.backbone(images)).values())
        return {"cls_logits": self.classification_head(features), "bbox_regression": self.regression_head(features)}


class Scale(nn.Module):
    def __init__(self, init_value: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([init_value]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class FCOS(nn.Module):
    """Shared towers with group norms, a scale per level; answers with a list of dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.fpn = FeaturePyramidNetwork([12, 16, 20], 16)
        self.cls_tower = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.GroupNorm(4, 16), nn.ReLU())
        self.bbox_tower = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.GroupNorm(4, 16), nn.ReLU())
        self.cls_logits = nn.Conv2d(16, 5, kernel_size=3, stride=1, padding=1)
        self.bbox_pred = nn.Conv2d(16, 4, kernel_size=3, stride=1, padding=1)
        self.ctrness = nn.Conv2d(16, 1, kernel_size=3, stride=1, padding=1)
        self.scales = nn.ModuleList(Scale(init_value=0.8 + 0.2 * level) for level in range(4))

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        levels = []
        for level, feature in enumerate(self.fpn(self.backbone(images)).values()):
            cls_tower = self.cls_tower(feature)
            bbox_tower = self.bbox_tower(feature)
            bbox_pred = F.relu(self.scales[level](self.bbox_pred(bbox_tower)))
            levels.append(
                {"logits": self.cls_logits(cls_tower), "bbox": bbox_pred, "centerness": self.ctrness(bbox_tower)}
            )
        return levels


class FpnCombine(nn.Module):
    """BiFPN (EfficientDet): positive weights of the inputs, divided by their sum."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.edge_weights = nn.Parameter(torch.rand(inputs) + 0.5)

    def forward(self, nodes: list[Tensor]) -> Tensor:
        edge_weights = F.relu(self.edge_weights)
        weights_sum = torch.sum(edge_weights)
        out = torch.stack([(nodes[i] * edge_weights[i]) / (weights_sum + 0.0001) for i in range(len(nodes))], dim=-1)
        return torch.sum(out, dim=-1)


def separable(channels: int, out: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, out, 1),
    )


class EfficientDet(nn.Module):
    """The head's convolutions are shared by the levels, its norms are not."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.resample = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1), nn.BatchNorm2d(width)) for c in (12, 16, 20)
        )
        self.combine = nn.ModuleList([FpnCombine(2), FpnCombine(2), FpnCombine(3), FpnCombine(2)])
        self.after = nn.ModuleList(
            nn.Sequential(nn.SiLU(), separable(width, width), nn.BatchNorm2d(width)) for _ in range(4)
        )
        self.conv_rep = nn.ModuleList([separable(width, width), separable(width, width)])
        self.bn_rep = nn.ModuleList(nn.ModuleList(nn.BatchNorm2d(width) for _ in range(3)) for _ in range(2))
        self.predict = separable(width, 8)
        self.act = nn.SiLU()

    def _fuse(self, x: Tensor) -> list[Tensor]:
        features = self.backbone(x)
        p3, p4, p5 = [resample(f) for resample, f in zip(self.resample, features.values(), strict=True)]
        p4_up = self.after[0](self.combine[0]([p4, F.interpolate(p5, scale_factor=2, mode="nearest")]))
        p3_out = self.after[1](self.combine[1]([p3, F.interpolate(p4_up, scale_factor=2, mode="nearest")]))
        p4_out = self.after[2](self.combine[2]([p4, p4_up, F.max_pool2d(p3_out, 3, 2, 1)]))
        p5_out = self.after[3](self.combine[3]([p5, F.max_pool2d(p4_out, 3, 2, 1)]))
        return [p3_out, p4_out, p5_out]

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for level, features in enumerate(self._fuse(x)):
            y = features
            for conv, bn in zip(self.conv_rep, self.bn_rep, strict=True):
                y = self.act(bn[level](conv(y)))  # type: ignore[index]  # a ModuleList
            outputs.append(self.predict(y))
        return outputs


class Conv(nn.Module):
    """Ultralytics' convolution, norm and SiLU; also its bottleneck, C3, C2f, SPPF, Concat and heads below."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    def __init__(self, c: int, e: float = 1.0) -> None:
        super().__init__()
        self.cv1 = Conv(c, int(c * e), 3, 1)
        self.cv2 = Conv(int(c * e), c, 3, 1)
        self.add = True

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x)) if self.add else self.cv2(self.cv1(x))


class C3(nn.Module):
    def __init__(self, c1: int, c2: int, n: int = 1) -> None:
        super().__init__()
        c_ = c2 // 2
        self.cv1 = Conv(c1, c_, 1, 1)
        self.cv2 = Conv(c1, c_, 1, 1)
        self.cv3 = Conv(2 * c_, c2, 1)
        self.m = nn.Sequential(*(Bottleneck(c_) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class C2f(nn.Module):
    def __init__(self, c1: int, c2: int, n: int = 1) -> None:
        super().__init__()
        self.c = c2 // 2
        self.cv1 = Conv(c1, 2 * self.c, 1, 1)
        self.cv2 = Conv((2 + n) * self.c, c2, 1)
        self.m = nn.ModuleList(Bottleneck(self.c) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class SPPF(nn.Module):
    def __init__(self, c1: int, c2: int, k: int = 5) -> None:
        super().__init__()
        c_ = c1 // 2
        self.cv1 = Conv(c1, c_, 1, 1)
        self.cv2 = Conv(c_ * 4, c2, 1, 1)
        self.m = nn.MaxPool2d(kernel_size=k, stride=1, padding=k // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        y1 = self.m(x)
        y2 = self.m(y1)
        return self.cv2(torch.cat((x, y1, y2, self.m(y2)), 1))


class Concat(nn.Module):
    def forward(self, x: list[Tensor]) -> Tensor:
        return torch.cat(x, 1)


class DetectV5(nn.Module):
    def __init__(self, ch: list[int], nc: int = 3) -> None:
        super().__init__()
        self.na = 2
        self.no = nc + 5
        self.m = nn.ModuleList(nn.Conv2d(c, self.no * self.na, 1) for c in ch)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        for i, m in enumerate(self.m):
            x[i] = m(x[i])
            bs, _, ny, nx = x[i].shape
            x[i] = x[i].view(bs, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous()
        return x


class DFL(nn.Module):
    """The expected value of a distribution, as a convolution with weights 0, 1, 2..."""

    def __init__(self, c1: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, 1, 1, bias=False).requires_grad_(False)
        self.conv.weight.data[:] = torch.arange(c1, dtype=torch.float).view(1, c1, 1, 1)
        self.c1 = c1

    def forward(self, x: Tensor) -> Tensor:
        b, _, a = x.shape
        return self.conv(x.view(b, 4, self.c1, a).transpose(2, 1).softmax(1)).view(b, 4, a)


class DetectV8(nn.Module):
    def __init__(self, ch: list[int], nc: int = 3) -> None:
        super().__init__()
        self.nc = nc
        self.reg_max = 4
        self.no = nc + self.reg_max * 4
        self.cv2 = nn.ModuleList(nn.Sequential(Conv(c, 16, 3), Conv(16, 16, 3), nn.Conv2d(16, 16, 1)) for c in ch)
        self.cv3 = nn.ModuleList(nn.Sequential(Conv(c, 12, 3), Conv(12, 12, 3), nn.Conv2d(12, nc, 1)) for c in ch)
        self.dfl = DFL(self.reg_max)

    def forward(self, x: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        shape = x[0].shape
        for i, (box_head, cls_head) in enumerate(zip(self.cv2, self.cv3, strict=True)):
            x[i] = torch.cat((box_head(x[i]), cls_head(x[i])), 1)
        x_cat = torch.cat([xi.view(shape[0], self.no, -1) for xi in x], 2)
        box, cls = x_cat.split((self.reg_max * 4, self.nc), 1)
        lt, rb = self.dfl(box).chunk(2, 1)
        c_xy = (rb - lt) / 2
        wh = lt + rb
        return torch.cat((c_xy, wh, cls.sigmoid()), 1), x


class Yolo(nn.Module):
    """Ultralytics' way: a list of layers, each with the numbers of those that it reads."""

    def __init__(self, csp: type[C3 | C2f], detect: type[DetectV5 | DetectV8]) -> None:
        super().__init__()
        rows: list[tuple[int | list[int], nn.Module]] = [
            (-1, Conv(3, 8, 3, 2)),
            (-1, csp(8, 12)),
            (-1, Conv(12, 16, 3, 2)),
            (-1, csp(16, 16, 2)),
            (-1, SPPF(16, 16)),
            (-1, nn.Upsample(None, 2, "nearest")),
            ([-1, 1], Concat()),
            (-1, csp(28, 12)),
            (-1, Conv(12, 12, 3, 2)),
            ([-1, 4], Concat()),
            (-1, csp(28, 16)),
            ([7, 10], detect([12, 16])),
        ]
        self.froms = [row[0] for row in rows]
        self.model = nn.Sequential(*(row[1] for row in rows))

    def forward(self, x: Tensor) -> object:
        y: list[Tensor] = []
        value: Tensor | list[Tensor] = x
        for f, m in zip(self.froms, self.model, strict=True):
            if f != -1:
                value = y[f] if isinstance(f, int) else [y[j] for j in f]
            value = m(value)
            y.append(value)  # type: ignore[arg-type]  # only the last answer is no tensor
        return value


DETECTORS: Catalogue = {
    "retinanet": (stirred(RetinaNet), images(32)),
    "fcos": (stirred(FCOS), images(32)),
    "efficientdet": (stirred(EfficientDet), images(32)),
    "yolo_v5": (stirred(lambda: Yolo(C3, DetectV5)), images()),
    "yolo_v8": (stirred(lambda: Yolo(C2f, DetectV8)), images()),
}
