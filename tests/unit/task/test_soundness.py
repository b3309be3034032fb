"""Weights of another dtype, not finite, with negative variances or of other shapes are refused and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from autoprune.errors import ConfigurationError, StorageError, SurgeryError
from autoprune.plan.kept import KeptChannels
from autoprune.proof.discover import discover_structure
from autoprune.surgery.cut import rebuild
from autoprune.task.checkpoint import bytes_of, load_into, read_weights
from autoprune.task.soundness import value_faults

Weights = dict[str, Tensor]


class Masked(nn.Module):
    """A model whose buffer holds minus infinity, as masks of attention do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 1))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).mean((2, 3)).softmax(1) + self.mask.exp()  # type: ignore[no-any-return, operator]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return Masked().eval()


def replaced(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Weights], object]:
    return lambda weights: weights.update({name: change(weights[name])})


def spoiled(tensor: Tensor, value: float) -> Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[-1] = value
    return tensor


HARM: dict[str, tuple[Callable[[Weights], object], str]] = {
    "half": (replaced("body.0.weight", lambda t: t.half()), r"body\.0\.weight has dtype float16 instead of float32"),
    "double": (replaced("body.0.bias", lambda t: t.double()), r"body\.0\.bias has dtype float64 instead of float32"),
    "integers": (replaced("body.3.bias", lambda t: t.long()), r"body\.3\.bias has dtype int64 instead of float32"),
    "nan": (replaced("body.3.weight", lambda t: spoiled(t, torch.nan)), r"body\.3\.weight holds .* not finite"),
    "infinite": (replaced("body.1.running_mean", lambda t: spoiled(t, torch.inf)), r"running_mean holds .* not finite"),
    "variance": (replaced("body.1.running_var", lambda t: spoiled(t, -1e-3)), r"running_var holds variances below 0"),
    "transposed": (replaced("body.3.weight", lambda t: t.transpose(0, 1)), r"shape.*body\.3\.weight"),
    "missing": (lambda weights: weights.pop("body.1.bias"), r"(missing: |other names or shapes for )body\.1\.bias"),
    "extra": (lambda weights: weights.update(more=torch.zeros(1)), r"(unknown: |other names or shapes for )more"),
}


@pytest.mark.parametrize(("harm", "message"), HARM.values(), ids=HARM)
def test_a_checkpoint_that_does_not_fit(
    harm: Callable[[Weights], object], message: str, model: nn.Module, tmp_path: Path
) -> None:
    weights = dict(model.state_dict())
    harm(weights)
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(ConfigurationError, match=rf"checkpoint must fit the model, but got .*w\.pt .*{message}"):
        load_into(Masked(), tmp_path / "w.pt")


def test_what_is_infinite_in_the_definition_may_be(model: nn.Module, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "w.pt")
    load_into(Masked(), tmp_path / "w.pt")


@pytest.mark.parametrize(("harm", "message"), HARM.values(), ids=HARM)
def test_weights_that_a_cut_model_cannot_have(
    harm: Callable[[Weights], object], message: str, model: nn.Module
) -> None:
    topology = discover_structure(model, torch.randn(2, 1, 6, 6))
    weights = dict(model.state_dict())
    whole = KeptChannels.whole(topology)
    rebuild(model, topology, whole, weights)
    harm(weights)
    with pytest.raises(SurgeryError, match=rf"stored weights must fit the cut model.*{message}"):
        rebuild(model, topology, whole, weights)


def test_without_the_model_what_may_be_infinite_is_said_or_only_nan_is_wrong(model: nn.Module) -> None:
    weights = dict(model.state_dict())
    assert value_faults(weights, ("mask",)) == value_faults(weights, None) == []
    assert value_faults(weights, ()) == ["mask holds values that are not finite"]
    weights["mask"] = spoiled(weights["mask"], torch.nan)
    assert value_faults(weights, None) == ["mask holds values that are not finite"]


def test_a_small_file_does_not_become_a_large_tensor(tmp_path: Path) -> None:
    """All zeros: 2 GB that take no byte of the file. The size is looked at before anything is made."""
    entry = {"version": 1, "tensors": {"w": ["gaps-uint8", "float32", [2**29]]}}
    path = tmp_path / "w.safetensors"
    save_file({"w": torch.empty(0, dtype=torch.uint8)}, path, metadata={"autoprune_sparse": json.dumps(entry)})
    assert path.stat().st_size < 250
    with pytest.raises(StorageError, match=r"w\.safetensors: a compressed file must declare at most 4,000 bytes"):
        read_weights(path, 4000)
    layer = nn.Linear(2, 2)
    with pytest.raises(
        ConfigurationError, match=f"at most {bytes_of(layer.state_dict())} bytes, but got 2,147,483,648"
    ):
        load_into(layer, path)
