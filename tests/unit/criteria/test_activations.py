"""The other criteria on activations, against numbers worked out by hand."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from autoprune.criteria.registry import score
from autoprune.criteria.signals import SIGNALS
from autoprune.errors import ConfigurationError
from autoprune.plan.kept import KeptChannels
from autoprune.surgery.cut import cut
from autoprune.trace.trace import trace
from tests.unit.criteria.lines import (
    UP_AND_DOWN,
    convolutional,
    half_square,
    line,
    on,
    scored,
    straight,
)
from tests.zoo.registry import build

ON_ACTIVATIONS = ("mean_activation", "mean_square_activation", "activation_variance", "apoz", "wanda")

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
