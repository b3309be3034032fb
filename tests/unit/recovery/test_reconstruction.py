"""Reconstruction gives back what a cut has taken where others can make up for it, and never does worse."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from autoprune.plan.allocation import GroupPlan
from autoprune.plan.kept import KeptChannels
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import RecalibrationPlan, ReconstructionPlan, RecoveryPlan
from autoprune.proof.discover import discover_structure
from autoprune.recovery import reconstruction
from autoprune.recovery.batch_norm import recalibrate
from autoprune.recovery.reconstruction import reconstruct
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from autoprune.surgery.positions import alive_positions
from autoprune.task.data import Batch, Inputs, call
from autoprune.trial.candidate import evaluate_plan
from autoprune.trial.context import TrialContext
from tests.slow import slow
from tests.tasks import SEEN, Counting, blobs, image_task, trained_mlp, trained_resnet
from tests.unit.surgery.attentions import Attention, by_shape
from tests.zoo.registry import WHOLE_ZOO, ZOO, build, build_any

WHOLE = KeptChannels(groups={})


def batch_of(inputs: Inputs, size: int) -> Batch:
    return Batch(inputs=inputs, targets=None, size=size)


def batches_of(x: Tensor, size: int = 50) -> list[Batch]:
    return [batch_of(part, len(part)) for part in x.split(size)]


def first_half(topology: Topology) -> KeptChannels:
    """Of each group as many channels as half of them, or as it needs."""
    return KeptChannels(groups={g.name: tuple(range(max(g.min_channels, g.channels // 2))) for g in topology.groups})


@torch.no_grad()
def off(model: nn.Module, dense: nn.Module, inputs: Inputs) -> float:
    """Mean square of the difference of the outputs."""
    given, wanted = (call(each, inputs) for each in (model, dense))
    if not isinstance(given, Tensor):
        given, wanted = given.logits, wanted.logits  # type: ignore[attr-defined]
    return float((given - wanted).square().mean())  # type: ignore[operator]


def error_after(
    model: nn.Module, topology: Topology, kept: KeptChannels, x: Tensor, fresh: Tensor
) -> tuple[float, float]:
    """Error on fresh inputs of the cut model as it is, and reconstructed."""
    smaller = cut(model, topology, kept)
    plain = off(smaller, model, fresh)
    assert reconstruct(smaller, model, topology, kept, WHOLE, batches_of(x)) > 0
    return plain, off(smaller, model, fresh)


@torch.no_grad()
def with_twins(model: nn.Module, topology: Topology) -> KeptChannels:
    """Make channel c + half what channel c is, in every group; without the copies nothing is lost.

    Only the weights that read them differ.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    groups = {}
    for group in topology.groups:
        half = group.channels // 2
        for member in group.members:
            if member.role != "in":
                tensor = tensors[member.tensor]
                index = torch.from_numpy(member.index)
                here, there = index[:half].flatten(), index[half : 2 * half].flatten()
                tensor.index_copy_(member.axis, there, tensor.index_select(member.axis, here))
        groups[group.name] = (*range(half), *range(2 * half, group.channels))
    return KeptChannels(groups=groups)


@pytest.mark.parametrize("name", [name for name in ZOO if name not in ("used_twice", "tied_weights")])
def test_without_the_copies_of_channels_the_outputs_are_the_same(name: str) -> None:
    """Plain, grouped, depthwise and transposed convolutions, residuals, concatenations, gates, flattened features."""
    model, inputs = build(name)
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    model = model.double()
    drawn = [ZOO[name][1]() for _ in range(72)]
    x = torch.cat([part for part in drawn if isinstance(part, Tensor)]).to(inputs.dtype)
    x, fresh = x[:128], x[128:]
    topology = discover_structure(model, inputs)
    kept = with_twins(model, topology)
    recalibrate(model, [batch_of(x, len(x))])  # reconstruction takes the statistics of all samples at once
    plain, found = error_after(model, topology, kept, x, fresh)
    assert found < 1e-5 * plain
    assert found < 1e-6


@pytest.mark.parametrize("ratio", [2, 4])
def test_the_error_of_a_trained_network_falls_on_new_data(ratio: int) -> None:
    for model, shape in ((trained_resnet(), (-1, 1, 8, 8)), (trained_mlp(), (-1, 64))):
        x, fresh = (blobs(samples, seed=seed)[0].view(shape) for samples, seed in ((600, 0), (200, 1)))
        topology = discover_structure(model, x[:4])
        keep = {g.name: tuple(c for c in range(g.channels) if c % ratio) for g in topology.groups}
        kept = KeptChannels(groups=keep)
        plain, found = error_after(model, topology, kept, x, fresh)
        recalibrated = cut(model, topology, kept)
        recalibrate(recalibrated, batches_of(x))
        assert found < 0.75 * min(plain, off(recalibrated, model, fresh))


@pytest.mark.parametrize(
    "name", ["lstm_classifier", "vit", "encoder_padded", slow("hf_bert_classifier"), "wavenet", "unet"]
)
def test_linear_layers_and_convolutions_of_other_families(name: str) -> None:
    model, inputs = build_any(name)
    topology = discover_structure(model, inputs)
    drawn = [WHOLE_ZOO[name][1]() for _ in range(40)]
    kept = first_half(topology)
    smaller = cut(model, topology, kept)
    plain = sum(off(smaller, model, each) for each in drawn[32:])
    assert reconstruct(smaller, model, topology, kept, WHOLE, [batch_of(each, 2) for each in drawn[:32]]) == 2 + 2 * 64
    assert sum(off(smaller, model, each) for each in drawn[32:]) < 0.8 * plain


def test_a_layer_is_solved_for_what_the_solved_ones_before_it_give() -> None:
    """Without a layer's own solution what it reads would be of another scale, and the next could not be right."""
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)).double()
    x, fresh = torch.randn(300, 6).double(), torch.randn(50, 6).double()
    topology = discover_structure(model, x[:4])
    kept = KeptChannels(groups={"0": tuple(range(5)), "1": tuple(range(5))})
    smaller = cut(model, topology, kept)
    reconstruct(smaller, model, topology, kept, WHOLE, batches_of(x))
    for layer, read, wanted in ((1, smaller[:1](x), model[:2](x)[:, :5]), (2, smaller[:2](x), model(x))):
        ones = torch.cat([read, torch.ones(300, 1)], 1)
        best = torch.linalg.lstsq(ones, wanted).solution
        torch.testing.assert_close(smaller[layer].weight, best[:-1].mT, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(smaller[layer].bias, best[-1], rtol=1e-4, atol=1e-4)
    assert off(smaller, model, fresh) < off(cut(model, topology, kept), model, fresh)


def test_twice_gives_the_same_and_only_what_reads_less_and_statistics_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "ROWS", 2000)  # of 9,600
    model = trained_resnet()
    x = blobs()[0]
    topology = discover_structure(model, x[:4])
    kept = KeptChannels(groups={"blocks.1.conv1": tuple(range(7))})
    plain = cut(model, topology, kept)
    before = copy.deepcopy(model.state_dict())
    found = []
    for _ in range(2):
        smaller = cut(model, topology, kept)
        torch.rand(3)
        state = torch.get_rng_state()
        reconstruct(smaller, model, topology, kept, WHOLE, batches_of(x))
        assert torch.equal(state, torch.get_rng_state())
        found.append(smaller.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    changed = {name for name, value in plain.state_dict().items() if not torch.equal(value, found[0][name])}
    assert {name for name in changed if "running" not in name and "tracked" not in name} == {"blocks.1.conv2.weight"}
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_modes_hooks_and_momentum_are_as_before(training: bool) -> None:
    model = copy.deepcopy(trained_resnet()).train(training)
    model.blocks[1].bn1.momentum = 0.3
    model.stem[1].eval()
    x = blobs(100)[0]
    topology = discover_structure(trained_resnet(), x[:4])
    kept = first_half(topology)
    smaller = cut(model, topology, kept)
    modes = [module.training for module in smaller.modules()]
    reconstruct(smaller, model, topology, kept, WHOLE, batches_of(x))
    for each in (smaller, model):
        assert [module.training for module in each.modules()] == modes
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in each.modules())
        assert each.blocks[1].bn1.momentum == 0.3
    assert all(parameter.requires_grad and parameter.grad is None for parameter in smaller.parameters())


def test_models_in_training_mode_are_looked_at_as_in_evaluation() -> None:
    model = nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Dropout(), nn.Linear(10, 3)).eval()
    x = torch.randn(100, 6)
    topology = discover_structure(model, x[:4])
    kept = KeptChannels(groups={"0": tuple(range(6))})
    found = []
    for training in (False, True):
        source = copy.deepcopy(model).train(training)
        smaller = cut(source, topology, kept)
        reconstruct(smaller, source, topology, kept, WHOLE, batches_of(x))
        found.append((smaller.state_dict(), source.state_dict()))
    for evaluated, trained in zip(*found, strict=True):
        assert all(torch.equal(value, trained[name]) for name, value in evaluated.items())


def test_a_single_sample_that_nothing_can_be_joined_to_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 3)).eval()
    topology = discover_structure(model, torch.randn(4, 6))
    kept = KeptChannels(groups={"0": tuple(range(6))})
    smaller = cut(model, topology, kept)
    before = copy.deepcopy(smaller.state_dict())
    parts = [batch_of(torch.randn(1, 6), 1), batch_of(torch.randn(1, 6).double(), 1)]
    assert reconstruct(smaller, model, topology, kept, WHOLE, parts) == 1
    assert all(torch.equal(before[name], value) for name, value in smaller.state_dict().items())


def test_running_statistics_are_those_of_what_the_norms_read_now() -> None:
    model = trained_resnet()
    x = blobs(200)[0]
    topology = discover_structure(model, x[:4])
    kept = first_half(topology)
    smaller = cut(model, topology, kept)
    reconstruct(smaller, model, topology, kept, WHOLE, batches_of(x))
    after = copy.deepcopy(smaller)
    recalibrate(after, [batch_of(x, len(x))])
    for name, value in after.state_dict().items():
        torch.testing.assert_close(value, smaller.state_dict()[name], rtol=5e-3, atol=1e-4, msg=name)


class Reader(nn.Module):
    """A hidden layer, something that reads it, and a head behind that; the norm keeps hidden units from being one."""

    def __init__(self, reader: nn.Module, run: Callable[[nn.Module, Tensor], Tensor] = lambda m, x: m(x)) -> None:
        super().__init__()
        self.first, self.reader, self.head, self.run = nn.Linear(6, 10), reader, nn.Linear(7, 3), run

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.run(self.reader, torch.relu(self.first(x)))))


class Doubling(nn.Linear):
    """A forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def frozen() -> nn.Linear:
    layer = nn.Linear(10, 7)
    layer.weight.requires_grad_(False)
    return layer


def patched() -> nn.Linear:
    layer = nn.Linear(10, 7)
    layer.forward = partial(nn.functional.linear, weight=layer.weight, bias=None)  # type: ignore[method-assign]
    return layer


def hooked() -> nn.Linear:
    layer = nn.Linear(10, 7)
    layer.register_forward_hook(_halve)
    return layer


def _halve(module: nn.Module, args: object, output: Tensor) -> Tensor:
    return output / 2


LEFT: dict[str, Callable[[], nn.Module]] = {
    "frozen": lambda: Reader(frozen()),
    "own forward": lambda: Reader(Doubling(10, 7)),
    "hooked": lambda: Reader(hooked()),
    "computed": lambda: Reader(parametrizations.weight_norm(nn.Linear(10, 7))),
    "called twice": lambda: Reader(nn.Linear(10, 7), lambda m, x: m(x) - m(x * x)),
    "recurrent": lambda: Reader(nn.LSTM(10, 7), lambda m, x: m(x.unsqueeze(0))[0][0]),
    "cell": lambda: Reader(nn.GRUCell(10, 7)),
    "bilinear": lambda: Reader(nn.Bilinear(10, 10, 7), lambda m, x: m(x, x * x)),
    "not called": lambda: Reader(nn.Linear(10, 7), lambda m, x: nn.functional.linear(x, m.weight, m.bias)),
}


@pytest.mark.parametrize("case", LEFT)
def test_left_alone(case: str) -> None:
    model = LEFT[case]().eval()
    x = torch.randn(100, 6)
    topology = discover_structure(model, x[:4])
    kept = KeptChannels(groups={"first": tuple(range(5))})
    smaller = cut(model, topology, kept)
    before = copy.deepcopy(smaller.state_dict())
    assert alive_positions(topology, kept), "the reader lost something"
    reconstruct(smaller, model, topology, kept, WHOLE, batches_of(x))
    assert all(torch.equal(before[name], value) for name, value in smaller.state_dict().items())


def test_the_same_reader_without_what_keeps_it_out_changes() -> None:
    model = Reader(nn.Linear(10, 7)).eval()
    x = torch.randn(100, 6)
    topology = discover_structure(model, x[:4])
    kept = KeptChannels(groups={"first": tuple(range(5))})
    smaller = cut(model, topology, kept)
    before = copy.deepcopy(smaller.state_dict())
    reconstruct(smaller, model, topology, kept, WHOLE, batches_of(x))
    changed = {name for name, value in smaller.state_dict().items() if not torch.equal(before[name], value)}
    assert changed == {"reader.weight", "reader.bias"}


def test_tied_weights_are_left_alone() -> None:
    model, inputs = build("tied_weights")
    topology = discover_structure(model, inputs)
    kept = first_half(topology)
    smaller = cut(model, topology, kept)
    before = copy.deepcopy(smaller.state_dict())
    reconstruct(smaller, model, topology, kept, WHOLE, batches_of(torch.randn(100, 1, 8, 8)))
    changed = {name for name, value in smaller.state_dict().items() if not torch.equal(before[name], value)}
    assert changed == {"middle.weight", "middle.bias", "head.weight", "head.bias"}
    assert smaller.expand.weight is smaller.expand_again.weight


def test_queries_whose_scale_the_cut_changes_are_left_alone() -> None:
    """Their outputs are not to be what they were."""
    model = nn.Sequential(nn.Linear(5, 20), Attention("separate", by_shape), nn.Linear(20, 3))
    x = torch.randn(60, 6, 5)
    topology = discover_structure(model, x[:2])
    rescaled = {values.tensor for group in topology.groups for values in group.rescaled}
    assert rescaled == {"1.q.weight", "1.q.bias"}
    kept = first_half(topology)
    smaller = cut(model, topology, kept)
    before = copy.deepcopy(smaller.state_dict())
    plain = off(smaller, model, x[:50])
    reconstruct(smaller, model, topology, kept, WHOLE, batches_of(x))
    same = {name for name, value in smaller.state_dict().items() if torch.equal(before[name], value)}
    assert rescaled <= same
    assert "1.k.weight" not in same
    assert off(smaller, model, x[50:]) < plain


class ByHead(nn.Module):
    """One linear layer for all heads, over their width."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 4, 6
        self.first, self.each, self.head = nn.Linear(5, 24), nn.Linear(6, 7), nn.Linear(28, 3)

    def forward(self, x: Tensor) -> Tensor:
        heads = torch.relu(self.first(x)).view(len(x), self.num_heads, self.head_dim)
        return self.head(torch.relu(self.each(heads)).flatten(1))


def test_a_layer_whose_positions_the_cut_changes_too_is_left_alone() -> None:
    """Its outputs are not where they were."""
    model = ByHead()
    x = torch.randn(200, 5)
    topology = discover_structure(model, x[:2])
    kept = KeptChannels(
        groups={g.name: tuple(range(g.channels // 2)) for g in topology.groups if g.name.startswith("first")}
    )
    smaller = cut(model, topology, kept)
    assert (smaller.each.in_features, smaller.head.in_features) == (3, 14)
    before = copy.deepcopy(smaller.state_dict())
    reconstruct(smaller, model, topology, kept, WHOLE, batches_of(x))
    changed = {name for name, value in smaller.state_dict().items() if not torch.equal(before[name], value)}
    assert changed == {"head.weight", "head.bias"}


def test_a_dropped_block_is_gone_and_layers_beside_it_are_solved_for() -> None:
    model = trained_resnet()
    x, fresh = blobs()[0], blobs(200, seed=1)[0]
    topology = discover_structure(model, x[:4])
    assert [block.name for block in topology.blocks] == ["blocks.0"]
    kept = replace(first_half(topology), dropped=("blocks.0",))
    plain, found = error_after(model, topology, kept, x, fresh)
    assert found < 0.7 * plain


@pytest.mark.parametrize("name", ["resnet", "resnext", "grouped_decoder", "vgg"])
def test_from_a_parent_that_was_cut_already(name: str) -> None:
    model, inputs = build(name)
    topology = discover_structure(model, inputs)
    before = KeptChannels(groups={g.name: tuple(range(g.channels // 4, g.channels)) for g in topology.groups})
    kept = KeptChannels(groups={name: stays[::2] for name, stays in before.groups.items()})
    parent = cut(model, topology, before)
    smaller = cut(parent, topology, kept, parent=before)
    x, fresh = torch.randn(200, 1, 8, 8), torch.randn(50, 1, 8, 8)
    recalibrate(parent, batches_of(x))
    plain = off(smaller, parent, fresh)
    reconstruct(smaller, parent, topology, kept, before, batches_of(x))
    assert off(smaller, parent, fresh) < 0.75 * plain


def test_samples_are_those_that_went_forward_through_either_model() -> None:
    model = Counting(trained_resnet())
    x = blobs(130)[0]
    topology = discover_structure(model, x[:4])
    kept = first_half(topology)
    smaller = cut(model, topology, kept)
    SEEN.clear()
    seen = reconstruct(smaller, model, topology, kept, WHOLE, iter(batches_of(x)))
    assert SEEN == [50, 130, 130]
    assert seen == sum(SEEN)


@pytest.mark.parametrize("case", ["nothing cut", "no batch", "one sample", "only the end of a block"])
def test_where_nothing_can_be_solved_for_nothing_runs(case: str) -> None:
    model = Counting(trained_resnet())
    x = blobs(100)[0]
    topology = discover_structure(model, x[:4])
    kept = WHOLE if case == "nothing cut" else first_half(topology)
    if case == "only the end of a block":
        kept = KeptChannels(groups={}, dropped=("model.blocks.0",))
    smaller = cut(model, topology, kept)
    before = copy.deepcopy(smaller.state_dict())
    batches = {"no batch": [], "one sample": batches_of(x[:1])}.get(case, batches_of(x))
    SEEN.clear()
    assert reconstruct(smaller, model, topology, kept, WHOLE, batches) == 0
    assert SEEN == []
    assert all(torch.equal(before[name], value) for name, value in smaller.state_dict().items())


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 8), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, y: Tensor, scale: float = 1.0) -> Tensor:
        SEEN.append(len(x))
        return self.head(scale * torch.relu(self.first(x) + self.second(y)))


Build = Callable[[Tensor, Tensor], Inputs]


@pytest.mark.parametrize(
    ("builds", "together"),
    [
        ([lambda x, y: (x, y)] * 3, [60, 157, 157]),
        ([lambda x, y: {"y": y, "x": x}] * 2, [60, 150, 150]),
        ([lambda x, y: (x, y, 0.5)] * 2, [60, 60, 60]),  # what is no tensor has no samples
        ([lambda x, y: (x, y[:1])] * 2, [60, 60, 60]),  # one of them is for all samples
        ([lambda x, y: {"x": x, "y": y}, lambda x, y: {"y": y, "x": x}], [60, 60, 60]),
        ([lambda x, y: (x, y), lambda x, y: (x.double(), y), lambda x, y: (x, y)], [60, 67, 67]),
        ([lambda x, y: (x, y), lambda x, y: (x[None], y[None]), lambda x, y: (x, y)], [60, 67, 67]),
    ],
)
def test_batches_that_fit_together_pass_at_once(builds: Sequence[Build], together: list[int]) -> None:
    model = TwoInputs()
    drawn = [(torch.randn(size, 6), torch.randn(size, 4)) for size in (60, 90, 7)]
    topology = discover_structure(model, drawn[2])
    kept = KeptChannels(groups={"first": tuple(range(4))})
    smaller = cut(model, topology, kept)
    before = smaller.head.weight.detach().clone()
    parts = [batch_of(build_inputs(*pair), len(pair[0])) for build_inputs, pair in zip(builds, drawn, strict=False)]
    SEEN.clear()
    assert reconstruct(smaller, model, topology, kept, WHOLE, parts) == sum(together)
    assert SEEN == together
    assert not torch.equal(before, smaller.head.weight)


def test_no_more_samples_than_the_largest_output_leaves_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Counting(trained_resnet())  # 8 channels of 8x8 are its largest output
    x = blobs(200)[0]
    topology = discover_structure(model, x[:4])
    kept = first_half(topology)
    monkeypatch.setattr(reconstruction, "_MAX_ENTRIES", 120 * 8 * 64)
    SEEN.clear()
    reconstruct(cut(model, topology, kept), model, topology, kept, WHOLE, batches_of(x))
    assert SEEN == [50, 100, 100]


def test_rows_and_unknowns_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained_resnet()
    x = blobs()[0]
    topology = discover_structure(model, x[:4])
    kept = first_half(topology)
    monkeypatch.setattr(reconstruction, "ROWS", 500)
    monkeypatch.setattr(reconstruction, "MOST_UNKNOWNS", 40)
    seen: dict[int, int] = {}

    def look(layer: nn.Conv2d | nn.Linear, read: Tensor, places: Sequence[Tensor], wanted: Tensor) -> bool:
        seen[layer.weight[0].numel()] = len(wanted)
        assert len({tuple(place) for place in torch.stack(list(places)).mT.tolist()}) == len(wanted), "each once"
        return False

    monkeypatch.setattr(reconstruction, "refit", look)
    reconstruct(cut(model, topology, kept), model, topology, kept, WHOLE, batches_of(x))
    assert seen == {36: 500, 4: 500, 6: 500}  # 54 unknowns are too many


def test_weights_that_are_not_finite_stay_as_the_cut_left_them() -> None:
    model = copy.deepcopy(trained_mlp())
    x = blobs()[0].flatten(1)
    topology = discover_structure(model, x[:4])
    kept = KeptChannels(groups={"0": tuple(range(20))})
    with torch.no_grad():
        model[2].bias[3] = float("nan")  # the target of the layer that reads what was cut
    smaller = cut(model, topology, kept)
    before = smaller[2].weight.detach().clone()
    reconstruct(smaller, model, topology, kept, WHOLE, batches_of(x))
    assert torch.equal(before, smaller[2].weight)


def test_all_is_restored_when_a_model_raises() -> None:
    model = copy.deepcopy(trained_resnet()).train()
    topology = discover_structure(trained_resnet(), blobs(4)[0])
    kept = first_half(topology)
    smaller = cut(model, topology, kept)
    with pytest.raises(RuntimeError, match="expected input"):
        reconstruct(smaller, model, topology, kept, WHOLE, batches_of(torch.randn(10, 3, 8, 8)))
    for each in (smaller, model):
        assert all(module.training for module in each.modules())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in each.modules())


def test_a_plan_asks_for_it_by_its_number_of_samples() -> None:
    context = TrialContext.of(image_task())
    recovery = RecoveryPlan(steps=0, recalibration=RecalibrationPlan(samples=100))
    plan = PruningPlan(groups={name: GroupPlan(ratio=0.5) for name in context.topology.widths}, recovery=recovery)
    plain = evaluate_plan(context, plan)
    found = evaluate_plan(
        context, replace(plan, recovery=replace(recovery, reconstruction=ReconstructionPlan(samples=400)))
    )
    assert found.work.forward == plain.work.forward + 50 + 2 * 400
    dense, x = context.task.dense, blobs(200, seed=1)[0]
    assert off(found.model, dense, x) < 0.7 * off(plain.model, dense, x)
    assert "reconstruct" in found.seconds
