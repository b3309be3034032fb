"""The decoder of `make zoo-real` tells right cuts from wrong ones, without the engine's mask and index maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.plan.kept import KeptChannels
from autoprune.proof.discover import discover_structure
from autoprune.structure.products import TensorInfo
from autoprune.surgery.cut import cut
from benchmarks.zoo.absent import WithoutAbsent, plain
from benchmarks.zoo.check import DRAWS, check, compare, cost_fault, drawn, layers_fault, stays
from benchmarks.zoo.controls import control
from benchmarks.zoo.decoder import DecodeError, check_values, decode, removed
from benchmarks.zoo.stir import stir
from benchmarks.zoo.table import verdict
from tests.conformance.test_structure import surveyed
from tests.slow import quick
from tests.zoo.registry import build_any

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

#: Of different kinds, one for each negative control.
SEVEN = ("resnet", "densenet", "mobilenet", "group_norm_net", "lstm_classifier", "hf_gpt2", "hf_swin")
#: Of these, convolutions, a recurrent network and attention.
QUICK = ("mobilenet", "lstm_classifier", "hf_gpt2")


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()


def test_the_decoder_reads_what_a_cut_kept() -> None:
    model = two_layers()
    topology = discover_structure(model, torch.randn(4, 5, dtype=torch.float64))
    decoded = decode(model, lambda dense: cut(dense, topology, KeptChannels(groups={"0": (1, 4, 6)})))
    kept = {name: [axis.tolist() for axis in axes] for name, axes in decoded.kept.items()}
    assert kept == {
        "0.weight": [[1, 4, 6], [0, 1, 2, 3, 4]],
        "0.bias": [[1, 4, 6]],
        "2.weight": [[0, 1, 2], [1, 4, 6]],
        "2.bias": [[0, 1, 2]],
    }
    assert not decoded.gone
    rest = dict(removed(model, decoded).named_parameters())
    assert torch.isfinite(rest["0.weight"]).all(1).nonzero().flatten().tolist() == [1, 4, 6]


def test_the_decoder_reads_factors_and_undoes_them() -> None:
    def halved(dense: nn.Module) -> nn.Module:
        weight = dense[0].weight
        dense[0].weight = nn.Parameter(torch.cat([weight[:2] * 0.5, weight[2:4]]))
        return dense

    decoded = decode(two_layers(), halved)
    assert decoded.kept["0.weight"][0].tolist() == [0, 1, 2, 3]
    assert decoded.factors["0.weight"][:, 0].tolist() == [0.5, 0.5, 1.0, 1.0]
    assert torch.equal(removed(two_layers(), decoded)[0].weight[:4], two_layers()[0].weight[:4])


def transposed(dense: nn.Module) -> nn.Module:
    dense[2].weight = nn.Parameter(dense[2].weight.flatten().roll(1).view(3, 8))
    return dense


def twice(dense: nn.Module) -> nn.Module:
    dense[0].weight = nn.Parameter(dense[0].weight[[0, 0, 1]])
    return dense


def added(dense: nn.Module) -> nn.Module:
    dense[0].weight = nn.Parameter(dense[0].weight + 0.25)
    return dense


def renamed(dense: nn.Module) -> nn.Module:
    dense.add_module("other", nn.Linear(2, 2))
    return dense


@pytest.mark.parametrize("wrong", [transposed, twice, added, renamed])
def test_what_is_no_part_of_the_dense_model_is_no_cut(wrong: Callable[[nn.Module], nn.Module]) -> None:
    with pytest.raises(DecodeError):
        decode(two_layers(), wrong)


def test_other_values_at_the_right_places_are_found() -> None:
    model, smaller = two_layers(), two_layers()
    decoded = decode(model, lambda dense: dense)
    check_values(model, smaller, decoded)
    with torch.no_grad():
        smaller[0].bias[2] += 1
    with pytest.raises(DecodeError, match=r"0\.bias"):
        check_values(model, smaller, decoded)


SLIDING = torch.tensor([[[0.5, 2.0, -1.0]]], dtype=torch.float64)
CHANNELS = torch.tensor([0, 2, 3, 5])


@pytest.mark.parametrize(
    ("compute", "axes"),
    [
        (lambda x: F.layer_norm(x, x.shape[-1:]), True),
        (lambda x: F.rms_norm(x, x.shape[-1:], eps=1e-6), True),
        (lambda x: F.softmax(x, -1), True),
        (lambda x: F.log_softmax(x, -1), True),
        (lambda x: x / x.norm(dim=-1, keepdim=True), True),
        (lambda x: F.normalize(x, dim=-1), True),
        (lambda x: F.group_norm(x.movedim(-1, 1), 1).movedim(1, -1), True),
        (lambda x: x - x.mean(-1, keepdim=True), True),
        (lambda x: x / x.std(-1, keepdim=True), True),
        (lambda x: F.hardswish(x) + F.gelu(x) * F.hardsigmoid(x) - F.relu6(x), True),
        (lambda x: x * torch.sigmoid(x.amax(-1, keepdim=True)), True),
        (lambda x: F.conv1d(x.flatten(0, 1).unsqueeze(1), SLIDING, padding=1).view(x.shape), True),
        (lambda x: x.max(-1).values, False),
        (lambda x: x.var(-1, correction=0), False),
        (lambda x: x @ x.transpose(-1, -2), False),
        (lambda x: F.scaled_dot_product_attention(x, x, x, scale=0.3), True),
    ],
)
def test_what_is_absent_has_no_part_in_a_statistic(compute: Callable[[Tensor], Tensor], axes: bool) -> None:
    """Each gives what it gives for the channels that are there alone."""
    whole = torch.randn(2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gone = whole.clone()
    gone[..., [1, 4]] = math.nan
    with plain(), WithoutAbsent() as mode:
        got = compute(gone)
    assert not mode.unknown
    if axes:
        assert got[..., [1, 4]].isnan().all()
        got = got[..., CHANNELS]
    assert torch.allclose(got, compute(whole[..., CHANNELS]), rtol=1e-12, atol=0)


def test_rows_of_experts_are_multiplied_in_double() -> None:
    rows, matrices = torch.randn(7, 6, dtype=torch.float64), torch.randn(3, 6, 4, dtype=torch.float64)
    ends = torch.tensor([2, 2, 5], dtype=torch.int32)
    gone, less = rows.index_fill(1, torch.tensor([1]), math.nan), matrices.index_fill(2, torch.tensor([3]), math.nan)
    with plain(), WithoutAbsent():
        whole = torch.nn.functional.grouped_mm(rows, matrices, offs=ends)
        got = torch.nn.functional.grouped_mm(gone, less.index_fill(1, torch.tensor([1]), math.nan), offs=ends)
    expected = torch.cat([rows[:2] @ matrices[0], rows[2:5] @ matrices[2], torch.zeros(2, 4, dtype=torch.float64)])
    assert torch.equal(whole, expected)
    rows[:, 1] = 0
    expected = torch.cat([rows[:2] @ matrices[0], rows[2:5] @ matrices[2], torch.zeros(2, 4, dtype=torch.float64)])
    assert torch.allclose(got[:, :3], expected[:, :3], rtol=1e-12, atol=0)
    assert got[:, 3].isnan().all()


def test_a_dropped_weight_norm_is_zero() -> None:
    """Its lengths are: a direction of zero is none."""

    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 3)
            self.mid = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.last(y + self.mid(y).tanh())

    model, inputs = Added().eval(), torch.randn(4, 5)
    topology = discover_structure(model, inputs)
    assert [block.name for block in topology.blocks] == ["mid"]
    assert not compare(model, inputs, topology, KeptChannels(groups={}, dropped=("mid",))).fault


def test_layers_that_are_not_exact_are_run_and_counted() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), *(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(4)))
    model, inputs = nn.Sequential(*model, nn.Linear(8, 3)).eval(), torch.randn(4, 5)
    topology = discover_structure(model, inputs)
    assert check(model, inputs).layers == len(topology.blocks) == 4
    assert layers_fault(model, inputs, topology) is None
    other = replace(topology, products=topology.products[1:])
    assert "multiply-adds" in (layers_fault(model, inputs, other) or "")
    names = [replace(block, gaps=(replace(block.gaps[0], position=1, outputs=2),)) for block in topology.blocks]
    assert "does not run" in (layers_fault(model, inputs, replace(topology, blocks=tuple(names))) or "")


def test_an_operator_that_nobody_thought_of_is_told() -> None:
    gone = torch.tensor([[1.0, math.nan], [0.0, 2.0]], dtype=torch.float64)
    with plain(), WithoutAbsent() as mode:
        torch.fft.fft(gone)
    assert mode.unknown


def test_casts_stay_in_double() -> None:
    with plain(), WithoutAbsent():
        assert (torch.ones(2, dtype=torch.float64) / 3).float().dtype == torch.float64


@pytest.mark.parametrize("name", quick([*SEVEN, "nano_gpt", "hf_llama", "batched_moe"], QUICK))
def test_the_decoder_agrees_with_right_cuts(name: str) -> None:
    found, (model, inputs) = surveyed(name), build_any(name)
    for number, draw in enumerate(DRAWS):
        kept = drawn(found.topology, draw, number)
        result = compare(model, inputs, found.topology, kept)
        assert not result.fault
        assert result.effect > 1e-3
        assert cost_fault(model, inputs, found.topology, kept) is None


@pytest.mark.parametrize("name", quick(SEVEN, QUICK))
def test_an_index_map_that_is_shifted_by_one_is_found(name: str) -> None:
    """By the decoder and by the proof, apart."""
    found = surveyed(name)
    result = control(found.model, found.inputs, found.topology, SEVEN.index(name))
    assert result.decoder, result
    assert result.proof, result
    assert result.found


def test_a_cost_that_was_foretold_wrong_is_found() -> None:
    found = surveyed("resnet")
    kept = drawn(found.topology, "half", 0)
    other = replace(found.topology, products=found.topology.products[1:])
    assert "multiply-adds" in (cost_fault(found.model, found.inputs, other, kept) or "")
    more = {**found.topology.tensors, "other": TensorInfo(shape=(3,), item_bytes=4, is_parameter=True)}
    assert "parameters" in (cost_fault(found.model, found.inputs, replace(found.topology, tensors=more), kept) or "")


def test_a_model_is_checked_as_a_whole() -> None:
    """With weights at random; what stays whole is told with its reason."""

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.b(self.a(x).relu()).reshape(-1, 2, 4).sum(1).repeat(1, 2)
            return self.head(self.c(y.relu()))

    inputs = torch.randn(4, 6)
    model = stir(Fixed(), inputs)
    found = check(model, inputs)
    assert found.draws == 3
    assert not found.wrong and not found.unchecked
    assert found.worst < 1e-12
    assert found.whole == pytest.approx(sum(share for share, _, _ in stays(model, discover_structure(model, inputs))))
    assert verdict({"wrong": [], "unchecked": [], "whole": found.whole, "groups": found.groups}) in {"full", "part"}


def test_a_verdict_is_as_bad_as_the_worst_of_a_model() -> None:
    right = {"wrong": [], "unchecked": [], "whole": 0.01, "groups": 3}
    assert verdict(right) == "full"
    assert verdict({**right, "whole": 0.3}) == "part"
    assert verdict({**right, "whole": 0.95}) == "none"
    assert verdict({**right, "unchecked": ["half: ..."]}) == "not checked"
    assert verdict({**right, "unchecked": ["half: ..."], "wrong": ["any: ..."]}) == "wrong"
    assert verdict({"error": "fails: ..."}) == "fails"


def test_weights_and_statistics_are_random_and_the_model_has_not_run() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1))
    stir(model, torch.randn(2, 3, 8, 8))
    assert model[1].running_var.std() > 0 and model[1].weight.std() > 0
    assert int(model[1].num_batches_tracked) == 0
    assert not model.training
