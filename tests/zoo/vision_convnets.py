"""More convolutional classifiers of torchvision and timm: those with norms, scales and weights of their own kind."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.vision_layers import BatchNormAct2d, Catalogue, DropPath, LayerNorm2d, Mlp, images, stirred


class ScaledStdConv2d(nn.Conv2d):
    """timm: the weight is standardised by F.batch_norm over its own values and scaled by a gain."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, groups=groups)
        self.gain = nn.Parameter(torch.rand(out_channels, 1, 1, 1) + 0.5)
        self.scale = self.weight[0].numel() ** -0.5
        self.eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(
            self.weight.reshape(1, self.out_channels, -1),
            None,
            None,
            weight=(self.gain * self.scale).view(-1),
            training=True,
            momentum=0.0,
            eps=self.eps,
        ).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class GammaAct(nn.Module):
    def __init__(self, gamma: float = 1.7881293296813965, inplace: bool = False) -> None:
        super().__init__()
        self.gamma = gamma
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x, inplace=self.inplace).mul_(self.gamma)


class SEModule(nn.Module):
    def __init__(self, channels: int, rd_channels: int, gate_layer: type[nn.Module] = nn.Sigmoid) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, rd_channels, kernel_size=1)
        self.bn = nn.Identity()
        self.act = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(rd_channels, channels, kernel_size=1)
        self.gate = gate_layer()

    def forward(self, x: Tensor) -> Tensor:
        x_se = x.mean((2, 3), keepdim=True)
        x_se = self.fc1(x_se)
        x_se = self.act(self.bn(x_se))
        x_se = self.fc2(x_se)
        return x * self.gate(x_se)


class NormFreeBlock(nn.Module):
    def __init__(self, in_chs: int, out_chs: int, stride: int = 1, alpha: float = 0.2, beta: float = 0.9) -> None:
        super().__init__()
        mid_chs = out_chs // 2
        self.alpha = alpha
        self.beta = beta
        self.attn_gain = 2.0
        self.downsample = None
        if in_chs != out_chs or stride != 1:
            pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
            self.downsample = nn.Sequential(pool, ScaledStdConv2d(in_chs, out_chs, 1))
        self.act1 = GammaAct()
        self.conv1 = ScaledStdConv2d(in_chs, mid_chs, 1)
        self.act2 = GammaAct(inplace=True)
        self.conv2 = ScaledStdConv2d(mid_chs, mid_chs, 3, stride, 1, groups=2)
        self.act2b = GammaAct(inplace=True)
        self.conv2b = ScaledStdConv2d(mid_chs, mid_chs, 3, 1, 1)
        self.act3 = GammaAct()
        self.conv3 = ScaledStdConv2d(mid_chs, out_chs, 1)
        self.attn_last = SEModule(out_chs, 8)
        self.drop_path = DropPath()
        self.skipinit_gain = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        out = self.act1(x) * self.beta
        shortcut = x
        if self.downsample is not None:
            shortcut = self.downsample(out)
        out = self.conv1(out)
        out = self.conv2(self.act2(out))
        out = self.conv2b(self.act2b(out))
        out = self.conv3(self.act3(out))
        out = self.attn_gain * self.attn_last(out)
        out = self.drop_path(out)
        out.mul_(self.skipinit_gain)
        return out * self.alpha + shortcut


def nfnet() -> nn.Module:
    return nn.Sequential(
        ScaledStdConv2d(3, 8, 3, 1, 1),
        GammaAct(inplace=True),
        ScaledStdConv2d(8, 16, 3, 1, 1),
        NormFreeBlock(16, 24, 2),
        NormFreeBlock(24, 24),
        ScaledStdConv2d(24, 32, 1),
        GammaAct(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


class Permute(nn.Module):
    """torchvision.ops.Permute."""

    def __init__(self, dims: list[int]) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        return torch.permute(x, self.dims)


class CNBlock(nn.Module):
    """ConvNeXt (torchvision)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim, bias=True),
            Permute([0, 2, 3, 1]),
            nn.LayerNorm(dim, eps=1e-6),
            nn.Linear(in_features=dim, out_features=4 * dim, bias=True),
            nn.GELU(),
            nn.Linear(in_features=4 * dim, out_features=dim, bias=True),
            Permute([0, 3, 1, 2]),
        )
        self.layer_scale = nn.Parameter(torch.rand(dim, 1, 1) + 0.5)
        self.stochastic_depth = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        result = self.layer_scale * self.block(x)
        result = self.stochastic_depth(result)
        result += x
        return result


def convnext() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 16, 4, 4), LayerNorm2d(16, eps=1e-6)),
        nn.Sequential(CNBlock(16), CNBlock(16)),
        nn.Sequential(LayerNorm2d(16), nn.Conv2d(16, 24, kernel_size=2, stride=2)),
        nn.Sequential(CNBlock(24)),
        nn.AdaptiveAvgPool2d(1),
        nn.Sequential(LayerNorm2d(24), nn.Flatten(1), nn.Linear(24, 10)),
    )


class GlobalResponseNorm(nn.Module):
    def __init__(self, dim: int, eps: float = 1e-6, channels_last: bool = True) -> None:
        super().__init__()
        self.eps = eps
        if channels_last:
            self.spatial_dim = (1, 2)
            self.channel_dim = -1
            self.wb_shape = (1, 1, 1, -1)
        else:
            self.spatial_dim = (2, 3)
            self.channel_dim = 1
            self.wb_shape = (1, -1, 1, 1)
        self.weight = nn.Parameter(torch.rand(dim) + 0.5)
        self.bias = nn.Parameter(torch.randn(dim) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        x_g = x.norm(p=2, dim=self.spatial_dim, keepdim=True)
        x_n = x_g / (x_g.mean(dim=self.channel_dim, keepdim=True) + self.eps)
        return x + torch.addcmul(self.bias.view(self.wb_shape), self.weight.view(self.wb_shape), x * x_n)


class ConvNeXtBlock(nn.Module):
    """timm; channels last within, or 1x1 convolutions (`use_conv_mlp`)."""

    def __init__(self, dim: int, use_conv_mlp: bool = False, use_grn: bool = True) -> None:
        super().__init__()
        self.use_conv_mlp = use_conv_mlp
        self.conv_dw = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = LayerNorm2d(dim) if use_conv_mlp else nn.LayerNorm(dim)
        self.mlp = Mlp(dim, dim * 2, use_conv=use_conv_mlp)
        if use_grn:
            self.mlp.norm = GlobalResponseNorm(dim * 2, channels_last=not use_conv_mlp)
        self.gamma = None if use_grn else nn.Parameter(torch.rand(dim) + 0.5)
        self.shortcut = nn.Identity()
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.conv_dw(x)
        if self.use_conv_mlp:
            x = self.norm(x)
            x = self.mlp(x)
        else:
            x = x.permute(0, 2, 3, 1)
            x = self.norm(x)
            x = self.mlp(x)
            x = x.permute(0, 3, 1, 2)
        if self.gamma is not None:
            x = x.mul(self.gamma.reshape(1, -1, 1, 1))
        return self.drop_path(x) + self.shortcut(shortcut)


def convnext_v2() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 16, 2, 2), LayerNorm2d(16)),
        ConvNeXtBlock(16),
        ConvNeXtBlock(16, use_grn=False),
        nn.Sequential(LayerNorm2d(16), nn.Conv2d(16, 24, 2, 2)),
        ConvNeXtBlock(24, use_conv_mlp=True),
        nn.AdaptiveAvgPool2d(1),
        LayerNorm2d(24),
        nn.Flatten(),
        nn.Linear(24, 10),
    )


class Conv2dSame(nn.Conv2d):
    """timm: TensorFlow's padding, computed from the input's size."""

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for size, k, s, d in zip(x.size()[-2:], self.kernel_size, self.stride, self.dilation, strict=True):
            pads.append(max((math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size, 0))
        (pad_h, pad_w) = pads
        x = F.pad(x, (pad_w // 2, pad_w - pad_w // 2, pad_h // 2, pad_h - pad_h // 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, (0, 0), self.dilation, self.groups)


class EfficientSE(nn.Module):
    def __init__(self, in_chs: int, rd_channels: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(in_chs, rd_channels, 1, bias=True)
        self.act1 = nn.SiLU(inplace=True)
        self.conv_expand = nn.Conv2d(rd_channels, in_chs, 1, bias=True)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        x_se = x.mean((2, 3), keepdim=True)
        x_se = self.conv_reduce(x_se)
        x_se = self.act1(x_se)
        x_se = self.conv_expand(x_se)
        return x * self.gate(x_se)


class MBConv(nn.Module):
    """timm's InvertedResidual."""

    def __init__(self, in_chs: int, out_chs: int, stride: int = 1, exp_ratio: int = 3) -> None:
        super().__init__()
        mid_chs = in_chs * exp_ratio
        self.has_skip = in_chs == out_chs and stride == 1
        self.conv_pw = nn.Conv2d(in_chs, mid_chs, 1, bias=False)
        self.bn1 = BatchNormAct2d(mid_chs, act_layer=nn.SiLU)
        self.conv_dw = Conv2dSame(mid_chs, mid_chs, 3, stride, groups=mid_chs, bias=False)
        self.bn2 = BatchNormAct2d(mid_chs, act_layer=nn.SiLU)
        self.se = EfficientSE(mid_chs, 4)
        self.conv_pwl = nn.Conv2d(mid_chs, out_chs, 1, bias=False)
        self.bn3 = BatchNormAct2d(out_chs, apply_act=False)
        self.drop_path = DropPath(0.2)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.conv_pw(x)
        x = self.bn1(x)
        x = self.conv_dw(x)
        x = self.bn2(x)
        x = self.se(x)
        x = self.conv_pwl(x)
        x = self.bn3(x)
        if self.has_skip:
            x = self.drop_path(x) + shortcut
        return x


def efficientnet() -> nn.Module:
    return nn.Sequential(
        Conv2dSame(3, 8, 3, 2, bias=False),
        BatchNormAct2d(8, act_layer=nn.SiLU),
        MBConv(8, 12),
        MBConv(12, 12),
        MBConv(12, 16, 2),
        nn.Conv2d(16, 32, 1, bias=False),
        BatchNormAct2d(32, act_layer=nn.SiLU),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(1),
        nn.Linear(32, 10),
    )


CONVNETS: Catalogue = {
    "nfnet": (stirred(nfnet), images()),
    "convnext": (stirred(convnext), images(32)),
    "convnext_v2": (stirred(convnext_v2), images()),
    "efficientnet": (stirred(efficientnet), images()),
}
