"""Forwards of a proof: float64 from float32 weights, no write to the user's weights, and an end in time."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.plan.kept import KeptChannels
from autoprune.proof.comparison import EquivalenceCheck
from autoprune.proof.discover import discover_structure, prove
from autoprune.proof.forwards import Forwards, OutOfTime, WritesWeightsError, storages
from autoprune.proof.influence import gradients
from autoprune.trace.trace import trace


class Words(nn.Module):
    """A tied table larger than what is converted at once, and a product with a matrix that is not transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3000, 100)
        self.norm = nn.LayerNorm(100)
        self.mix = nn.Parameter(torch.randn(100, 3000) / 10)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.table(ids))
        return torch.tanh(x @ self.mix) @ self.table.weight + nn.functional.linear(x @ self.mix, self.mix)


class Picture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.c = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c(torch.relu(self.b(self.a(x))).mean((2, 3)))
        return y


@pytest.mark.parametrize(
    ("build", "inputs"),
    [(Words, torch.arange(12).view(2, 6)), (Picture, torch.randn(2, 3, 6, 6, generator=torch.Generator()))],
)
def test_float32_weights_give_the_outputs_of_a_model_in_float64(build: Callable[[], nn.Module], inputs: Tensor) -> None:
    model = build().eval()
    bench = EquivalenceCheck.of(model, inputs)
    own = copy.deepcopy(bench.model).double()
    with torch.no_grad():
        expected = own(bench.inputs)
    assert bench.dense[0].dtype == torch.float64
    torch.testing.assert_close(bench.dense[0], expected, rtol=1e-11, atol=1e-11)
    shared = {name for name, tensor in model.named_parameters() if tensor.data_ptr() in _addresses(bench.model)}
    assert shared == {name for name, tensor in model.named_parameters() if tensor.ndim > 1}


def _addresses(model: nn.Module) -> set[int]:
    return {tensor.data_ptr() for tensor in model.parameters()}


def test_gradients_are_zero_where_those_of_autograd_are() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.b(self.a(x)[:, 2:6].softmax(-1))
            return y

    found = gradients(Half().eval(), torch.randn(3, 6), Forwards(math.inf, promotes=True))
    assert found["a.weight"][0].tolist() == [False] * 2 + [True] * 4 + [False] * 2
    assert found["b.weight"][0].all()


def test_no_forward_writes_to_the_weights_of_the_user() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.a.weight.clamp_(-0.1, 0.1)
            y: Tensor = self.b(torch.relu(self.a(x)))
            return y

    model = Writes().eval()
    before = copy.deepcopy(model.state_dict())
    forwards = Forwards(math.inf, promotes=True, guarded=storages(model))
    with pytest.raises(WritesWeightsError, match="changes its weights"):
        forwards.outputs(model, torch.randn(2, 6))
    assert discover_structure(model, torch.randn(2, 6)).widths == {"a": 8}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_forward_ends_with_the_time_though_the_model_catches_every_exception() -> None:
    class Stubborn(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            while True:
                try:
                    x = x + 1
                except Exception:
                    x = x * 2

    with pytest.raises(OutOfTime):
        Forwards(time.process_time() + 0.01, promotes=False).outputs(Stubborn(), torch.zeros(2))


class Faint(nn.Module):
    """A branch that adds next to nothing."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.main, self.up, self.down = nn.Linear(8, 4), nn.Linear(8, 6), nn.Linear(6, 4)
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.main(x) + self.share * self.down(torch.tanh(self.up(x)))
        return y


@pytest.mark.parametrize(("share", "first"), [(1e-6, False), (1.0, True)])
def test_a_fault_that_float32_cannot_see_is_found_in_float64(share: float, first: bool) -> None:
    model, inputs = Faint(share).eval(), torch.randn(5, 8)
    topology = trace(model, inputs)
    group = topology.group("up")
    shifted = tuple(
        replace(member, index=np.roll(member.index, 1, 0)) if member.tensor == "down.weight" else member
        for member in group.members
    )
    wrong = replace(topology, groups=(replace(group, members=shifted),))
    bench, kept = EquivalenceCheck.of(model, inputs), KeptChannels(groups={"up": (0, 2, 3)})
    assert (bench.first_difference(wrong, kept) is not None) is first
    assert bench.difference(wrong, kept) is not None
    assert prove(model, wrong, inputs).groups == ()


def test_float64_is_asked_only_where_float32_sees_something() -> None:
    model, inputs = Faint(1.0).eval(), torch.randn(5, 8)
    topology, bench = trace(model, inputs), EquivalenceCheck.of(model, inputs)
    kept = KeptChannels(groups={"up": (0, 2, 3)})
    assert bench.first_difference(topology, kept) is None
    assert not bench.silenced
    assert bench.difference(topology, kept) is None
    assert len(bench.silenced) == 1


class Ill(nn.Module):
    """Digits cancel, so that float32 gives other outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(torch.relu((self.up(x) + 1e5) - 1e5))
        return y


def test_a_model_that_float32_computes_badly_is_proved_in_float64_alone() -> None:
    model, inputs = Ill().eval(), torch.randn(5, 8)
    assert [group.name for group in discover_structure(model, inputs).groups] == ["up"]


class Casts(nn.Module):
    """Gives its input the type of its weights, as Transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.norm(self.up(x.to(self.up.weight.dtype))))
        return y


def test_a_mask_in_float32_takes_the_steps_of_a_trace_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_other_path(*args: object) -> None:
        raise AssertionError("the model took other steps")

    monkeypatch.setattr("autoprune.surgery.mask._Following", no_other_path)
    model, inputs = Casts().eval(), torch.randn(5, 8)
    topology, bench = trace(model, inputs), EquivalenceCheck.of(model, inputs)
    kept = KeptChannels(groups={"up": (0, 2, 3)})
    assert bench.first_difference(topology, kept) is None
    assert bench.difference(topology, kept) is None


def test_the_time_is_checked_within_a_product_with_a_large_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """One operator on a large table may take longer than what is left."""
    model, inputs = nn.Linear(1024, 1024, bias=False).eval(), torch.randn(2, 1024, dtype=torch.float64)
    checks: list[int] = []
    monkeypatch.setattr(Forwards, "check_time", lambda self: checks.append(1))
    Forwards(math.inf, promotes=True).outputs(model, (inputs,))
    whole = len(checks)
    checks.clear()
    Forwards(math.inf, promotes=True).outputs(nn.Linear(16, 16, bias=False).eval(), (inputs[:, :16],))
    assert whole >= len(checks) + 4, "a weight of 2 ** 20 entries is converted in parts of 2 ** 18"
