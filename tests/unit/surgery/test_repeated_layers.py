"""What helps is looked for in a copy without repeated layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoprune.proof.repeated_layers import without_repeats


class Layer(nn.Module):
    def __init__(self, number: int, width: int = 8, *, gate: float = 0.0) -> None:
        super().__init__()
        self.number, self.gate = number, gate
        self.a, self.b = nn.Linear(8, width), nn.Linear(width, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.b(torch.relu(self.a(x)))
        return y


class Stack(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_the_first_of_every_kind_of_layer_stays() -> None:
    model = Stack(*(Layer(number, 8 if number < 3 else 12) for number in range(6)))
    shallow = without_repeats(model)
    assert shallow is not None
    assert [name for name, _ in shallow.layers.named_children()] == ["0", "1"]  # type: ignore[union-attr, operator]
    kept = dict(shallow.named_parameters())
    assert kept["layers.0.a.weight"].data_ptr() == model.layers[0].a.weight.data_ptr()  # type: ignore[union-attr]
    assert kept["layers.1.a.weight"].data_ptr() == model.layers[3].a.weight.data_ptr()  # type: ignore[union-attr]
    assert len(model.layers) == 6
    assert shallow(torch.randn(2, 8)).shape == (2, 8)


def test_layers_with_other_numbers_are_no_repeats() -> None:
    assert without_repeats(Stack(*(Layer(number**2) for number in range(4)))) is None
    assert without_repeats(Stack(*(Layer(0, 8 + number) for number in range(4)))) is None


def test_layers_may_differ_in_shares() -> None:
    shallow = without_repeats(Stack(*(Layer(number, gate=number / 10) for number in range(4))))
    assert shallow is not None
    assert len(shallow.layers) == 1  # type: ignore[arg-type]


def test_few_repeats_are_not_worth_a_copy() -> None:
    assert without_repeats(Stack(Layer(0), *(Layer(0, 9 + number) for number in range(8)), Layer(9))) is None
