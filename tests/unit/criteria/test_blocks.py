"""Criteria for residual blocks, against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from autoprune.criteria.block_effects import measure_block_changes
from autoprune.criteria.blocks import score_blocks
from autoprune.criteria.gates import open_probability
from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.plan.criteria import BLOCK_CRITERIA
from autoprune.plan.kept import KeptChannels
from autoprune.structure.blocks import DroppableBlock, Gap
from autoprune.surgery.cut import cut
from autoprune.task.data import Batch
from autoprune.trace.trace import trace
from tests.unit.criteria.lines import TURN, TWICE, half_square, on, residual

#: One sample: a quarter turn adds (-2, 1) to it, so that (-1, 3) enters the second block, which adds (-2, 6).
X = torch.tensor([[1.0, 2.0]])
WITH_SIGNALS = [name for name, entry in BLOCK_CRITERIA.items() if entry.signals]


def scored(name: str, model: nn.Module, inputs: Sequence[Tensor] = (X,), loss: object = None) -> list[float]:
    names = BLOCK_CRITERIA[name].signals
    signals = on(model, inputs, names) if loss is None else on(model, inputs, names, loss)
    return list(score_blocks(name, trace(model, inputs[0]), signals).values())


@pytest.mark.parametrize(
    ("name", "turn", "twice"),
    [
        ("l1", 2 / 4, 4 / 4),
        ("l2", (2 / 4) ** 0.5, (8 / 4) ** 0.5),
        ("linf", 1, 2),
        ("l0", 0.5 + 1e-4 * 0.5, 0.5 + 1e-4 * 0.5),
        ("block_influence", 1 - 0.5**0.5, 0),
        # The loss is the sum of the outputs, 3 times that of what leaves the turn.
        ("taylor_activation", abs(3 * (-2 + 1)), abs(-2 + 6)),
        ("taylor_weight", abs(3 * (-2 + 1)), abs(-2 + 6)),
        ("snip", 3 * (2 + 1), 2 + 6),
        ("fisher", 9 * (4 + 1) / 2, (4 + 36) / 2),
    ],
)
def test_by_hand(name: str, turn: float, twice: float) -> None:
    assert scored(name, residual(TURN, TWICE)) == pytest.approx([turn, twice], abs=1e-6)


def test_sums_of_batches_meet_before_or_after_the_absolute_value() -> None:
    """Two batches whose sums have opposite signs."""
    inputs = (X, -3 * X)
    assert scored("taylor_weight", residual(TWICE), inputs) == pytest.approx([(6 + 18) / 2])
    assert scored("taylor_activation", residual(TWICE), inputs) == pytest.approx([(6 + 18) / 2])
    assert scored("snip", residual(TWICE), inputs) == pytest.approx([(2 + 4) * abs(1 - 3) / 2])
    assert scored("fisher", residual(TWICE), inputs) == pytest.approx([(4 + 16) * (1 + 9) / 2 / 2])


def test_curvature() -> None:
    """h of the diagonal is x squared; the weights of zero have no part in the probes, so that any finds it."""
    assert scored("obd", residual(TWICE), loss=half_square) == pytest.approx([(1 + 4) * 4 / 2])


def test_movement_counts_from_the_smallest_of_the_blocks() -> None:
    model = residual(TURN, TWICE, TWICE)
    moved = {f"{number}.linear.weight": torch.full((2, 2), value) for number, value in enumerate((0.5, -1.0, 0.0))}
    signals = replace(on(model, [X], ()), movement=moved)
    assert list(score_blocks("movement", trace(model, X), signals).values()) == [6, 0, 4]


def test_gates_are_scored_by_how_likely_they_are_open() -> None:
    model = residual(TURN, TWICE)
    signals = replace(on(model, [X], ()), block_gates={"0": torch.tensor(-1.0), "1": torch.tensor(3.0)})
    found = list(score_blocks("hard_concrete", trace(model, X), signals).values())
    assert found == pytest.approx([float(open_probability(torch.tensor(value))) for value in (-1.0, 3.0)])


def test_the_gate_of_a_block_that_adds_nothing_closes() -> None:
    def far(outputs: object, targets: object) -> Tensor:
        assert isinstance(outputs, Tensor)
        return 10 * (outputs - 3 * X).square().sum()

    useless, needed = scored("hard_concrete", residual(torch.zeros(2, 2), TWICE), (X, X), far)
    assert useless < float(open_probability(torch.tensor(2.0))) - 0.01, "that of the first step"
    assert useless < needed


class Normed(nn.Module):
    def __init__(self, *scales: float) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
        with torch.no_grad():
            self.norm.weight.copy_(torch.tensor(scales))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.linear(x))


def test_scales_of_norms() -> None:
    assert scored("bn_scale", nn.Sequential(Normed(1.0, -3.0), Normed(0.5, 0.0)).eval()) == [2, 0.25]
    with pytest.raises(ConfigurationError, match=r"'bn_scale' must be used on blocks with a norm.*block '0' without"):
        scored("bn_scale", residual(TURN))


def test_norms_and_biases_are_no_weights_of_a_block_that_has_others() -> None:
    model = nn.Sequential(Normed(100.0, 100.0)).eval()
    with torch.no_grad():
        model[0].linear.weight.copy_(TWICE)
        model[0].linear.bias.fill_(50.0)
    assert scored("l1", model) == [1]
    assert scored("linf", model) == [2]


def test_random_is_a_function_of_seed_and_name() -> None:
    model = residual(TURN, TWICE)
    topology, signals = trace(model, X), on(model, [X], ())
    first = score_blocks("random", topology, signals)
    assert first == score_blocks("random", topology, signals)
    assert all(0 <= value < 1 for value in first.values())
    assert len({*first.values(), *score_blocks("random", topology, replace(signals, seed=1)).values()}) == 4


def test_blocks_that_are_gone_are_not_scored() -> None:
    model = residual(TURN, TWICE, TURN)
    topology, kept = trace(model, X), KeptChannels(groups={}, dropped=("1",))
    signals = on(cut(model, topology, kept), [X], ("blocks", "block_gradients", "block_gates"), parent=(topology, kept))
    for name in ("l1", "block_influence", "taylor_activation", "hard_concrete"):
        assert list(score_blocks(name, topology, signals)) == ["0", "2"]


def test_what_enters_is_taken_before_a_block_adds_to_it_in_place() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2, bias=False)
            with torch.no_grad():
                self.linear.weight.copy_(TURN)

        def forward(self, x: Tensor) -> Tensor:
            return x.add_(self.linear(x))

    model = nn.Sequential(nn.Identity(), InPlace()).eval()
    tensors = ("1.linear.weight",)
    block = DroppableBlock(name="1", gaps=(Gap(module="1", source=0),), tensors=tensors, used_tensors=tensors)
    batch = Batch(inputs=X.clone(), targets=torch.zeros(1), size=1)
    assert measure_block_changes(model, [batch], [block]) == {"1": pytest.approx(1 - 0.5**0.5)}


def test_the_channels_of_images_lie_along_axis_1() -> None:
    class Images(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1, bias=False)
            with torch.no_grad():
                self.conv.weight.copy_(TURN.reshape(2, 2, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv(x)

    x = torch.randn(2, 2, 3, 5)
    assert scored("block_influence", nn.Sequential(Images()).eval(), (x,)) == pytest.approx([1 - 0.5**0.5])


class InTuple(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(TWICE)

    def forward(self, x: Tensor) -> tuple[None, Tensor]:
        return None, x + self.linear(x)


def test_a_block_that_gives_a_tuple_is_gated_in_it() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = InTuple()

        def forward(self, x: Tensor) -> Tensor:
            return self.block(x)[1]

    model = Outer().eval()
    assert scored("taylor_activation", model) == [pytest.approx(6)]
    assert 0 < scored("hard_concrete", model)[0] < 1


# What cannot be scored


@pytest.mark.parametrize("name", WITH_SIGNALS)
def test_a_missing_signal_says_which_and_how_to_get_it(name: str) -> None:
    (needed,) = BLOCK_CRITERIA[name].signals
    model = residual(TURN)
    message = f"criterion '{name}' must be given the signal '{needed}'.*gather\\(model, names=\\('{needed}',\\)"
    with pytest.raises(ConfigurationError, match=message):
        score_blocks(name, trace(model, X), on(model, [X], ()))


@pytest.mark.parametrize("name", ["taylor_weight", "fisher", "snip", "obd", "movement"])
def test_frozen_weights_are_a_configuration_error(name: str) -> None:
    model = residual(TURN, TWICE)
    model[1].requires_grad_(False)
    with pytest.raises(ConfigurationError, match=f"'{name}'.*weights that the loss reaches.*not frozen.*block '1'"):
        scored(name, model)


@pytest.mark.parametrize("name", ["taylor_activation", "hard_concrete"])
def test_what_a_block_adds_needs_no_trained_weight_but_the_loss(name: str) -> None:
    assert scored(name, residual(TURN).requires_grad_(False)) == scored(name, residual(TURN))
    with pytest.raises(ConfigurationError, match=f"'{name}' must be used on blocks that the loss reaches.*block '0'"):
        scored(name, residual(TURN), loss=lambda outputs, targets: torch.zeros(()))


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(
        UnknownNameError, match=r"a criterion for blocks must be one of added_loss, block_influence.*got 'wanda'"
    ):
        BLOCK_CRITERIA.find("wanda")
    assert BLOCK_CRITERIA.signals_for(("l1", "snip", "block_influence", "fisher")) == ("blocks", "gradients")
