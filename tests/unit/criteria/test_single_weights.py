"""Criteria for single weights, against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from autoprune.criteria.gates import open_probability
from autoprune.criteria.single_weights import score_weights
from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.plan.criteria import WEIGHT_CRITERIA
from autoprune.plan.kept import KeptChannels
from autoprune.surgery.cut import cut
from autoprune.trace.trace import trace
from tests.unit.criteria.lines import ONE_TO_FIVE, UP_AND_DOWN, half_square, line, on, straight

WITH_SIGNALS = [name for name, entry in WEIGHT_CRITERIA.items() if entry.signals]
X = torch.ones(2, 1)


def scored(
    name: str, model: nn.Module, inputs: Sequence[Tensor], weight: str = "0.weight", loss: object = None
) -> Tensor:
    names = WEIGHT_CRITERIA[name].signals
    signals = on(model, inputs, names) if loss is None else on(model, inputs, names, loss)
    return score_weights(name, weight, signals)


def test_one_to_five_on_weights() -> None:
    model = line(ONE_TO_FIVE * torch.tensor([1, -1, 1, -1, 1]))
    assert scored("l1", model, [X]).tolist() == [[1], [2], [3], [4], [5]]
    wanted = [1 / 55, 4 / 54, 9 / 50, 16 / 41, 1]
    assert scored("lamp", model, [X]).flatten().tolist() == pytest.approx(wanted)


def test_lamp_counts_equal_weights_in_full_and_zeros_as_nothing() -> None:
    found = scored("lamp", line(torch.tensor([1.0, -2.0, 2.0, 0.0, 1.0])), [X]).flatten()
    assert found.tolist() == pytest.approx([1 / 10, 4 / 8, 4 / 8, 0, 1 / 10])
    bare = WEIGHT_CRITERIA["lamp"].load()("0.weight", on(line(torch.zeros(5)), [X], ()))
    assert bare.tolist() == [[0]] * 5, "no number, which counts as 0 later"


def test_one_to_five_on_gradients() -> None:
    """The gradients of the batches are 3 and -1."""
    model = straight()
    assert scored("taylor_weight", model, UP_AND_DOWN).flatten().tolist() == [2 * w for w in (1, 2, 3, 4, 5)]
    assert scored("snip", model, UP_AND_DOWN).flatten().tolist() == [1, 2, 3, 4, 5]
    assert scored("fisher", model, UP_AND_DOWN).flatten().tolist() == [5 / 2 * w * w for w in (1, 2, 3, 4, 5)]


@pytest.mark.parametrize("sign", [1, -1])
def test_one_to_five_on_curvature(sign: int) -> None:
    """The only layer: h is the mean of x squared, 5, and any probe finds it; hills count like valleys."""
    model = nn.Linear(1, 5, bias=False).eval()
    with torch.no_grad():
        model.weight.copy_(ONE_TO_FIVE.unsqueeze(1))
    found = scored("obd", model, UP_AND_DOWN, "weight", lambda y, targets: sign * half_square(y, targets))
    assert found.flatten().tolist() == pytest.approx([5 / 2 * w * w for w in (1, 2, 3, 4, 5)])


def test_wanda_on_what_each_layer_reads() -> None:
    model = line(head=torch.tensor([1.0, -2.0, 0.0, 0.5, -1.0]))
    inputs = (torch.tensor([[3.0]]), torch.tensor([[4.0]]))
    assert scored("wanda", model, inputs).flatten().tolist() == pytest.approx([5, 10, 15, 20, 25])
    found = scored("wanda", model, inputs, "2.weight")
    assert found.tolist() == [pytest.approx([5 * 1, 10 * 2, 0, 20 * 0.5, 25 * 1])]


def test_wanda_of_a_grouped_convolution_takes_each_groups_own_channels() -> None:
    model = nn.Sequential(nn.Conv1d(4, 2, 1, groups=2, bias=False)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[5.0, 6.0], [7.0, -8.0]]).unsqueeze(2))
    inputs = torch.tensor([[[3.0, 4.0]]]) * torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1)
    found = scored("wanda", model, [inputs]).squeeze(2)
    torch.testing.assert_close(found, torch.tensor([[5 * 5.0, 6 * 10], [7 * 15, 8 * 20]]))


def test_wanda_of_a_transposed_convolution_reads_along_its_first_axis() -> None:
    model = nn.Sequential(nn.ConvTranspose1d(2, 3, 1, bias=False)).eval()
    inputs = torch.tensor([[[3.0, 4.0], [6.0, 8.0]]])
    found = scored("wanda", model, [inputs])
    torch.testing.assert_close(found, model[0].weight.detach().abs() * torch.tensor([5.0, 10.0]).reshape(2, 1, 1))


def test_wanda_of_an_attention_takes_for_each_third_what_it_reads() -> None:
    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(2, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y = 3 * x
            return self.attention(x, y, y)[0]

    model, inputs = Cross().eval(), torch.tensor([[[1.0, 3.0]], [[0.0, 4.0]]])
    norms = torch.tensor([[1.0, 5.0]] * 2 + [[3.0, 15.0]] * 4)
    found = scored("wanda", model, [inputs], "attention.in_proj_weight")
    torch.testing.assert_close(found, model.attention.in_proj_weight.detach().abs() * norms)


def test_movement_counts_from_the_smallest_of_the_weight() -> None:
    model = line()
    moved = torch.tensor([[0.5], [-1.0], [0.0], [2.0], [-0.25]])
    signals = replace(on(model, [X], ()), movement={"0.weight": moved})
    assert score_weights("movement", "0.weight", signals).flatten().tolist() == [1.5, 0, 1, 3, 0.75]


def test_gates_are_scored_by_how_likely_they_are_open() -> None:
    log_alpha = torch.tensor([[-3.0], [0.0], [1.0], [2.0], [5.0]])
    signals = replace(on(line(), [X], ()), weight_gates={"0.weight": log_alpha})
    found = score_weights("hard_concrete", "0.weight", signals)
    torch.testing.assert_close(found, open_probability(log_alpha))


def test_gates_of_entries_that_come_to_nothing_close() -> None:
    """The first channel is not read: what makes it and its place in the head are worth nothing."""

    def far(outputs: object, targets: object) -> Tensor:
        assert isinstance(outputs, Tensor)
        return 10 * (outputs - 15).square().sum()

    model = line(torch.tensor([0.0, 2.0, 3.0, 4.0, 6.0]))
    inputs = (torch.ones(1, 1), torch.ones(1, 1))
    for weight in ("0.weight", "2.weight"):
        useless, *others = scored("hard_concrete", model, inputs, weight, far).flatten().tolist()
        assert useless < float(open_probability(torch.tensor(2.0))) - 0.01, "that of the first step"
        assert useless < min(others)


def test_random_is_that_of_the_dense_model() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    x = torch.ones(2, 3)
    topology, kept = trace(model, x), KeptChannels(groups={"0": (1, 4)})
    dense = on(model, [x], ())
    smaller = on(cut(model, topology, kept), [x], (), parent=(topology, kept))
    first = score_weights("random", "0.weight", dense)
    assert first.shape == (5, 3)
    assert ((first >= 0) & (first < 1)).all()
    assert torch.equal(score_weights("random", "0.weight", smaller), first[[1, 4]])
    assert torch.equal(
        score_weights("random", "2.weight", smaller), score_weights("random", "2.weight", dense)[:, [1, 4]]
    )
    assert not torch.equal(score_weights("random", "0.weight", replace(dense, seed=1)), first)
    assert not torch.equal(score_weights("random", "2.weight", dense)[:, :3], first[:2]), "each weight has its own"


# What cannot be scored


@pytest.mark.parametrize("name", WITH_SIGNALS)
def test_a_missing_signal_says_which_and_how_to_get_it(name: str) -> None:
    (needed,) = WEIGHT_CRITERIA[name].signals
    message = f"criterion '{name}' must be given the signal '{needed}'.*gather\\(model, names=\\('{needed}',\\)"
    with pytest.raises(ConfigurationError, match=message):
        score_weights(name, "0.weight", on(line(), UP_AND_DOWN, ()))


@pytest.mark.parametrize("name", ["taylor_weight", "fisher", "snip", "obd", "movement"])
def test_a_frozen_weight_is_a_configuration_error(name: str) -> None:
    model = line()
    model[0].weight.requires_grad_(False)
    with pytest.raises(
        ConfigurationError, match=f"'{name}'.*that the loss reaches and that are not frozen.*'0.weight'"
    ):
        scored(name, model, UP_AND_DOWN)
    assert scored(name, model, UP_AND_DOWN, "2.weight").shape == (1, 5)


def test_gates_ask_for_no_trained_weight_but_for_the_loss() -> None:
    assert scored("hard_concrete", line().requires_grad_(False), UP_AND_DOWN).shape == (5, 1)
    with pytest.raises(ConfigurationError, match="'hard_concrete' must be used on weights that the loss reaches"):
        scored("hard_concrete", line(), UP_AND_DOWN, "0.weight", lambda outputs, targets: torch.zeros(()))


def test_a_weight_whose_input_can_not_be_watched_is_a_configuration_error() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 5)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.layer.weight)

    with pytest.raises(ConfigurationError, match="'wanda' must be used on weights whose input can be captured"):
        scored("wanda", Functional().eval(), [X], "layer.weight")


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(UnknownNameError, match=r"a criterion for single weights must be one of .*l1, lamp.*got 'l2'"):
        WEIGHT_CRITERIA.find("l2")
    with pytest.raises(UnknownNameError, match=r"a weight must be one of 0.weight, 2.weight, but got '1.weight'"):
        score_weights("l1", "1.weight", on(line(), [X], ()))


def test_signals_for_joins_what_is_needed() -> None:
    assert WEIGHT_CRITERIA.signals_for(("l1", "snip", "wanda", "fisher")) == ("activations", "gradients")
