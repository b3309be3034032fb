"""What cannot be scored is known before anything runs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autoprune.criteria.dry_run import CriteriaInUse, Inapplicable, dry_run
from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.plan.criteria import BLOCK_CRITERIA, CRITERIA, WEIGHT_CRITERIA, applicable_criteria, check_applicable
from autoprune.plan.maskable import maskable
from autoprune.structure.topology import Topology
from autoprune.task.data import Batch
from autoprune.trace.trace import trace
from tests.unit.criteria.lines import Add, half_square

X = torch.tensor([[1.0, 2.0], [0.5, -1.0]])
EVERY = CriteriaInUse(channels=tuple(CRITERIA), weights=tuple(WEIGHT_CRITERIA), blocks=tuple(BLOCK_CRITERIA))


def tried(model: nn.Module, parts: CriteriaInUse, loss: object = half_square) -> tuple[Topology, Inapplicable]:
    topology = trace(model, X)
    batches = [Batch(inputs=X, targets=torch.zeros(2), size=2)]
    return topology, dry_run(model, batches, loss, topology, parts)  # type: ignore[arg-type]


def stack() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), Add(torch.eye(3)), nn.Linear(3, 2)).eval()


def test_what_can_be_scored_is_not_refused() -> None:
    model = stack()
    parts = CriteriaInUse(
        channels=EVERY.channels,
        weights=EVERY.weights,
        blocks=tuple(name for name in EVERY.blocks if name != "bn_scale"),
        masked=maskable(trace(model, X)),
    )
    topology, refused = tried(model, parts)
    assert refused == Inapplicable()
    refused.check()
    check_applicable(EVERY.channels, topology, refused=refused.channels)


def test_blocks_without_a_norm() -> None:
    _, refused = tried(stack(), CriteriaInUse(blocks=("l1", "bn_scale")))
    assert list(refused.blocks) == ["bn_scale"]
    with pytest.raises(ConfigurationError, match=r"'bn_scale' must be used on blocks with a norm, but got block '2'"):
        refused.check()


class Functional(nn.Module):
    """The layer that reads the hidden channels is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(2, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.first(x), self.head.weight)


def test_a_group_whose_reader_can_not_be_watched() -> None:
    topology, refused = tried(
        Functional().eval(), CriteriaInUse(channels=("l2", "wanda", "taylor_activation", "taylor"))
    )
    assert {name: list(groups) for name, groups in refused.channels.items()} == {
        "wanda": ["first"],
        "taylor_activation": ["first"],
    }
    (group,) = topology.groups
    assert applicable_criteria(("wanda", "l2", "taylor"), group, refused.channels) == ("l2", "taylor")
    with pytest.raises(ConfigurationError, match=r"'wanda' must be used on groups that a layer reads.*per_group=True"):
        check_applicable(("l2", "wanda"), topology, refused=refused.channels)
    check_applicable(("l2", "wanda"), topology, per_group=True, refused=refused.channels)
    with pytest.raises(ConfigurationError, match="'wanda'"):
        check_applicable(("wanda",), topology, per_group=True, refused=refused.channels)


def test_a_weight_whose_input_can_not_be_watched() -> None:
    parts = CriteriaInUse(weights=("l1", "wanda"), masked=("first.weight", "head.weight"))
    _, refused = tried(Functional().eval(), parts)
    assert {name: list(weights) for name, weights in refused.weights.items()} == {"wanda": ["head.weight"]}
    with pytest.raises(ConfigurationError, match=r"'wanda' must be used on weights whose input can be captured"):
        refused.check()


def test_frozen_weights() -> None:
    model = stack().requires_grad_(False)
    parts = CriteriaInUse(channels=EVERY.channels, weights=EVERY.weights, masked=("0.weight",), blocks=EVERY.blocks)
    _, refused = tried(model, parts)
    trained = {"taylor_weight", "fisher", "snip", "obd", "movement"}
    assert set(refused.channels) == {*trained, "taylor"}
    assert set(refused.weights) == trained
    assert set(refused.blocks) == {*trained, "bn_scale"}
    with pytest.raises(ConfigurationError, match="11 faults in the criteria"):
        refused.check()


def test_a_signal_that_can_not_be_gathered() -> None:
    """The criteria that ask for it are refused everywhere, with its reason; others are not."""

    def fused(outputs: object, targets: object) -> Tensor:
        assert isinstance(outputs, Tensor)
        y = outputs.reshape(1, 1, -1, 2)
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(y, y, y)[0].square().sum()

    parts = CriteriaInUse(channels=("obd", "snip"), weights=("obd",), masked=("0.weight",), blocks=("obd", "l1"))
    _, refused = tried(stack(), parts, fused)
    for found, thing in ((refused.channels, "0"), (refused.weights, "0.weight"), (refused.blocks, "2")):
        assert list(found) == ["obd"]
        assert "second derivatives" in found["obd"][thing]


def test_unknown_names() -> None:
    for parts in (CriteriaInUse(channels=("x",)), CriteriaInUse(weights=("x",)), CriteriaInUse(blocks=("x",))):
        with pytest.raises(UnknownNameError, match="but got 'x'"):
            tried(stack(), parts)
