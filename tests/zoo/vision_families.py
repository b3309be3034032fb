"""More convolutional classifiers of torchvision and timm: slices, joins and shortcuts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.convolutional import conv_bn
from tests.zoo.vision_layers import BatchNormAct2d, Catalogue, DropPath, Mlp, images, stirred


class SqueezeExcitation(nn.Module):
    """torchvision.ops.SqueezeExcitation."""

    def __init__(
        self, input_channels: int, squeeze_channels: int, scale_activation: type[nn.Module] = nn.Sigmoid
    ) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(input_channels, squeeze_channels, 1)
        self.fc2 = nn.Conv2d(squeeze_channels, input_channels, 1)
        self.activation = nn.ReLU()
        self.scale_activation = scale_activation()

    def _scale(self, input: Tensor) -> Tensor:  # noqa: A002  # as in torchvision
        scale = self.avgpool(input)
        scale = self.fc1(scale)
        scale = self.activation(scale)
        scale = self.fc2(scale)
        return self.scale_activation(scale)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # as in torchvision
        scale = self._scale(input)
        return scale * input


class MobileBlockV3(nn.Module):
    def __init__(self, inp: int, expanded: int, out: int, stride: int = 1, use_se: bool = True) -> None:
        super().__init__()
        self.use_res_connect = stride == 1 and inp == out
        act = nn.Hardswish if use_se else nn.ReLU
        layers: list[nn.Module] = []
        if expanded != inp:
            layers.append(nn.Sequential(nn.Conv2d(inp, expanded, 1, bias=False), nn.BatchNorm2d(expanded), act()))
        depthwise = nn.Conv2d(expanded, expanded, 5, stride, 2, groups=expanded, bias=False)
        layers.append(nn.Sequential(depthwise, nn.BatchNorm2d(expanded), act()))
        if use_se:
            layers.append(SqueezeExcitation(expanded, 8, nn.Hardsigmoid))
        layers.append(nn.Sequential(nn.Conv2d(expanded, out, 1, bias=False), nn.BatchNorm2d(out)))
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        result = self.block(x)
        if self.use_res_connect:
            result += x
        return result


class MobileNetV3(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.Hardswish()),
            MobileBlockV3(12, 12, 12, use_se=False),
            MobileBlockV3(12, 24, 16, 2),
            MobileBlockV3(16, 32, 16),
            nn.Sequential(nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.Hardswish()),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(32, 40), nn.Hardswish(inplace=True), nn.Dropout(p=0.2, inplace=True), nn.Linear(40, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        x = self.avgpool(x)
        x = torch.flatten(x, 1)
        return self.classifier(x)


class ResBottleneckBlock(nn.Module):
    """RegNetY (torchvision): grouped convolutions of a fixed group width, and a gate."""

    def __init__(self, width_in: int, width_out: int, stride: int, group_width: int = 4) -> None:
        super().__init__()
        self.proj = None
        if width_in != width_out or stride != 1:
            self.proj = nn.Sequential(nn.Conv2d(width_in, width_out, 1, stride, bias=False), nn.BatchNorm2d(width_out))
        self.f = nn.Sequential()
        self.f.add_module("a", conv_bn(width_in, width_out, 1))
        self.f.add_module("b", conv_bn(width_out, width_out, 3, stride, width_out // group_width))
        self.f.add_module("se", SqueezeExcitation(width_out, round(0.25 * width_in)))
        self.f.add_module("c", nn.Sequential(nn.Conv2d(width_out, width_out, 1, bias=False), nn.BatchNorm2d(width_out)))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x) + self.f(x) if self.proj is not None else x + self.f(x)
        return self.activation(x)


def regnet() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 12),
        ResBottleneckBlock(12, 16, 2),
        ResBottleneckBlock(16, 16, 1),
        ResBottleneckBlock(16, 24, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )


class DenseLayer(nn.Module):
    """torchvision: joins the list of all features before it."""

    def __init__(self, num_input_features: int, growth_rate: int = 6, bn_size: int = 2) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(num_input_features)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(num_input_features, bn_size * growth_rate, kernel_size=1, stride=1, bias=False)
        self.norm2 = nn.BatchNorm2d(bn_size * growth_rate)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(bn_size * growth_rate, growth_rate, kernel_size=3, stride=1, padding=1, bias=False)
        self.drop_rate = 0.1

    def bn_function(self, inputs: list[Tensor]) -> Tensor:
        concated_features = torch.cat(inputs, 1)
        return self.conv1(self.relu1(self.norm1(concated_features)))

    def forward(self, input: Tensor | list[Tensor]) -> Tensor:  # noqa: A002  # as in torchvision
        prev_features = [input] if isinstance(input, Tensor) else input
        bottleneck_output = self.bn_function(prev_features)
        new_features = self.conv2(self.relu2(self.norm2(bottleneck_output)))
        return F.dropout(new_features, p=self.drop_rate, training=self.training)


class DenseBlock(nn.ModuleDict):
    def __init__(self, num_layers: int, num_input_features: int, growth_rate: int = 6) -> None:
        super().__init__()
        for i in range(num_layers):
            self.add_module(f"denselayer{i + 1}", DenseLayer(num_input_features + i * growth_rate, growth_rate))

    def forward(self, init_features: Tensor) -> Tensor:
        features = [init_features]
        for layer in self.values():
            new_features = layer(features)
            features.append(new_features)
        return torch.cat(features, 1)


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_bn(3, 12),
            DenseBlock(3, 12),
            nn.Sequential(nn.BatchNorm2d(30), nn.ReLU(inplace=True), nn.Conv2d(30, 15, 1, bias=False), nn.AvgPool2d(2)),
            DenseBlock(2, 15),
            nn.BatchNorm2d(27),
        )
        self.classifier = nn.Linear(27, 10)

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        out = F.relu(features, inplace=True)
        out = F.adaptive_avg_pool2d(out, (1, 1))
        out = torch.flatten(out, 1)
        return self.classifier(out)


class DualPathBlock(nn.Module):
    """DPN (timm): the channels of a tensor are cut into a part that is added and one that is joined."""

    def __init__(self, in_chs: int, width: int, inc: int, project: bool) -> None:
        super().__init__()
        self.num_1x1_c = width
        self.c1x1_w_s1 = self._cat_bn_act_conv(in_chs, width + 2 * inc) if project else None
        self.c1x1_a = self._cat_bn_act_conv(in_chs, 12)
        self.c3x3_b = nn.Sequential(BatchNormAct2d(12), nn.Conv2d(12, 12, 3, 1, 1, groups=3, bias=False))
        self.c1x1_c = nn.Sequential(BatchNormAct2d(12), nn.Conv2d(12, width + inc, 1, bias=False))

    @staticmethod
    def _cat_bn_act_conv(in_chs: int, out_chs: int) -> nn.Sequential:
        return nn.Sequential(BatchNormAct2d(in_chs), nn.Conv2d(in_chs, out_chs, 1, bias=False))

    def forward(self, x: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x_in = torch.cat(x, dim=1) if isinstance(x, tuple) else x
        if self.c1x1_w_s1 is None:
            x_s1 = x[0]
            x_s2 = x[1]
        else:
            x_s = self.c1x1_w_s1(x_in)
            x_s1 = x_s[:, : self.num_1x1_c, :, :]
            x_s2 = x_s[:, self.num_1x1_c :, :, :]
        x_in = self.c1x1_a(x_in)
        x_in = self.c3x3_b(x_in)
        x_in = self.c1x1_c(x_in)
        out1 = x_in[:, : self.num_1x1_c, :, :]
        out2 = x_in[:, self.num_1x1_c :, :, :]
        resid = x_s1 + out1
        dense = torch.cat([x_s2, out2], dim=1)
        return resid, dense


class CatBnAct(nn.Module):
    def __init__(self, in_chs: int) -> None:
        super().__init__()
        self.bn = BatchNormAct2d(in_chs)

    def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:
        return self.bn(torch.cat(x, dim=1))


def dpn() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 12),
        DualPathBlock(12, 12, 4, project=True),
        DualPathBlock(12 + 3 * 4, 12, 4, project=False),
        DualPathBlock(12 + 4 * 4, 12, 4, project=False),
        CatBnAct(12 + 5 * 4),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(32, 10, 1),
        nn.Flatten(),
    )


class Pooling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) - x


class PoolFormerBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(1, dim)
        self.token_mixer = Pooling()
        self.norm2 = nn.GroupNorm(1, dim)
        self.mlp = Mlp(dim, dim * 2, use_conv=True)
        self.drop_path = DropPath()
        self.layer_scale_1 = nn.Parameter(torch.rand(dim) + 0.5)
        self.layer_scale_2 = nn.Parameter(torch.rand(dim) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.layer_scale_1.unsqueeze(-1).unsqueeze(-1) * self.token_mixer(self.norm1(x)))
        return x + self.drop_path(self.layer_scale_2.unsqueeze(-1).unsqueeze(-1) * self.mlp(self.norm2(x)))


class PoolFormer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 16, 7, stride=2, padding=2)
        self.network = nn.Sequential(PoolFormerBlock(16), nn.Conv2d(16, 24, 3, 2, 1), PoolFormerBlock(24))
        self.norm = nn.GroupNorm(1, 24)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.network(self.patch_embed(x))
        x = self.norm(x)
        return self.head(x.mean([-2, -1]))


FAMILIES: Catalogue = {
    "mobilenet_v3": (stirred(MobileNetV3), images()),
    "regnet": (stirred(regnet), images()),
    "densenet_lists": (stirred(DenseNet), images()),
    "dpn": (stirred(dpn), images()),
    "poolformer": (stirred(PoolFormer), images()),
}
