"""Small versions of the convolutional classifiers of torchvision and timm, written as they are there."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.convolutional import conv_bn
from tests.zoo.vision_audio import AUDIO
from tests.zoo.vision_convnets import CONVNETS
from tests.zoo.vision_dense import DENSE
from tests.zoo.vision_families import FAMILIES
from tests.zoo.vision_gates import GATES
from tests.zoo.vision_layers import Catalogue, DropPath, images, stirred
from tests.zoo.vision_signals import SIGNALS


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    batchsize, num_channels, height, width = x.size()
    channels_per_group = num_channels // groups
    x = x.view(batchsize, groups, channels_per_group, height, width)
    x = torch.transpose(x, 1, 2).contiguous()
    return x.view(batchsize, num_channels, height, width)


class ShuffleUnitV2(nn.Module):
    def __init__(self, inp: int, oup: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        features = oup // 2
        self.branch1 = nn.Sequential()
        if stride > 1:
            self.branch1 = nn.Sequential(
                nn.Conv2d(inp, inp, 3, stride, 1, groups=inp, bias=False),
                nn.BatchNorm2d(inp),
                *conv_bn(inp, features, 1),
            )
        self.branch2 = nn.Sequential(
            *conv_bn(inp if stride > 1 else features, features, 1),
            nn.Conv2d(features, features, 3, stride, 1, groups=features, bias=False),
            nn.BatchNorm2d(features),
            *conv_bn(features, features, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            x1, x2 = x.chunk(2, dim=1)
            out = torch.cat((x1, self.branch2(x2)), dim=1)
        else:
            out = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        return channel_shuffle(out, 2)


class ShuffleNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv_bn(3, 12)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.stage2 = nn.Sequential(ShuffleUnitV2(12, 24, 2), ShuffleUnitV2(24, 24, 1), ShuffleUnitV2(24, 24, 1))
        self.conv5 = conv_bn(24, 32, 1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = self.maxpool(x)
        x = self.stage2(x)
        x = self.conv5(x)
        x = x.mean([2, 3])
        return self.fc(x)


class ShuffleUnit(nn.Module):
    """ShuffleNet v1: grouped 1x1 convolutions around nn.ChannelShuffle; the strided unit joins a pooled shortcut."""

    def __init__(self, inp: int, oup: int, stride: int, groups: int = 3) -> None:
        super().__init__()
        mid = oup // 4 // groups * groups * 2
        out = oup - inp if stride == 2 else oup
        self.stride = stride
        self.gconv1 = conv_bn(inp, mid, 1, groups=groups)
        self.shuffle = nn.ChannelShuffle(groups)
        self.dwconv = nn.Sequential(nn.Conv2d(mid, mid, 3, stride, 1, groups=mid, bias=False), nn.BatchNorm2d(mid))
        self.gconv2 = nn.Sequential(nn.Conv2d(mid, out, 1, groups=groups, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.gconv2(self.dwconv(self.shuffle(self.gconv1(x))))
        if self.stride == 2:
            return F.relu(torch.cat([F.avg_pool2d(x, 3, stride=2, padding=1), y], 1))
        return F.relu(x + y)


def shufflenet() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 12),
        ShuffleUnit(12, 24, 2),
        ShuffleUnit(24, 24, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )


class Bottle2neck(nn.Module):
    """Res2Net (timm)."""

    def __init__(self, inplanes: int, width: int = 6, scale: int = 4, is_first: bool = False) -> None:
        super().__init__()
        self.scale = scale
        self.is_first = is_first
        self.num_scales = max(1, scale - 1)
        self.width = width
        self.conv1 = nn.Conv2d(inplanes, width * scale, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width * scale)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1, bias=False) for _ in range(self.num_scales))
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(self.num_scales))
        self.pool = nn.AvgPool2d(kernel_size=3, stride=1, padding=1) if is_first else None
        self.conv3 = nn.Conv2d(width * scale, inplanes, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(inplanes)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        out = self.relu(self.bn1(self.conv1(x)))
        spx = torch.split(out, self.width, 1)
        spo = []
        sp = spx[0]
        for i, (conv, bn) in enumerate(zip(self.convs, self.bns, strict=True)):
            sp = spx[i] if i == 0 or self.is_first else sp + spx[i]
            sp = conv(sp)
            sp = bn(sp)
            sp = self.relu(sp)
            spo.append(sp)
        if self.scale > 1:
            spo.append(self.pool(spx[-1]) if self.pool is not None else spx[-1])
        out = torch.cat(spo, 1)
        out = self.bn3(self.conv3(out))
        out += shortcut
        return self.relu(out)


def res2net() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 16),
        Bottle2neck(16, is_first=True),
        Bottle2neck(16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


class InceptionA(nn.Module):
    def __init__(self, in_channels: int, pool_features: int) -> None:
        super().__init__()
        self.branch1x1 = conv_bn(in_channels, 8, 1)
        self.branch5x5_1 = conv_bn(in_channels, 6, 1)
        self.branch5x5_2 = conv_bn(6, 8, 5)
        self.branch3x3dbl_1 = conv_bn(in_channels, 6, 1)
        self.branch3x3dbl_2 = conv_bn(6, 8)
        self.branch3x3dbl_3 = conv_bn(8, 8)
        self.branch_pool = conv_bn(in_channels, pool_features, 1)

    def _forward(self, x: Tensor) -> list[Tensor]:
        branch1x1 = self.branch1x1(x)
        branch5x5 = self.branch5x5_1(x)
        branch5x5 = self.branch5x5_2(branch5x5)
        branch3x3dbl = self.branch3x3dbl_1(x)
        branch3x3dbl = self.branch3x3dbl_2(branch3x3dbl)
        branch3x3dbl = self.branch3x3dbl_3(branch3x3dbl)
        branch_pool = F.avg_pool2d(x, kernel_size=3, stride=1, padding=1)
        branch_pool = self.branch_pool(branch_pool)
        return [branch1x1, branch5x5, branch3x3dbl, branch_pool]

    def forward(self, x: Tensor) -> Tensor:
        outputs = self._forward(x)
        return torch.cat(outputs, 1)


class BasicConv2d(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: tuple[int, int], padding: tuple[int, int]
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = self.bn(x)
        return F.relu(x, inplace=True)


class InceptionE(nn.Module):
    """Joins within a join; 1x3 and 3x1 convolutions of one input."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.branch1x1 = conv_bn(in_channels, 8, 1)
        self.branch3x3_1 = conv_bn(in_channels, 10, 1)
        self.branch3x3_2a = BasicConv2d(10, 8, kernel_size=(1, 3), padding=(0, 1))
        self.branch3x3_2b = BasicConv2d(10, 8, kernel_size=(3, 1), padding=(1, 0))

    def forward(self, x: Tensor) -> Tensor:
        branch1x1 = self.branch1x1(x)
        branch3x3 = self.branch3x3_1(x)
        branch3x3 = [self.branch3x3_2a(branch3x3), self.branch3x3_2b(branch3x3)]
        outputs = [branch1x1, torch.cat(branch3x3, 1), F.max_pool2d(x, kernel_size=3, stride=1, padding=1)]
        return torch.cat(outputs, 1)


class Inception3(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = conv_bn(3, 12)
        self.Mixed_5b = InceptionA(12, 6)
        self.Mixed_6a = InceptionA(30, 8)
        self.Mixed_7c = InceptionE(32)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout()
        self.fc = nn.Linear(56, 10)

    def _transform_input(self, x: Tensor) -> Tensor:
        x_ch0 = torch.unsqueeze(x[:, 0], 1) * (0.229 / 0.5) + (0.485 - 0.5) / 0.5
        x_ch1 = torch.unsqueeze(x[:, 1], 1) * (0.224 / 0.5) + (0.456 - 0.5) / 0.5
        x_ch2 = torch.unsqueeze(x[:, 2], 1) * (0.225 / 0.5) + (0.406 - 0.5) / 0.5
        return torch.cat((x_ch0, x_ch1, x_ch2), 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self._transform_input(x)
        x = self.Conv2d_1a_3x3(x)
        x = self.Mixed_5b(x)
        x = F.max_pool2d(x, kernel_size=3, stride=2)
        x = self.Mixed_6a(x)
        x = self.Mixed_7c(x)
        x = self.dropout(self.avgpool(x))
        x = torch.flatten(x, 1)
        return self.fc(x)


class GoogLeNetOutputs(NamedTuple):
    logits: Tensor
    aux_logits2: Tensor | None
    aux_logits1: Tensor | None


class InceptionAux(nn.Module):
    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = conv_bn(in_channels, 8, 1)
        self.fc1 = nn.Linear(8 * 4, 24)
        self.fc2 = nn.Linear(24, 10)
        self.dropout = nn.Dropout(p=0.7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(x, (2, 2))
        x = self.conv(x)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x), inplace=True)
        x = self.dropout(x)
        return self.fc2(x)


class GoogLeNet(nn.Module):
    """Its auxiliary heads answer in eval mode too, unlike torchvision's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv_bn(3, 12)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = InceptionA(12, 6)
        self.inception4d = InceptionA(30, 8)
        self.inception5b = InceptionA(32, 4)
        self.aux1 = InceptionAux(30)
        self.aux2 = InceptionAux(32)
        self.fc = nn.Linear(28, 10)

    def forward(self, x: Tensor) -> GoogLeNetOutputs:
        x = self.maxpool1(self.conv1(x))
        x = self.inception4a(x)
        aux1 = self.aux1(x)
        x = self.inception4d(x)
        aux2 = self.aux2(x)
        x = self.inception5b(x)
        x = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
        return GoogLeNetOutputs(self.fc(x), aux2, aux1)


class GhostModule(nn.Module):
    def __init__(self, inp: int, oup: int, ratio: int = 2, relu: bool = True) -> None:
        super().__init__()
        self.oup = oup
        init = math.ceil(oup / ratio)
        new = init * (ratio - 1)
        act = nn.ReLU(inplace=True) if relu else nn.Sequential()
        self.primary_conv = nn.Sequential(nn.Conv2d(inp, init, 1, bias=False), nn.BatchNorm2d(init), act)
        self.cheap_operation = nn.Sequential(
            nn.Conv2d(init, new, 3, 1, 1, groups=init, bias=False), nn.BatchNorm2d(new), act
        )

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.primary_conv(x)
        x2 = self.cheap_operation(x1)
        out = torch.cat([x1, x2], dim=1)
        return out[:, : self.oup, :, :]


class GhostBottleneck(nn.Module):
    def __init__(self, inp: int, mid: int, oup: int) -> None:
        super().__init__()
        self.ghost1 = GhostModule(inp, mid)
        self.ghost2 = GhostModule(mid, oup, ratio=3, relu=False)
        self.shortcut = nn.Sequential()
        if inp != oup:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inp, inp, 3, 1, 1, groups=inp, bias=False),
                nn.BatchNorm2d(inp),
                nn.Conv2d(inp, oup, 1, bias=False),
                nn.BatchNorm2d(oup),
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        x = self.ghost1(x)
        x = self.ghost2(x)
        x += self.shortcut(residual)
        return x


def ghostnet() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 12),
        GhostBottleneck(12, 24, 16),
        GhostBottleneck(16, 21, 16),
        conv_bn(16, 24, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )


class RepVggBlock(nn.Module):
    """timm: a 3x3, a 1x1 and a norm of the input itself, added."""

    def __init__(self, in_chs: int, out_chs: int, stride: int = 1) -> None:
        super().__init__()
        self.identity = nn.BatchNorm2d(out_chs) if in_chs == out_chs and stride == 1 else None
        self.conv_kxk = nn.Sequential(nn.Conv2d(in_chs, out_chs, 3, stride, 1, bias=False), nn.BatchNorm2d(out_chs))
        self.conv_1x1 = nn.Sequential(nn.Conv2d(in_chs, out_chs, 1, stride, bias=False), nn.BatchNorm2d(out_chs))
        self.drop_path = DropPath()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.identity is None:
            x = self.conv_1x1(x) + self.conv_kxk(x)
        else:
            identity = self.identity(x)
            x = self.conv_1x1(x) + self.conv_kxk(x)
            x = self.drop_path(x)
            x += identity
        return self.act(x)


def repvgg() -> nn.Module:
    return nn.Sequential(
        RepVggBlock(3, 12, 2),
        RepVggBlock(12, 12),
        RepVggBlock(12, 20, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(20, 10),
    )


VISION: Catalogue = {
    "shufflenet_v2": (stirred(ShuffleNetV2), images()),
    "shufflenet": (stirred(shufflenet), images()),
    "res2net": (stirred(res2net), images()),
    "inception_v3": (stirred(Inception3), images()),
    "googlenet": (stirred(GoogLeNet), images()),
    "ghostnet": (stirred(ghostnet), images()),
    "repvgg": (stirred(repvgg), images()),
    **CONVNETS,
    **FAMILIES,
    **GATES,
    **DENSE,
    **SIGNALS,
    **AUDIO,
}
