"""Convolutional networks with gates, attention over channels, or weights computed from the input."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.convolutional import conv_bn
from tests.zoo.vision_layers import Catalogue, DropPath, images, stirred


def net(channels: int, *layers: nn.Module, out: int | None = None) -> nn.Module:
    out = out or channels
    return nn.Sequential(
        conv_bn(3, channels), *layers, conv_bn(out, 20, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 10)
    )


class RadixSoftmax(nn.Module):
    def __init__(self, radix: int, cardinality: int) -> None:
        super().__init__()
        self.radix = radix
        self.cardinality = cardinality

    def forward(self, x: Tensor) -> Tensor:
        batch = x.size(0)
        if self.radix > 1:
            x = x.view(batch, self.cardinality, self.radix, -1).transpose(1, 2)
            x = F.softmax(x, dim=1)
            return x.reshape(batch, -1)
        return torch.sigmoid(x)


class SplitAttn(nn.Module):
    """ResNeSt (timm)."""

    def __init__(self, in_channels: int, out_channels: int, groups: int = 1, radix: int = 2) -> None:
        super().__init__()
        self.radix = radix
        mid_chs = out_channels * radix
        attn_chs = 8
        self.conv = nn.Conv2d(in_channels, mid_chs, 3, 1, 1, groups=groups * radix, bias=False)
        self.bn0 = nn.BatchNorm2d(mid_chs)
        self.act0 = nn.ReLU(inplace=True)
        self.fc1 = nn.Conv2d(out_channels, attn_chs, 1, groups=groups)
        self.bn1 = nn.BatchNorm2d(attn_chs)
        self.act1 = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(attn_chs, mid_chs, 1, groups=groups)
        self.rsoftmax = RadixSoftmax(radix, groups)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = self.bn0(x)
        x = self.act0(x)
        b, rc, h, w = x.shape
        if self.radix > 1:
            x = x.reshape((b, self.radix, rc // self.radix, h, w))
            x_gap = x.sum(dim=1)
        else:
            x_gap = x
        x_gap = x_gap.mean((2, 3), keepdim=True)
        x_gap = self.fc1(x_gap)
        x_gap = self.bn1(x_gap)
        x_gap = self.act1(x_gap)
        x_attn = self.fc2(x_gap)
        x_attn = self.rsoftmax(x_attn).view(b, -1, 1, 1)
        if self.radix == 1:
            return x * x_attn
        out = (x * x_attn.reshape((b, self.radix, rc // self.radix, 1, 1))).sum(dim=1)
        return out.contiguous()


class SelectiveKernelAttn(nn.Module):
    def __init__(self, channels: int, num_paths: int = 2, attn_channels: int = 8) -> None:
        super().__init__()
        self.num_paths = num_paths
        self.fc_reduce = nn.Conv2d(channels, attn_channels, kernel_size=1, bias=False)
        self.bn = nn.BatchNorm2d(attn_channels)
        self.act = nn.ReLU(inplace=True)
        self.fc_select = nn.Conv2d(attn_channels, channels * num_paths, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.sum(1).mean((2, 3), keepdim=True)
        x = self.fc_reduce(x)
        x = self.bn(x)
        x = self.act(x)
        x = self.fc_select(x)
        b, c, h, w = x.shape
        x = x.view(b, self.num_paths, c // self.num_paths, h, w)
        return torch.softmax(x, dim=1)


class SelectiveKernel(nn.Module):
    """SKNet (timm): paths of two dilations, stacked."""

    def __init__(self, in_channels: int, out_channels: int, split_input: bool) -> None:
        super().__init__()
        self.num_paths = 2
        self.in_channels = in_channels
        self.split_input = split_input
        if split_input:
            in_channels = in_channels // self.num_paths
        self.paths = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 3, 1, d, dilation=d, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
            )
            for d in (1, 2)
        )
        self.attn = SelectiveKernelAttn(out_channels, self.num_paths)

    def forward(self, x: Tensor) -> Tensor:
        if self.split_input:
            x_split = torch.split(x, self.in_channels // self.num_paths, 1)
            x_paths = [op(x_split[i]) for i, op in enumerate(self.paths)]
        else:
            x_paths = [op(x) for op in self.paths]
        x = torch.stack(x_paths, dim=1)
        x_attn = self.attn(x)
        x = x * x_attn
        return torch.sum(x, dim=1)


class CbamModule(nn.Module):
    """timm: a gate per channel from mean and maximum over space, one per place from those over channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, 6, 1, bias=False)
        self.act = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(6, channels, 1, bias=False)
        self.gate = nn.Sigmoid()
        self.conv = nn.Sequential(nn.Conv2d(2, 1, 7, padding=3, bias=False), nn.BatchNorm2d(1))

    def forward(self, x: Tensor) -> Tensor:
        x_avg = self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True))))
        x_max = self.fc2(self.act(self.fc1(x.amax((2, 3), keepdim=True))))
        x = x * self.gate(x_avg + x_max)
        x_attn = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        x_attn = self.conv(x_attn)
        return x * self.gate(x_attn)


class EcaModule(nn.Module):
    """timm: a 1-D convolution along the channels, so that each depends on its neighbours: none can go."""

    def __init__(self, kernel_size: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel_size=kernel_size, padding=(kernel_size - 1) // 2, bias=False)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        y = x.mean((2, 3)).view(x.shape[0], 1, -1)
        y = self.conv(y)
        y = self.gate(y).view(x.shape[0], -1, 1, 1)
        return x * y.expand_as(x)


class NonLocalAttn(nn.Module):
    """timm: attention of places to each other."""

    def __init__(self, in_channels: int, rd_channels: int) -> None:
        super().__init__()
        self.scale = in_channels**-0.5
        self.t = nn.Conv2d(in_channels, rd_channels, kernel_size=1, stride=1, bias=True)
        self.p = nn.Conv2d(in_channels, rd_channels, kernel_size=1, stride=1, bias=True)
        self.g = nn.Conv2d(in_channels, rd_channels, kernel_size=1, stride=1, bias=True)
        self.z = nn.Conv2d(rd_channels, in_channels, kernel_size=1, stride=1, bias=True)
        self.norm = nn.BatchNorm2d(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        t = self.t(x)
        p = self.p(x)
        g = self.g(x)
        b, c, h, w = t.size()
        t = t.view(b, c, -1).permute(0, 2, 1)
        p = p.view(b, c, -1)
        g = g.view(b, c, -1).permute(0, 2, 1)
        att = torch.bmm(t, p) * self.scale
        att = F.softmax(att, dim=2)
        x = torch.bmm(att, g)
        x = x.permute(0, 2, 1).reshape(b, c, h, w)
        x = self.z(x)
        return self.norm(x) + shortcut


class GlobalContext(nn.Module):
    """GCNet (timm): one attention map pools the features into a context, added to every place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_attn = nn.Conv2d(channels, 1, kernel_size=1, bias=True)
        self.mlp_add = nn.Sequential(
            nn.Conv2d(channels, 8, 1), nn.GroupNorm(1, 8), nn.ReLU(inplace=True), nn.Conv2d(8, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        attn = self.conv_attn(x).reshape(b, 1, h * w)
        attn = F.softmax(attn, dim=-1).unsqueeze(3)
        context = x.reshape(b, c, h * w).unsqueeze(1) @ attn
        context = context.view(b, c, 1, 1)
        return x + self.mlp_add(context)


class CondConv2d(nn.Module):
    """timm: a mixture of weights for every sample, run as one convolution with a group per sample."""

    def __init__(self, in_channels: int, out_channels: int, num_experts: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = (3, 3)
        self.groups = 1
        self.weight_shape = (out_channels, in_channels, *self.kernel_size)
        self.weight = nn.Parameter(torch.randn(num_experts, out_channels * in_channels * 9) * 0.1)
        self.bias = nn.Parameter(torch.randn(num_experts, out_channels) * 0.1)

    def forward(self, x: Tensor, routing_weights: Tensor) -> Tensor:
        b, c, h, w = x.shape
        weight = torch.matmul(routing_weights, self.weight)
        new_weight_shape = (b * self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        weight = weight.view(new_weight_shape)
        bias = torch.matmul(routing_weights, self.bias)
        bias = bias.view(b * self.out_channels)
        x = x.reshape(1, b * c, h, w)
        out = F.conv2d(x, weight, bias, stride=1, padding=1, groups=self.groups * b)
        return out.permute([1, 0, 2, 3]).view(b, self.out_channels, out.shape[-2], out.shape[-1])


class CondConvBlock(nn.Module):
    def __init__(self, in_chs: int, out_chs: int) -> None:
        super().__init__()
        self.routing_fn = nn.Linear(in_chs, 3)
        self.conv = CondConv2d(in_chs, out_chs)
        self.bn = nn.BatchNorm2d(out_chs)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        pooled_inputs = F.adaptive_avg_pool2d(x, 1).flatten(1)
        routing_weights = torch.sigmoid(self.routing_fn(pooled_inputs))
        return F.relu(self.bn(self.conv(x, routing_weights)))


class Involution(nn.Module):
    """timm: a kernel for every place and group of channels, computed from the features there."""

    def __init__(self, channels: int, kernel_size: int = 3, group_size: int = 4) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.channels = channels
        self.group_size = group_size
        self.groups = self.channels // self.group_size
        self.conv1 = conv_bn(channels, channels // 4, 1)
        self.conv2 = nn.Conv2d(channels // 4, kernel_size**2 * self.groups, kernel_size=1, stride=1)
        self.unfold = nn.Unfold(kernel_size, 1, (kernel_size - 1) // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv2(self.conv1(x))
        b, _, h, w = weight.shape
        kk = int(self.kernel_size**2)
        weight = weight.view(b, self.groups, kk, h, w).unsqueeze(2)
        out = self.unfold(x).view(b, self.groups, self.group_size, kk, h, w)
        return (weight * out).sum(dim=3).view(b, self.channels, h, w)


class GluConv(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * hidden, 3, padding=1)
        self.out = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(F.glu(self.conv(x), dim=1))


class Maxout(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, pieces: int = 2) -> None:
        super().__init__()
        self.pieces = pieces
        self.conv = nn.Conv2d(in_channels, out_channels * pieces, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        n, c, h, w = x.size()
        x = x.view(n, c // self.pieces, self.pieces, h, w)
        return torch.max(x, dim=2)[0]


class Mfm(nn.Module):
    """Max feature map of LightCNN: the larger of a convolution's two halves."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.filter = nn.Conv2d(in_channels, 2 * out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.filter(x)
        out = torch.split(x, self.out_channels, 1)
        return torch.max(out[0], out[1])


class MfmResidual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Mfm(channels, channels)
        self.conv2 = Mfm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        res = x
        out = self.conv1(x)
        out = self.conv2(out)
        return out + res


def light_cnn() -> nn.Module:
    return nn.Sequential(
        Mfm(3, 12, 5),
        nn.MaxPool2d(2, 2, ceil_mode=True),
        MfmResidual(12),
        Mfm(12, 20, 1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(20 * 4, 10),
    )


class GlobalResidualECA(nn.Module):
    """A bottleneck gated by ECA: the gate of a channel is computed of its neighbours."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv_bn(channels, 12)
        self.conv2 = nn.Sequential(nn.Conv2d(12, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))
        self.eca = EcaModule()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.eca(self.conv2(self.conv1(x))) + x)


GATES: Catalogue = {
    "resnest": (stirred(lambda: net(16, SplitAttn(16, 16), SplitAttn(16, 16, groups=2))), images()),
    "sknet": (stirred(lambda: net(16, SelectiveKernel(16, 12, True), SelectiveKernel(12, 16, False))), images()),
    "cbam": (stirred(lambda: net(16, CbamModule(16), conv_bn(16, 16), CbamModule(16))), images()),
    "eca": (stirred(lambda: net(16, GlobalResidualECA(16))), images()),
    "nonlocal": (stirred(lambda: net(16, NonLocalAttn(16, 8))), images(8)),
    "gcnet": (stirred(lambda: net(16, GlobalContext(16))), images()),
    "condconv": (stirred(lambda: net(12, CondConvBlock(12, 16), out=16)), images()),
    "involution": (stirred(lambda: net(16, Involution(16), nn.BatchNorm2d(16), nn.ReLU())), images()),
    "glu_conv": (stirred(lambda: net(16, GluConv(16, 12), GluConv(16, 20))), images()),
    "maxout": (stirred(lambda: net(12, Maxout(12, 16), Maxout(16, 16, 3), out=16)), images()),
    "light_cnn": (stirred(light_cnn), images()),
}
