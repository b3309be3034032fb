"""Images to images, video and audio: pixel shuffles, instance norms, 3-D and 1-D convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.vision_layers import Catalogue, images, stirred


class ESPCN(nn.Module):
    def __init__(self, upscale_factor: int = 2) -> None:
        super().__init__()
        self.feature_maps = nn.Sequential(
            nn.Conv2d(3, 24, (5, 5), (1, 1), (2, 2)),
            nn.Tanh(),
            nn.Conv2d(24, 16, (3, 3), (1, 1), (1, 1)),
            nn.Tanh(),
        )
        self.sub_pixel = nn.Sequential(
            nn.Conv2d(16, 3 * (upscale_factor**2), (3, 3), (1, 1), (1, 1)), nn.PixelShuffle(upscale_factor)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.feature_maps(x)
        x = self.sub_pixel(x)
        return torch.clamp_(x, 0.0, 1.0)


class ResBlock(nn.Module):
    def __init__(self, n_feats: int, res_scale: float = 0.3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(n_feats, n_feats, 3, padding=1), nn.ReLU(True), nn.Conv2d(n_feats, n_feats, 3, padding=1)
        )
        self.res_scale = res_scale

    def forward(self, x: Tensor) -> Tensor:
        res = self.body(x).mul(self.res_scale)
        res += x
        return res


class MeanShift(nn.Conv2d):
    """A fixed 1x1 convolution that moves the colours' means."""

    def __init__(self, sign: int) -> None:
        super().__init__(3, 3, kernel_size=1)
        self.weight.data = torch.eye(3).view(3, 3, 1, 1)
        self.bias = nn.Parameter(sign * torch.tensor([0.4488, 0.4371, 0.4040]))
        for p in self.parameters():
            p.requires_grad = False


class EDSR(nn.Module):
    """Channels that a pixel shuffle turns into places, followed by more convolutions."""

    def __init__(self, n_feats: int = 12) -> None:
        super().__init__()
        self.sub_mean = MeanShift(-1)
        self.add_mean = MeanShift(1)
        self.head = nn.Sequential(nn.Conv2d(3, n_feats, 3, padding=1))
        self.body = nn.Sequential(ResBlock(n_feats), ResBlock(n_feats), nn.Conv2d(n_feats, n_feats, 3, padding=1))
        upsampler = nn.Sequential(nn.Conv2d(n_feats, 4 * n_feats, 3, padding=1), nn.PixelShuffle(2))
        self.tail = nn.Sequential(upsampler, nn.Conv2d(n_feats, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.sub_mean(x)
        x = self.head(x)
        res = self.body(x)
        res += x
        x = self.tail(res)
        return self.add_mean(x)


def pixel_unshuffle(x: Tensor, scale: int) -> Tensor:
    """As in basicsr: with views, not F.pixel_unshuffle."""
    b, c, hh, hw = x.size()
    out_channel = c * (scale**2)
    h = hh // scale
    w = hw // scale
    x_view = x.view(b, c, h, scale, w, scale)
    return x_view.permute(0, 1, 3, 5, 2, 4).reshape(b, out_channel, h, w)


class ResidualDenseBlock(nn.Module):
    def __init__(self, num_feat: int = 12, num_grow_ch: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_grow_ch, 3, 1, 1)
        self.conv2 = nn.Conv2d(num_feat + num_grow_ch, num_grow_ch, 3, 1, 1)
        self.conv3 = nn.Conv2d(num_feat + 2 * num_grow_ch, num_feat, 3, 1, 1)
        self.lrelu = nn.LeakyReLU(negative_slope=0.2, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.lrelu(self.conv1(x))
        x2 = self.lrelu(self.conv2(torch.cat((x, x1), 1)))
        x3 = self.conv3(torch.cat((x, x1, x2), 1))
        return x3 * 0.2 + x


class RRDBNet(nn.Module):
    """Real-ESRGAN, factor 2: the image is unshuffled first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(12, 12, 3, 1, 1)
        self.body = nn.Sequential(ResidualDenseBlock(), ResidualDenseBlock())
        self.conv_body = nn.Conv2d(12, 12, 3, 1, 1)
        self.conv_up1 = nn.Conv2d(12, 12, 3, 1, 1)
        self.conv_hr = nn.Conv2d(12, 10, 3, 1, 1)
        self.conv_last = nn.Conv2d(10, 3, 3, 1, 1)
        self.lrelu = nn.LeakyReLU(negative_slope=0.2, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        feat = pixel_unshuffle(x, scale=2)
        feat = self.conv_first(feat)
        body_feat = self.conv_body(self.body(feat))
        feat = feat + body_feat
        feat = self.lrelu(self.conv_up1(F.interpolate(feat, scale_factor=2, mode="nearest")))
        return self.conv_last(self.lrelu(self.conv_hr(feat)))


class RestormerSampling(nn.Module):
    """Restormer's down- and upsampling, nn.PixelUnshuffle and nn.PixelShuffle of features, and its gated block."""

    def __init__(self, n_feat: int = 12) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, n_feat, 3, 1, 1, bias=False)
        self.down = nn.Sequential(nn.Conv2d(n_feat, n_feat // 2, 3, 1, 1, bias=False), nn.PixelUnshuffle(2))
        self.project_in = nn.Conv2d(2 * n_feat, 40, kernel_size=1, bias=False)
        self.dwconv = nn.Conv2d(40, 40, kernel_size=3, stride=1, padding=1, groups=40, bias=False)
        self.project_out = nn.Conv2d(20, 2 * n_feat, kernel_size=1, bias=False)
        self.up = nn.Sequential(nn.Conv2d(2 * n_feat, 4 * n_feat, 3, 1, 1, bias=False), nn.PixelShuffle(2))
        self.reduce_chan = nn.Conv2d(2 * n_feat, n_feat, kernel_size=1, bias=False)
        self.output = nn.Conv2d(n_feat, 3, 3, 1, 1, bias=False)

    def forward(self, inp_img: Tensor) -> Tensor:
        enc1 = self.patch_embed(inp_img)
        enc2 = self.down(enc1)
        x1, x2 = self.dwconv(self.project_in(enc2)).chunk(2, dim=1)
        x = F.gelu(x1) * x2
        enc2 = enc2 + self.project_out(x)
        dec1 = self.up(enc2)
        dec1 = self.reduce_chan(torch.cat([dec1, enc1], 1))
        return self.output(dec1) + inp_img


class NafLayerNorm2d(nn.Module):
    """NAFNet's norm over the channels, spelt out."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(channels) + 0.5)
        self.bias = nn.Parameter(torch.randn(channels) * 0.3)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        _, c, _, _ = x.size()
        mu = x.mean(1, keepdim=True)
        var = (x - mu).pow(2).mean(1, keepdim=True)
        y = (x - mu) / (var + self.eps).sqrt()
        return self.weight.view(1, c, 1, 1) * y + self.bias.view(1, c, 1, 1)


class SimpleGate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = x.chunk(2, dim=1)
        return x1 * x2


class NAFBlock(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        dw = c * 2
        self.conv1 = nn.Conv2d(c, dw, 1)
        self.conv2 = nn.Conv2d(dw, dw, 3, 1, 1, groups=dw)
        self.conv3 = nn.Conv2d(dw // 2, c, 1)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(dw // 2, dw // 2, 1))
        self.sg = SimpleGate()
        self.conv4 = nn.Conv2d(c, dw, 1)
        self.conv5 = nn.Conv2d(dw // 2, c, 1)
        self.norm1 = NafLayerNorm2d(c)
        self.norm2 = NafLayerNorm2d(c)
        self.beta = nn.Parameter(torch.rand(1, c, 1, 1) + 0.5)
        self.gamma = nn.Parameter(torch.rand(1, c, 1, 1) + 0.5)

    def forward(self, inp: Tensor) -> Tensor:
        x = inp
        x = self.norm1(x)
        x = self.conv1(x)
        x = self.conv2(x)
        x = self.sg(x)
        x = x * self.sca(x)
        x = self.conv3(x)
        y = inp + x * self.beta
        x = self.conv4(self.norm2(y))
        x = self.sg(x)
        x = self.conv5(x)
        return y + x * self.gamma


class NAFNet(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.encoder = NAFBlock(width)
        self.down = nn.Conv2d(width, 2 * width, 2, 2)
        self.middle = NAFBlock(2 * width)
        self.up = nn.Sequential(nn.Conv2d(2 * width, 4 * width, 1, bias=False), nn.PixelShuffle(2))
        self.decoder = NAFBlock(width)
        self.ending = nn.Conv2d(width, 3, 3, padding=1)
        self.padder_size = 2

    def forward(self, inp: Tensor) -> Tensor:
        _, _, h, w = inp.shape
        mod_pad_h = (self.padder_size - h % self.padder_size) % self.padder_size
        mod_pad_w = (self.padder_size - w % self.padder_size) % self.padder_size
        inp = F.pad(inp, (0, mod_pad_w, 0, mod_pad_h))
        x = self.intro(inp)
        enc = self.encoder(x)
        x = self.middle(self.down(enc))
        x = self.up(x)
        x = x + enc
        x = self.decoder(x)
        x = self.ending(x)
        x = x + inp
        return x[:, :, :h, :w]


class ConvLayer(nn.Module):
    """The layers of fast style transfer: reflected borders, instance norms, nearest upsampling."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, upsample: int | None = None) -> None:
        super().__init__()
        self.upsample = upsample
        self.reflection_pad = nn.ReflectionPad2d(1)
        self.conv2d = nn.Conv2d(in_channels, out_channels, 3, stride)

    def forward(self, x: Tensor) -> Tensor:
        if self.upsample:
            x = F.interpolate(x, mode="nearest", scale_factor=self.upsample)
        return self.conv2d(self.reflection_pad(x))


class StyleResidual(nn.Module):
    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__()
        self.conv1 = ConvLayer(channels, channels)
        self.in1 = nn.InstanceNorm2d(channels, affine=affine)
        self.conv2 = ConvLayer(channels, channels)
        self.in2 = nn.InstanceNorm2d(channels, affine=affine)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        out = self.relu(self.in1(self.conv1(x)))
        return self.in2(self.conv2(out)) + residual


def style_transfer() -> nn.Module:
    return nn.Sequential(
        ConvLayer(3, 8),
        nn.InstanceNorm2d(8, affine=True),
        nn.ReLU(),
        ConvLayer(8, 16, 2),
        nn.InstanceNorm2d(16, affine=True),
        nn.ReLU(),
        StyleResidual(16),
        StyleResidual(16, affine=False),
        ConvLayer(16, 8, upsample=2),
        nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
        nn.ReLU(),
        ConvLayer(8, 3),
    )


class Conv2Plus1D(nn.Sequential):
    def __init__(self, in_planes: int, out_planes: int, stride: int = 1) -> None:
        midplanes = (in_planes * out_planes * 3 * 3 * 3) // (in_planes * 3 * 3 + 3 * out_planes)
        super().__init__(
            nn.Conv3d(in_planes, midplanes, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False),
            nn.BatchNorm3d(midplanes),
            nn.ReLU(inplace=True),
            nn.Conv3d(midplanes, out_planes, (3, 1, 1), stride=(stride, 1, 1), padding=(1, 0, 0), bias=False),
        )


class VideoBlock(nn.Module):
    def __init__(self, inplanes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(Conv2Plus1D(inplanes, planes, stride), nn.BatchNorm3d(planes), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(Conv2Plus1D(planes, planes), nn.BatchNorm3d(planes))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inplanes != planes:
            self.downsample = nn.Sequential(nn.Conv3d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm3d(planes))

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        out = self.conv1(x)
        out = self.conv2(out)
        if self.downsample is not None:
            residual = self.downsample(x)
        out += residual
        return self.relu(out)


class R2Plus1D(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(Conv2Plus1D(3, 8), nn.BatchNorm3d(8), nn.ReLU(inplace=True))
        self.layer1 = nn.Sequential(VideoBlock(8, 8), VideoBlock(8, 12, 2))
        self.avgpool = nn.AdaptiveAvgPool3d((1, 1, 1))
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.layer1(x)
        x = self.avgpool(x)
        x = x.flatten(1)
        return self.fc(x)


SIGNALS: Catalogue = {
    "espcn": (ESPCN, images()),
    "edsr": (EDSR, images()),
    "rrdbnet": (RRDBNet, images()),
    "restormer_sampling": (RestormerSampling, images()),
    "nafnet": (NAFNet, images(15)),
    "style_transfer": (stirred(style_transfer), images()),
    "r2plus1d": (stirred(R2Plus1D), lambda: torch.randn(2, 3, 4, 12, 12)),
}
