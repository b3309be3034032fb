"""The other criteria on gradients, curvature and activations, against numbers worked out by hand."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from autoprune.criteria.kept import KeptChannels
from autoprune.criteria.registry import CRITERIA, score
from autoprune.criteria.signals import SIGNALS
from autoprune.errors import ConfigurationError
from autoprune.surgery.cut import cut
from autoprune.trace.trace import trace
from tests.unit.criteria.lines import ONE_TO_FIVE, added_up, first_group, half_square, line, on
from tests.unit.criteria.small import HEAD, INPUTS, WEIGHT, small
from tests.zoo.registry import build

ON_GRADIENTS = ("taylor", "taylor_weight", "fisher", "snip")
ON_WEIGHTS_MADE = ("taylor_weight", "fisher", "snip", "obd")
ON_ACTIVATIONS = ("mean_activation", "mean_square_activation", "activation_variance", "apoz", "wanda")
#: Two batches of one sample each: the mean of |x| is 2, of x 1, of x squared 5.
UP_AND_DOWN = (torch.tensor([[3.0]]), torch.tensor([[-1.0]]))


def straight(weights: Tensor = ONE_TO_FIVE, head: Tensor | None = None, *, bias: bool = False) -> nn.Sequential:
    model = line(weights, head, bias=bias)
    model[1] = nn.Identity()
    return model


def scored(name: str, model: nn.Module, inputs: tuple[Tensor, ...], loss: object = added_up) -> list[float]:
    return score(name, first_group(model, inputs[0]), on(model, inputs, SIGNALS, loss)).tolist()


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

    monkeypatch.setattr(calibration, "PROBES", 2000)
    found = scored("obd", straight(), UP_AND_DOWN, half_square)
    assert found == pytest.approx([5 / 2 * w * w for w in (1, 2, 3, 4, 5)], rel=0.15)


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
    from autoprune.criteria.signals import gather
    from tests.unit.criteria.small import batches

    model = small()
    topology = trace(model, INPUTS[0])
    parent = topology, KeptChannels.whole(topology)
    found = [gather(model, ("hessian",), parent, batches(), half_square, seed).hessian for seed in (0, 0, 1)]
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


# Activations: channel c of the hidden layer is w x


def test_one_to_five_on_activations() -> None:
    model, inputs = line(), (torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0]]))
    assert scored("mean_activation", model, inputs) == pytest.approx([3 * w for w in (1, 2, 3, 4, 5)])
    assert scored("mean_square_activation", model, inputs) == pytest.approx([35 / 3 * w * w for w in (1, 2, 3, 4, 5)])
    assert scored("activation_variance", model, inputs) == pytest.approx([8 / 3 * w * w for w in (1, 2, 3, 4, 5)])
    assert scored("wanda", model, inputs) == pytest.approx([35**0.5 * w for w in (1, 2, 3, 4, 5)])


def test_the_signs_of_activations() -> None:
    """Without the ReLU, x is 3 and -1."""
    model = straight()
    assert scored("mean_activation", model, UP_AND_DOWN) == pytest.approx([2 * w for w in (1, 2, 3, 4, 5)])
    assert scored("activation_variance", model, UP_AND_DOWN) == pytest.approx([4 * w * w for w in (1, 2, 3, 4, 5)])
    assert scored("taylor_activation", model, UP_AND_DOWN) == pytest.approx([2 * w for w in (1, 2, 3, 4, 5)])


def test_variance_far_from_zero_keeps_its_digits() -> None:
    inputs = tuple(1e4 + torch.tensor([[-1.0], [1.0]]) * (number + 1) for number in range(3))
    wanted = [(1 + 4 + 9) / 3 * w * w for w in (1, 2, 3, 4, 5)]
    assert scored("activation_variance", straight(), inputs) == pytest.approx(wanted, rel=1e-2)


@pytest.mark.parametrize("relu", [True, False])
def test_apoz(relu: bool) -> None:
    """Thresholds of 4 to 0 on inputs from 0.5 to 4.5 let 1 to 5 of 5 through; below 0 is as good as 0."""
    model = (line if relu else straight)(torch.ones(5), bias=True)
    with torch.no_grad():
        model[0].bias.copy_(-torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0]))
    inputs = (torch.tensor([[0.5], [1.5]]), torch.tensor([[2.5], [3.5], [4.5]]))
    found = torch.tensor(scored("apoz", model, inputs))
    share = torch.tensor([0.2, 0.4, 0.6, 0.8, 1.0])
    size = torch.tensor(scored("mean_activation", model, inputs))
    torch.testing.assert_close(found, share + 1e-4 * size / (1 + size), rtol=0, atol=1e-6)


def test_apoz_of_what_is_never_zero_goes_by_size() -> None:
    model = line(torch.tensor([3.0, 1.0, 5.0, 2.0, 4.0]))
    found = torch.tensor(scored("apoz", model, (torch.tensor([[0.1], [2.0]]),)))
    assert found.argsort().tolist() == [1, 3, 0, 4, 2]
    assert ((found - 1 > 0) & (found - 1 < 1e-4)).all()


def test_wanda_takes_the_weights_that_read() -> None:
    head = torch.tensor([1.0, -2.0, 0.0, 0.5, -1.0])
    model = line(head=head)
    inputs = (torch.tensor([[3.0]]), torch.tensor([[4.0]]))
    assert scored("wanda", model, inputs) == pytest.approx([5 * 1, 10 * 2, 0, 20 * 0.5, 25 * 1])
    assert scored("taylor_activation", model, inputs) == pytest.approx([3.5 * 1, 7 * 2, 0, 14 * 0.5, 17.5])


def convolutional() -> tuple[nn.Sequential, Tensor]:
    """Channels that a linear layer reads at nine places each."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 3)).eval()
        return model, torch.randn(6, 1, 5, 5)


def test_channels_that_are_read_at_several_places() -> None:
    model, inputs = convolutional()
    hidden = model[1](model[0](inputs)).detach().flatten(2)  # [samples, channels, places]
    weight = model[3].weight.detach().reshape(3, 4, 9)
    signals = on(model, [inputs[:2], inputs[2:]], SIGNALS, half_square)
    found = {
        name: score(name, trace(model, inputs).groups[0], signals) for name in (*ON_ACTIVATIONS, "taylor_activation")
    }
    torch.testing.assert_close(found["mean_square_activation"], hidden.square().mean((0, 2)))
    torch.testing.assert_close(found["activation_variance"], hidden.var(0, unbiased=False).mean(1))
    torch.testing.assert_close(found["apoz"], (hidden > 0).float().mean((0, 2)), rtol=0, atol=1e-4)
    torch.testing.assert_close(found["wanda"], (weight.abs().sum(0) * hidden.norm(dim=0)).sum(1))
    # Places of one channel are added up before the absolute value is taken.
    gradient = torch.einsum("no,ocp->ncp", model(inputs).detach(), weight)
    torch.testing.assert_close(found["taylor_activation"], (hidden * gradient).sum(2).abs().mean(0))


def test_positions_are_added_up_before_the_absolute_value_is_taken() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 1, bias=False), nn.Conv1d(2, 1, 1, bias=False)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 2.0]).reshape(2, 1, 1))
        model[1].weight.fill_(3.0)
    # Sums over positions: 1 and -4; absolute values 1 and 4, on average 2.5.
    inputs = torch.tensor([[[2.0, -1.0]], [[-1.0, -3.0]]])
    assert scored("taylor_activation", model, (inputs,)) == pytest.approx([2.5 * 3, 2.5 * 2 * 3])


def test_readers_are_averaged_but_their_weights_add_up() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.one, self.two = line()[0], nn.Linear(5, 1, bias=False), nn.Linear(5, 1, bias=False)
            for layer, value in ((self.one, 1.0), (self.two, -3.0)):
                nn.init.constant_(layer.weight, value)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.one(y) + self.two(2 * y)

    inputs = (torch.tensor([[3.0], [4.0]]),)
    model = Twice().eval()
    assert scored("mean_square_activation", model, inputs) == pytest.approx(
        [(12.5 + 4 * 12.5) / 2 * w * w for w in (1, 2, 3, 4, 5)]
    )
    assert scored("wanda", model, inputs) == pytest.approx([(5 * 1 + 10 * 3) * w for w in (1, 2, 3, 4, 5)])
    # y has the gradients of both paths, 2 y that of the second.
    assert scored("taylor_activation", model, inputs) == pytest.approx(
        [3.5 * (abs(1 - 6) + 2 * 3) / 2 * w for w in (1, 2, 3, 4, 5)]
    )


def test_a_grouped_convolution_reads_with_each_group_its_own_channels() -> None:
    """Channels 0 and 2 go together, as do 1 and 3: they have one place in the grouped weight."""
    model = nn.Sequential(
        nn.Conv1d(1, 4, 1, bias=False), nn.Conv1d(4, 2, 1, groups=2, bias=False), nn.Conv1d(2, 1, 1, bias=False)
    ).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(4, 1, 1))
        model[1].weight.copy_(torch.tensor([[5.0, 6.0], [7.0, -8.0]]).unsqueeze(2))
        model[2].weight.fill_(1.0)
    inputs = (torch.tensor([[[3.0, 4.0]]]),)
    topology = trace(model, inputs[0])
    assert topology.groups[0].channels == 2
    assert scored("wanda", model, inputs) == pytest.approx([5 * (1 * 5 + 3 * 7), 5 * (2 * 6 + 4 * 8)])
    assert scored("mean_activation", model, inputs) == pytest.approx([3.5 * 2, 3.5 * 3])
    assert scored("taylor_activation", model, inputs) == pytest.approx([7 * (5 + 21), 7 * abs(12 - 32)])


def test_a_weight_that_two_layers_share_is_seen_in_both() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.one, self.two = line()[0], nn.Linear(5, 1, bias=False), nn.Linear(5, 1, bias=False)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.one(y) + self.two(3 * y)

    found = scored("mean_activation", Shared().eval(), (torch.ones(2, 1),))
    assert found == pytest.approx([2 * w for w in (1, 2, 3, 4, 5)])


def test_heads() -> None:
    """A gate is read at the six features of its head."""
    model, inputs = build("head_gate")
    group = trace(model, inputs).group("gate")
    signals = on(model, [inputs], SIGNALS, half_square)
    outputs = model(inputs).detach()
    features = torch.relu(model.features(inputs)).reshape(2, 4, 6) * torch.sigmoid(model.gate(inputs)).unsqueeze(2)
    weight = model.head.weight.detach().reshape(5, 4, 6)
    gradient = torch.einsum("no,ohf->nhf", outputs, weight)
    wanted = (features * gradient).sum(2).abs().mean(0).detach()
    torch.testing.assert_close(score("taylor_activation", group, signals), wanted)
    torch.testing.assert_close(
        score("wanda", group, signals), (weight.abs().sum(0) * features.norm(dim=0)).sum(1).detach()
    )


@pytest.mark.parametrize("name", ["taylor_activation", *ON_ACTIVATIONS])
def test_from_a_parent(name: str) -> None:
    """What goes has a head of 0, so that what stays reads the same."""
    head = torch.tensor([1.0, 0.0, 2.0, 0.0, 3.0])
    model, inputs = line(head=head), (torch.tensor([[3.0]]), torch.tensor([[4.0]]))
    topology = trace(model, inputs[0])
    kept = KeptChannels(groups={"0": (0, 2, 4)})
    signals = on(cut(model, topology, kept), inputs, SIGNALS, parent=(topology, kept))
    dense = score(name, topology.groups[0], on(model, inputs))
    torch.testing.assert_close(score(name, topology.groups[0], signals), dense[[0, 2, 4]])


@pytest.mark.parametrize("name", ["taylor_activation", *ON_ACTIVATIONS])
def test_a_group_that_nothing_reads_is_a_configuration_error(name: str) -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(1, 5), nn.Linear(5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(self.first(x), self.head.weight)

    with pytest.raises(ConfigurationError, match=f"'{name}' must be used on groups that a layer reads.*group 'first'"):
        scored(name, Functional().eval(), UP_AND_DOWN)


def test_activation_gradients_ask_for_no_trained_weight() -> None:
    trained, frozen = line(), line().requires_grad_(False)
    inputs = (torch.tensor([[3.0]]), torch.tensor([[4.0]]))
    assert scored("taylor_activation", frozen, inputs) == scored("taylor_activation", trained, inputs)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_sequences_without_their_padding() -> None:
    """Torch's encoder passes them on as nested tensors; what is left out is not seen."""

    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head, self.nested = line()[0], nn.Linear(5, 1, bias=False), False

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            if self.nested:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")
                    y = torch.nested.nested_tensor([y[0], y[1, :1]])
                return self.head(y).to_padded_tensor(0.0)
            return self.head(y)

    model, inputs = Nested().eval(), torch.tensor([[[1.0], [2.0]], [[6.0], [100.0]]])
    topology = trace(model, inputs)
    model.nested = True
    signals = on(model, [inputs], ("activations",), parent=(topology, KeptChannels.whole(topology)))
    found = score("mean_activation", topology.groups[0], signals)
    assert found.tolist() == pytest.approx([3 * w for w in (1, 2, 3, 4, 5)])


# Signals


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


@pytest.mark.parametrize(
    ("names", "forwards", "counted"),
    [
        ((), 0, (0, 0)),
        (("weights",), 0, (0, 0)),
        (("activations",), 1, (1, 0)),
        (("gradients",), 1, (0, 1)),
        (("gradients", "activation_gradients"), 1, (0, 1)),
        (("hessian",), 1, (0, 5)),
        (SIGNALS, 3, (1, 6)),
    ],
)
def test_one_pass_serves_all(names: tuple[str, ...], forwards: int, counted: tuple[int, int]) -> None:
    from autoprune.criteria.signals import gather, passes
    from tests.unit.criteria.small import batches

    model, calls = small(), []
    topology = trace(model, INPUTS[0])
    model.register_forward_hook(lambda *_: calls.append(1))
    gather(model, names, (topology, KeptChannels.whole(topology)), batches(), half_square, 0)
    assert len(calls) == forwards * len(batches())
    assert passes(names) == counted


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
    assert not any(module._forward_pre_hooks for module in model.modules())


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
