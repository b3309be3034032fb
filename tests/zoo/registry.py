"""The zoo by name: small, randomly initialised models, and inputs for them.

ZOO holds one of every plain family, for tests that multiply by criteria and plans; WHOLE_ZOO adds the architectures
of torchvision, timm and transformers, and what people write by hand.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoprune.plan.kept import KeptChannels
from autoprune.structure.topology import Topology
from autoprune.task.data import Inputs
from autoprune.trace.trace import trace
from tests.zoo import convolutional as conv
from tests.zoo.attention import ATTENTION
from tests.zoo.depth import DEPTH
from tests.zoo.experts import EXPERTS
from tests.zoo.masks import MASKS
from tests.zoo.numbers import NUMBERS
from tests.zoo.sequence import SEQUENCE
from tests.zoo.shaped import SHAPED
from tests.zoo.training import TRAINING
from tests.zoo.transformers_hub import HUB
from tests.zoo.vision import VISION
from tests.zoo.vision_transformers import VISION_TRANSFORMERS

ModelFactory = Callable[[], nn.Module]
InputsFactory = Callable[[], Inputs]


def images(side: int = 8, channels: int = 1) -> InputsFactory:
    return lambda: torch.randn(2, channels, side, side)


def flat(features: int) -> InputsFactory:
    return lambda: torch.randn(2, features)


ZOO: Mapping[str, tuple[ModelFactory, InputsFactory]] = {
    "resnet": (lambda: conv.ResNet(widths=(6, 8, 12), depth=1), images()),
    "bottleneck_resnet": (conv.bottleneck_resnet, images()),
    "resnext": (lambda: conv.bottleneck_resnet(groups=4), images()),
    "vgg": (conv.vgg, images()),
    "mobilenet": (conv.mobilenet, images()),
    "densenet": (conv.densenet, images()),
    "squeeze_excite": (conv.squeeze_excite, images()),
    "decoder": (conv.Decoder, images()),
    "grouped_decoder": (conv.GroupedDecoder, images()),
    "conv1d": (conv.conv1d, lambda: torch.randn(2, 2, 12)),
    "conv3d": (conv.conv3d, lambda: torch.randn(2, 1, 4, 4, 4)),
    "padded_shortcut": (conv.PaddedShortcut, images()),
    "depthwise_multiplier": (conv.depthwise_multiplier, images()),
    "used_twice": (conv.UsedTwice, images()),
    "tied_weights": (conv.TiedWeights, images()),
    "layer_norm_net": (conv.layer_norm_net, flat(20)),
    "group_norm_net": (conv.group_norm_net, images()),
    "mlp": (conv.mlp, flat(20)),
    "deep_mlp": (conv.deep_mlp, flat(20)),
    "one_number_mlp": (conv.one_number_mlp, flat(1)),
    "residual_mlp": (conv.ResidualMlp, lambda: torch.randint(11, (2, 7))),
    "gated_linear": (conv.GatedLinear, flat(20)),
    "head_gate": (conv.HeadGate, flat(20)),
}


WHOLE_ZOO: Mapping[str, tuple[ModelFactory, InputsFactory]] = {
    **ZOO,
    **VISION,
    **VISION_TRANSFORMERS,
    **{f"hf_{name}": entry for name, entry in HUB.items()},
    **SEQUENCE,
    **ATTENTION,
    **DEPTH,
    **EXPERTS,
    **MASKS,
    **NUMBERS,
    **SHAPED,
    **TRAINING,
}


def build_any(name: str) -> tuple[nn.Module, Inputs]:
    """A model of the whole zoo in eval mode and its inputs, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        factory, inputs = WHOLE_ZOO[name]
        model = factory().eval()
        if name in ZOO:
            stir_norms(model)
        return model, inputs()


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A model of the zoo in eval mode and its inputs, the same every time.

    Norms get statistics, scales and shifts of their own for every channel: fresh ones are 0 and 1 everywhere and
    would hide channels in a wrong order.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        factory, make_inputs = ZOO[name]
        model = factory().eval()
        stir_norms(model)
        inputs = make_inputs()
        assert isinstance(inputs, Tensor)
        return model, inputs


NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


@torch.no_grad()
def stir_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm | nn.GroupNorm):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Specimen:
    """A model of the zoo in float64, its inputs and its topology, shared by the tests: not to be changed."""

    model: nn.Module
    inputs: Tensor
    topology: Topology


@functools.cache
def specimen(name: str) -> Specimen:
    model, inputs = build(name)
    topology = trace(model, inputs)
    return Specimen(
        model=model.double(), inputs=inputs.double() if inputs.is_floating_point() else inputs, topology=topology
    )


def random_kept(topology: Topology, seed: int, within: KeptChannels | None = None) -> KeptChannels:
    """At least one channel of every group, among those of `within`."""
    draw = random.Random(seed)
    groups = (within or KeptChannels.whole(topology)).groups
    return KeptChannels(
        groups={name: tuple(draw.sample(channels, draw.randint(1, len(channels)))) for name, channels in groups.items()}
    )
