"""Forwards of a proof: float64 from float32 weights, no write to the user's weights, and an end in time."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from autoprune.surgery.evidence import Evidence
from autoprune.surgery.influence import gradients
from autoprune.surgery.precise import Forwards, OutOfTime, WritesWeightsError, storages
from autoprune.surgery.prove import survey


class Words(nn.Module):
    """A tied table larger than what is converted at once, and a product with a matrix that is not transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3000, 100)
        self.norm = nn.LayerNorm(100)
        self.mix = nn.Parameter(torch.randn(100, 3000) / 10)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.table(ids))
        return torch.tanh(x @ self.mix) @ self.table.weight + nn.functional.linear(x @ self.mix, self.mix)


class Picture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.c = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c(torch.relu(self.b(self.a(x))).mean((2, 3)))
        return y


@pytest.mark.parametrize(
    ("build", "inputs"),
    [(Words, torch.arange(12).view(2, 6)), (Picture, torch.randn(2, 3, 6, 6, generator=torch.Generator()))],
)
def test_float32_weights_give_the_outputs_of_a_model_in_float64(build: Callable[[], nn.Module], inputs: Tensor) -> None:
    model = build().eval()
    bench = Evidence.of(model, inputs)
    own = copy.deepcopy(bench.model).double()
    with torch.no_grad():
        expected = own(bench.inputs)
    assert bench.dense[0].dtype == torch.float64
    torch.testing.assert_close(bench.dense[0], expected, rtol=1e-11, atol=1e-11)
    shared = {name for name, tensor in model.named_parameters() if tensor.data_ptr() in _addresses(bench.model)}
    assert shared == {name for name, tensor in model.named_parameters() if tensor.ndim > 1}


def _addresses(model: nn.Module) -> set[int]:
    return {tensor.data_ptr() for tensor in model.parameters()}


def test_gradients_are_zero_where_those_of_autograd_are() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.b(self.a(x)[:, 2:6].softmax(-1))
            return y

    found = gradients(Half().eval(), torch.randn(3, 6), Forwards(math.inf, promotes=True))
    assert found["a.weight"][0].tolist() == [False] * 2 + [True] * 4 + [False] * 2
    assert found["b.weight"][0].all()


def test_no_forward_writes_to_the_weights_of_the_user() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.a.weight.clamp_(-0.1, 0.1)
            y: Tensor = self.b(torch.relu(self.a(x)))
            return y

    model = Writes().eval()
    before = copy.deepcopy(model.state_dict())
    forwards = Forwards(math.inf, promotes=True, guarded=storages(model))
    with pytest.raises(WritesWeightsError, match="changes its weights"):
        forwards.outputs(model, torch.randn(2, 6))
    assert survey(model, torch.randn(2, 6)).widths == {"a": 8}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_forward_ends_with_the_time_though_the_model_catches_every_exception() -> None:
    class Stubborn(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            while True:
                try:
                    x = x + 1
                except Exception:
                    x = x * 2

    with pytest.raises(OutOfTime):
        Forwards(time.process_time() + 0.01, promotes=False).outputs(Stubborn(), torch.zeros(2))
