"""Signals: what is missing is said, one pass serves all, the model stays as it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from autoprune.criteria.gathering import count_passes, gather_signals
from autoprune.criteria.registry import score
from autoprune.criteria.signals import SIGNALS
from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.plan.criteria import CRITERIA
from autoprune.plan.kept import KeptChannels
from autoprune.trace.trace import trace
from tests.unit.criteria.lines import (
    UP_AND_DOWN,
    Add,
    convolutional,
    first_group,
    half_square,
    line,
    on,
    scored,
)
from tests.unit.criteria.small import INPUTS, batches
from tests.zoo.registry import build


@pytest.mark.parametrize("name", [name for name, entry in CRITERIA.items() if entry.signals])
def test_every_other_signal_does_not_help(name: str) -> None:
    model = line()
    (needed,) = CRITERIA[name].signals
    signals = on(model, UP_AND_DOWN, tuple(signal for signal in SIGNALS if signal != needed))
    fault = (
        f"criterion '{name}' must be given the signal '{needed}'.*Gather it: gather\\(model, names=\\('{needed}',\\)"
    )
    with pytest.raises(ConfigurationError, match=fault):
        score(name, first_group(model, UP_AND_DOWN[0]), signals)
    assert score(name, first_group(model, UP_AND_DOWN[0]), on(model, UP_AND_DOWN, (needed,), half_square)).sum() > 0


def test_an_unknown_signal_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'gradients'") as error:
        on(line(), UP_AND_DOWN, ("weights", "gradient"))
    assert all(name in str(error.value) for name in SIGNALS)


@pytest.mark.parametrize(
    ("names", "forwards", "counted"),
    [
        ((), 0, (0, 0)),
        (("weights",), 0, (0, 0)),
        (("activations",), 1, (1, 0)),
        (("gradients",), 1, (0, 1)),
        (("gradients", "activation_gradients"), 1, (0, 1)),
        (("hessian",), 1, (0, 13)),
        (("hessian", "weight_hessian"), 2, (0, 18)),
        (("gates",), 4, (0, 4)),
        (("weight_gates", "block_gates"), 8, (0, 8)),
        (("movement",), 2, (0, 2)),
        (("blocks",), 1, (1, 0)),
        (("block_gradients", "gradients"), 2, (0, 2)),
        (SIGNALS, 21, (3, 34)),
    ],
)
def test_one_pass_serves_all(names: tuple[str, ...], forwards: int, counted: tuple[int, int]) -> None:
    model, calls = nn.Sequential(nn.Linear(2, 3), Add(torch.eye(3)), nn.Linear(3, 2)).eval(), []
    topology = trace(model, INPUTS[0])
    model.register_forward_hook(lambda *_: calls.append(1))
    assert len(topology.blocks) == len(topology.groups) == 1
    gather_signals(model, names, (topology, KeptChannels.whole(topology)), batches(), half_square, 0)
    assert len(calls) == forwards * len(batches())
    assert count_passes(names, blocks=1) == counted


@pytest.mark.parametrize("name", ["vgg", "mobilenet"])
def test_gathering_leaves_the_model_alone(name: str) -> None:
    model, inputs = build(name)
    model.train()
    model[0].requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    frozen = [parameter.requires_grad for parameter in model.parameters()]
    with torch.random.fork_rng():
        state = torch.random.get_rng_state()
        on(model.eval(), [inputs], SIGNALS, half_square)
        assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == frozen
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


@torch.no_grad()
def test_gathering_under_no_grad() -> None:
    assert scored("taylor_activation", line(), UP_AND_DOWN)[0] > 0
    assert scored("obd", line(), UP_AND_DOWN, half_square)[0] > 0


def test_signals_hold_no_activations() -> None:
    """Their size goes with the channels, not with the samples."""
    model, _ = convolutional()
    few, many = (on(model, [torch.randn(n, 1, 5, 5)], SIGNALS, half_square) for n in (1, 40))
    for one, other in ((few.activations, many.activations), (few.activation_gradients, many.activation_gradients)):
        assert one is not None and other is not None
        assert one.keys() == other.keys()
    assert few.activations is not None and many.activations is not None
    for name, statistics in few.activations.items():
        assert statistics.mean.shape == many.activations[name].variance.shape == statistics.positive.shape
    assert many.activations is not None and many.activations["3.weight"].count == 40
    assert replace(many, activations=None).activations is None
