"""What tracing finds in the zoo: the groups, their members, and a reason for all that is left alone."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import ConfigurationError, TraceError
from autoprune.structure.groups import ROLES
from autoprune.structure.reasons import PROTECTED, Reason
from autoprune.structure.topology import Topology
from autoprune.trace.trace import trace
from tests.zoo.convolutional import mlp
from tests.zoo.registry import ZOO, build, build_any

EXPECTED = {
    "resnet": {
        "stem.0": 6,
        "blocks.0.conv1": 6,
        "blocks.1.conv1": 8,
        "blocks.1.conv2": 8,
        "blocks.2.conv1": 12,
        "blocks.2.conv2": 12,
    },
    "bottleneck_resnet": {
        "0.0": 8,
        "1.conv1.0": 8,
        "1.conv2.0": 8,
        "1.conv3.0": 16,
        "2.conv1.0": 8,
        "2.conv2.0": 8,
        "3.conv1.0": 12,
        "3.conv2.0": 12,
        "3.conv3.0": 24,
    },
    # Each of the four groups of a grouped convolution loses the same positions.
    "resnext": {
        "0.0": 8,
        "1.conv1.0": 2,
        "1.conv2.0": 2,
        "1.conv3.0": 16,
        "2.conv1.0": 2,
        "2.conv2.0": 2,
        "3.conv1.0": 3,
        "3.conv2.0": 3,
        "3.conv3.0": 24,
    },
    "vgg": {"0.0": 8, "1.0": 12, "3.0": 16, "6": 24},
    "mobilenet": {"0.0": 8, "1.expand.0": 24, "2.expand.0": 24, "2.project.0": 12, "3.expand.0": 36},
    "densenet": {"0": 6, "1.conv": 4, "2.conv": 4, "4": 8, "6.conv": 4},
    "squeeze_excite": {"0.0": 8, "1.down": 4, "2.0": 12, "3.down": 4},
    "decoder": {"down.0": 8, "inner.0": 12, "up": 8, "join.0": 10, "up2": 6},
    "grouped_decoder": {"stem.0": 8, "inner.0": 4, "up": 6},
    "conv1d": {"0": 8, "4": 12},
    "conv3d": {"0": 6, "4": 8},
    "padded_shortcut": {"stem.0": 8, "conv1.0": 12},
    "depthwise_multiplier": {"0.0": 6, "2.0": 8},
    "used_twice": {"stem.0": 8, "wide": 12},
    "tied_weights": {"first": 8, "expand": 12},
    "layer_norm_net": {"0": 16, "3": 12},
    # Both groups of the norm lose the same positions.
    "group_norm_net": {"0": 4, "3.0": 12},
    "mlp": {"0": 32, "2": 16},
    "deep_mlp": {"0": 16, "2": 16, "4": 16},
    "one_number_mlp": {"0": 16, "2": 12},
    "residual_mlp": {"embed": 12, "up": 24},
    "gated_linear": {"project": 12},
    "head_gate": {"gate": 4, "features": 6},
}


class Free(nn.Module):
    """A forward as a function of the module; the layers come as keywords."""

    def __init__(self, run: Callable[[Free, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def two_layers(between: Callable[[Tensor], Tensor]) -> Free:
    """Linear 20 -> 16, something, linear 16 -> 5."""
    return Free(lambda m, x: m.b(between(m.a(x))), a=nn.Linear(20, 16), b=nn.Linear(16, 5))


def reasons(topology: Topology, module: str) -> str:
    return "; ".join(entry.reason for entry in topology.unprunable if entry.module == module)


def members(topology: Topology, group: str) -> set[tuple[str, int, str]]:
    return {(member.tensor, member.axis, member.role) for member in topology.group(group).members}


@pytest.mark.parametrize("name", ZOO)
def test_groups_of_the_zoo(name: str) -> None:
    model, inputs = build(name)
    found = trace(model, inputs).widths
    assert found == EXPECTED[name]
    assert list(found) == list(EXPECTED[name]), "in the order of the forward"


@pytest.mark.parametrize("name", ZOO)
def test_every_member_fits_its_tensor(name: str) -> None:
    model, inputs = build(name)
    topology = trace(model, inputs)
    state = dict(model.named_parameters()) | dict(model.named_buffers())
    for group in topology.groups:
        roles = {member.role for member in group.members}
        assert {"out", "in"} <= roles <= set(ROLES)
        for member in group.members:
            assert member.index.dtype == np.int64
            assert member.index.shape[0] == group.channels
            positions = member.index.flatten().tolist()
            assert len(set(positions)) == len(positions), "no position is named twice"
            assert 0 <= min(positions) <= max(positions) < state[member.tensor].shape[member.axis]


def test_members_of_a_convolution_with_norm_and_flatten() -> None:
    topology = trace(*build("vgg"))
    assert members(topology, "3.0") == {
        ("3.0.weight", 0, "out"),
        ("3.1.weight", 0, "scale"),
        ("3.1.bias", 0, "shift"),
        ("3.1.running_mean", 0, "statistic"),
        ("3.1.running_var", 0, "statistic"),
        ("6.weight", 1, "in"),
    }
    (reader,) = [member for member in topology.group("3.0").members if member.role == "in"]
    # Flattened [16, 2, 2]: channel c is columns 4 c to 4 c + 3 of the linear layer.
    assert reader.index.tolist() == [[4 * c + k for k in range(4)] for c in range(16)]
    assert not reader.plain
    assert members(topology, "6") == {("6.weight", 0, "out"), ("6.bias", 0, "shift"), ("9.weight", 1, "in")}


def test_members_of_a_residual_sum() -> None:
    topology = trace(*build("resnet"))
    found = members(topology, "stem.0")
    assert {("stem.0.weight", 0, "out"), ("blocks.0.conv2.weight", 0, "out")} <= found
    assert {("blocks.0.conv1.weight", 1, "in"), ("blocks.1.conv1.weight", 1, "in")} <= found
    assert ("blocks.1.shortcut.0.weight", 1, "in") in found
    assert members(topology, "blocks.0.conv1") == {
        ("blocks.0.conv1.weight", 0, "out"),
        ("blocks.0.bn1.weight", 0, "scale"),
        ("blocks.0.bn1.bias", 0, "shift"),
        ("blocks.0.bn1.running_mean", 0, "statistic"),
        ("blocks.0.bn1.running_var", 0, "statistic"),
        ("blocks.0.conv2.weight", 1, "in"),
    }


def test_members_of_a_concatenation_lie_behind_each_other() -> None:
    topology = trace(*build("densenet"))
    readers = {
        group: next(
            member.index[:, 0].tolist() for member in topology.group(group).members if member.tensor == "4.weight"
        )
        for group in ("0", "1.conv", "2.conv")
    }
    assert readers == {"0": [0, 1, 2, 3, 4, 5], "1.conv": [6, 7, 8, 9], "2.conv": [10, 11, 12, 13]}


def test_a_depthwise_convolution_goes_with_what_it_reads() -> None:
    found = members(trace(*build("mobilenet")), "1.expand.0")
    assert ("1.depthwise.0.weight", 0, "out") in found
    assert ("1.project.0.weight", 1, "in") in found


def test_a_depthwise_multiplier_takes_its_outputs_along() -> None:
    topology = trace(*build("depthwise_multiplier"))
    (made,) = [member for member in topology.group("0.0").members if member.tensor == "1.0.weight"]
    assert made.index.tolist() == [[2 * c, 2 * c + 1] for c in range(6)]


def test_a_grouped_convolution_loses_the_same_position_of_each_group() -> None:
    topology = trace(*build("resnext"))
    (made,) = [member for member in topology.group("1.conv1.0").members if member.tensor == "1.conv1.0.weight"]
    assert made.index.tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_a_gate_loses_the_same_position_of_both_halves() -> None:
    topology = trace(*build("gated_linear"))
    (made,) = [member for member in topology.group("project").members if member.tensor == "project.weight"]
    assert made.index.tolist() == [[c, c + 12] for c in range(12)]


def test_both_sides_of_a_grid() -> None:
    topology = trace(*build("head_gate"))
    heads = {member.tensor: member.index.tolist() for member in topology.group("gate").members}
    widths = {member.tensor: member.index.tolist() for member in topology.group("features").members}
    assert heads["features.weight"] == [[6 * head + k for k in range(6)] for head in range(4)]
    assert widths["features.weight"] == [[6 * head + k for head in range(4)] for k in range(6)]
    assert heads["gate.weight"] == [[0], [1], [2], [3]]


@pytest.mark.parametrize(
    ("features", "hidden"), [(1, {"0": 16, "2": 12}), (20, {"0": 16, "2": 12})], ids=["one feature", "many"]
)
def test_one_feature_or_one_output_changes_no_role(features: int, hidden: dict[str, int]) -> None:
    """A weight [16, 1] looks the same transposed or not; its axis of 16 still makes the channels."""
    model = nn.Sequential(nn.Linear(features, 16), nn.Tanh(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 1))
    topology = trace(model, torch.randn(3, features))
    assert topology.widths == hidden
    assert members(topology, "2") == {("2.weight", 0, "out"), ("2.bias", 0, "shift"), ("4.weight", 1, "in")}


# What is left alone


@pytest.mark.parametrize("name", [name for name in ZOO if name not in ("decoder", "grouped_decoder", "one_number_mlp")])
def test_the_output_layer_is_left_alone(name: str) -> None:
    model, inputs = build(name)
    last = [module for module, layer in model.named_modules() if isinstance(layer, nn.Linear)][-1]
    topology = trace(model, inputs)
    assert reasons(topology, last) == "is part of the model's output"
    (entry,) = [entry for entry in topology.unprunable if entry.module == last]
    assert entry.channels == model.get_submodule(last).out_features


def test_an_unknown_operator_costs_coverage_and_is_named() -> None:
    topology = trace(two_layers(lambda x: x.logcumsumexp(1)), torch.randn(3, 20))
    assert topology.groups == ()
    assert reasons(topology, "a").startswith(
        "passes an operator that is not understood (torch.logcumsumexp in the model"
    )


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (lambda x: x * torch.arange(16.0), "values that no layer makes"),
        (lambda x: x.cumsum(1), "accumulated over its channels"),
        (lambda x: x * x.argmax(1, keepdim=True), "ranked or counted over its channels"),
        (lambda x: x[:, [0]] * x, "picked by its number"),
        (lambda x: x[:, 3:4] + x, ""),
        (lambda x: x[:, 3].unsqueeze(1) + x, "picked by its number"),
    ],
    ids=["constant", "cumsum", "argmax", "index", "slice", "select"],
)
def test_reasons(between: Callable[[Tensor], Tensor], reason: str) -> None:
    topology = trace(two_layers(between), torch.randn(3, 20))
    if reason:
        assert topology.groups == ()
    assert reason in reasons(topology, "a")


def test_channels_that_are_normalised_together_go_with_their_scale() -> None:
    topology = trace(*build("layer_norm_net"))
    assert {("1.weight", 0, "scale"), ("1.bias", 0, "shift")} <= members(topology, "0")
    (scale,) = [m for m in trace(*build("group_norm_net")).group("0").members if m.tensor == "1.weight"]
    assert scale.index.tolist() == [[c, c + 4] for c in range(4)]


def test_a_norm_over_channels_and_space_at_once_is_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.LayerNorm([8, 6, 6]), nn.ReLU(), nn.Conv2d(8, 2, 1))
    topology = trace(model, torch.randn(2, 1, 8, 8))
    assert topology.groups == ()
    assert reasons(topology, "0") == "is normalised together with other axes (layer_norm in 1)"


def test_padded_channels_stay() -> None:
    topology = trace(*build("padded_shortcut"))
    (entry,) = [entry for entry in topology.unprunable if entry.module == "conv2.0"]
    assert (entry.channels, entry.of, entry.why.words) == (4, 12, "is padded with constant channels")


def test_a_grouped_transposed_convolution_loses_the_same_positions_in_every_group() -> None:
    topology = trace(*build("grouped_decoder"))
    (read,) = [m for m in topology.group("inner.0").members if m.tensor == "up.weight"]
    (made,) = [m for m in topology.group("up").members if m.tensor == "up.weight"]
    assert (read.axis, made.axis) == (0, 1)
    assert read.index.shape[1] == build("grouped_decoder")[0].get_submodule("up").groups


def test_a_layer_that_is_not_used_says_so() -> None:
    model = two_layers(torch.relu)
    model.add_module("spare", nn.Linear(4, 4))
    topology = trace(model, torch.randn(3, 20))
    assert reasons(topology, "spare").startswith("is not used on the example inputs; inputs that reach it may not run")
    assert topology.widths == {"a": 16}


@pytest.mark.parametrize("name", ZOO)
def test_every_channel_made_is_offered_or_has_a_reason(name: str) -> None:
    model, inputs = build(name)
    topology = trace(model, inputs)
    offered = {member.tensor for group in topology.groups for member in group.members if member.role == "out"}
    named = {entry.module for entry in topology.unprunable}
    for module, layer in model.named_modules():
        # A tied weight is known under the name of its first layer.
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) and f"{module}.weight" in topology.tensors:
            assert layer.weight.shape[0] == 1 or f"{module}.weight" in offered or module in named, module


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("keep", [True, False])
def test_a_vector_norm_over_channels(order: int, keep: bool) -> None:
    """The order of the norm is no axis."""
    model = Free(
        lambda m, x: m.b(m.a(x).norm(p=order, dim=1, keepdim=keep).flatten(1)),
        a=nn.Conv1d(2, 8, 3, padding=1),
        b=nn.Linear(12, 5),
    )
    topology = trace(model, torch.randn(3, 2, 12))
    assert "a" not in topology.widths
    assert "has channels that no layer reads" in reasons(topology, "a")


@pytest.mark.parametrize("order", [1, 2])
def test_a_vector_norm_over_space(order: int) -> None:
    model = Free(lambda m, x: m.b(m.a(x).norm(p=order, dim=2)), a=nn.Conv1d(2, 8, 3, padding=1), b=nn.Linear(8, 5))
    assert trace(model, torch.randn(3, 2, 12)).widths == {"a": 8}


# The user's model


def _break(x: Tensor) -> Tensor:
    raise RuntimeError("no such luck")


def test_a_model_that_does_not_run_is_a_trace_error() -> None:
    with pytest.raises(TraceError, match="must run on example_inputs, but got RuntimeError: no such luck"):
        trace(two_layers(_break), torch.randn(3, 20))


def test_a_model_that_can_not_be_copied_is_a_trace_error() -> None:
    model = mlp()
    model.handle = (number for number in range(3))
    with pytest.raises(TraceError, match=r"copyable with copy\.deepcopy"):
        trace(model, torch.randn(3, 20))


@pytest.mark.parametrize("training", [True, False])
def test_the_users_model_is_left_as_it_was(training: bool) -> None:
    model, inputs = build("resnet")
    model.train(training)
    model.blocks[0].train(not training)
    calls: list[int] = []
    handle = model.register_forward_hook(lambda *args: calls.append(1))
    model(inputs).sum().backward()
    before = copy.deepcopy(model.state_dict())
    grads = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    same = dict(model.named_parameters())
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    trace(model, inputs)
    assert torch.equal(random, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert all(same[name] is parameter for name, parameter in model.named_parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(torch.equal(grads[name], parameter.grad) for name, parameter in model.named_parameters())
    assert list(model._forward_hooks) == [handle.id]
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert sum(len(module._forward_hooks) for module in model.modules()) == 1


def test_a_model_in_training_mode_gives_the_same_topology() -> None:
    model, inputs = build("vgg")
    before = trace(model, inputs).fingerprint()
    assert trace(model.train(), inputs).fingerprint() == before


def test_frozen_parameters_are_found_all_the_same() -> None:
    model, inputs = build("vgg")
    before = trace(model, inputs).fingerprint()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert trace(model, inputs).fingerprint() == before


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_batch_size_changes_no_group(batch: int) -> None:
    """8 is also a number of channels: the batch must not be taken for one."""
    model, inputs = build("resnet")
    assert trace(model, torch.randn(batch, *inputs.shape[1:])).fingerprint() == trace(model, inputs).fingerprint()


def test_keyword_and_several_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(4, 8), nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
            return {"scores": self.out(torch.relu(self.a(left) + self.b(right)))}

    left, right = torch.randn(3, 4), torch.randn(3, 6)
    topology = trace(Two(), {"left": left, "right": right})
    assert topology.widths == {"a": 8}
    assert ("b.weight", 0, "out") in members(topology, "a")
    assert trace(Two(), (left, right)).fingerprint() == topology.fingerprint()
    assert reasons(topology, "out") == "is part of the model's output"


# Topology


@pytest.mark.parametrize("name", ZOO)
def test_the_fingerprint_is_the_same_for_every_trace(name: str) -> None:
    assert trace(*build(name)).fingerprint() == trace(*build(name)).fingerprint()


def test_fingerprints_tell_models_apart() -> None:
    found = [trace(*build(name)).fingerprint() for name in ZOO]
    assert len(set(found)) == len(found)


def test_the_fingerprint_does_not_depend_on_the_weights() -> None:
    model, inputs = build("resnet")
    before = trace(model, inputs).fingerprint()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    assert trace(model, inputs).fingerprint() == before


def test_an_unknown_group_lists_the_known_ones() -> None:
    topology = trace(*build("mlp"))
    with pytest.raises(ConfigurationError, match="must be one of 0, 2, but got 'nine'"):
        topology.group("nine")
    with pytest.raises(ConfigurationError, match="'nine'"):
        topology.check_names(["0", "nine"])


def test_without_moves_groups_to_the_unprunable() -> None:
    topology = trace(*build("mlp"))
    why = Reason(kind=PROTECTED, detail="'0'")
    rest = topology.without({"0": why})
    assert rest.widths == {"2": 16}
    assert [(entry.module, entry.channels, entry.why, entry.group) for entry in rest.unprunable][-1] == (
        "0",
        32,
        why,
        "0",
    )
    assert topology.widths == {"0": 32, "2": 16}


def test_a_parameter_in_another_shape_makes_channels_along_each_of_its_axes() -> None:
    attention, convolved = trace(*build_any("einsum_attention")), trace(*build_any("convolved_by_hand"))
    assert attention.widths == {"inp": 12, "q": 3, "q#2": 5, "v": 5}
    assert attention.group("q").kind == "heads"
    assert convolved.widths == {"stem": 6, "kernel": 10, "sides": 2, "sides#2": 3}
    assert {left.module for left in (*attention.unprunable, *convolved.unprunable)} == {"out"}
