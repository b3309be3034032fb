"""The optimizer that suits a model, by its normalisations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoprune.errors import ConfigurationError
from autoprune.plan.recovery import DEFAULT_LEARNING_RATES
from autoprune.search.space.encode import distributions
from autoprune.search.space.optimizers import describe_training
from autoprune.search.space.settings import SpaceSettings
from autoprune.search.space.space import build_space
from autoprune.structure.topology import Topology
from autoprune.trace.trace import trace
from tests.settings import space_of


class OwnRMSNorm(nn.Module):
    """As model libraries write it: a module of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 8] -> [N, 8]."""
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def traced(*norms: nn.Module) -> Topology:
    model = nn.Sequential(nn.Linear(6, 8), *norms, nn.ReLU(), nn.Linear(8, 3))
    return trace(model.eval(), torch.randn(4, 6))


CASES = {
    "batch": ((nn.BatchNorm1d(8),), "sgd", "has BatchNorm"),
    "layer": ((nn.LayerNorm(8),), "adamw", "has LayerNorm and no BatchNorm"),
    "root mean square": ((nn.RMSNorm(8),), "adamw", "has LayerNorm and no BatchNorm"),
    "one's own": ((OwnRMSNorm(),), "adamw", "has LayerNorm and no BatchNorm"),
    "both": ((nn.LayerNorm(8), nn.BatchNorm1d(8)), "sgd", "has BatchNorm"),
    "neither": ((), "sgd", "has neither BatchNorm nor LayerNorm"),
}


@pytest.mark.parametrize(("norms", "name", "why"), CASES.values(), ids=CASES)
def test_the_optimizer_and_its_rate_suit_the_model(norms: tuple[nn.Module, ...], name: str, why: str) -> None:
    topology, settings = traced(*norms), SpaceSettings()
    space = build_space(settings, topology, None)
    assert not {"optimizer", "learning_rate"} & space.distributions.keys()
    plan = space.decode(space.uniform(0.5), seed=0)
    assert (plan.recovery.optimizer, plan.recovery.learning_rate) == (name, DEFAULT_LEARNING_RATES[name])
    assert describe_training(settings, topology) == (
        f"Candidates are trained with {name} at a learning rate of {DEFAULT_LEARNING_RATES[name]:g}; "
        f"{name} suits a model that {why}."
    )
    # What is protected, and kinds that stay, make no other model of it.
    assert build_space(settings, topology.only(("heads",)), None).decode({}, seed=0).recovery.optimizer == name


def test_what_is_said_holds_whatever_the_model_has() -> None:
    topology = traced(nn.LayerNorm(8))
    settings = space_of(optimizers=("sgd",), learning_rate=(0.01, 0.1))
    space = build_space(settings, topology, None)
    recovery = space.decode(space.uniform(0.5), seed=0).recovery
    assert recovery.optimizer == "sgd"
    assert recovery.learning_rate == pytest.approx(0.0316, abs=1e-4)
    assert describe_training(settings, topology) == "Candidates are trained with sgd at a learning rate of 0.01 to 0.1."


def test_each_optimizer_that_is_drawn_has_its_own_rate() -> None:
    topology = traced(nn.LayerNorm(8))
    settings = space_of(optimizers=("auto", "sgd", "adamw"))
    assert distributions(settings, topology)["optimizer"].choices == ("adamw", "sgd")  # type: ignore[attr-defined]
    space = build_space(settings, topology, None)
    for name, rate in DEFAULT_LEARNING_RATES.items():
        recovery = space.decode({**space.uniform(0.5), "optimizer": name}, seed=0).recovery
        assert (recovery.optimizer, recovery.learning_rate) == (name, rate)
    assert settings.recovery.rates == (min(DEFAULT_LEARNING_RATES.values()), max(DEFAULT_LEARNING_RATES.values()))
    assert space_of(optimizers=("adamw",)).recovery.rates == (DEFAULT_LEARNING_RATES["adamw"],) * 2


@pytest.mark.parametrize("rate", ["auto", 0.0, (None, 0.1)])
def test_what_is_no_rate(rate: object) -> None:
    with pytest.raises(ConfigurationError, match="learning_rate must"):
        space_of(learning_rate=rate)  # type: ignore[arg-type]
