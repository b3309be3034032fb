"""Proposals that would break a limit are made smaller before they are trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import autoprune
from autoprune.errors import UnknownNameError
from autoprune.front.front import Front
from autoprune.front.limit_check import LimitCheck
from autoprune.measure.latency.timing import Timing
from autoprune.plan.allocation import GroupPlan
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import RecalibrationPlan, RecoveryPlan
from autoprune.plan.resolved import ResolvedPlan
from autoprune.plan.weights import WeightPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.measurement import DEFAULT_PROFILE, Latency, Measurement
from autoprune.records.objectives import COSTS, timed_cost
from autoprune.records.origins import Origin
from autoprune.records.profile import LatencyProfile
from autoprune.search.allocation.latency_model import latency_model_of
from autoprune.search.repair import shrink_to_limits
from autoprune.search.settings import StudySettings
from autoprune.search.space.space import dense_plan
from autoprune.search.state import Model
from autoprune.trial import costs
from autoprune.trial.candidate import evaluate_plan
from autoprune.trial.context import TrialContext
from tests.device_profiles import half_for_nothing, profile_of
from tests.tasks import flat_task
from tests.unit.front.builders import problem_of
from tests.unit.study.small import journal_trials, settings, space

UNTRAINED = RecoveryPlan(steps=0, recalibration=RecalibrationPlan())


def of(context: TrialContext, chosen: StudySettings) -> Front:
    """The front of the dense model alone."""
    dense = evaluate_plan(context, dense_plan(chosen, context.topology, 0))
    record = CandidateRecord(
        number=0, origin=Origin.DENSE, plan=dense.plan, kept=dense.kept.groups, search=dense.measurement
    )
    return Front.of([record], problem_of(chosen.objectives))


def limited(limits: autoprune.Limits, **changes: object) -> StudySettings:
    return settings(limits=limits, space=space(scan=False, **changes))


def half(context: TrialContext, **changes: object) -> PruningPlan:
    """A quarter of each group goes."""
    groups = {name: GroupPlan(ratio=0.25, criterion="l1") for name in context.topology.widths}
    return replace(PruningPlan(groups=groups, recovery=UNTRAINED, seed=3), **changes)  # type: ignore[arg-type]


def shrink(context: TrialContext, chosen: StudySettings, front: Front, plan: PruningPlan) -> PruningPlan | None:
    def costs(tried: ResolvedPlan, timed: bool) -> Measurement:
        return context.costs.expected(tried, timed=timed)

    return shrunk(Model(topology=context.topology, problem=front.problem, costs=costs), chosen, front, plan)


def shrunk(model: Model, chosen: StudySettings, front: Front, plan: PruningPlan) -> PruningPlan | None:
    check = LimitCheck(problem=front.problem, dense=front.dense, limits=chosen.limits)
    found = shrink_to_limits(ResolvedPlan.of(plan, model.topology), model, chosen, check)
    return None if found is None else found.plan


@pytest.fixture(scope="module")
def context() -> TrialContext:
    return TrialContext.of(flat_task())


@pytest.mark.parametrize("cost", ["multiply_adds", "parameters", "size_bytes"])
def test_the_largest_widths_within_a_limit(context: TrialContext, cost: str) -> None:
    name = {"size_bytes": "size"}.get(cost, cost)
    chosen = limited(autoprune.Limits(**{f"max_{name}_share": 0.3}))
    front = of(context, chosen)
    plan = half(context)
    found = shrink(context, chosen, front, plan)
    assert found is not None
    assert front.dense is not None
    most = 0.3 * COSTS[cost].value(front.dense.search)
    assert COSTS[cost].value(context.costs.expected(ResolvedPlan.of(plan, context.topology), timed=False)) > most
    made = evaluate_plan(context, found)
    assert 0.8 * most < COSTS[cost].value(made.measurement) <= most
    assert (found.seed, found.recovery) == (plan.seed, plan.recovery)
    assert {group.criterion for group in found.groups.values()} == {"l1"}


def test_what_keeps_to_the_limits_stays_as_it_is(context: TrialContext) -> None:
    plan = half(context)
    for limits in (autoprune.Limits(), autoprune.Limits(max_drop=0.0), autoprune.Limits(max_size_share=0.9)):
        chosen = limited(limits)
        assert shrink(context, chosen, of(context, chosen), plan) is plan


def test_nothing_is_said_where_no_widths_would_do(context: TrialContext) -> None:
    chosen = limited(autoprune.Limits(max_parameters=1))
    assert shrink(context, chosen, of(context, chosen), half(context)) is None


def test_widths_stay_multiples_and_nothing_widens(context: TrialContext) -> None:
    chosen = limited(autoprune.Limits(max_multiply_adds_share=0.3), round_to=4)
    channels = context.topology.widths
    plan = PruningPlan(groups={next(iter(channels)): GroupPlan(count=channels[next(iter(channels))] - 1)})
    found = shrink(context, chosen, of(context, chosen), plan)
    assert found is not None
    kept = {name: channels[name] - (group.count or 0) for name, group in found.groups.items()}
    assert kept[next(iter(channels))] == 1
    assert all(width % 4 == 0 for name, width in kept.items() if name != next(iter(channels)))


def test_of_masks_the_most_is_hoped_for(context: TrialContext) -> None:
    chosen = limited(autoprune.Limits(max_nonzero_parameters_share=0.5))
    front = of(context, chosen)
    masked = PruningPlan(weights=WeightPlan(sparsity=0.8), recovery=UNTRAINED)
    assert shrink(context, chosen, front, masked) is masked
    found = shrink(context, chosen, front, replace(masked, weights=WeightPlan(sparsity=0.1)))
    assert found is not None
    assert found.groups


def test_latency_is_kept_by_the_clock(context: TrialContext, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sum(p.numel() for p in context.task.dense.parameters())

    def clock(_: object, model: torch.nn.Module, kept: object) -> dict[str, Latency]:
        share = sum(p.numel() for p in model.parameters()) / whole
        numbers = {"latency_ms": share, "low_ms": share, "high_ms": share, "dense_ms": 1.0}
        found = Latency(**numbers, ratio=share, ratio_low=share, ratio_high=share, backend="torch", rounds=1)
        return {DEFAULT_PROFILE: found}

    monkeypatch.setattr(costs.CostOracle, "latencies", clock)
    timed = replace(context, timing=Timing(bursts=1))
    chosen = limited(autoprune.Limits(max_latency_ms=0.4))
    found = shrink(timed, chosen, of(timed, chosen), half(context))
    assert found is not None
    made = evaluate_plan(timed, found).measurement
    assert 0.3 < timed_cost().value(made) <= 0.4


@pytest.mark.parametrize("grain", [1, 4])
def test_with_a_device_profile_latency_is_predicted_and_nothing_is_timed(context: TrialContext, grain: int) -> None:
    topology = context.topology
    profile = profile_of(topology, half_for_nothing(topology), grain=grain)

    def costs(tried: ResolvedPlan, timed: bool) -> Measurement:
        assert not timed
        return context.costs.expected(tried, timed=False)

    chosen = limited(autoprune.Limits(max_latency_share=0.75), round_to="device")
    latency = replace(latency_model_of(profile), error=0.1)
    model = Model(topology=topology, problem=problem_of(chosen.objectives), costs=costs, latency=latency)
    dense = ResolvedPlan.of(PruningPlan(groups={}), topology)
    measured = replace(model.expected_costs(dense, ("latency_ms",)), quality=0.9)
    record = CandidateRecord(number=0, origin=Origin.DENSE, plan=dense.plan, kept={}, search=measured)
    front = Front.of([record], model.problem)
    found = shrunk(model, chosen, front, PruningPlan(groups={}))
    assert found is not None
    widths = ResolvedPlan.of(found, topology).widths
    # The limit is kept even if the prediction is off by its median error.
    assert 0.6 < half_for_nothing(topology)(widths, ()) <= 0.75 / 1.1 * 1.02
    assert all(width % grain == 0 or width == topology.widths[name] for name, width in widths.items())


def test_an_unknown_latency_backend_is_refused_before_any_work() -> None:
    profile = LatencyProfile(name="a", backend="tensorrt")
    with pytest.raises(UnknownNameError, match=r"the latency backend must be one of auto, .*but got 'tensorrt'"):
        TrialContext.of(flat_task(), profiles=(profile,), timing=Timing())


def test_a_study_trains_nothing_that_is_too_large(context: TrialContext, tmp_path: Path) -> None:
    chosen = settings(
        trials=10,
        sampler="random",
        uniform_points=1,
        space=space(scan=False, space="direct", kinds=("channels",)),
        limits=autoprune.Limits(max_size_share=0.25),
    )
    study = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run")
    front = study.run()
    assert front.dense is not None
    proposed = [r for r in study.records if r.origin == "sampled"]
    assert len(proposed) >= 7
    assert all(r.search.size_bytes <= 0.25 * front.dense.search.size_bytes for r in proposed)
    repaired = [t for t in journal_trials(tmp_path / "run") if t.user_attrs.get("repaired")]
    assert len(repaired) >= 4
    stored = {record.number: record for record in study.records}
    for trial in repaired:
        record = stored[trial.number]
        replayed = evaluate_plan(context, replace(record.plan, recovery=UNTRAINED))
        assert {name: len(kept) for name, kept in replayed.kept.groups.items()} == record.widths


def test_where_nothing_would_do_the_proposal_is_tried_as_it_is(tmp_path: Path) -> None:
    limits = autoprune.Limits(max_parameters=1)
    chosen = settings(trials=4, uniform_points=1, limits=limits, space=space(scan=False))
    study = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run")
    study.run()
    assert len(study.records) == 4
    sampled = [t for t in journal_trials(tmp_path / "run") if t.user_attrs.get("origin", "sampled") == "sampled"]
    assert sampled
    assert all(t.constraints["parameters"] > 0 and "repaired" not in t.user_attrs for t in sampled)
