"""Gates that close and weights that move: the brief trainings behind criteria, against numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from autoprune.criteria import gates as learning
from autoprune.criteria.gates import Gate, learn_gates, open_probability, sample_gates
from autoprune.criteria.gathering import gather_signals
from autoprune.criteria.movement import accumulate_movement, measure_movement
from autoprune.criteria.registry import score
from autoprune.errors import ConfigurationError
from autoprune.plan.kept import KeptChannels
from autoprune.surgery.cut import cut
from autoprune.task.data import Batch
from autoprune.trace.trace import trace
from tests.unit.criteria.lines import added_up, first_group, line, on
from tests.zoo.registry import build

ONE = torch.ones(1, 1)
START = float(open_probability(torch.tensor(2.0)))


def far_from(target: float) -> object:
    def loss(outputs: object, targets: object) -> Tensor:
        assert isinstance(outputs, Tensor)
        return 10 * (outputs - target).square().sum()

    return loss


def batch(x: Tensor = ONE) -> Batch:
    return Batch(inputs=x, targets=torch.zeros(len(x)), size=len(x))


# Gates


def test_the_probability_that_a_gate_is_open() -> None:
    """sigmoid(log alpha - 2/3 log(0.1 / 1.1)); at log alpha = 0 that is r / (1 + r) with r = 11 to the power 2/3."""
    r = 11 ** (2 / 3)
    found = open_probability(torch.tensor([0.0, -math.log(r), 30.0])).tolist()
    assert found == pytest.approx([r / (1 + r), 0.5, 1.0])


def test_drawn_gates_are_as_often_open_as_they_should() -> None:
    even = (torch.arange(20_000) + 0.5) / 20_000
    for log_alpha in (-3.0, 0.0, 2.0):
        values = sample_gates(torch.full((20_000,), log_alpha), even)
        assert values.min() == 0
        assert values.max() == 1
        share = float((values > 0).float().mean())
        assert share == pytest.approx(float(open_probability(torch.tensor(log_alpha))), abs=1e-4)
    assert sample_gates(torch.zeros(3), torch.tensor([0.0, 0.5, 1.0])).tolist() == pytest.approx([0, 0.5, 1])


def test_one_step_is_that_of_adam(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.1 down where only the price counts, 0.1 up where the loss does."""
    monkeypatch.setattr(learning, "GATE_PASSES", 1)
    model = line(head=torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0]))
    signals = on(model, [ONE], ("gates",), far_from(20.0))
    assert signals.gates is not None
    assert signals.gates["0"][0].item() == pytest.approx(1.9, abs=1e-4)
    # Noise may have drawn some of the others fully open, where the loss has no slope.
    assert {round(value, 4) for value in signals.gates["0"][1:].tolist()} <= {1.9, 2.1}


def test_the_gates_of_useless_channels_close() -> None:
    model = line(head=torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0]))
    x = (ONE, ONE, ONE, ONE)
    found = score("hard_concrete", first_group(model, ONE), on(model, x, ("gates",), far_from(11.0)))
    useless, others = found[[0, 2]], found[[1, 3, 4]]
    assert (useless < START - 0.01).all()
    assert useless.max() < others.min()


def test_gates_are_a_function_of_the_seed() -> None:
    model = line()
    topology = trace(model, ONE)
    parent = topology, KeptChannels.whole(topology)
    found = [gather_signals(model, ("gates",), parent, [batch()], far_from(3.0), seed) for seed in (0, 0, 1)]
    first, again, other = (score("hard_concrete", topology.groups[0], signals) for signals in found)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_gates_of_a_cut_model_are_those_of_the_silenced_one() -> None:
    """Noise is drawn by the channel of the dense model."""
    model = line()
    topology, kept = trace(model, ONE), KeptChannels(groups={"0": (0, 3)})
    smaller = cut(model, topology, kept)
    on_cut = on(smaller, [ONE], ("gates",), far_from(5.0), (topology, kept))
    with torch.no_grad():
        model[0].weight[[1, 2, 4]] = 0
    on_silenced = on(model, [ONE], ("gates",), far_from(5.0))
    found = score("hard_concrete", topology.groups[0], on_cut)
    torch.testing.assert_close(found, score("hard_concrete", topology.groups[0], on_silenced)[[0, 3]])


def test_a_gate_stands_behind_the_norm() -> None:
    """Scale and shift are multiplied: at a gate of 0 nothing is left, not even the shift."""
    from tests.unit.criteria.small import INPUTS, small

    model = small(norm=True)
    seen: list[Tensor] = []
    model[2].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    topology = trace(model, INPUTS[0])
    seen.clear()
    signals = on(model, INPUTS, ("gates",), added_up, (topology, KeptChannels.whole(topology)))
    assert signals.gates is not None
    plain = [model[1](model[0](x)).detach() for x in INPUTS] * learning.GATE_PASSES
    assert len(seen) == len(plain)
    every = torch.stack([values[0] / whole[0] for values, whole in zip(seen, plain, strict=True)])
    for values, whole, gates in zip(seen, plain, every, strict=True):
        torch.testing.assert_close(values, whole * gates)
    assert ((every > -1e-6) & (every < 1 + 1e-6)).all()
    assert (every < 0.9).any()


def test_groups_that_the_loss_does_not_reach_are_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match=r"'hard_concrete' must be used on groups that the loss reaches.*'0'"):
        score(
            "hard_concrete",
            first_group(line(), ONE),
            on(line(), [ONE], ("gates",), lambda outputs, targets: torch.zeros(())),
        )


def test_gates_that_the_loss_does_not_reach_are_left_out() -> None:
    model = nn.ModuleDict({"seen": nn.Linear(1, 2), "unseen": nn.Linear(1, 2)})
    model.forward = model["seen"].forward
    gates = [Gate(name=name, shape=(2, 1), weight=f"{name}.weight") for name in model]
    found = learn_gates(model, [batch()], added_up, gates, lambda name, step: torch.full((2, 1), 0.5), 4)
    assert list(found) == ["seen"]


def test_of_two_gates_on_one_weight_both_count() -> None:
    """As of heads and their width: an entry is open where its row and its column are."""
    model, seen = nn.Linear(2, 2, bias=False), []
    places = torch.tensor([[0], [1]])
    gates = [Gate(name=str(axis), shape=(2,), places=(("weight", axis, places),)) for axis in (0, 1)]
    noise = {"0": torch.tensor([0.0, 1.0]), "1": torch.tensor([1.0, 0.0])}

    def loss(outputs: object, targets: object) -> Tensor:
        assert isinstance(outputs, Tensor)
        seen.append(outputs.detach())
        return outputs.sum()

    learn_gates(model, [batch(torch.ones(1, 2))], loss, gates, lambda name, step: noise[name], 4)
    wanted = torch.stack([torch.zeros(()), model.weight.detach()[1, 0]])
    torch.testing.assert_close(seen[0][0], wanted)


def test_a_loss_that_is_not_finite_teaches_nothing() -> None:
    def broken(outputs: object, targets: object) -> Tensor:
        assert isinstance(outputs, Tensor)
        return outputs.sum() * math.nan

    gate = Gate(name="w", shape=(5, 1), weight="0.weight")
    assert learn_gates(line(), [batch()], broken, [gate], lambda name, step: torch.rand(5, 1), 5) == {}


def test_a_recurrent_model_is_as_it_was_after_gates_were_tried_on_it() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.LSTM(3, 4, batch_first=True))
    gate = Gate(name="1.weight_hh_l0", shape=(16, 4), weight="1.weight_hh_l0")
    x = torch.randn(2, 5, 2)
    before = model(x)[0].detach()

    def loss(outputs: object, targets: object) -> Tensor:
        assert isinstance(outputs, tuple)
        return outputs[0].square().sum()

    found = learn_gates(model, [batch(x)], loss, [gate], lambda name, step: torch.rand(16, 4), 64)
    assert list(found) == ["1.weight_hh_l0"]
    assert torch.equal(model(x)[0], before)
    model[1].weight_hh_l0.data.zero_()
    assert not torch.equal(model(x)[0], before), "it runs on its own weights again"


# Movement


def test_one_step_of_movement() -> None:
    total: dict[str, Tensor] = {}
    weights, gradients = {"w": torch.tensor([2.0, -1.0])}, {"w": torch.tensor([3.0, 4.0])}
    accumulate_movement(total, weights, gradients, 0.5)
    accumulate_movement(total, weights, {"w": torch.tensor([1.0, 0.0])}, 1.0)
    assert total["w"].tolist() == [-3 - 2, 2]


def test_two_steps_on_one_weight() -> None:
    """Its gradient is 3; the first step is a hundredth of its 2, towards zero."""
    model = nn.Linear(1, 1, bias=False).eval()
    nn.init.constant_(model.weight, 2.0)
    found = measure_movement(model, [batch(torch.tensor([[3.0]]))], added_up, ("weight",))
    assert found["weight"].item() == pytest.approx(-0.02 * 2 - 0.02 * 1.98)
    assert model.weight.item() == 2


def test_channels_move_by_the_sum_of_what_makes_them() -> None:
    model, inputs = build("resnet")
    group = trace(model, inputs).group("stem.0")
    signals = on(model, [inputs], ())
    parts = {name: torch.randn_like(signals.weights[name]) for name in ("stem.0.weight", "blocks.0.conv2.weight")}
    found = score("movement", group, replace(signals, movement=parts))
    sums = sum(part.flatten(1).sum(1) for part in parts.values())
    torch.testing.assert_close(found, sums - sums.min())


def test_one_to_five_move_towards_zero_and_away() -> None:
    """The sum of the outputs falls when channels of positive weights shrink and those of a negative head grow."""
    model = line(head=torch.tensor([1.0, 1.0, -1.0, -1.0, 0.0]))
    found = score("movement", first_group(model, ONE), on(model, [ONE], ("movement",), added_up))
    assert found.argsort().tolist() == [1, 0, 4, 2, 3], "2 and 1 shrink, 5 stays, 3 and 4 grow"
    assert found.min() == 0


def test_a_movement_that_is_handed_over_is_taken() -> None:
    model = line()
    topology = trace(model, ONE)
    given = {"0.weight": torch.tensor([[3.0], [1.0], [4.0], [1.0], [5.0]])}
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    parent = topology, KeptChannels.whole(topology)
    signals = gather_signals(model, ("movement",), parent, [batch()], added_up, 0, movement=given)
    assert calls == []
    assert score("movement", topology.groups[0], signals).tolist() == [2, 0, 3, 0, 4]


def test_movement_ends_where_the_loss_is_not_finite() -> None:
    def broken(outputs: object, targets: object) -> Tensor:
        assert isinstance(outputs, Tensor)
        return outputs.sum() * math.inf

    assert measure_movement(line(), [batch()], broken, ("0.weight",)) == {}
    assert measure_movement(line(), [batch()], added_up, ()) == {}


def test_a_frozen_group_does_not_move() -> None:
    model = line()
    model[0].weight.requires_grad_(False)
    with pytest.raises(ConfigurationError, match=r"'movement'.*weights that the loss reaches.*group '0'"):
        score("movement", first_group(model, ONE), on(model, [ONE], ("movement",)))
