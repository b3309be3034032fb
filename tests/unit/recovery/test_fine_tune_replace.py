"""A fine-tune in which the model is cut and masked on the way, in pieces, and with fewer digits."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import autoprune
from autoprune.plan.kept import KeptChannels
from autoprune.plan.recovery import DistillationPlan, MaxNormPlan, RecoveryPlan
from autoprune.records.work import Work
from autoprune.recovery.fine_tune import DivergedError, FineTune
from autoprune.recovery.steps import Recovery
from autoprune.recovery.teacher import Teacher
from autoprune.surgery.cut import cut, sliced
from autoprune.task.data import Batch
from tests.tasks import blobs, trained_mlp, trained_resnet
from tests.unit.recovery.watching import SHAPES, convolutional, flat, one_batch_task, same, zeros

ROWS = (1, 2, 3, 5, 8, 13, 21, 30)
OPTIMIZERS = ("sgd", "adamw")


def training(task: autoprune.PreparedTask | None = None, **recovery: object) -> FineTune:
    """Of a copy of the perceptron."""
    given = RecoveryPlan(**{"steps": 10, **recovery})  # type: ignore[arg-type]
    return FineTune(Recovery(copy.deepcopy(trained_mlp()), task or flat().task, given), seed=0)


def states(run: FineTune) -> dict[str, dict[str, Tensor]]:
    """Name of a parameter -> what the optimizer remembers of it, copied."""
    return {
        name: {key: value.clone() for key, value in run._optimizer.state[parameter].items()}
        for name, parameter in run.model.named_parameters()
    }


def keep(run: FineTune, rows: tuple[int, ...] = ROWS) -> None:
    """Cut the perceptron's first group down to these units."""
    topology = flat().topology
    kept = KeptChannels(groups={"0": rows})
    smaller = cut(run.model, topology, kept, parent=KeptChannels.whole(topology))
    run.replace(smaller, partial(sliced, topology=topology, kept=kept, parent=KeptChannels.whole(topology)))


def by_hand(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same of the units that stay: rows of what makes them, columns of what reads them."""
    rows = list(ROWS)
    cuts = {"0.weight": lambda t: t[rows], "0.bias": lambda t: t[rows], "2.weight": lambda t: t[:, rows]}
    return {name: cuts[name](tensor) if name in cuts else tensor for name, tensor in tensors.items()}


# ---- in pieces


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_pieces_are_one_run_bit_by_bit(optimizer: str, precision: str) -> None:
    found = []
    for pieces in ((10,), (1, 2, 6, 6, 10)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 16), nn.Dropout(), nn.ReLU(), nn.Linear(16, 4))
        plan = RecoveryPlan(steps=10, optimizer=optimizer, precision=precision)
        run = FineTune(Recovery(model, image_flat(), plan), seed=3)
        for until in pieces:
            run.run(until)
            torch.manual_seed(until)  # what the caller draws in between is no concern of the training
        run.finish()
        assert (run.step, run.work) == (10, Work(trained=500))
        found.append(model)
    assert same(*found)


def image_flat() -> autoprune.PreparedTask:
    """Passes of twelve batches."""
    images, targets = blobs()
    return one_batch_task(flat=True, train=(images.flatten(1), targets))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_cut_between_pieces_that_keeps_all_changes_nothing(optimizer: str) -> None:
    whole, replaced = (training(optimizer=optimizer, weight_decay=0.01) for _ in range(2))
    whole.run(10)
    replaced.run(4)
    keep(replaced, tuple(range(32)))
    replaced.run(10)
    assert same(whole.model, replaced.model)


# ---- what a cut keeps


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_units_that_stay_keep_what_the_optimizer_knows_of_them(optimizer: str) -> None:
    run = training(optimizer=optimizer)
    run.run(4)
    before = states(run)
    names = {"momentum_buffer"} if optimizer == "sgd" else {"step", "exp_avg", "exp_avg_sq"}
    assert all(state.keys() == names for state in before.values())
    keep(run)
    after = states(run)
    assert after.keys() == before.keys()
    for key in names:
        wanted = {name: state[key] for name, state in before.items()}
        wanted = wanted if key == "step" else by_hand(wanted)
        for name in after:
            assert torch.equal(after[name][key], wanted[name]), (name, key)


def test_the_next_step_is_that_of_a_model_and_momenta_cut_by_hand() -> None:
    run = training(scheduler="constant", weight_decay=0.01)
    run.run(4)
    momenta = by_hand({name: state["momentum_buffer"] for name, state in states(run).items()})
    weights = by_hand({name: parameter.detach().clone() for name, parameter in run.model.named_parameters()})
    keep(run)
    run.run(5)

    batch = next(flat().task.train_split.shuffled(0 + 4))  # a pass is one batch: the fifth has the seed of its pass
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    hidden = torch.relu(batch.inputs @ leaves["0.weight"].T + leaves["0.bias"])
    hidden = hidden @ leaves["2.weight"].T + leaves["2.bias"]
    scale, shift = leaves["3.weight"], leaves["3.bias"]
    hidden = nn.functional.batch_norm(hidden, None, None, scale, shift, training=True)
    outputs = nn.functional.gelu(hidden) @ leaves["5.weight"].T + leaves["5.bias"]
    nn.functional.cross_entropy(outputs, batch.targets).backward()
    for name, parameter in run.model.named_parameters():
        leaf = leaves[name]
        assert leaf.grad is not None
        slope = leaf.grad + (0.01 * weights[name] if leaf.ndim > 1 else 0.0)
        momentum = 0.9 * momenta[name] + slope
        torch.testing.assert_close(parameter.detach(), weights[name] - 0.05 * (slope + 0.9 * momentum))


def test_masks_and_movement_and_gradients_are_cut_alike() -> None:
    run = training()
    run.watch_movement({"0.weight", "2.weight"})
    mask = torch.rand(SHAPES["2.weight"], generator=torch.Generator().manual_seed(0)) > 0.5
    run.set_masks({"2.weight": mask})
    run.run(3)
    movement = by_hand({name: moved.clone() for name, moved in run.movement.items()})
    gradients = by_hand({name: slope.clone() for name, slope in run.gradients.items()})
    assert bool((gradients["2.weight"][~mask[:, list(ROWS)]] != 0).any()), "silenced entries have a gradient"
    keep(run)
    assert torch.equal(run.masks["2.weight"], mask[:, list(ROWS)])
    for wanted, got in ((movement, run.movement), (gradients, run.gradients)):
        assert got.keys() == wanted.keys()
        assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    run.run(10)
    assert bool((run.model[2].weight[~run.masks["2.weight"]] == 0).all())


def test_a_block_that_goes_takes_its_momenta_along() -> None:
    topology = convolutional().topology
    whole, kept = KeptChannels.whole(topology), KeptChannels(groups={}, dropped=("blocks.0",))
    run = FineTune(Recovery(copy.deepcopy(trained_resnet()), convolutional().task, RecoveryPlan(steps=4)), seed=0)
    run.set_masks({"blocks.0.conv1.weight": torch.ones(8, 8, 3, 3, dtype=torch.bool)})
    run.run(2)
    before = states(run)
    smaller = cut(run.model, topology, kept, parent=whole)
    run.replace(smaller, partial(sliced, topology=topology, kept=kept, parent=whole))
    after = states(run)
    gone = set(before) - set(after)
    assert gone
    assert all(name.startswith("blocks.0.") for name in gone)
    assert all(torch.equal(after[name]["momentum_buffer"], before[name]["momentum_buffer"]) for name in after)
    assert run.masks == {}
    run.run(4)
    assert run.step == 4


def test_a_frozen_model_is_replaced_without_any_state() -> None:
    run = FineTune(
        Recovery(copy.deepcopy(trained_mlp()).requires_grad_(False), flat().task, RecoveryPlan(steps=6)), seed=0
    )
    run.run(2)
    keep(run)
    run.run(6)
    run.finish()
    assert (run.step, run.rate, run.decay_fraction, run.work) == (6, 0.0, 1.0, Work())
    assert run.model[0].weight.shape == (len(ROWS), 64)


# ---- silence


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("max_norm", [0.0, 0.5])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_silenced_stays_exactly_zero(optimizer: str, max_norm: float, precision: str) -> None:
    run = training(optimizer=optimizer, max_norm=MaxNormPlan(limit=max_norm), weight_decay=0.1, precision=precision)
    run.run(2)  # the momenta of what will be silenced are there by then
    generator = torch.Generator().manual_seed(0)
    masks = {name: torch.rand(shape, generator=generator) > 0.7 for name, shape in SHAPES.items()}
    run.set_masks(masks)
    for until in range(3, 11):
        run.run(until)
        for name, mask in masks.items():
            weight = run.model.get_parameter(name)
            assert torch.equal(weight == 0, ~mask), "and nothing else"
            assert not bool(torch.signbit(weight[~mask]).any()), (
                "no minus zero, which a sparse file would have to store"
            )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_entries_that_come_back_start_at_zero_without_momentum(optimizer: str) -> None:
    run = training(optimizer=optimizer)
    first = torch.ones(SHAPES["2.weight"], dtype=torch.bool)
    first[:, :16] = False
    run.set_masks({"2.weight": first})
    run.run(3)
    before = states(run)["2.weight"]
    moved = [key for key in before if key != "step"]
    assert all(bool((before[key][:, :16] != 0).any()) for key in moved), "torch's optimizers go on without the weights"
    second = torch.ones_like(first)
    second[:, 8:20] = False  # the first eight columns come back, four others go
    run.set_masks({"2.weight": second})
    after, weight = states(run)["2.weight"], run.model[2].weight
    for key in moved:
        assert bool((after[key][:, :16] == 0).all())
        assert torch.equal(after[key][:, 16:], before[key][:, 16:])
    assert bool((weight[:, :20] == 0).all())
    assert bool((weight[:, 20:] != 0).all())
    run.run(4)
    assert zeros(run.model[2].weight[:, :8]) < 0.5, "what came back is trained"
    assert zeros(run.model[2].weight[:, 8:20]) == 1.0


# ---- movement


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_movement_is_minus_rate_times_slope_times_weight(optimizer: str) -> None:
    run = training(optimizer=optimizer, scheduler="linear")
    wanted, before = torch.zeros(SHAPES["2.weight"]), run.model[2].weight.detach().clone()
    run.watch_movement({"2.weight"})
    assert run.movement == {}
    for step in range(1, 4):
        rate = run.rate
        run.run(step)
        wanted -= rate * run.gradients["2.weight"] * before
        before = run.model[2].weight.detach().clone()
    assert run.movement.keys() == {"2.weight"}
    torch.testing.assert_close(run.movement["2.weight"], wanted)


# ---- precision


@torch.no_grad()
def loss_on(model: nn.Module, batch: Batch) -> float:
    return float(flat().task.loss(model(batch.inputs), batch.targets))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains_weights_of_full_precision(precision: str) -> None:
    plain, mixed = training(precision="float32"), training(precision=precision)
    batch = next(iter(flat().task.train_split.ordered()))
    start = loss_on(plain.model, batch)
    dtypes: list[torch.dtype] = []
    handle = mixed.model[0].register_forward_hook(lambda module, args, output: dtypes.append(output.dtype))
    for run in (plain, mixed):
        run.run(10)
        run.finish()
    handle.remove()
    assert set(dtypes) == {getattr(torch, precision)}
    assert all(parameter.dtype == torch.float32 for parameter in mixed.model.parameters())
    assert mixed.model(batch.inputs).dtype == torch.float32
    assert not same(plain.model, mixed.model)
    losses = [loss_on(run.model, batch) for run in (plain, mixed)]
    assert losses[1] < 0.8 * start
    assert losses[1] == pytest.approx(losses[0], rel=0.2, abs=0.02)


def test_a_step_that_overflows_in_float16_is_left_out_and_moves_nothing() -> None:
    """The scale of the loss begins at 65536: slopes of a loss this large do not fit until it has been halved."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return 300.0 * nn.functional.cross_entropy(outputs, targets)

    run = training(one_batch_task(flat=True, loss=loss), precision="float16", steps=12, learning_rate=1e-4)
    run.watch_movement(set(SHAPES))
    before = [parameter.detach().clone() for parameter in run.model.parameters()]
    run.run(1)
    assert not all(bool(slope.isfinite().all()) for slope in run.gradients.values()), "the case is as it says"
    assert all(map(torch.equal, before, run.model.parameters()))
    run.run(12)
    assert not any(map(torch.equal, before, run.model.parameters()))
    assert run.movement.keys() == set(SHAPES)
    assert all(bool(moved.isfinite().all()) and bool((moved != 0).any()) for moved in run.movement.values())


# ---- passes


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Augments: every look at a sample draws from torch's generator."""

    def __init__(self) -> None:
        images, targets = blobs(150)
        self.images, self.targets = images.flatten(1), targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index] + 0.1 * torch.randn(64), self.targets[index]


def test_on_epoch_comes_after_each_pass_the_last_included() -> None:
    images, targets = blobs(150)
    task = one_batch_task(flat=True, train=(images.flatten(1), targets))  # three batches a pass
    seen: list[tuple[int, int]] = []
    run = FineTune(
        Recovery(copy.deepcopy(trained_mlp()), task, RecoveryPlan(steps=9)),
        seed=0,
        on_epoch=lambda epoch: seen.append((epoch, run.step)),
    )
    run.run(6)
    assert seen == [(1, 3), (2, 6)], "at the end of a piece too, before the model may be changed"
    run.run(9)
    run.finish()
    assert seen == [(1, 3), (2, 6), (3, 9)]
    seen.clear()
    run = FineTune(
        Recovery(copy.deepcopy(trained_mlp()), task, RecoveryPlan(steps=8)),
        seed=0,
        on_epoch=lambda epoch: seen.append((epoch, run.step)),
    )
    run.run(8)
    assert seen == [(1, 3), (2, 6)], "an unfinished pass is none"


def test_looking_at_passes_changes_nothing() -> None:
    """Neither with dropout nor with samples that are augmented by torch's generator."""
    found = []
    for on_epoch in (None, lambda epoch: None):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 16), nn.Dropout(), nn.ReLU(), nn.Linear(16, 4))
        task = one_batch_task(flat=True, train=DataLoader(Noisy(), batch_size=50, shuffle=True))
        run = FineTune(Recovery(model, task, RecoveryPlan(steps=7)), seed=0, on_epoch=on_epoch)
        run.run(2)
        run.run(7)
        run.finish()
        assert run.work == Work(trained=350)
        found.append(model)
    assert same(*found)


# ---- divergence


def test_all_that_was_done_before_a_divergence_is_counted_the_teachers_part_too() -> None:
    task = one_batch_task(flat=True)
    plan = RecoveryPlan(steps=30, learning_rate=1e12, distillation=DistillationPlan(weight=0.5))
    teacher = Teacher(task)
    run = FineTune(Recovery(copy.deepcopy(trained_mlp()), task, plan, teacher), seed=0)
    run.run(1)
    with pytest.raises(DivergedError, match="the loss must stay finite") as error:
        run.run(30)
    assert (teacher.samples, teacher.shared) == (0, 50)
    # The loss of the step that failed was computed, and its teacher asked; it was not trained.
    assert error.value.work == run.work == Work(trained=50 * run.step, forward=50, shared=50)
