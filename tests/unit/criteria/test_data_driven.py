"""Criteria on gradients and activations, against numbers worked out by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from autoprune.criteria import data_driven
from autoprune.criteria.gathering import gather_signals
from autoprune.criteria.registry import score
from autoprune.errors import ConfigurationError
from autoprune.plan.kept import KeptChannels
from autoprune.task.data import Batch
from autoprune.trace.trace import trace
from tests.unit.criteria.small import (
    BETA,
    BIAS,
    GAMMA,
    HEAD,
    INPUTS,
    WEIGHT,
    batches,
    signals_of,
    small,
    topology_of,
    total,
)
from tests.zoo.registry import build

# The loss adds up all outputs, so its gradient to hidden channel c is the sum of column c of the head.
COLUMN = torch.tensor(HEAD).sum(0)


def hidden(inputs: Tensor) -> Tensor:
    return inputs @ torch.tensor(WEIGHT).T + torch.tensor(BIAS)


def test_taylor_without_a_norm() -> None:
    """Sum over weights and bias of g w is the gradient to the channel times the channel, summed over the batch."""
    model = small()
    found = data_driven.taylor(topology_of(model).groups[0], signals_of(model, "gradients"))
    wanted = torch.stack([(COLUMN * hidden(inputs).sum(0)).square() for inputs in INPUTS]).mean(0)
    torch.testing.assert_close(found, wanted)
    # The first batch by plain arithmetic: channel 0 is 1 - 2 + 0.5 and 2 + 0.5, its column adds up to 1.
    assert (COLUMN * hidden(INPUTS[0]).sum(0))[0] == (-0.5 + 2.5) * 1


def test_taylor_with_a_norm_looks_at_its_scale_and_shift_alone() -> None:
    """They are the gate: adding the bias of the layer before the norm would count it twice."""
    model = small(norm=True)
    found = data_driven.taylor(topology_of(model).groups[0], signals_of(model, "gradients"))
    gated = [hidden(inputs) * torch.tensor(GAMMA) + torch.tensor(BETA) for inputs in INPUTS]
    torch.testing.assert_close(found, torch.stack([(COLUMN * z.sum(0)).square() for z in gated]).mean(0))


def test_mean_activation() -> None:
    model = small()
    found = data_driven.mean_activation(topology_of(model).groups[0], signals_of(model, "activations"))
    torch.testing.assert_close(found, hidden(torch.cat(INPUTS)).abs().mean(0))


def test_mean_activation_of_a_convolution_with_flatten() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 3)).eval()
    inputs = torch.randn(6, 1, 5, 5)
    topology = trace(model, inputs)
    batch = Batch(inputs=inputs, targets=torch.zeros(6), size=6)
    signals = gather_signals(model, ("activations",), (topology, KeptChannels.whole(topology)), [batch], total, 0)
    found = data_driven.mean_activation(topology.groups[0], signals)
    torch.testing.assert_close(found, model[1](model[0](inputs)).abs().mean((0, 2, 3)).detach())


@pytest.mark.parametrize(("name", "signal"), [("taylor", "gradients"), ("mean_activation", "activations")])
def test_a_missing_signal_says_how_to_get_it(name: str, signal: str) -> None:
    model = small()
    other = {"gradients": "activations", "activations": "gradients"}[signal]
    for given in ((), (other,)):
        with pytest.raises(ConfigurationError, match=f"criterion '{name}' must be given the signal '{signal}'.*Gather"):
            score(name, topology_of(model).groups[0], signals_of(model, *given))


def test_taylor_of_a_frozen_norm_looks_at_the_weights() -> None:
    """Scores of zero for all would keep the first channels, whatever they are worth."""
    model = small(norm=True)
    model[1].requires_grad_(False)
    found = data_driven.taylor(topology_of(model).groups[0], signals_of(model, "gradients"))
    assert len(set(found.tolist())) == 3
    assert (found > 0).all()


def test_taylor_of_a_frozen_model_is_a_configuration_error() -> None:
    model = small().requires_grad_(False)
    with pytest.raises(ConfigurationError, match="'taylor'"):
        data_driven.taylor(topology_of(model).groups[0], signals_of(model, "gradients"))


def test_taylor_of_a_frozen_group_is_a_configuration_error() -> None:
    model = small()
    model[0].requires_grad_(False)
    with pytest.raises(ConfigurationError, match="group '0' without gradients"):
        data_driven.taylor(topology_of(model).groups[0], signals_of(model, "gradients"))


def test_layers_called_by_keyword_are_seen() -> None:
    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(input=self.a(x))

    model = Keyword()
    found = score("mean_activation", topology_of(model).groups[0], signals_of(model, "activations"))
    torch.testing.assert_close(found, model.a(torch.cat(INPUTS)).abs().mean(0).detach())


@pytest.mark.parametrize("training", [True, False])
def test_gathering_changes_nothing(training: bool) -> None:
    model, inputs = build("vgg")
    model.train(training)
    model[0].train(not training)
    topology = trace(model, inputs)
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    batch = Batch(inputs=inputs, targets=torch.zeros(2), size=2)
    signals = gather_signals(
        model, ("gradients", "activations"), (topology, KeptChannels.whole(topology)), [batch], total, 0
    )
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert signals.gradients is not None
    assert signals.activations is not None


def test_one_gradient_for_each_batch() -> None:
    model = small()
    signals = signals_of(model, "gradients")
    assert signals.gradients is not None
    assert all(len(values) == len(batches()) for values in signals.gradients.values())
    model.zero_grad()
    model(INPUTS[1]).sum().backward()
    torch.testing.assert_close(signals.gradients["0.weight"][1], model[0].weight.grad)
