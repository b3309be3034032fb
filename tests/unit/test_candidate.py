"""One trial as a whole: prune, recover, measure, and say exactly what it took."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import Tensor, nn

from autoprune.measure.cost import count_multiply_adds, count_parameters, serialized_bytes, stored_bytes
from autoprune.measure.memory import peak_memory
from autoprune.measure.quality import evaluate
from autoprune.plan.allocation import BlockPlan, GroupPlan, RankingPlan
from autoprune.plan.criteria import CRITERIA
from autoprune.plan.kept import KeptChannels
from autoprune.plan.maskable import maskable
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import DistillationPlan, RecalibrationPlan, RecoveryPlan, SchedulePlan
from autoprune.plan.weights import WeightPlan
from autoprune.records.work import Work
from autoprune.recovery.batch_norm import recalibrate
from autoprune.recovery.step import first_samples
from autoprune.surgery.cut import cut, rebuild
from autoprune.trial.candidate import Candidate, evaluate_plan, measure_test, resolve_plan
from autoprune.trial.context import Parent, TrialContext
from tests.settings import timed
from tests.slow import slow
from tests.tasks import SEEN, Counting, image_task, trained_resnet


@functools.cache
def context() -> TrialContext:
    return TrialContext.of(image_task())


def plan(
    ratio: float = 0.5, *, groups: tuple[str, ...] = (), criterion: str = "l2", seed: int = 0, **recovery: object
) -> PruningPlan:
    names = groups or tuple(context().topology.widths)
    return PruningPlan(
        groups={name: GroupPlan(ratio=ratio, criterion=criterion) for name in names},
        recovery=RecoveryPlan(**{"steps": 3, "recalibration": RecalibrationPlan(samples=100), **recovery}),  # type: ignore[arg-type]
        seed=seed,
    )


def as_parent(candidate: Candidate, number: int = 7) -> Parent:
    return Parent(number=number, model=candidate.model, kept=candidate.kept)


def same_weights(left: nn.Module, right: nn.Module) -> bool:
    other = right.state_dict()
    return all(torch.equal(value, other[key]) for key, value in left.state_dict().items())


def test_from_dense() -> None:
    found = evaluate_plan(context(), plan())
    task = context().task
    assert found.kept.widths == {name: width // 2 for name, width in context().topology.widths.items()}
    assert (found.parent, found.note) == (None, "")
    measured = found.measurement
    assert measured.split == "search"
    assert measured.parameters == count_parameters(found.model) == context().topology.cost(found.kept.widths).parameters
    assert measured.multiply_adds == count_multiply_adds(found.model, task.example_inputs)
    assert measured.multiply_adds == context().topology.cost(found.kept.widths).multiply_adds
    assert measured.size_bytes == serialized_bytes(found.model)
    assert measured.costs == {"peak_memory_bytes": peak_memory(found.model, task.example_inputs)}
    again = evaluate(task, found.model, task.search_split)
    assert (measured.quality, measured.quality_error, dict(measured.metrics)) == (
        again.value,
        again.error,
        again.metrics,
    )
    assert measured.latency is None
    assert set(found.seconds) >= {"score", "cut", "recalibrate", "train", "evaluate", "cost"}
    assert not found.model.training


def test_the_best_by_the_criterion_stay() -> None:
    found = evaluate_plan(context(), plan(groups=("blocks.0.conv1",), criterion="l1", steps=0))
    weight = context().task.dense.blocks[0].conv1.weight.detach()
    order = weight.abs().sum((1, 2, 3)).argsort(descending=True)
    assert found.kept.groups["blocks.0.conv1"] == tuple(sorted(order[:4].tolist()))


def test_without_steps_it_is_the_recalibrated_cut() -> None:
    found = evaluate_plan(context(), plan(steps=0))
    reference = cut(context().task.dense, context().topology, found.kept)
    recalibrate(reference, first_samples(context().task, 100))
    assert same_weights(found.model, reference)


def test_the_dense_model_is_not_touched() -> None:
    before = copy.deepcopy(context().task.dense.state_dict())
    for criterion in CRITERIA:
        evaluate_plan(context(), plan(criterion=criterion, steps=1))
    evaluate_plan(context(), plan(0.0, steps=1, distillation=DistillationPlan(weight=0.5)))
    after = context().task.dense.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not context().task.dense.training
    assert all(parameter.grad is None for parameter in context().task.dense.parameters())


@pytest.mark.parametrize("groups", [{}, {"stem.0": GroupPlan(ratio=0.0)}])
def test_a_plan_that_removes_nothing_gives_the_dense_outputs(groups: dict[str, GroupPlan]) -> None:
    found = evaluate_plan(context(), PruningPlan(groups=groups, recovery=RecoveryPlan(steps=0)))
    inputs = context().task.example_inputs
    assert found.kept == KeptChannels.whole(context().topology)
    assert torch.equal(found.model(inputs), context().task.dense(inputs))
    assert same_weights(found.model, context().task.dense)


def test_from_a_parent() -> None:
    wide = evaluate_plan(context(), plan(0.25, steps=5))
    before = copy.deepcopy(wide.model.state_dict())
    found = evaluate_plan(context(), plan(0.5, steps=0, recalibration=RecalibrationPlan()), as_parent(wide))
    assert found.parent == 7
    assert all(set(found.kept.groups[name]) <= set(kept) for name, kept in wide.kept.groups.items())
    # The parent's recovered weights are taken over, not the dense ones.
    reference = cut(wide.model, context().topology, found.kept, parent=wide.kept)
    assert same_weights(found.model, reference)
    assert not torch.equal(found.model.head.bias, context().task.dense.head.bias)
    assert all(torch.equal(before[key], value) for key, value in wide.model.state_dict().items())


def test_a_plan_as_wide_as_its_parent_only_trains_on() -> None:
    wide = evaluate_plan(context(), plan(0.5, steps=2))
    still = evaluate_plan(context(), plan(0.5, steps=0), as_parent(wide))
    assert still.kept == wide.kept
    assert same_weights(still.model, wide.model)
    assert not same_weights(evaluate_plan(context(), plan(0.5, steps=2), as_parent(wide)).model, wide.model)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_works_from_a_parent(criterion: str) -> None:
    wide = evaluate_plan(context(), plan(0.25, steps=0))
    found = evaluate_plan(context(), plan(0.6, criterion=criterion, steps=1), as_parent(wide))
    assert all(set(found.kept.groups[name]) < set(kept) for name, kept in wide.kept.groups.items())


def test_a_parent_that_is_too_narrow_is_our_own_mistake() -> None:
    narrow = evaluate_plan(context(), plan(0.75, steps=0))
    with pytest.raises(AssertionError, match="channels planned"):
        evaluate_plan(context(), plan(0.25), as_parent(narrow))


def test_the_candidate_is_rebuilt_from_its_weights() -> None:
    found = evaluate_plan(context(), plan())
    again = rebuild(context().task.dense, context().topology, found.kept, found.model.state_dict())
    inputs = context().task.example_inputs
    assert torch.equal(again(inputs), found.model(inputs))


def test_recalibration_with_no_samples_leaves_the_statistics_alone() -> None:
    found = evaluate_plan(context(), plan(steps=0, recalibration=RecalibrationPlan()))
    kept = list(found.kept.groups["stem.0"])
    assert torch.equal(found.model.stem[1].running_mean, context().task.dense.stem[1].running_mean[kept])


# The same again


@pytest.mark.parametrize(
    ("criterion", "distillation_weight"),
    [*((name, 0.0) for name in CRITERIA), ("l2", 0.5), *(slow(name, 0.5) for name in CRITERIA if name != "l2")],
)
def test_the_same_seed_gives_bit_identical_weights(criterion: str, distillation_weight: float) -> None:
    wanted = plan(criterion=criterion, distillation=DistillationPlan(weight=distillation_weight))
    first = evaluate_plan(context(), wanted)
    torch.manual_seed(99)
    second = evaluate_plan(context(), wanted)
    assert first.kept == second.kept
    assert same_weights(first.model, second.model)
    assert first.measurement == second.measurement


def test_another_seed_gives_other_weights() -> None:
    found = [evaluate_plan(context(), plan(seed=seed)) for seed in (0, 1)]
    assert found[0].kept == found[1].kept, "l2 does not draw"
    assert not same_weights(found[0].model, found[1].model)
    drawn = [evaluate_plan(context(), plan(seed=seed, criterion="random", steps=0)) for seed in (0, 1)]
    assert drawn[0].kept != drawn[1].kept


def test_the_same_seed_gives_bit_identical_weights_with_dropout() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 4))
    own = TrialContext.of(image_task(model=model, require_trained=False))
    wanted = PruningPlan(groups={"1": GroupPlan(ratio=0.5)}, recovery=RecoveryPlan(steps=3))
    first = evaluate_plan(own, wanted)
    torch.manual_seed(99)
    assert same_weights(first.model, evaluate_plan(own, wanted).model)


# Accounting


@pytest.mark.parametrize(
    ("criterion", "steps", "weight"),
    [("l2", 3, 0.0), ("taylor", 3, 0.0), ("mean_activation", 3, 0.0), ("l2", 3, 0.5), ("taylor", 0, 0.5)],
)
def test_every_sample_is_counted(criterion: str, steps: int, weight: float) -> None:
    own = TrialContext.of(image_task(model=Counting(trained_resnet()).eval()))
    groups = {name: GroupPlan(ratio=0.5, criterion=criterion) for name in own.topology.widths}
    recovery = RecoveryPlan(
        steps=steps, distillation=DistillationPlan(weight=weight), recalibration=RecalibrationPlan(samples=130)
    )
    assert not own.teacher.comparison.fault  # a check of the dense model, made once, and no work of a candidate
    SEEN.clear()
    found = evaluate_plan(own, PruningPlan(groups=groups, recovery=recovery))
    # Multiply-adds and peak memory are counted in three calls on the example inputs, which is no work on data.
    assert sum(SEEN) - 3 * len(own.task.example_inputs) == found.work.total
    calibration = 100
    assert found.work.trained == steps * 50 + (calibration if criterion == "taylor" else 0)
    forward = 130 + (own.task.search_split.samples or 0)
    forward += calibration if criterion == "mean_activation" else 0
    assert found.work.forward == forward
    assert found.work.shared == ((own.task.train_split.samples or 0) if weight and steps else 0)


def test_what_a_teacher_keeps_is_charged_to_no_candidate() -> None:
    """Else counted samples would depend on which candidate came first in this process, and differ after a resume."""
    own = TrialContext.of(image_task())
    recovery = RecoveryPlan(
        steps=2, distillation=DistillationPlan(weight=0.5), recalibration=RecalibrationPlan(samples=100)
    )
    wanted = PruningPlan(groups={"stem.0": GroupPlan(ratio=0.5)}, recovery=recovery)
    first, second = evaluate_plan(own, wanted), evaluate_plan(own, wanted)
    assert first.work == second.work
    assert first.work.shared == own.task.train_split.samples
    assert (first.work + second.work).shared == own.task.train_split.samples


def test_a_plan_that_removes_nothing_costs_one_evaluation() -> None:
    found = evaluate_plan(context(), PruningPlan(groups={}, recovery=RecoveryPlan(steps=0)))
    assert (found.work.forward, found.work.trained) == (context().task.search_split.samples, 0)


# Divergence


def diverging(own: TrialContext, steps: int = 30) -> Candidate:
    recovery = RecoveryPlan(steps=steps, learning_rate=1e12, recalibration=RecalibrationPlan(samples=100))
    return evaluate_plan(own, PruningPlan(groups={"stem.0": GroupPlan(ratio=0.5)}, recovery=recovery))


def test_a_fine_tune_that_diverges_gives_the_weights_from_before_it() -> None:
    found = diverging(context())
    reference = evaluate_plan(context(), plan(groups=("stem.0",), steps=0))
    assert found.note.startswith("fine-tune diverged, the result without training is kept: the loss must stay finite")
    assert found.kept == reference.kept
    assert same_weights(found.model, reference.model)
    assert found.measurement == reference.measurement
    assert not found.model.training


def test_the_work_of_a_fine_tune_that_diverged_is_counted() -> None:
    own = TrialContext.of(image_task(model=Counting(trained_resnet()).eval()))
    name = next(iter(own.topology.widths))
    recovery = RecoveryPlan(steps=30, learning_rate=1e12, recalibration=RecalibrationPlan(samples=100))
    SEEN.clear()
    found = evaluate_plan(own, PruningPlan(groups={name: GroupPlan(ratio=0.5)}, recovery=recovery))
    assert found.note
    assert sum(SEEN) - 3 * len(own.task.example_inputs) == found.work.forward + found.work.trained
    assert found.work.trained >= 50


# Measuring


def test_measure_test_looks_at_the_test_split() -> None:
    found = evaluate_plan(context(), plan(steps=0))
    tested = measure_test(context(), found.model, found.measurement)
    assert tested is not None
    assert context().task.test_split is not None
    assert tested.split == "test"
    assert tested.quality == evaluate(context().task, found.model, context().task.test_split).value
    assert (tested.parameters, tested.size_bytes) == (found.measurement.parameters, found.measurement.size_bytes)
    without = TrialContext.of(image_task(test=None))
    assert measure_test(without, found.model, found.measurement) is None


def test_latency_is_measured_when_the_bench_asks_for_it() -> None:
    own = TrialContext.of(image_task(), **timed(2))
    found = evaluate_plan(own, plan(steps=0)).measurement.latency
    assert found is not None
    assert (found.bursts, found.backend) == (2, "eager")


# Channels, blocks and weights


def everything(steps: int = 3, **changes: object) -> PruningPlan:
    """Said by a ranking, by number and by share, on a schedule."""
    given: dict[str, object] = {
        "ranking": RankingPlan(budget=0.4, criterion="taylor"),
        "blocks": BlockPlan(count=1),
        "weights": WeightPlan(sparsity=0.7),
        "recovery": RecoveryPlan(
            steps=steps, recalibration=RecalibrationPlan(samples=100), schedule=SchedulePlan(name="cubic", updates=2)
        ),
    }
    return PruningPlan(**{**given, **changes})  # type: ignore[arg-type]


def test_depth_width_and_weights_in_one_plan() -> None:
    found = evaluate_plan(context(), everything())
    topology = context().topology
    assert found.plan == everything(), "as it was given"
    assert found.note == ""
    assert found.kept.dropped == ("blocks.0",)
    cost = topology.cost(found.kept.widths, found.kept.dropped)
    measured = found.measurement
    assert (measured.parameters, measured.multiply_adds) == (cost.parameters, cost.multiply_adds)
    # The budget is met with the block gone, by no more than the last channel of the ranking.
    assert 0.3 < cost.multiply_adds / topology.cost({}).multiply_adds <= 0.4
    there = dict(found.model.named_parameters())
    masked = {name: there[name] for name in maskable(topology) if name in there}
    zeros = {name: int((weight == 0).sum()) for name, weight in masked.items()}
    assert zeros == {name: round(0.7 * weight.numel()) for name, weight in masked.items()}
    assert measured.nonzero_parameters == measured.parameters - sum(zeros.values())
    assert measured.size_bytes == stored_bytes(found.model) < serialized_bytes(found.model)
    assert measured.mask_latency is None, "no latency was asked for"


def test_what_follows_from_scores_is_said_by_the_resolved_plan() -> None:
    resolved, spent = resolve_plan(context(), everything())
    assert resolved.asked == everything()
    assert not resolved.plan.needs_scores
    assert spent.forward + spent.trained > 0
    again, nothing = resolve_plan(context(), resolved.plan)
    assert (again.plan, again.widths, nothing) == (resolved.plan, resolved.widths, Work())
    said, plain = evaluate_plan(context(), everything()), evaluate_plan(context(), resolved.plan)
    assert said.kept == plain.kept
    assert same_weights(said.model, plain.model)
    assert said.work == plain.work + spent


def test_a_schedule_starts_from_a_parent_with_masks_and_without_a_block() -> None:
    first = evaluate_plan(context(), everything())
    tighter = everything(ranking=RankingPlan(budget=0.25, criterion="l2"), weights=WeightPlan(sparsity=0.8), steps=6)
    before = copy.deepcopy(first.model.state_dict())
    found = evaluate_plan(context(), tighter, as_parent(first))
    assert found.parent == 7
    assert found.kept.dropped == ("blocks.0",)
    assert all(set(found.kept.groups[name]) <= set(kept) for name, kept in first.kept.groups.items())
    assert found.measurement.nonzero_parameters < first.measurement.nonzero_parameters
    assert all(torch.equal(before[name], value) for name, value in first.model.state_dict().items())


def test_the_clock_is_asked_what_masks_alone_do() -> None:
    own = TrialContext.of(image_task(), **timed(2))
    with_masks = evaluate_plan(own, everything(steps=0)).measurement
    assert with_masks.mask_latency is not None
    assert with_masks.mask_latency.bursts == 2
    assert evaluate_plan(own, everything(steps=0, weights=None)).measurement.mask_latency is None


def test_a_fine_tune_that_diverges_gives_all_of_the_plan_untrained() -> None:
    given = {"steps": 0, "recalibration": RecalibrationPlan(samples=100)}
    untrained = evaluate_plan(context(), everything(recovery=RecoveryPlan(**given)))  # type: ignore[arg-type]
    wild = RecoveryPlan(
        steps=30,
        learning_rate=1e12,
        recalibration=RecalibrationPlan(samples=100),
        distillation=DistillationPlan(weight=0.5),
        schedule=SchedulePlan(name="cubic", updates=4),
    )
    found = evaluate_plan(context(), everything(recovery=wild))
    assert found.note
    assert found.kept == untrained.kept
    assert same_weights(found.model, untrained.model)
    assert found.measurement == untrained.measurement


def test_kinds_say_what_a_bench_offers() -> None:
    for kinds, channels, blocks, weights in (
        (("channels",), True, False, False),
        (("blocks",), False, True, False),
        (("weights",), False, False, True),
        (("channels", "blocks", "weights"), True, True, True),
    ):
        own = TrialContext.of(image_task(), kinds=kinds)
        assert (bool(own.topology.groups), bool(own.topology.blocks), own.masks_weights) == (channels, blocks, weights)
        assert own.structure == context().structure, "the proof is the same"


def test_first_samples() -> None:
    task = context().task
    assert first_samples(task, 0) == []
    assert [batch.size for batch in first_samples(task, 130)] == [50, 50, 30]
    assert first_samples(task, 100) == list(task.calibration)


def test_a_bench_holds_proved_groups_alone() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = nn.Linear(64, 16), nn.Linear(16, 4), nn.Linear(64, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)
            return self.b(torch.relu(self.a(x)).view(-1, 4, 4).view(-1, 16)) + self.d(torch.relu(self.c(x)))

    own = TrialContext.of(image_task(model=Broken(), require_trained=False))
    assert own.topology.widths == {"c": 8}
