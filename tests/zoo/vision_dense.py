"""Networks that answer for every place of an image: segmenters and detectors."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.convolutional import Block, conv_bn
from tests.zoo.vision_detectors import DETECTORS
from tests.zoo.vision_layers import Catalogue, FrozenBatchNorm2d, images, stirred


class HighResolutionModule(nn.Module):
    """HRNet (timm): every branch gets the sum of all, brought to its resolution and width."""

    def __init__(self, num_channels: list[int]) -> None:
        super().__init__()
        self.num_branches = len(num_channels)
        self.branches = nn.ModuleList(Block(c, c) for c in num_channels)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._fuse(num_channels, i, j) for j in range(self.num_branches))
            for i in range(self.num_branches)
        )
        self.fuse_act = nn.ReLU(False)

    @staticmethod
    def _fuse(channels: list[int], i: int, j: int) -> nn.Module:
        if j == i:
            return nn.Identity()
        if j > i:
            return nn.Sequential(
                nn.Conv2d(channels[j], channels[i], 1, 1, 0, bias=False),
                nn.BatchNorm2d(channels[i]),
                nn.Upsample(scale_factor=2 ** (j - i), mode="nearest"),
            )
        steps: list[nn.Module] = [conv_bn(channels[j], channels[j], 3, 2) for _ in range(i - j - 1)]
        last = nn.Conv2d(channels[j], channels[i], 3, 2, 1, bias=False)
        return nn.Sequential(*steps, nn.Sequential(last, nn.BatchNorm2d(channels[i])))

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        for i, branch in enumerate(self.branches):
            x[i] = branch(x[i])
        x_fuse = []
        for fuse_outer in self.fuse_layers:
            y = None
            assert isinstance(fuse_outer, nn.ModuleList)
            for j, f in enumerate(fuse_outer):
                y = f(x[j]) if y is None else y + f(x[j])
            assert y is not None
            x_fuse.append(self.fuse_act(y))
        return x_fuse


class HRNet(nn.Module):
    """The branches end resized, joined and mapped to classes for every place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.transition1 = nn.ModuleList([conv_bn(8, 8), conv_bn(8, 12, 3, 2)])
        self.stage2 = HighResolutionModule([8, 12])
        self.transition2 = conv_bn(12, 16, 3, 2)
        self.stage3 = HighResolutionModule([8, 12, 16])
        self.last_layer = nn.Sequential(conv_bn(36, 24, 1), nn.Conv2d(24, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        xl = [t(x) for t in self.transition1]
        yl = self.stage2(xl)
        xl = [yl[0], yl[1], self.transition2(yl[-1])]
        yl = self.stage3(xl)
        h, w = yl[0].size(2), yl[0].size(3)
        x1 = F.interpolate(yl[1], size=(h, w), mode="bilinear", align_corners=True)
        x2 = F.interpolate(yl[2], size=(h, w), mode="bilinear", align_corners=True)
        x = torch.cat([yl[0], x1, x2], 1)
        return self.last_layer(x)


class DoubleConv(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, mid_channels: int | None = None) -> None:
        super().__init__()
        mid_channels = mid_channels or out_channels
        self.double_conv = nn.Sequential(*conv_bn(in_channels, mid_channels), *conv_bn(mid_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


class Up(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, kernel_size=2, stride=2)
        self.conv = DoubleConv(in_channels, out_channels)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        x1 = self.up(x1)
        diff_y = x2.size()[2] - x1.size()[2]
        diff_x = x2.size()[3] - x1.size()[3]
        x1 = F.pad(x1, [diff_x // 2, diff_x - diff_x // 2, diff_y // 2, diff_y - diff_y // 2])
        x = torch.cat([x2, x1], dim=1)
        return self.conv(x)


class UNet(nn.Module):
    """The one of the Carvana challenge; an odd side needs the padding."""

    def __init__(self) -> None:
        super().__init__()
        self.inc = DoubleConv(3, 8)
        self.down1 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(8, 16))
        self.down2 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(16, 32))
        self.up1 = Up(32, 16)
        self.up2 = Up(16, 8)
        self.outc = nn.Conv2d(8, 3, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x = self.up1(x3, x2)
        x = self.up2(x, x1)
        return self.outc(x)


class AttentionGate(nn.Module):
    """Attention U-Net: one gate per place, from the skip connection and what comes from below."""

    def __init__(self, f_g: int, f_l: int, f_int: int) -> None:
        super().__init__()
        self.W_g = nn.Sequential(nn.Conv2d(f_g, f_int, 1), nn.BatchNorm2d(f_int))
        self.W_x = nn.Sequential(nn.Conv2d(f_l, f_int, 1), nn.BatchNorm2d(f_int))
        self.psi = nn.Sequential(nn.Conv2d(f_int, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())
        self.relu = nn.ReLU(inplace=True)

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        g1 = self.W_g(g)
        x1 = self.W_x(x)
        psi = self.relu(g1 + x1)
        psi = self.psi(psi)
        return x * psi


class AttentionUNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.Conv1 = DoubleConv(3, 12)
        self.Conv2 = DoubleConv(12, 20)
        self.Up2 = nn.Sequential(nn.Upsample(scale_factor=2), *conv_bn(20, 12))
        self.Att2 = AttentionGate(f_g=12, f_l=12, f_int=8)
        self.Up_conv2 = DoubleConv(24, 12)
        self.Conv_1x1 = nn.Conv2d(12, 1, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.Conv1(x)
        x2 = self.Conv2(F.max_pool2d(x1, 2))
        d2 = self.Up2(x2)
        x1 = self.Att2(g=d2, x=x1)
        d2 = torch.cat((x1, d2), dim=1)
        d2 = self.Up_conv2(d2)
        return self.Conv_1x1(d2)


class ASPPPooling(nn.Sequential):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        for mod in self:
            x = mod(x)
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class ASPP(nn.Module):
    def __init__(self, in_channels: int, atrous_rates: list[int], out_channels: int) -> None:
        super().__init__()
        modules: list[nn.Module] = [conv_bn(in_channels, out_channels, 1)]
        modules.extend(
            nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 3, padding=rate, dilation=rate, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(),
            )
            for rate in atrous_rates
        )
        modules.append(ASPPPooling(in_channels, out_channels))
        self.convs = nn.ModuleList(modules)
        self.project = nn.Sequential(*conv_bn(len(self.convs) * out_channels, out_channels, 1), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        res = torch.cat([conv(x) for conv in self.convs], dim=1)
        return self.project(res)


class IntermediateLayerGetter(nn.ModuleDict):
    """torchvision: runs its layers in order and keeps the answers of some under new names."""

    def __init__(self, layers: dict[str, nn.Module], return_layers: dict[str, str]) -> None:
        super().__init__(layers)
        self.return_layers = return_layers

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        out: dict[str, Tensor] = OrderedDict()
        for name, module in self.items():
            x = module(x)
            if name in self.return_layers:
                out[self.return_layers[name]] = x
        return out


class DeepLabV3(nn.Module):
    """torchvision's _SimpleSegmentationModel; the backbone's norms are frozen ones."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = IntermediateLayerGetter(
            {
                "conv1": nn.Conv2d(3, 12, 3, 2, 1, bias=False),
                "bn1": FrozenBatchNorm2d(12),
                "relu": nn.ReLU(inplace=True),
                "layer3": Block(12, 16),
                "layer4": Block(16, 20),
            },
            return_layers={"layer4": "out", "layer3": "aux"},
        )
        self.classifier = nn.Sequential(ASPP(20, [2, 3], 12), conv_bn(12, 16), nn.Conv2d(16, 5, 1))
        self.aux_classifier = nn.Sequential(*conv_bn(16, 8), nn.Dropout(0.1), nn.Conv2d(8, 5, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        input_shape = x.shape[-2:]
        features = self.backbone(x)
        result: dict[str, Tensor] = OrderedDict()
        x = features["out"]
        x = self.classifier(x)
        x = F.interpolate(x, size=input_shape, mode="bilinear", align_corners=False)
        result["out"] = x
        x = features["aux"]
        x = self.aux_classifier(x)
        x = F.interpolate(x, size=input_shape, mode="bilinear", align_corners=False)
        result["aux"] = x
        return result


class PSPNet(nn.Module):
    """Pyramid pooling: the features joined with those pooled to several sizes and resized back."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(conv_bn(3, 12, 3, 2), Block(12, 16))
        self.ppm = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(bins), *conv_bn(16, 4, 1)) for bins in (1, 2, 3, 6))
        self.cls = nn.Sequential(conv_bn(32, 16), nn.Dropout2d(p=0.1), nn.Conv2d(16, 5, kernel_size=1))

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        x = self.layer(x)
        x_size = x.size()
        out = [x]
        for f in self.ppm:
            out.append(F.interpolate(f(x), x_size[2:], mode="bilinear", align_corners=True))  # noqa: PERF401
        x = torch.cat(out, 1)
        x = self.cls(x)
        return F.interpolate(x, size=(h, w), mode="bilinear", align_corners=True)


class BiSeNetHead(nn.Module):
    """Feature fusion: two paths joined, gated by themselves, added to themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Sequential(conv_bn(3, 8, 7, 2), conv_bn(8, 12))
        self.context = nn.Sequential(conv_bn(3, 12, 3, 2), conv_bn(12, 16, 3, 2))
        self.convblk = conv_bn(28, 20, 1)
        self.conv = nn.Conv2d(20, 20, kernel_size=1, bias=False)
        self.bn = nn.BatchNorm2d(20)
        self.conv_out = nn.Conv2d(20, 5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fsp = self.spatial(x)
        fcp = self.context(x)
        fcp = F.interpolate(fcp, size=fsp.size()[2:], mode="nearest")
        feat = self.convblk(torch.cat([fsp, fcp], dim=1))
        atten = torch.mean(feat, dim=(2, 3), keepdim=True)
        atten = self.bn(self.conv(atten)).sigmoid()
        feat_atten = torch.mul(feat, atten)
        feat_out = feat_atten + feat
        return self.conv_out(feat_out), feat_out


DENSE: Catalogue = {
    "hrnet": (stirred(HRNet), images()),
    "unet": (stirred(UNet), images(18)),
    "attention_unet": (stirred(AttentionUNet), images()),
    "deeplab": (stirred(DeepLabV3), images()),
    "pspnet": (stirred(PSPNet), images()),
    "bisenet": (stirred(BiSeNetHead), images()),
    **DETECTORS,
}
