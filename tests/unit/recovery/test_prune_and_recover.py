"""Pruning in the middle of a fine-tune: when how many channels go, what comes along, what stays as it was."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Mapping
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, ReduceLROnPlateau

from autoprune.errors import ConfigurationError
from autoprune.plan.criteria import CRITERIA
from autoprune.plan.kept import KeptChannels
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import (
    SCHEDULES,
    DistillationPlan,
    MaxNormPlan,
    RecalibrationPlan,
    ReconstructionPlan,
    RecoveryPlan,
    SchedulePlan,
)
from autoprune.plan.weights import WeightPlan
from autoprune.recovery import batch_norm, reconstruction
from autoprune.recovery.fine_tune import FineTune
from autoprune.recovery.learning_rate import scheduler, simulate
from autoprune.recovery.schedules import amount_now, decay_progress, timetable
from autoprune.recovery.step import first_samples
from autoprune.recovery.steps import Recovery
from autoprune.surgery.cut import cut, sliced
from autoprune.trial.candidate import Candidate, evaluate_plan
from autoprune.trial.context import Parent, TrialContext
from tests.slow import diagonal, quick
from tests.tasks import SEEN, Counting, trained_resnet
from tests.unit.recovery.watching import (
    Seen,
    as_parent,
    callbacks,
    convolutional,
    flat,
    one_batch_task,
    plan,
    same,
)

GRADUAL = ("iterative", "cubic", "exponential")
#: One schedule of each kind: at once, by the step, by the rate; the others differ in their shape alone.
OF_A_KIND = quick(SCHEDULES, ("one_shot", "cubic", "learning_rate"))
THREE = {name: SchedulePlan(name=name, updates=3) for name in SCHEDULES}


def widths_at(seen: list[Seen], name: str) -> list[int]:
    """Width of a group after each pass."""
    return [stage.widths[name] for stage in seen]


def never_rises(values: list[int]) -> bool:
    return all(later <= sooner for sooner, later in itertools.pairwise(values))


# ---- when how many go


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        # Three updates within three quarters of twelve steps: before steps 0, 3 and 6. From 32 units to 8.
        ("iterative", [24, 16, 8]),
        ("cubic", [15, 9, 8]),  # 32 - 24 * 19/27 = 15.1, 32 - 24 * 26/27 = 8.9
        ("exponential", [20, 13, 8]),  # a quarter is left: its third root each time, 20.2 and 12.7
    ],
)
def test_widths_by_hand(name: str, steps: list[int]) -> None:
    found, seen = callbacks(flat(), plan(schedule=THREE[name]))
    assert [stage.step for stage in seen] == [stage.epoch for stage in seen] == list(range(1, 13))
    assert widths_at(seen, "0") == [steps[0]] * 3 + [steps[1]] * 3 + [steps[2]] * 6
    assert found.kept.widths == {"0": 8, "2": 4}


@functools.cache
def at_once() -> Candidate:
    return evaluate_plan(convolutional(), plan(0.6, context=convolutional()))


@pytest.mark.parametrize("name", SCHEDULES)
def test_as_many_stay_in_the_end_as_of_one_shot(name: str) -> None:
    once = at_once()
    found, seen = callbacks(convolutional(), plan(0.6, context=convolutional(), schedule=THREE[name]))
    assert found.kept.widths == once.kept.widths
    assert found.measurement.parameters == once.measurement.parameters
    assert found.measurement.multiply_adds == once.measurement.multiply_adds
    assert all(never_rises(widths_at(seen, group)) for group in once.kept.widths)
    assert found.note == ""


@pytest.mark.parametrize(("name", "given"), diagonal(SCHEDULES, [(1, 0.75), (5, 1.0), (40, 0.5)]))
def test_every_update_is_that_of_the_timetable(name: str, given: tuple[int, float]) -> None:
    updates, end = given
    own = SchedulePlan(name=name, updates=updates, end=end)
    _, seen = callbacks(flat(), plan(schedule=own, scheduler="linear"))
    rates = simulate(scheduler("linear"), 0.05, 12)
    due = {update.step: update.progress for update in timetable(own, 12, rates)}
    progress = 0.0
    for step in range(12):
        progress = due.get(step, progress)
        wanted = {group: amount_now(width, width // 4, progress, name) for group, width in (("0", 32), ("2", 16))}
        assert seen[step].widths == wanted, step


def test_blocks_go_at_the_first_update() -> None:
    wanted = plan(0.5, context=convolutional(), dropped=("blocks.0",), schedule=THREE["learning_rate"])
    whole = len(list(trained_resnet().parameters()))
    found, seen = callbacks(convolutional(), wanted)
    assert found.kept.dropped == ("blocks.0",)
    gone = [len(stage.weights) < whole for stage in seen]
    assert gone == sorted(gone)
    first = timetable(wanted.recovery.schedule, 12, simulate(scheduler("one_cycle"), 0.05, 12))[0].step
    assert first > 0
    assert gone.index(True) == first


# ---- by the learning rate


def restarts(optimizer: Optimizer, steps: int) -> LRScheduler:
    """A user's own: half the rate at a third, a tenth at two thirds."""
    return MultiStepLR(optimizer, [steps // 3, 2 * steps // 3], gamma=0.1)


def stubborn(optimizer: Optimizer, steps: int) -> LRScheduler:
    """A user's own that follows the loss, and is never content within so few steps."""
    return ReduceLROnPlateau(optimizer, patience=steps)


OWN = {"restarts": restarts, "stubborn": stubborn}


def own_bench() -> TrialContext:
    found = flat()
    return TrialContext(
        task=one_batch_task(flat=True, schedulers=OWN),
        topology=found.topology,
        structure=found.structure,
        teacher=found.teacher,
    )


@pytest.mark.parametrize("name", ["one_cycle", "cosine", "linear", "step", "exponential", "warm_restarts", "restarts"])
def test_channels_go_exactly_as_the_rate_declines(name: str) -> None:
    own = SchedulePlan(name="learning_rate", updates=11)
    _, seen = callbacks(own_bench(), plan(schedule=own, scheduler=name))
    rates = simulate(scheduler(name, OWN), 0.05, 12)
    assert rates is not None
    assert [stage.rate for stage in seen[:-1]] == pytest.approx(rates[1:]), "the rate of the coming step"
    # With eleven updates there is one before every step but the first; the last of them takes all that is left.
    shares = [*decay_progress(rates)[:-1], 1.0]
    assert widths_at(seen, "0") == [round(32 * (1 - 0.75 * share)) for share in shares]
    assert len(set(shares)) > 2


@pytest.mark.parametrize(("name", "never"), [("plateau", False), ("stubborn", True)])
def test_a_rate_that_follows_the_loss(name: str, never: bool) -> None:
    """Its fall is not known before. One that never falls gives all at the last update, so that the end is exact."""
    own = SchedulePlan(name="learning_rate", updates=23)
    # At a rate this high the loss finds no new low for long.
    wanted = plan(schedule=own, scheduler=name, steps=24, learning_rate=10.0)
    found, seen = callbacks(own_bench(), wanted)
    assert found.note == ""
    rates = [10.0, *(stage.rate for stage in seen)][:24]
    highest = list(itertools.accumulate(rates, max))
    lowest = 0.1 if name == "plateau" else 0.0
    progress = [(top - rate) / (top - lowest) for top, rate in zip(highest, rates, strict=True)]
    progress = [*list(itertools.accumulate(progress, max))[:-1], 1.0]
    assert (len(set(progress)) == 2) == never
    assert widths_at(seen, "0") == [round(32 * (1 - 0.75 * share)) for share in progress]
    assert found.kept.widths == {"0": 8, "2": 4}


def test_a_rate_that_follows_the_loss_and_more_updates_than_steps() -> None:
    own = SchedulePlan(name="learning_rate", updates=40)
    found, seen = callbacks(own_bench(), plan(schedule=own, scheduler="plateau", steps=3, criterion="taylor"))
    assert widths_at(seen, "0") == [32, 32, 8]
    assert found.kept.widths == {"0": 8, "2": 4}
    # Before the first step no rate has fallen: nothing is scored or recalibrated then.
    assert (found.work.forward, found.work.trained) == (100 + 50, 3 * 50 + 50)


def test_a_rate_that_is_known_never_to_fall_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="under the schedule 'learning_rate' must fall"):
        evaluate_plan(flat(), plan(schedule=THREE["learning_rate"], scheduler="constant"))


# ---- what comes along


def test_the_channels_that_stay_keep_their_momentum() -> None:
    """The same by hand: train, cut, hand over the momenta, train on."""
    own = SchedulePlan(name="iterative", updates=2, end=1.0)
    found, _ = callbacks(flat(), plan(0.5, schedule=own, recalibration=RecalibrationPlan()))
    topology, task = flat().topology, flat().task
    recovery = RecoveryPlan(steps=12)
    first = KeptChannels(groups={"0": strongest(task.dense, 24), "2": strongest(task.dense, 12, "2")})
    run = FineTune(Recovery(cut(task.dense, topology, first), task, recovery), seed=0)
    run.run(6)
    second = KeptChannels(
        groups={
            "0": tuple(first.groups["0"][row] for row in strongest(run.model, 16)),
            "2": tuple(first.groups["2"][row] for row in strongest(run.model, 8, "2")),
        }
    )
    smaller = cut(run.model, topology, second, parent=first)
    run.replace(smaller, partial(sliced, topology=topology, kept=second, parent=first))
    run.run(12)
    assert found.kept == second
    assert same(found.model, run.model)


def strongest(model: nn.Module, count: int, name: str = "0") -> tuple[int, ...]:
    """The rows of a linear layer with the largest l2 norm, sorted."""
    sizes = model.get_submodule(name).weight.detach().norm(dim=1)
    return tuple(sorted(sizes.topk(count).indices.tolist()))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_scores_in_the_middle_of_a_fine_tune(criterion: str) -> None:
    wanted = plan(0.5, context=convolutional(), criterion=criterion, schedule=THREE["cubic"], steps=4)
    found = evaluate_plan(convolutional(), wanted)
    assert found.note == ""
    assert found.kept.widths == {name: width // 2 for name, width in convolutional().topology.widths.items()}


def test_movement_is_that_of_the_fine_tune() -> None:
    """Units whose weights the training carries away from zero stay, whatever a brief training of a copy would say."""
    own = SchedulePlan(name="learning_rate", updates=1)  # one cut, before step six of twelve
    found = evaluate_plan(flat(), plan(0.5, criterion="movement", schedule=own, recalibration=RecalibrationPlan()))
    task = flat().task
    run = FineTune(Recovery(copy.deepcopy(task.dense), task, RecoveryPlan(steps=12)), seed=0)
    moved, before = torch.zeros(32, 64), run.model[0].weight.detach().clone()
    for step in range(1, 7):
        rate = run.rate
        run.run(step)
        moved -= rate * run.gradients["0.weight"] * before
        before = run.model[0].weight.detach().clone()
    assert found.kept.groups["0"] == tuple(sorted(moved.sum(1).topk(16).indices.tolist()))


def test_movement_of_the_fine_tune_costs_nothing_more() -> None:
    own = SchedulePlan(name="learning_rate", updates=2)
    wanted = plan(0.5, criterion="movement", schedule=own, recalibration=RecalibrationPlan())
    assert evaluate_plan(flat(), wanted).work.trained == 12 * 50
    once = plan(0.5, criterion="movement", recalibration=RecalibrationPlan())
    assert evaluate_plan(flat(), once).work.trained == 12 * 50 + 2 * 50, "two passes of a copy"


# ---- what makes up for a cut


def test_norms_and_the_layers_behind_are_made_up_for_at_every_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []
    for module, name in ((batch_norm, "recalibrate"), (reconstruction, "reconstruct")):
        original = getattr(module, name)

        def noted(model: nn.Module, *others: object, name: str = name, original: object = original) -> int:
            calls.append((name, model[0].out_features))
            return original(model, *others)  # type: ignore[operator,no-any-return]

        monkeypatch.setattr(module, name, noted)
    evaluate_plan(flat(), plan(schedule=THREE["iterative"], reconstruction=ReconstructionPlan(samples=50)))
    assert calls == [(name, width) for width in (24, 16, 8) for name in ("reconstruct", "recalibrate")]
    calls.clear()
    evaluate_plan(flat(), plan(schedule=THREE["iterative"], recalibration=RecalibrationPlan()))
    assert [call for call in calls if call[0] == "reconstruct"] == []


def test_a_reconstruction_on_the_way_changes_the_weights_behind_the_cut() -> None:
    own = SchedulePlan(name="learning_rate", updates=1)
    stages = [
        callbacks(flat(), plan(0.5, schedule=own, reconstruction=ReconstructionPlan(samples=samples)))[1]
        for samples in (0, 50)
    ]
    for name in ("0.weight", "2.weight"):
        assert torch.equal(stages[0][5].weights[name], stages[1][5].weights[name]), "before the cut"
    assert not torch.equal(stages[0][6].weights["2.weight"], stages[1][6].weights["2.weight"])


def test_norms_that_a_limit_scales_are_recalibrated_where_nothing_is_trained() -> None:
    context = convolutional()
    found = evaluate_plan(context, plan(0.0, context=context, steps=0, max_norm=MaxNormPlan(limit=0.3)))
    again = copy.deepcopy(found.model)
    batch_norm.recalibrate(again, first_samples(context.task, 50))
    for name, value in again.state_dict().items():  # the statistics are those of the weights as they are now
        torch.testing.assert_close(found.model.state_dict()[name], value, msg=name)
    weights = [parameter for parameter in found.model.parameters() if parameter.ndim > 1]
    assert max(float(weight.detach().flatten(1).norm(dim=1).max()) for weight in weights) <= 0.3 + 1e-6


# ---- where it starts and ends


@pytest.mark.parametrize("name", OF_A_KIND)
def test_without_steps_every_schedule_is_one_shot(name: str) -> None:
    once = evaluate_plan(convolutional(), plan(0.5, context=convolutional(), steps=0))
    masked = WeightPlan(sparsity=0.5)
    for weights in (None, masked):
        wanted = plan(0.5, context=convolutional(), steps=0, schedule=THREE[name], weights=weights)
        found = evaluate_plan(convolutional(), wanted)
        assert found.kept == once.kept
        assert same(found.model, once.model) == (weights is None)
        assert found.work.trained == 0


@pytest.mark.parametrize("name", SCHEDULES)
def test_from_a_parent_the_way_begins_at_its_widths(name: str) -> None:
    wide = evaluate_plan(flat(), plan(0.25, steps=2))
    _, seen = callbacks(flat(), plan(0.75, schedule=THREE[name]), as_parent(wide))
    widths = widths_at(seen, "0")
    assert never_rises([24, *widths])
    assert widths[-1] == 8
    if name in GRADUAL:
        assert widths[0] == amount_now(24, 8, 1 / 3, name)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_plan_like_its_parents_only_trains_on(name: str) -> None:
    narrow = evaluate_plan(flat(), plan(0.5, steps=2))
    found, seen = callbacks(flat(), plan(0.5, schedule=THREE[name]), as_parent(narrow))
    assert found.kept == narrow.kept
    assert {stage.widths["0"] for stage in seen} == {16}
    assert not same(found.model, narrow.model)
    still = evaluate_plan(flat(), plan(0.5, schedule=THREE[name], steps=0), as_parent(narrow))
    assert same(still.model, narrow.model)


@functools.cache
def untrained_half(reconstruction: int) -> Candidate:
    """Half of every group and of the weights is gone, without training."""
    given = {
        "context": convolutional(),
        "reconstruction": ReconstructionPlan(samples=reconstruction),
        "weights": WeightPlan(sparsity=0.5),
    }
    return evaluate_plan(convolutional(), plan(0.5, steps=0, **given))


@pytest.mark.parametrize("name", OF_A_KIND)
@pytest.mark.parametrize("reconstruction", [0, 50])
def test_a_fine_tune_that_diverges_on_its_way_gives_the_whole_plan_untrained(name: str, reconstruction: int) -> None:
    """Its weights may be anything when the next cut is due."""
    given = {
        "context": convolutional(),
        "reconstruction": ReconstructionPlan(samples=reconstruction),
        "weights": WeightPlan(sparsity=0.5),
    }
    untrained = untrained_half(reconstruction)
    for rate in (1e6, 1e12, 1e30):
        wanted = plan(0.5, learning_rate=rate, schedule=SchedulePlan(name=name, updates=6), **given)
        found = evaluate_plan(convolutional(), wanted)
        if found.note or rate > 1e6:
            assert found.note.startswith("fine-tune diverged, the result without training is kept")
            assert found.kept == untrained.kept
            assert same(found.model, untrained.model)
            assert found.work.forward >= untrained.work.forward


@pytest.mark.parametrize(
    ("kind", "rate"), diagonal([("cubic", 0.0), ("learning_rate", 0.0), ("cubic", 0.5)], [0.05, 1e12])
)
def test_every_sample_is_counted(kind: tuple[str, float], rate: float) -> None:
    """Of scores, recalibration, reconstruction and training at each update; of the teacher; of what diverged."""
    name, weight = kind
    task = one_batch_task(flat=False, model=Counting(trained_resnet()).eval())
    context = TrialContext.of(task)
    wanted = plan(
        0.5,
        context=context,
        criterion="taylor",
        weights=WeightPlan(sparsity=0.5, criterion="wanda"),
        schedule=SchedulePlan(name=name, updates=5, regrowth=0.3),
        distillation=DistillationPlan(weight=weight),
        reconstruction=ReconstructionPlan(samples=30),
        learning_rate=rate,
    )
    assert not context.teacher.comparison.fault  # a check of the dense model, made once, and no work of a candidate
    SEEN.clear()
    found = evaluate_plan(context, wanted)
    assert bool(found.note) == (rate > 1)
    counted = 3 * len(task.example_inputs)  # one call for the multiply-adds, two for the peak memory
    assert sum(SEEN) - counted == found.work.total
    assert found.work.trained > (0 if found.note else 12 * 50)


# ---- what stays as it was


@functools.cache
def wide() -> Parent:
    """A quarter of every group is gone."""
    return as_parent(evaluate_plan(convolutional(), plan(0.25, context=convolutional(), steps=1)))


@pytest.mark.parametrize("name", OF_A_KIND)
def test_neither_the_users_model_nor_the_parents_is_edited(name: str) -> None:
    models = (convolutional().task.dense, wide().model)
    before = [copy.deepcopy(model.state_dict()) for model in models]
    for parent, ratio in ((None, 0.5), (wide(), 0.25), (wide(), 0.5)):
        wanted = plan(
            ratio,
            context=convolutional(),
            weights=WeightPlan(sparsity=0.5, criterion="movement"),
            schedule=THREE[name],
            reconstruction=ReconstructionPlan(samples=50),
            max_norm=MaxNormPlan(limit=0.3),
            steps=4,
            scheduler="linear",
        )
        evaluate_plan(convolutional(), wanted, parent)
    for model, state in zip(models, before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())
        assert not any(module.training for module in model.modules())


def test_the_order_of_the_data_is_that_of_a_fine_tune_that_prunes_nothing() -> None:
    drawn: list[Mapping[int, int]] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.requires_grad:
            drawn.append(tuple(targets.tolist()))
        return nn.functional.cross_entropy(outputs, targets)

    context = TrialContext.of(one_batch_task(flat=True, loss=loss))
    orders = []
    for ratio, name in ((0.0, "one_shot"), (0.75, "one_shot"), (0.75, "cubic"), (0.75, "learning_rate")):
        drawn.clear()
        evaluate_plan(context, plan(ratio, schedule=THREE[name], weights=WeightPlan(sparsity=0.5)))
        orders.append(list(drawn))
    assert len(orders[0]) == 12
    assert len(set(orders[0])) == 12, "each pass has an order of its own"
    assert all(order == orders[0] for order in orders)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_seed_alone_decides(name: str) -> None:
    def wanted(seed: int) -> PruningPlan:
        masks = WeightPlan(sparsity=0.5, criterion="random")
        own = SchedulePlan(name=name, updates=3, regrowth=0.3)
        return plan(0.5, criterion="random", weights=masks, schedule=own, seed=seed)

    first = evaluate_plan(flat(), wanted(0))
    torch.manual_seed(99)
    again = evaluate_plan(flat(), wanted(0))
    assert first.kept == again.kept
    assert same(first.model, again.model)
    assert first.measurement == again.measurement
    assert evaluate_plan(flat(), wanted(1)).kept != first.kept
