"""Inputs of a profile, made from the example inputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import ConfigurationError
from autoprune.measure.latency.inputs import check_inputs, copied, profile_inputs, tensors_of
from autoprune.records.profile import LatencyProfile
from autoprune.task.data import Inputs


def made(inputs: Inputs, **given: object) -> list[Inputs]:
    return [one.inputs for one in profile_inputs(inputs, LatencyProfile(name="p", **given))]  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_samples_are_repeated_or_cut(size: int) -> None:
    x = torch.arange(6.0).view(3, 2)
    (batch,) = made((x, {"mask": x > 1, "table": torch.zeros(5, 2), "scale": 2.0}), batch_size=size)
    assert isinstance(batch, tuple)
    first, others = batch
    assert torch.equal(first, torch.cat([x, x, x])[:size])
    assert torch.equal(others["mask"], first > 1)
    assert others["table"].shape == (5, 2)
    assert others["scale"] == 2.0


@pytest.mark.parametrize("size", [2, 4, 9])
def test_a_sequence_is_repeated_or_cut_with_its_mask(size: int) -> None:
    ids, mask = torch.arange(8).view(2, 4), torch.ones(2, 4)
    (inputs,) = made({"ids": ids, "mask": mask, "label": torch.zeros(2)}, sizes=((size, 1.0),))
    assert isinstance(inputs, dict)
    assert torch.equal(inputs["ids"], torch.cat([ids, ids, ids], 1)[:, :size])
    assert inputs["mask"].shape == (2, size)
    assert inputs["label"].shape == (2,)


def test_images_have_two_axes() -> None:
    small, large = made(torch.randn(2, 3, 8, 6), sizes=((4, 1.0), (16, 1.0)), axes=(2, 3))
    assert [tensors_of(one)[0].shape for one in (small, large)] == [(2, 3, 4, 4), (2, 3, 16, 16)]


def test_weights_are_shares() -> None:
    found = profile_inputs(torch.zeros(1, 4), LatencyProfile(name="p", sizes=((2, 3.0), (6, 1.0))))
    assert [(one.size, one.weight) for one in found] == [(2, 0.75), (6, 0.25)]


def test_a_number_type_is_for_real_numbers() -> None:
    (inputs,) = made((torch.zeros(2), torch.zeros(2, dtype=torch.int64)), dtype="bfloat16")
    assert [tensor.dtype for tensor in tensors_of(inputs)] == [torch.bfloat16, torch.int64]


def test_a_copy_lies_elsewhere() -> None:
    x = torch.zeros(2)
    assert tensors_of(copied((x,)))[0].data_ptr() != x.data_ptr()


WRONG: dict[str, tuple[Inputs, dict[str, object], str]] = {
    "no samples": ((torch.tensor(1.0),), {"batch_size": 2}, "batch_size of the latency profile p must be None where"),
    "no tensor": ((1, 2), {"batch_size": 2}, "batch_size of the latency profile p must be None where"),
    "no such axis": (
        torch.zeros(2, 3),
        {"sizes": ((4, 1.0),), "axes": (2,)},
        r"axes of the latency profile p must be axes of an input, but got \(2,\) of \[2, 3\]",
    ),
}


@pytest.mark.parametrize(("inputs", "given", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_made_is_said(inputs: Inputs, given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        made(inputs, **given)


def test_a_size_that_the_model_does_not_take_is_said_before_it_is_timed() -> None:
    profile = LatencyProfile(name="wide", batch_size=2, sizes=((3, 1.0), (5, 1.0)))
    with pytest.raises(
        ConfigurationError, match=r"profile wide must be one that the model runs on; it was called with "
    ):
        check_inputs(nn.Linear(3, 2), profile_inputs(torch.zeros(1, 3), profile), profile)
    calls: list[Tensor] = []
    model = nn.Linear(3, 2)
    model.register_forward_pre_hook(lambda _, args: calls.append(args[0]))
    right = LatencyProfile(name="right", sizes=((3, 1.0),))
    check_inputs(model, profile_inputs(torch.zeros(1, 3), right), right)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "given", [{"batch_size": 10**15}, {"sizes": ((10**15, 1.0),), "axes": (1,)}], ids=["batch size", "size"]
)
def test_inputs_beyond_the_memory_are_refused_before_they_are_made(given: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"inputs of the latency profile p, of 1,000,.* memory"):
        made(torch.zeros(3, 2), **given)
