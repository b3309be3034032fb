"""What a cut keeps of the model besides the numbers, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import SurgeryError
from autoprune.plan.kept import KeptChannels
from autoprune.surgery.cut import cut, rebuild
from autoprune.surgery.mask import mask
from autoprune.trace.trace import trace
from tests.zoo.convolutional import ResNet, TiedWeights, mlp
from tests.zoo.registry import ZOO, build, random_kept, specimen


def half(name: str) -> KeptChannels:
    return KeptChannels(
        groups={
            group.name: tuple(range(0, group.channels, 2)) if group.channels > 1 else (0,)
            for group in specimen(name).topology.groups
        }
    )


def test_the_slices_by_hand() -> None:
    model, inputs = build("mlp")
    smaller = cut(model, trace(model, inputs), KeptChannels(groups={"0": (1, 4, 30), "2": (0, 15)}))
    assert torch.equal(smaller[0].weight, model[0].weight[[1, 4, 30]])
    assert torch.equal(smaller[0].bias, model[0].bias[[1, 4, 30]])
    assert torch.equal(smaller[2].weight, model[2].weight[[0, 15]][:, [1, 4, 30]])
    assert torch.equal(smaller[3].running_var, model[3].running_var[[0, 15]])
    assert torch.equal(smaller[5].weight, model[5].weight[:, [0, 15]])
    assert torch.equal(smaller[5].bias, model[5].bias)


def test_the_slices_through_a_flatten_by_hand() -> None:
    model, inputs = build("vgg")
    smaller = cut(model, trace(model, inputs), KeptChannels(groups={"3.0": (2, 5)}))
    assert torch.equal(smaller[6].weight, model[6].weight[:, [8, 9, 10, 11, 20, 21, 22, 23]])


#: The shape that a module's stored numbers say its weight has.
SAYS: dict[type[nn.Module], Callable[[nn.Module], tuple[int, ...]]] = {
    nn.modules.conv._ConvTransposeNd: lambda m: (m.in_channels, m.out_channels // m.groups),
    nn.modules.conv._ConvNd: lambda m: (m.out_channels, m.in_channels // m.groups),
    nn.Linear: lambda m: (m.out_features, m.in_features),
    nn.Embedding: lambda m: (m.num_embeddings, m.embedding_dim),
    nn.modules.batchnorm._BatchNorm: lambda m: (m.num_features,),
    nn.PReLU: lambda m: (m.num_parameters,),
}


def says(module: nn.Module) -> tuple[int, ...] | None:
    return next((read(module) for kind, read in SAYS.items() if isinstance(module, kind)), None)


@pytest.mark.parametrize("name", ZOO)
def test_numbers_that_modules_store_are_true_again(name: str) -> None:
    case = specimen(name)
    for module in cut(case.model, case.topology, half(name)).modules():
        if says(module) is not None:
            assert says(module) == tuple(module.weight.shape[:2]), module


def test_an_instance_norm_without_weights_knows_its_width() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.InstanceNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    inputs = torch.randn(2, 1, 6, 6)
    topology = trace(model, inputs)
    if topology.groups:
        smaller = cut(model, topology, KeptChannels(groups={"0": (0, 1, 5)}))
        assert smaller[1].num_features == 3
        smaller(inputs)  # torch warns when it is not, and a warning is an error here


@pytest.mark.parametrize("name", ZOO)
def test_the_dense_model_is_not_touched(name: str) -> None:
    model, inputs = build(name)
    topology = trace(model, inputs)
    before = copy.deepcopy(model.state_dict())
    attributes = [dict(module.__dict__) for module in model.modules()]
    kept = random_kept(topology, 0)
    smaller = cut(model, topology, kept)
    silenced = mask(model, topology, kept)
    with torch.no_grad():
        for copied in (smaller, silenced):
            for tensor in (*copied.parameters(), *copied.buffers()):
                tensor.fill_(7)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert [dict(module.__dict__) for module in model.modules()] == attributes


@pytest.mark.parametrize("training", [True, False])
def test_modes_and_requires_grad_stay(training: bool) -> None:
    model, inputs = build("resnet")
    topology = trace(model, inputs)
    model.train(training)
    model.blocks[0].bn1.train(not training)
    model.stem[0].weight.requires_grad_(False)
    model.head.bias.requires_grad_(False)
    smaller = cut(model, topology, half("resnet"))
    assert [module.training for module in smaller.modules()] == [module.training for module in model.modules()]
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in smaller.named_parameters()} == wanted
    assert all(isinstance(parameter, nn.Parameter) and parameter.is_leaf for parameter in smaller.parameters())
    assert all(parameter.grad is None for parameter in smaller.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_dtype_stays(dtype: torch.dtype) -> None:
    model, inputs = build("vgg")
    topology = trace(model, inputs)
    smaller = cut(model.to(dtype), topology, half("vgg"))
    silenced = mask(model, topology, half("vgg"))
    for copied in (smaller, silenced):
        for name, tensor in copied.state_dict().items():
            assert tensor.dtype == model.state_dict()[name].dtype, name
    out = smaller(inputs.to(dtype))
    # Sums of other lengths are rounded otherwise.
    torch.testing.assert_close(out, silenced(inputs.to(dtype)), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(("name", "form"), [("vgg", torch.channels_last), ("conv3d", torch.channels_last_3d)])
def test_the_memory_format_stays(name: str, form: torch.memory_format) -> None:
    model, inputs = build(name)
    topology = trace(model, inputs)
    model = model.to(memory_format=form)
    smaller = cut(model, topology, half(name))
    wide = [module for module in smaller.modules() if isinstance(module, nn.modules.conv._ConvNd)][1]
    assert wide.weight.is_contiguous(memory_format=form)
    assert not wide.weight.is_contiguous()
    assert mask(model, topology, half(name))(inputs).shape == smaller(inputs).shape


def test_plain_contiguous_weights_stay_plain() -> None:
    case = specimen("vgg")
    assert all(parameter.is_contiguous() for parameter in cut(case.model, case.topology, half("vgg")).parameters())


class WithBuffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 2)
        self.register_buffer("gain", torch.rand(8) + 0.5)
        self.register_buffer("offset", torch.randn(8), persistent=False)
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("nothing", None)
        self.note = {"made by": ["hand"]}

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x) * self.gain + self.offset.abs() * self.gain)


def test_buffers_along_a_group_are_cut_and_others_stay() -> None:
    model, inputs = WithBuffers(), torch.randn(3, 6)
    topology = trace(model, inputs)
    kept = KeptChannels(groups={"a": (1, 6, 7)})
    smaller = cut(model, topology, kept)
    assert torch.equal(smaller.gain, model.gain[[1, 6, 7]])
    assert torch.equal(smaller.offset, model.offset[[1, 6, 7]])
    assert smaller.count == 3
    assert smaller.nothing is None
    assert "offset" not in smaller.state_dict()
    torch.testing.assert_close(smaller(inputs), mask(model, topology, kept)(inputs))
    assert smaller.note == model.note
    assert smaller.note is not model.note
    again = rebuild(model, topology, kept, smaller.state_dict())
    assert torch.equal(again.offset, smaller.offset), "a buffer that is not stored is cut from the dense model"


def test_forward_hooks_stay() -> None:
    model, inputs = build("mlp")
    topology = trace(model, inputs)
    seen: list[int] = []
    model[2].register_forward_hook(lambda module, args, out: seen.append(out.shape[1]))
    model.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    smaller = cut(model, topology, KeptChannels(groups={"2": (0, 3)}))
    out = smaller(inputs)
    assert seen == [2]
    smaller._forward_pre_hooks.clear()
    torch.testing.assert_close(out, smaller(inputs * 2))
    assert len(model._forward_pre_hooks) == 1, "the dense model's hooks are its own"


def test_tied_weights_stay_tied() -> None:
    model = TiedWeights().eval()
    topology = trace(model, torch.randn(2, 1, 8, 8))
    smaller = cut(model, topology, KeptChannels(groups={"first": (0, 2, 7), "expand": (3, 4)}))
    assert smaller.expand.weight is smaller.expand_again.weight
    assert smaller.depthwise.weight is smaller.depthwise_again.weight
    assert smaller.expand.weight.shape == (2, 3)


def test_numbers_of_modules_with_a_tied_weight_are_true_again() -> None:
    model = TiedWeights().eval()
    topology = trace(model, torch.randn(2, 1, 8, 8))
    smaller = cut(model, topology, KeptChannels(groups={"first": (0, 2, 7), "expand": (3, 4)}))
    for layer in (smaller.expand, smaller.expand_again):
        assert (layer.out_features, layer.in_features) == (2, 3)
    for layer in (smaller.depthwise, smaller.depthwise_again):
        assert (layer.groups, layer.in_channels, layer.out_channels) == (3, 3, 3)


def test_a_module_under_two_names_stays_one() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 8)
            self.middle = nn.Linear(8, 8)
            self.again = self.middle
            self.head = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.again(torch.relu(self.middle(self.first(x))))))

    model, inputs = Twice(), torch.randn(3, 6)
    topology = trace(model, inputs)
    kept = KeptChannels(groups={"first": (0, 4, 5)})
    smaller = cut(model, topology, kept)
    assert smaller.middle is smaller.again
    torch.testing.assert_close(smaller(inputs), mask(model, topology, kept)(inputs))


class PlainList(nn.Module):
    """Its layers are also in a plain list, which the forward goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 16), nn.Linear(16, 12), nn.Linear(12, 2)
        self.layers = [self.a, self.b]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.c(x)


def test_modules_that_are_also_held_in_a_list_are_cut_there_too() -> None:
    model, inputs = PlainList(), torch.randn(3, 6)
    topology = trace(model, inputs)
    kept = KeptChannels(groups={"a": (0, 4, 5), "b": (1, 2)})
    smaller = cut(model, topology, kept)
    assert smaller.layers[0] is smaller.a
    assert smaller.a.weight.shape == (3, 6)
    torch.testing.assert_close(smaller(inputs), mask(model, topology, kept)(inputs))


def test_a_graph_module_can_be_cut() -> None:
    model, inputs = torch.fx.symbolic_trace(mlp().eval()), torch.randn(3, 20)
    topology = trace(model, inputs)
    kept = KeptChannels(groups={"0": (0, 4, 5), "2": (1, 2)})
    smaller = cut(model, topology, kept)
    assert sum(parameter.numel() for parameter in smaller.parameters()) == topology.cost(kept.widths).parameters
    torch.testing.assert_close(smaller(inputs), mask(model, topology, kept)(inputs))


# Rebuilding


@pytest.mark.parametrize("name", ZOO)
def test_rebuild_is_bit_identical(name: str) -> None:
    case = specimen(name)
    kept = random_kept(case.topology, 5)
    smaller = cut(case.model, case.topology, kept)
    with torch.no_grad():
        for parameter in smaller.parameters():
            parameter.add_(0.25)
    again = rebuild(case.model, case.topology, kept, copy.deepcopy(smaller.state_dict()))
    assert again.state_dict().keys() == smaller.state_dict().keys()
    assert all(torch.equal(again.state_dict()[key], value) for key, value in smaller.state_dict().items())
    assert torch.equal(again(case.inputs), smaller(case.inputs))


def test_rebuild_refuses_what_does_not_fit() -> None:
    case = specimen("mlp")
    kept = KeptChannels(groups={"0": (0, 1)})
    weights = dict(cut(case.model, case.topology, kept).state_dict())
    other = KeptChannels(groups={"0": (0, 1, 2)})
    with pytest.raises(SurgeryError, match=r"must fit the cut model, but got other names or shapes for 0\.weight"):
        rebuild(case.model, case.topology, other, weights)
    with pytest.raises(SurgeryError, match=r"for 5\.bias"):
        rebuild(case.model, case.topology, kept, {name: t for name, t in weights.items() if name != "5.bias"})
    with pytest.raises(SurgeryError, match="for extra"):
        rebuild(case.model, case.topology, kept, {**weights, "extra": torch.zeros(1)})


def test_training_a_rebuilt_model_leaves_the_stored_weights_alone() -> None:
    case = specimen("mlp")
    kept = KeptChannels(groups={"0": (0, 1)})
    weights = dict(cut(case.model, case.topology, kept).state_dict())
    before = copy.deepcopy(weights)
    with torch.no_grad():
        for parameter in rebuild(case.model, case.topology, kept, weights).parameters():
            parameter.zero_()
    assert all(torch.equal(weights[name], before[name]) for name in weights)


# What does not fit


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"nine": (0,)}, "be one of 0, 2, but got 'nine'"),
        ({"2": (0, 16)}, "kept channels of 2 must be < 16, but got 16"),
    ],
)
def test_unknown_groups_and_channels(groups: dict[str, tuple[int, ...]], message: str) -> None:
    case = specimen("mlp")
    for action in (cut, mask):
        with pytest.raises(SurgeryError, match=message):
            action(case.model, case.topology, KeptChannels(groups=groups))


def test_channels_that_the_parent_has_lost() -> None:
    case = specimen("mlp")
    parent = KeptChannels(groups={"0": (0, 1, 2, 3), "2": (0, 1)})
    smaller = cut(case.model, case.topology, parent)
    for groups in ({"0": (0, 9), "2": (0, 1)}, {"0": (0, 1, 2, 3, 4), "2": (0,)}, {"0": (0,)}):
        with pytest.raises(SurgeryError, match="must be among the parent's"):
            cut(smaller, case.topology, KeptChannels(groups=groups), parent=parent)


@pytest.mark.parametrize("groups", [{"0": (0, 1)}, {"0": (7, 31)}, {"0": (0, 1), "2": (0,)}])
def test_a_model_that_is_not_what_it_is_said_to_be(groups: dict[str, tuple[int, ...]]) -> None:
    """A cut model passed as the dense one would be cut at the wrong channels."""
    case = specimen("mlp")
    smaller = cut(case.model, case.topology, KeptChannels(groups={"0": (7, 8, 31)}))
    with pytest.raises(SurgeryError):
        cut(smaller, case.topology, KeptChannels(groups=groups))


def test_keeping_everything_gives_an_equal_copy() -> None:
    case = specimen("resnet")
    for kept in (KeptChannels.whole(case.topology), KeptChannels(groups={})):
        same = cut(case.model, case.topology, kept)
        assert all(torch.equal(same.state_dict()[key], value) for key, value in case.model.state_dict().items())
        assert all(a is not b for a, b in zip(same.parameters(), case.model.parameters(), strict=True))


def test_nothing_keeps_a_dead_candidate_alive() -> None:
    model = ResNet(widths=(6, 8, 12), depth=1).eval()
    inputs = torch.randn(2, 1, 8, 8)
    topology = trace(model, inputs)
    kept = random_kept(topology, 1)
    smaller = cut(model, topology, kept)
    silenced = mask(model, topology, kept)
    again = rebuild(model, topology, kept, smaller.state_dict())
    dead = [weakref.ref(candidate) for candidate in (smaller, silenced, again)]
    dead += [weakref.ref(smaller.head.weight), weakref.ref(model)]
    del smaller, silenced, again, model
    gc.collect()
    assert [reference() for reference in dead] == [None] * len(dead)
