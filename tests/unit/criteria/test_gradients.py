"""The other criteria on gradients and curvature, against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autoprune.criteria.gathering import gather_signals
from autoprune.criteria.registry import score
from autoprune.criteria.signals import SIGNALS
from autoprune.errors import ConfigurationError
from autoprune.plan.kept import KeptChannels
from autoprune.surgery.cut import cut
from autoprune.task.data import Batch
from autoprune.trace.trace import trace
from tests.unit.criteria.lines import (
    ONE_TO_FIVE,
    UP_AND_DOWN,
    half_square,
    line,
    on,
    scored,
    straight,
)
from tests.unit.criteria.small import HEAD, INPUTS, WEIGHT, small
from tests.zoo.registry import build

ON_GRADIENTS = ("taylor", "taylor_weight", "fisher", "snip")
ON_WEIGHTS_MADE = ("taylor_weight", "fisher", "snip", "obd")


# Gradients: of the sum of the outputs to weight c they are its head's weight times the sum of x


@pytest.mark.parametrize("bias", [False, True])
def test_one_to_five_on_gradients(bias: bool) -> None:
    """The bias of 7 in each channel is not asked for."""
    model = straight(bias=bias)
    assert scored("taylor_weight", model, UP_AND_DOWN) == [2 * w for w in (1, 2, 3, 4, 5)]
    assert scored("snip", model, UP_AND_DOWN) == [1, 2, 3, 4, 5]
    assert scored("fisher", model, UP_AND_DOWN) == [5 / 2 * w * w for w in (1, 2, 3, 4, 5)]


def test_sums_and_absolute_values_are_taken_in_their_order() -> None:
    """Of filters of two weights, on batches of two and three samples."""
    model, weight = small(), torch.tensor(WEIGHT)
    products = [torch.tensor(HEAD).sum(0).unsqueeze(1) * x.sum(0) * weight for x in INPUTS]
    wanted = {
        "taylor_weight": torch.stack([p.sum(1).abs() for p in products]).mean(0),
        "fisher": torch.stack([p.square().sum(1) for p in products]).mean(0) / 2,
        "snip": torch.stack(products).mean(0).abs().sum(1),
    }
    for name, values in wanted.items():
        torch.testing.assert_close(torch.tensor(scored(name, model, INPUTS)), values)


def test_taylor_of_weights_does_not_look_at_the_norm() -> None:
    plain, normed = small(), small(norm=True)
    with torch.no_grad():
        normed[1].weight.fill_(1.0)
    for name in ON_WEIGHTS_MADE:
        assert scored(name, plain, INPUTS) == pytest.approx(scored(name, normed, INPUTS))
    assert scored("taylor", plain, INPUTS) != pytest.approx(scored("taylor", normed, INPUTS))


@pytest.mark.parametrize("name", ON_WEIGHTS_MADE)
def test_a_frozen_weight_is_a_configuration_error(name: str) -> None:
    model = line()
    model[0].weight.requires_grad_(False)
    with pytest.raises(ConfigurationError, match=f"'{name}'.*the loss reaches and that are not frozen.*group '0'"):
        scored(name, model, UP_AND_DOWN)


class Beside(nn.Module):
    """Its hidden channels are computed, and read, and come to nothing."""

    def __init__(self, cut_off: bool) -> None:
        super().__init__()
        self.first, self.head, self.other, self.cut_off = nn.Linear(1, 5), nn.Linear(5, 1), nn.Linear(1, 1), cut_off

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(self.first(x))
        return self.other(x) + (y.detach() if self.cut_off else y)


@pytest.mark.parametrize("name", [*ON_GRADIENTS, "obd", "taylor_activation"])
@pytest.mark.parametrize("everything", [True, False])
def test_weights_that_the_loss_does_not_reach_are_a_configuration_error(name: str, everything: bool) -> None:
    def constant(outputs: object, targets: object) -> Tensor:
        return torch.zeros(())

    model = Beside(cut_off=True).eval()
    with pytest.raises(ConfigurationError, match=f"'{name}'.*that the loss reaches.*group 'first'"):
        scored(name, model, UP_AND_DOWN, constant if everything else half_square)
    assert scored(name, Beside(cut_off=False).eval(), UP_AND_DOWN, half_square)


def test_of_two_weights_the_trained_one_counts() -> None:
    model, inputs = build("resnet")
    model.stem[0].requires_grad_(False)
    topology = trace(model, inputs)
    signals = on(model, [inputs], SIGNALS, half_square)
    weight = model.blocks[0].conv2.weight
    (gradient,) = torch.autograd.grad(half_square(model(inputs), None), weight)
    product = (gradient * weight).detach().flatten(1)
    group = topology.group("stem.0")
    torch.testing.assert_close(score("snip", group, signals), product.abs().sum(1))
    torch.testing.assert_close(score("fisher", group, signals), product.square().sum(1) / 2)
    assert ((score("obd", group, signals) > 0) == (product != 0).any(1)).all()


# Curvature


def apart(weights: Tensor = ONE_TO_FIVE) -> nn.Sequential:
    """Its outputs are its channels: no two weights meet in the Hessian of the sum of their squares."""
    model = nn.Sequential(nn.Linear(1, 5, bias=False), nn.Linear(5, 5, bias=False)).eval()
    with torch.no_grad():
        model[0].weight.copy_(weights.unsqueeze(1))
        model[1].weight.copy_(torch.eye(5))
    return model


def test_one_to_five_on_curvature() -> None:
    """h is the mean of x squared over the batches, 5, and any probe finds it."""
    assert scored("obd", apart(), UP_AND_DOWN, half_square) == pytest.approx([5 / 2 * w * w for w in (1, 2, 3, 4, 5)])


def test_curvature_below_zero_counts_by_its_size() -> None:
    def hill(outputs: object, targets: object) -> Tensor:
        return -half_square(outputs, targets)

    assert scored("obd", apart(), UP_AND_DOWN, hill) == pytest.approx([5 / 2 * w * w for w in (1, 2, 3, 4, 5)])


def test_a_loss_without_curvature_scores_zero() -> None:
    assert scored("obd", straight(), UP_AND_DOWN) == [0] * 5


def test_the_estimate_comes_near_where_weights_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    from autoprune.criteria import calibration

    monkeypatch.setattr(calibration, "HESSIAN_PROBES", 600)
    found = scored("obd", straight(), UP_AND_DOWN, half_square)
    # A probe is off by up to w times the sum of all others: the smallest by more of itself.
    expected = [5 / 2 * w * w for w in (1, 2, 3, 4, 5)]
    assert all(abs(f - e) < 2.5 * w for w, (f, e) in enumerate(zip(found, expected, strict=True), 1)), found


def test_layers_next_to_each_other_add_no_noise() -> None:
    """One weight on each side of a channel: they meet in each other alone, and each has a part of its own."""
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0], [0.0]]))
        model[1].weight.copy_(torch.tensor([[2.0, 0.0]]))
    topology = trace(model, UP_AND_DOWN[0])
    start = topology, KeptChannels.whole(topology)
    given = [Batch(inputs=x, targets=None, size=len(x)) for x in UP_AND_DOWN]
    for seed in range(3):
        signals = gather_signals(model, ("hessian",), start, given, half_square, seed)
        # h = x^2 v^2, and the score h w^2 / 2
        assert score("obd", topology.groups[0], signals).tolist() == pytest.approx([5 * 2 * 2 * 3 * 3 / 2, 0])


def test_a_weight_of_zero_has_no_part_in_the_probes() -> None:
    """It meets the others in the Hessian; left in, it would only add noise to theirs."""
    model = straight(torch.tensor([0.0, 0.0, 3.0, 0.0, 0.0]))
    assert scored("obd", model, UP_AND_DOWN, half_square) == pytest.approx([0, 0, 5 / 2 * 9, 0, 0])


def test_probes_are_those_of_the_dense_model() -> None:
    """A channel's estimate does not change by chance when others go that it does not meet."""
    model = small()
    topology = trace(model, INPUTS[0])
    kept = KeptChannels(groups={"0": (0, 2)})
    dense = on(model, INPUTS, ("hessian",), half_square)
    smaller = on(cut(model, topology, kept), INPUTS, ("hessian",), half_square, (topology, kept))
    with torch.no_grad():
        model[2].weight[:, 1] = 0
        model[0].weight[1] = 0
    silenced = on(model, INPUTS, ("hessian",), half_square)
    found = score("obd", topology.groups[0], smaller)
    torch.testing.assert_close(found, score("obd", topology.groups[0], silenced)[[0, 2]])
    assert not torch.equal(found, score("obd", topology.groups[0], dense)[[0, 2]])


def test_another_seed_draws_other_probes() -> None:
    from autoprune.criteria.gathering import gather_signals
    from tests.unit.criteria.small import batches

    model = small()
    topology = trace(model, INPUTS[0])
    parent = topology, KeptChannels.whole(topology)
    found = [gather_signals(model, ("hessian",), parent, batches(), half_square, seed).hessian for seed in (0, 0, 1)]
    first, again, other = (hessian["0.weight"] for hessian in found if hessian is not None)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x).unsqueeze(1)
        return self.down(nn.functional.scaled_dot_product_attention(y, y, y).squeeze(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_weights_of_half_precision_have_finite_curvature(dtype: torch.dtype) -> None:
    model = straight(torch.tensor([1e-7, 1e-4, 1.0, 2.0, 3.0])).to(dtype)
    signals = on(model, [x.to(dtype) for x in UP_AND_DOWN], ("hessian",), half_square)
    assert signals.hessian is not None
    assert all(torch.isfinite(h).all() for h in signals.hessian.values())


def test_attention_has_curvature() -> None:
    """Its fused kernels have none."""
    model, inputs = Attention().eval(), torch.randn(2, 3, 4)
    signals = on(model, [inputs], ("hessian",), half_square)
    assert signals.hessian is not None
    assert (signals.hessian["up.weight"] != 0).all()


def test_what_can_not_be_differentiated_twice_is_a_configuration_error() -> None:
    """Attention's fused kernel asked for by its name; without that, the plain one is taken."""

    def fused(outputs: object, targets: object) -> Tensor:
        assert isinstance(outputs, Tensor)
        y = outputs.reshape(1, 1, -1, 2)
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(y, y, y)[0].square().sum()

    with pytest.raises(ConfigurationError, match="'hessian' must be gathered on a model that has second derivatives"):
        on(small(), INPUTS, ("hessian",), fused)
