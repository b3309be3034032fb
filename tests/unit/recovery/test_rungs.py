"""A fine-tune that pauses to be looked at is the fine-tune that never paused, but where it is told to end."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from autoprune.measure.quality import evaluate
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import DistillationPlan, SchedulePlan
from autoprune.plan.weights import WeightPlan
from autoprune.records.objectives import COSTS
from autoprune.trial.candidate import Candidate, RungPolicy, RungState, evaluate_plan
from autoprune.trial.context import TrialContext
from tests.settings import timed
from tests.unit.recovery.watching import convolutional, flat, one_batch_task, plan

SHARES = (0.0, 0.25, 0.5)


def rungs(context: TrialContext, seen: list[RungState] | None = None, *, until: float = math.inf) -> RungPolicy:
    """Rungs on the whole search split that note what they are told, and stop from `until` on."""
    found = seen if seen is not None else []

    def stop(state: RungState) -> bool:
        found.append(state)
        return state.share >= until

    return RungPolicy(shares=SHARES, split=context.task.search_split, stop=stop)


def weights(candidate: Candidate) -> dict[str, Tensor]:
    return dict(candidate.model.state_dict())


def differing(one: Candidate, other: Candidate) -> list[str]:
    assert weights(one).keys() == weights(other).keys()
    return [name for name, tensor in weights(one).items() if not torch.equal(tensor, weights(other)[name])]


class Dropping(nn.Module):
    """Draws random numbers while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.second(nn.functional.dropout(self.first(x).relu(), 0.5, self.training))
        return answer


def dropping() -> TrialContext:
    torch.manual_seed(0)
    task = one_batch_task(flat=True, model=Dropping().eval(), require_trained=False)
    return TrialContext.of(task)


CASES: dict[str, tuple[str, dict[str, object]]] = {
    "plain": ("convolutional", {}),
    "adamw": ("convolutional", {"optimizer": "adamw"}),
    "distillation": ("convolutional", {"distillation": DistillationPlan(weight=0.5)}),
    "plateau": ("flat", {"scheduler": "plateau"}),
    "gradual": ("flat", {"schedule": SchedulePlan(name="cubic", updates=2, end=0.2)}),
    "masks": ("flat", {"weights": WeightPlan(sparsity=0.5)}),
    "random numbers": ("dropping", {}),
}
BENCHES = {"convolutional": convolutional, "flat": flat, "dropping": dropping}


def case(name: str) -> tuple[TrialContext, PruningPlan]:
    which, changes = CASES[name]
    context = BENCHES[which]()
    return context, plan(0.5, context=context, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CASES)
def test_rungs_that_never_stop_change_no_bit(name: str) -> None:
    context, wanted = case(name)
    seen: list[RungState] = []
    without, looked = evaluate_plan(context, wanted), evaluate_plan(context, wanted, rungs=rungs(context, seen))
    assert len(seen) >= 2
    assert differing(without, looked) == []
    assert looked.measurement == without.measurement
    assert looked.fidelity == without.fidelity == 1.0
    assert without.rungs == ()
    assert looked.rungs == tuple((state.share, state.quality) for state in seen)


@pytest.mark.parametrize("name", CASES)
def test_stopped_at_half_it_is_as_it_was_there(name: str) -> None:
    """Half of twelve steps: the quality told at the rung is that of the model that comes back."""
    context, wanted = case(name)
    stopped = evaluate_plan(context, wanted, rungs=rungs(context, until=0.5))
    assert stopped.fidelity == 0.5
    assert stopped.work.trained == evaluate_plan(context, wanted).work.trained // 2
    assert stopped.rungs[-1] == (0.5, stopped.measurement.quality)
    assert stopped.measurement.quality == evaluate(context.task, stopped.model, context.task.search_split).value
    assert not any(module.training for module in stopped.model.modules())
    assert all(parameter.grad is None for parameter in stopped.model.parameters())


def test_stopped_before_the_first_step_it_is_recalibrated_and_untrained() -> None:
    context = convolutional()
    stopped = evaluate_plan(context, plan(0.5, context=context), rungs=rungs(context, until=0.0))
    untrained = evaluate_plan(context, plan(0.5, context=context, steps=0))
    assert stopped.work.trained == 0
    assert stopped.fidelity == 0.0
    assert differing(stopped, untrained) == []


def test_the_costs_are_known_at_the_first_rung() -> None:
    context = dataclasses.replace(convolutional(), **timed(3))
    seen: list[RungState] = []
    candidate = evaluate_plan(context, plan(0.5, context=context), rungs=rungs(context, seen))
    for state in seen:
        for cost in ("parameters", "nonzero_parameters", "multiply_adds", "size_bytes"):
            assert COSTS[cost].value(state.costs) == COSTS[cost].value(candidate.measurement), cost
        assert state.costs.latency == candidate.measurement.latency, "measured once"
        assert math.isnan(state.costs.quality)
        assert state.kept.widths == candidate.kept.widths


@pytest.mark.parametrize(
    "masks",
    [
        WeightPlan(sparsity=0.9),
        WeightPlan(sparsity=0.9, spread="global"),
        WeightPlan(sparsity=0.6, spread="erk", layers={"0.weight": 0.95}),
        WeightPlan(pattern="2:4"),
        WeightPlan(pattern="block-4x4", sparsity=0.5),
    ],
    ids=lambda masks: f"{masks.pattern} {masks.spread}",
)
def test_with_masks_no_cost_is_told_above_what_it_will_be(masks: WeightPlan) -> None:
    context = flat()
    seen: list[RungState] = []
    candidate = evaluate_plan(context, plan(0.25, weights=masks), rungs=rungs(context, seen))
    told, found = seen[0].costs, candidate.measurement
    assert told.multiply_adds == found.multiply_adds
    assert 0 < told.size_bytes <= found.size_bytes
    assert 0 < told.nonzero_parameters <= found.nonzero_parameters < found.parameters
    # Near enough to stop something.
    assert told.nonzero_parameters > 0.6 * found.nonzero_parameters


@pytest.mark.parametrize(
    ("updates", "expected"),
    [
        # Of twelve steps: updates before steps 0 and 4.5 of 9, so the rungs at 0 and 3 come too early.
        (SchedulePlan(name="iterative", updates=2), [0.5]),
        # Before 0, 2, 4, 6 (and 8): the last one at a rung's own step is done before it.
        (SchedulePlan(name="iterative", updates=3, end=0.75), [0.5]),
        (SchedulePlan(name="iterative", updates=4, end=0.99), []),
        (SchedulePlan(), [0.0, 0.25, 0.5]),
    ],
    ids=["two", "three", "late", "one-shot"],
)
def test_no_rung_before_all_is_pruned(updates: SchedulePlan, expected: list[float]) -> None:
    context = flat()
    seen: list[RungState] = []
    candidate = evaluate_plan(context, plan(0.5, schedule=updates), rungs=rungs(context, seen))
    assert [state.share for state in seen] == expected
    assert candidate.kept.widths == {"0": 16, "2": 8}


def test_shares_that_fall_on_one_step_are_one_rung() -> None:
    found = RungPolicy(shares=(0.0, 0.1, 0.5, 0.9), split=flat().task.search_split, stop=lambda _: False)
    assert found.steps(3) == {0: 0.0, 2: 0.5}
    assert found.steps(100) == {0: 0.0, 10: 0.1, 50: 0.5, 90: 0.9}
    assert found.steps(1) == {0: 0.0}


def test_nothing_is_looked_at_where_nothing_is_trained() -> None:
    context = flat()
    seen: list[RungState] = []
    candidate = evaluate_plan(context, plan(0.5, steps=0), rungs=rungs(context, seen, until=0.0))
    assert (seen, candidate.rungs, candidate.fidelity) == ([], (), 1.0)


def test_a_fine_tune_that_diverges_leaves_no_rungs() -> None:
    """They would be those of another model than the one that is kept."""
    context = flat()
    seen: list[RungState] = []
    candidate = evaluate_plan(context, plan(0.5, learning_rate=1e30), rungs=rungs(context, seen))
    assert candidate.note
    assert seen
    assert (candidate.rungs, candidate.fidelity) == ((), 1.0)
    plain = evaluate_plan(context, plan(0.5, learning_rate=1e30))
    assert candidate.work.forward == plain.work.forward + len(seen) * 100
