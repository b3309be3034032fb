"""Layers that many models of torchvision and timm share, written as they are there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.task.data import Inputs

Catalogue = dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]]

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


def images(side: int = 16, channels: int = 3) -> Callable[[], Inputs]:
    return lambda: torch.randn(2, channels, side, side)


def stirred(factory: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """The factory's model with norms (and biases of attention) that differ from channel to channel."""

    def build() -> nn.Module:
        model = factory()
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, NORMS):
                    stir(module)
                elif isinstance(module, nn.MultiheadAttention):
                    module.in_proj_bias.normal_(0, 0.3)
                    module.out_proj.bias.normal_(0, 0.3)
        return model

    return build


def stir(norm: nn.Module) -> None:
    for name, values in [*norm.named_parameters(recurse=False), *norm.named_buffers(recurse=False)]:
        if name in {"weight", "running_var"}:
            values.uniform_(0.5, 1.5)
        elif name == "bias":
            values.normal_(0.2, 0.3)
        elif name == "running_mean":
            values.normal_(0, 0.2)


class BatchNormAct2d(nn.BatchNorm2d):
    """timm's BatchNorm2d with the activation inside."""

    def __init__(self, num_features: int, apply_act: bool = True, act_layer: type[nn.Module] = nn.ReLU) -> None:
        super().__init__(num_features)
        self.drop = nn.Identity()
        self.act = act_layer() if apply_act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        training = self.training or (self.running_mean is None and self.running_var is None)
        tracked = not self.training or self.track_running_stats
        x = F.batch_norm(
            x,
            self.running_mean if tracked else None,
            self.running_var if tracked else None,
            self.weight,
            self.bias,
            training,
            momentum,
            self.eps,
        )
        return self.act(self.drop(x))


class LayerNorm2d(nn.LayerNorm):
    """timm's LayerNorm over the channels of [N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class FrozenBatchNorm2d(nn.Module):
    """torchvision's batch norm of buffers: detectors and DETR."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.rand(num_features) + 0.5)
        self.register_buffer("bias", torch.randn(num_features) * 0.3)
        self.register_buffer("running_mean", torch.randn(num_features) * 0.3)
        self.register_buffer("running_var", torch.rand(num_features) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight.reshape(1, -1, 1, 1)
        b = self.bias.reshape(1, -1, 1, 1)
        rv = self.running_var.reshape(1, -1, 1, 1)
        rm = self.running_mean.reshape(1, -1, 1, 1)
        scale = w * (rv + self.eps).rsqrt()
        bias = b - rm * scale
        return x * scale + bias


class DropPath(nn.Module):
    def __init__(self, drop_prob: float = 0.1) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_prob == 0.0 or not self.training:
            return x
        keep_prob = 1 - self.drop_prob
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        random_tensor = x.new_empty(shape).bernoulli_(keep_prob)
        random_tensor.div_(keep_prob)
        return x * random_tensor


class LayerScale(nn.Module):
    def __init__(self, dim: int, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace
        self.gamma = nn.Parameter(torch.rand(dim) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(self.gamma) if self.inplace else x * self.gamma


class Mlp(nn.Module):
    """timm's MLP; `use_conv` makes its layers 1x1 convolutions."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        act_layer: type[nn.Module] = nn.GELU,
        norm_layer: type[nn.Module] | None = None,
        use_conv: bool = False,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(in_features, hidden_features, 1) if use_conv else nn.Linear(in_features, hidden_features)
        self.act = act_layer()
        self.drop1 = nn.Dropout(0.1)
        self.norm = norm_layer(hidden_features) if norm_layer is not None else nn.Identity()
        self.fc2 = nn.Conv2d(hidden_features, in_features, 1) if use_conv else nn.Linear(hidden_features, in_features)
        self.drop2 = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        x = self.act(x)
        x = self.drop1(x)
        x = self.norm(x)
        x = self.fc2(x)
        return self.drop2(x)
