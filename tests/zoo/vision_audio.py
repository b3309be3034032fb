"""One-dimensional convolutions over time: dilated, gated, causal."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from tests.zoo.vision_layers import Catalogue, stirred


class Chomp1d(nn.Module):
    def __init__(self, chomp_size: int) -> None:
        super().__init__()
        self.chomp_size = chomp_size

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, : -self.chomp_size].contiguous()


class TemporalBlock(nn.Module):
    """The TCN of locuslab; `normed` weights are a length times a direction."""

    def __init__(self, n_inputs: int, n_outputs: int, dilation: int, normed: bool) -> None:
        super().__init__()
        padding = 2 * dilation
        conv1 = nn.Conv1d(n_inputs, n_outputs, 3, padding=padding, dilation=dilation)
        conv2 = nn.Conv1d(n_outputs, n_outputs, 3, padding=padding, dilation=dilation)
        self.conv1 = weight_norm(conv1) if normed else conv1
        self.chomp1 = Chomp1d(padding)
        self.relu1 = nn.ReLU()
        self.dropout1 = nn.Dropout(0.2)
        self.conv2 = weight_norm(conv2) if normed else conv2
        self.chomp2 = Chomp1d(padding)
        self.relu2 = nn.ReLU()
        self.dropout2 = nn.Dropout(0.2)
        self.net = nn.Sequential(
            self.conv1,
            self.chomp1,
            self.relu1,
            self.dropout1,
            self.conv2,
            self.chomp2,
            self.relu2,
            self.dropout2,
        )
        self.downsample = nn.Conv1d(n_inputs, n_outputs, 1) if n_inputs != n_outputs else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.net(x)
        res = x if self.downsample is None else self.downsample(x)
        return self.relu(out + res)


class TCN(nn.Module):
    """Reads [N, L, C], answers from the last step."""

    def __init__(self, normed: bool) -> None:
        super().__init__()
        self.tcn = nn.Sequential(TemporalBlock(4, 12, 1, normed), TemporalBlock(12, 12, 2, normed))
        self.linear = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        output = self.tcn(x.transpose(1, 2)).transpose(1, 2)
        return self.linear(output[:, -1, :])


class WaveNetBlock(nn.Module):
    def __init__(self, residual_channels: int, gate_channels: int, skip_channels: int, dilation: int) -> None:
        super().__init__()
        self.padding = 2 * dilation
        self.conv_dilated = nn.Conv1d(residual_channels, gate_channels, 3, padding=self.padding, dilation=dilation)
        self.conv1x1_skip = nn.Conv1d(gate_channels // 2, skip_channels, 1)
        self.conv1x1_out = nn.Conv1d(gate_channels // 2, residual_channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        residual = x
        x = self.conv_dilated(x)
        x = x[:, :, : residual.size(-1)]
        a, b = x.split(x.size(1) // 2, dim=1)
        x = torch.tanh(a) * torch.sigmoid(b)
        s = self.conv1x1_skip(x)
        x = self.conv1x1_out(x)
        x = (x + residual) * (0.5**0.5)
        return x, s


class WaveNet(nn.Module):
    """Gated residual layers; the skips are added and mapped to a distribution for every step."""

    def __init__(self) -> None:
        super().__init__()
        self.first_conv = nn.Conv1d(8, 16, 1)
        self.conv_layers = nn.ModuleList(WaveNetBlock(16, 24, 12, 2**i) for i in range(3))
        self.last_conv_layers = nn.Sequential(
            nn.ReLU(inplace=True), nn.Conv1d(12, 12, 1), nn.ReLU(inplace=True), nn.Conv1d(12, 8, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first_conv(x)
        skips: Tensor | float = 0.0
        for f in self.conv_layers:
            x, h = f(x)
            skips = skips + h
        assert isinstance(skips, Tensor)
        skips *= (1.0 / len(self.conv_layers)) ** 0.5
        return F.softmax(self.last_conv_layers(skips), dim=1)


def center_trim(tensor: Tensor, reference: Tensor) -> Tensor:
    delta = tensor.size(-1) - reference.size(-1)
    if delta:
        tensor = tensor[..., delta // 2 : -(delta - delta // 2)]
    return tensor


class Demucs(nn.Module):
    """Encoder and decoder of strided convolutions with GLU, a recurrent layer between."""

    def __init__(self, sources: int = 2) -> None:
        super().__init__()
        self.sources = sources
        self.encoder = nn.ModuleList(self._down(i, o) for i, o in ((2, 12), (12, 16)))
        self.decoder = nn.ModuleList(self._up(i, o) for i, o in ((16, 12), (12, 2 * sources)))
        self.lstm = nn.LSTM(bidirectional=True, num_layers=1, hidden_size=16, input_size=16)
        self.linear = nn.Linear(32, 16)

    @staticmethod
    def _down(channels_in: int, channels_out: int) -> nn.Module:
        rewrite = nn.Conv1d(channels_out, 2 * channels_out, 1)
        return nn.Sequential(nn.Conv1d(channels_in, channels_out, 8, 4), nn.ReLU(), rewrite, nn.GLU(dim=1))

    @staticmethod
    def _up(channels_in: int, channels_out: int) -> nn.Module:
        rewrite = nn.Conv1d(channels_in, 2 * channels_in, 3)
        return nn.Sequential(rewrite, nn.GLU(dim=1), nn.ConvTranspose1d(channels_in, channels_out, 8, 4), nn.ReLU())

    def forward(self, mix: Tensor) -> Tensor:
        x = mix
        mono = mix.mean(dim=1, keepdim=True)
        mean = mono.mean(dim=-1, keepdim=True)
        std = mono.std(dim=-1, keepdim=True)
        x = (x - mean) / (1e-5 + std)
        saved = []
        for encode in self.encoder:
            x = encode(x)
            saved.append(x)
        x = x.permute(2, 0, 1)
        x = self.lstm(x)[0]
        x = self.linear(x).permute(1, 2, 0)
        for decode in self.decoder:
            skip = center_trim(saved.pop(-1), x)
            x = decode(x + skip)
        x = x * std + mean
        return x.view(x.size(0), self.sources, 2, x.size(-1))


class SeRes2Block(nn.Module):
    """ECAPA-TDNN's: a 1-D Res2Net with a gate."""

    def __init__(self, channels: int, scale: int = 4) -> None:
        super().__init__()
        self.tdnn1 = nn.Sequential(nn.Conv1d(channels, channels, 1), nn.ReLU(), nn.BatchNorm1d(channels))
        hidden = channels // scale
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv1d(hidden, hidden, 3, padding=2, dilation=2), nn.ReLU(), nn.BatchNorm1d(hidden))
            for _ in range(scale - 1)
        )
        self.scale = scale
        self.tdnn2 = nn.Sequential(nn.Conv1d(channels, channels, 1), nn.ReLU(), nn.BatchNorm1d(channels))
        self.conv1 = nn.Conv1d(channels, 6, kernel_size=1)
        self.conv2 = nn.Conv1d(6, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        x = self.tdnn1(x)
        y = []
        for i, x_i in enumerate(torch.chunk(x, self.scale, dim=1)):
            if i == 0:
                y_i = x_i
            elif i == 1:
                y_i = self.blocks[i - 1](x_i)
            else:
                y_i = self.blocks[i - 1](x_i + y_i)
            y.append(y_i)
        x = self.tdnn2(torch.cat(y, dim=1))
        s = x.mean(dim=2, keepdim=True)
        s = torch.relu(self.conv1(s))
        s = torch.sigmoid(self.conv2(s))
        return s * x + residual


class EcapaTdnn(nn.Module):
    """The layers' answers are joined; attention over time gives a weighted mean and deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(8, 16, 5, padding=2), nn.ReLU(), nn.BatchNorm1d(16))
        self.blocks = nn.ModuleList([SeRes2Block(16), SeRes2Block(16)])
        self.mfa = nn.Conv1d(32, 24, 1)
        self.attention = nn.Sequential(
            nn.Conv1d(72, 12, 1), nn.ReLU(), nn.BatchNorm1d(12), nn.Tanh(), nn.Conv1d(12, 24, 1), nn.Softmax(dim=2)
        )
        self.bn5 = nn.BatchNorm1d(48)
        self.fc6 = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x1 = self.blocks[0](x)
        x2 = self.blocks[1](x + x1)
        x = torch.relu(self.mfa(torch.cat((x1, x2), dim=1)))
        t = x.size()[-1]
        mean = torch.mean(x, dim=2, keepdim=True).repeat(1, 1, t)
        std = torch.sqrt(torch.var(x, dim=2, keepdim=True).clamp(min=1e-4)).repeat(1, 1, t)
        w = self.attention(torch.cat((x, mean, std), dim=1))
        mu = torch.sum(x * w, dim=2)
        sg = torch.sqrt((torch.sum((x**2) * w, dim=2) - mu**2).clamp(min=1e-4))
        x = torch.cat((mu, sg), 1)
        return self.fc6(self.bn5(x))


AUDIO: Catalogue = {
    "tcn": (lambda: TCN(normed=False), lambda: torch.randn(2, 12, 4)),
    "tcn_weight_norm": (lambda: TCN(normed=True), lambda: torch.randn(2, 12, 4)),
    "wavenet": (WaveNet, lambda: torch.randn(2, 8, 20)),
    "demucs": (Demucs, lambda: torch.randn(2, 2, 116)),
    "ecapa_tdnn": (stirred(EcapaTdnn), lambda: torch.randn(2, 8, 20)),
}
