"""A deep copy with tensors replaced on the way."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoprune.task.clone import clone_with
from tests.zoo.convolutional import TiedWeights, vgg


def test_without_replacements_it_is_a_deep_copy() -> None:
    model = vgg()
    copied = clone_with(model)
    assert copied is not model
    for (name, own), (other_name, other) in zip(model.named_parameters(), copied.named_parameters(), strict=True):
        assert name == other_name
        assert torch.equal(own, other)
        assert own.data_ptr() != other.data_ptr()
    assert repr(copied) == repr(model)


def test_tied_tensors_are_asked_for_once_under_their_first_name() -> None:
    asked: list[str] = []

    def replace(name: str, tensor: Tensor) -> Tensor | None:
        asked.append(name)
        return tensor * 2 if name == "expand.weight" else None

    model = TiedWeights()
    copied = clone_with(model, replace)
    assert len(asked) == len(set(asked))
    assert set(asked) == dict(model.named_parameters()).keys() | dict(model.named_buffers()).keys()
    assert copied.expand_again.weight is copied.expand.weight
    assert torch.equal(copied.expand.weight, model.expand.weight * 2)
    assert isinstance(copied.expand.weight, nn.Parameter)


def test_a_parameter_in_a_plain_attribute_is_the_copied_one() -> None:
    model = nn.Linear(3, 2)
    model.favourites = [model.weight]
    copied = clone_with(model)
    assert copied.favourites[0] is copied.weight


def test_attributes_are_not_shared() -> None:
    model = nn.Linear(3, 2)
    model.notes, model.size = {"a": [1]}, (1, 2)
    copied = clone_with(model)
    copied.notes["a"].append(2)
    assert model.notes == {"a": [1]}
    assert copied.size == (1, 2)


def test_a_child_that_is_none_stays_none() -> None:
    model = nn.Module()
    model.register_module("later", None)
    model.register_parameter("bias", None)
    copied = clone_with(model)
    assert copied.later is None
    assert copied.bias is None
