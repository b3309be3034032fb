"""The cost that is known without running a model is the cost of the model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autoprune.measure.cost import count_multiply_adds, count_parameters
from autoprune.structure.cost import Cost
from autoprune.surgery.cut import cut
from autoprune.trace.trace import trace
from tests.zoo.registry import ZOO, build, random_kept


def real_cost(model: nn.Module, inputs: Tensor) -> Cost:
    tensors = (*model.parameters(), *model.buffers())
    return Cost(
        parameters=count_parameters(model),
        multiply_adds=count_multiply_adds(model, inputs),
        size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
    )


@pytest.mark.parametrize("name", ZOO)
def test_of_the_dense_model(name: str) -> None:
    model, inputs = build(name)
    assert trace(model, inputs).cost({}) == real_cost(model, inputs)


@pytest.mark.parametrize("name", ZOO)
def test_of_cut_models(name: str) -> None:
    model, inputs = build(name)
    topology = trace(model, inputs)
    for seed in range(4):
        kept = random_kept(topology, seed)
        assert topology.cost(kept.widths) == real_cost(cut(model, topology, kept), inputs)


@pytest.mark.parametrize(("heads", "width"), [(4, 3), (2, 6), (1, 1), (3, 2)])
def test_of_a_grid_that_loses_rows_and_columns(heads: int, width: int) -> None:
    """What lies in a row and a column that both go is gone once, not twice."""
    model, inputs = build("head_gate")
    cost = trace(model, inputs).cost({"gate": heads, "features": width})
    assert cost.parameters == (21 * heads * width) + 21 * heads + (heads * width * 5 + 5)


def test_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False))
    model.append(nn.Flatten()).append(nn.Linear(2 * 16, 3))
    topology = trace(model, torch.randn(5, 1, 6, 6))
    # Batch of 5, 16 positions: 9 weights to each of 3 channels, 3 to each of 2, then 32 to each of 3 numbers.
    cost = topology.cost({"0": 3})
    assert cost.multiply_adds == 5 * (16 * 9 * 3 + 16 * 3 * 2 + 32 * 3)
    assert cost.parameters == (9 * 3 + 3) + (3 + 3) + 3 * 2 + (32 * 3 + 3)
    # BatchNorm also stores two statistics per channel and one counter of 8 bytes.
    assert cost.size_bytes == 4 * (cost.parameters + 3 + 3) + 8


def test_half_precision_takes_half_the_bytes() -> None:
    model, inputs = build("mlp")
    whole = trace(model, inputs).cost({})
    half = trace(model.to(torch.bfloat16), inputs.to(torch.bfloat16)).cost({})
    assert half.parameters == whole.parameters
    assert half.size_bytes == (whole.size_bytes - 8) // 2 + 8, "the counter of the norm is an integer"


class Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(20, 16)
        self.b = nn.Parameter(torch.randn(5, 16))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nc,oc->no", torch.relu(self.a(x)), self.b)


def test_products_through_einsum_count() -> None:
    model, inputs = Einsum(), torch.randn(3, 20)
    assert trace(model, inputs).cost({}) == real_cost(model, inputs)


def test_products_with_a_computed_weight_count() -> None:
    first = nn.utils.parametrizations.weight_norm(nn.Linear(20, 16))
    model, inputs = nn.Sequential(first, nn.ReLU(), nn.Linear(16, 5)), torch.randn(3, 20)
    assert trace(model, inputs).cost({}).multiply_adds == count_multiply_adds(model, inputs)
