"""Size and multiply-adds of a model as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from autoprune.measure.cost import (
    count_multiply_adds,
    count_nonzero,
    count_parameters,
    serialized_bytes,
    stored_bytes,
)
from autoprune.plan.kept import KeptChannels
from autoprune.records.atomic import write_atomically
from autoprune.surgery.cut import cut
from autoprune.surgery.weight_masks import apply_masks
from autoprune.task.checkpoint import read_weights, serialize, serialize_smallest
from tests.zoo.convolutional import TiedWeights
from tests.zoo.registry import ZOO, build, specimen


def test_multiply_adds_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 5))
    # 9 positions of 27 weights to each of 4 channels, then 36 weights to each of 5 numbers; twice for the batch.
    assert count_multiply_adds(model, torch.randn(2, 3, 6, 6)) == 2 * (9 * 27 * 4 + 36 * 5)


def test_multiply_adds_of_grouped_and_transposed_convolutions_by_hand() -> None:
    depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    assert count_multiply_adds(depthwise, torch.randn(1, 8, 5, 5)) == 25 * 8 * 9
    up = nn.ConvTranspose2d(4, 6, 2, 2)
    # Every input position is spread over 2 x 2 outputs of 6 channels.
    assert count_multiply_adds(up, torch.randn(1, 4, 5, 5)) == 25 * 4 * 6 * 4


@pytest.mark.parametrize("training", [True, False])
def test_counting_changes_nothing(training: bool) -> None:
    model, inputs = build("vgg")
    model.train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count_multiply_adds(model, inputs)
    assert model.training == training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_inputs_by_keyword_and_position() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 8)

        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return self.a(left) + right

    left, right = torch.randn(3, 4), torch.randn(3, 8)
    assert count_multiply_adds(Two(), {"left": left, "right": right}) == 3 * 32
    assert count_multiply_adds(Two(), (left, right)) == 3 * 32


def test_parameters_are_counted_once() -> None:
    assert count_parameters(nn.Linear(4, 8)) == 40
    tied = TiedWeights()
    own = {id(parameter): parameter.numel() for parameter in tied.parameters()}
    assert count_parameters(tied) == sum(own.values())


def test_what_is_not_zero_is_counted_once() -> None:
    linear = nn.Linear(4, 8)
    with torch.no_grad():
        linear.weight[:2] = torch.tensor([0.0, -0.0, 1e-40, float("nan")])
        linear.bias.zero_()
    assert count_nonzero(linear) == 6 * 4 + 2 * 2
    tied = nn.ModuleList([linear, nn.Linear(4, 8, bias=False)])
    tied[1].weight = linear.weight
    assert count_nonzero(tied) == count_nonzero(linear)
    norm = nn.BatchNorm1d(5)
    assert count_nonzero(norm) == 5, "neither the shifts nor the running means, which are no parameters"
    assert count_nonzero(nn.Linear(3, 3).bfloat16()) == 12


def test_zeros_cost_no_bytes(tmp_path: Path) -> None:
    case = specimen("mlp")
    model = cut(case.model, case.topology, KeptChannels.whole(case.topology))
    plain, path = serialized_bytes(model), tmp_path / "weights.safetensors"
    assert stored_bytes(model) <= plain
    apply_masks(model, {"0.weight": torch.rand(model[0].weight.shape) < 0.1})
    write_atomically(path, serialize_smallest(model.state_dict()))
    assert path.stat().st_size == stored_bytes(model) < serialized_bytes(model) == plain
    # Of each zero, 8 bytes in float64, a bit is left.
    gone = int((model[0].weight == 0).sum())
    assert plain - stored_bytes(model) == pytest.approx(gone * 8, rel=0.1)
    stored = read_weights(path)
    assert all(torch.equal(stored[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", [name for name in ZOO if name != "grouped_decoder"])
def test_bytes_are_those_of_the_file(name: str, tmp_path: Path) -> None:
    from safetensors.torch import save_model

    model, _ = build(name)
    save_model(model, str(tmp_path / "model.safetensors"))
    written = (tmp_path / "model.safetensors").stat().st_size
    found = serialized_bytes(model)
    # save_model leaves out the second name of tied weights, which makes its file smaller.
    assert found == written if name != "tied_weights" else found > written


def test_bytes_are_those_of_the_file_that_a_run_keeps(tmp_path: Path) -> None:
    case = specimen("tied_weights")
    path = tmp_path / "weights.safetensors"
    write_atomically(path, serialize(case.model.state_dict()))
    assert path.stat().st_size == serialized_bytes(case.model)
    stored, own = read_weights(path), case.model.state_dict()
    assert stored.keys() == own.keys()
    assert all(torch.equal(stored[name], own[name]) for name in own)


def test_bytes_fall_with_the_channels() -> None:
    case = specimen("mlp")
    sizes = [
        serialized_bytes(cut(case.model, case.topology, KeptChannels(groups={"0": tuple(range(width))})))
        for width in (32, 16, 1)
    ]
    # A channel is 20 weights, a bias and 16 readers, of 8 bytes in float64; the header changes by some digits.
    assert sizes[0] - sizes[1] == pytest.approx(16 * 37 * 8, abs=40)
    assert sizes[1] - sizes[2] == pytest.approx(15 * 37 * 8, abs=40)
