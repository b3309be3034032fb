"""The gate: what a cut would break is withdrawn with a reason, and nothing else is."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.proof.discover import prove
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from autoprune.surgery.mask import mask
from autoprune.trace.trace import trace
from tests.unit.trace.test_trace import Free
from tests.zoo.convolutional import mlp
from tests.zoo.registry import ZOO, build, random_kept


def broken_beside_sound(run: object) -> Free:
    """`a` goes through something that breaks; `c` beside it is sound."""
    return Free(
        lambda m, x: m.b(run(torch.relu(m.a(x)))) + m.d(torch.relu(m.c(x))),  # type: ignore[operator]
        a=nn.Linear(20, 16),
        b=nn.Linear(16, 5),
        c=nn.Linear(20, 8),
        d=nn.Linear(8, 5),
    )


def reasons(topology: Topology, module: str) -> str:
    return "; ".join(entry.reason for entry in topology.unprunable if entry.module == module)


@pytest.mark.parametrize("name", ZOO)
def test_every_group_of_the_zoo_is_proved(name: str) -> None:
    model, inputs = build(name)
    topology = trace(model, inputs)
    proved = prove(model, topology, inputs)
    assert proved.widths == topology.widths
    assert proved.unprunable == topology.unprunable
    assert proved.fingerprint() == topology.fingerprint()


def test_a_hard_coded_view_is_withdrawn_and_the_rest_stays() -> None:
    model, inputs = broken_beside_sound(lambda x: x.view(-1, 4, 4).view(-1, 16)), torch.randn(3, 20)
    topology = trace(model, inputs)
    assert "a" in topology.widths
    proved = prove(model, topology, inputs)
    assert proved.widths == {"c": 8}
    assert "does not run once it is cut (RuntimeError: shape '[-1, 4, 4]' is invalid" in reasons(proved, "a")


def test_a_hard_coded_slice_is_withdrawn_and_the_rest_stays() -> None:
    model = broken_beside_sound(lambda x: torch.cat([x[:, :8], x[:, 8:]], 1)).eval()
    inputs = torch.randn(3, 20)
    proved = prove(model, trace(model, inputs), inputs)
    still_right(model, proved, inputs)
    assert "c" in proved.widths


def test_numbers_that_change_are_withdrawn() -> None:
    """Division by the count of channels: the cut model runs, its numbers are others."""
    model, inputs = broken_beside_sound(lambda x: x / x.shape[1]), torch.randn(3, 20)
    topology = trace(model, inputs)
    assert topology.widths == {"a": 16, "c": 8}
    proved = prove(model, topology, inputs)
    assert proved.widths == {"c": 8}
    assert "cutting it changes the outputs by" in reasons(proved, "a")


def test_an_order_of_channels_that_is_lost_is_found_through_fresh_norms() -> None:
    """All statistics of a new BatchNorm are equal; the proof must not be fooled by that."""
    model = Free(
        lambda m, x: m.head(torch.relu(m.norm(m.conv(x))).mean((2, 3))),
        conv=nn.Conv2d(1, 8, 3),
        norm=nn.BatchNorm2d(8),
        head=nn.Linear(8, 2),
    )
    inputs = torch.randn(2, 1, 6, 6)
    topology = trace(model, inputs)
    group = topology.groups[0]
    crooked = tuple(
        member
        if member.tensor != "norm.running_mean"
        else type(member)(tensor=member.tensor, axis=0, role=member.role, index=np.roll(member.index, 1, 0))
        for member in group.members
    )
    wrong = Topology(
        groups=(type(group)(name=group.name, channels=8, members=crooked),),
        unprunable=(),
        products=topology.products,
        tensors=topology.tensors,
    )
    assert prove(model, wrong, inputs).groups == ()


@torch.no_grad()
def still_right(model: nn.Module, topology: Topology, inputs: Tensor) -> None:
    """Whatever was proved has to hold for every kept set, not only for the one it was proved with."""
    double, inputs = copy.deepcopy(model).eval().double(), inputs.double()
    for seed in range(20):
        kept = random_kept(topology, seed)
        torch.testing.assert_close(cut(double, topology, kept)(inputs), mask(double, topology, kept)(inputs))


def test_halves_by_shape_that_need_not_stay_equal() -> None:
    """Two groups whose widths must be equal pass a proof in which both lose exactly half."""

    def run(m: Free, x: Tensor) -> Tensor:
        x = torch.relu(m.a(x))
        half = x.shape[1] // 2
        return m.b(x[:, :half]) + m.c(x[:, half:])

    model, inputs = Free(run, a=nn.Linear(20, 16), b=nn.Linear(8, 5), c=nn.Linear(8, 5)), torch.randn(3, 20)
    still_right(model, prove(model, trace(model, inputs), inputs), inputs)


def test_three_chunks_that_need_not_stay_equal() -> None:
    def run(m: Free, x: Tensor) -> Tensor:
        first, second, third = torch.relu(m.a(x)).chunk(3, 1)
        return m.b(first) + m.c(second) + m.d(third)

    model = Free(run, a=nn.Linear(20, 16), b=nn.Linear(6, 5), c=nn.Linear(6, 5), d=nn.Linear(4, 5))
    inputs = torch.randn(3, 20)
    still_right(model, prove(model, trace(model, inputs), inputs), inputs)


def test_a_channel_shuffle_with_a_fixed_number_of_groups() -> None:
    def run(m: Free, x: Tensor) -> Tensor:
        x = torch.relu(m.a(x))
        batch, channels, high, wide = x.shape
        shuffled = x.view(batch, 2, channels // 2, high, wide).transpose(1, 2).reshape(batch, channels, high, wide)
        return m.b(shuffled).mean((2, 3))

    model, inputs = Free(run, a=nn.Conv2d(1, 8, 3), b=nn.Conv2d(8, 5, 1)), torch.randn(2, 1, 8, 8)
    still_right(model, prove(model, trace(model, inputs), inputs), inputs)


@pytest.mark.parametrize("integer", [True, False])
def test_a_model_that_casts_its_input_keeps_its_groups(integer: bool) -> None:
    """Such a model does not run in float64; that is no fault of its groups."""
    model = Free(lambda m, x: m.b(torch.relu(m.a(x.float() / 255))), a=nn.Linear(20, 16), b=nn.Linear(16, 5)).eval()
    inputs = torch.randint(255, (3, 20), dtype=torch.uint8) if integer else torch.rand(3, 20) * 255
    assert prove(model, trace(model, inputs), inputs).widths == {"a": 16}


def test_a_half_precision_model_is_proved_too() -> None:
    model, inputs = build("vgg")
    model, inputs = model.to(torch.bfloat16), inputs.to(torch.bfloat16)
    topology = trace(model, inputs)
    assert prove(model, topology, inputs).widths == topology.widths


def test_several_and_named_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(4, 8), nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
            return {"scores": self.out(torch.relu(self.a(left) + self.b(right)))}

    model, left, right = Two(), torch.randn(3, 4), torch.randn(3, 6)
    for inputs in ((left, right), {"left": left, "right": right}):
        assert prove(model, trace(model, inputs), inputs).widths == {"a": 8}


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool) -> None:
    model, inputs = build("vgg")
    model.train(training)
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    prove(model, trace(model, inputs), inputs)
    assert model.training == training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert inputs.dtype == torch.float32


def test_a_topology_without_groups_is_proved_at_once() -> None:
    model, inputs = mlp(), torch.randn(3, 20)
    empty = trace(model, inputs).without({"0": "x", "2": "x"})
    assert prove(model, empty, inputs) is empty
