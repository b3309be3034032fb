"""Costs of cut models: counted once for each architecture, and equal to those of a fresh count."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autoprune.measure.cost import count_multiply_adds, count_parameters
from autoprune.measure.latency.timing import Timing
from autoprune.plan.allocation import GroupPlan
from autoprune.plan.kept import KeptChannels
from autoprune.plan.plan import PruningPlan
from autoprune.plan.resolved import ResolvedPlan
from autoprune.records.measurement import Latency
from autoprune.records.profile import LatencyProfile
from autoprune.surgery.cut import cut
from autoprune.trial import costs
from autoprune.trial.context import TrialContext
from tests.settings import timed
from tests.tasks import image_task


def test_an_architecture_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    context = TrialContext.of(image_task())
    counted: list[int] = []

    def watched(model: object, inputs: object) -> int:
        counted.append(1)
        return count_multiply_adds(model, inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(costs, "count_multiply_adds", watched)
    found = {}
    for ratio in (0.5, 0.25, 0.5, 0.25):
        groups = dict.fromkeys(context.topology.widths, GroupPlan(ratio=ratio))
        plan = ResolvedPlan.of(PruningPlan(groups=groups), context.topology)
        now = context.costs.expected(plan, timed=False)
        model = cut(context.task.dense, context.topology, plan.first_channels)
        assert now.parameters == count_parameters(model)
        assert now.multiply_adds == count_multiply_adds(model, context.task.example_inputs)
        before = found.setdefault(ratio, now)
        assert (now.parameters, now.multiply_adds, now.costs) == (before.parameters, before.multiply_adds, before.costs)
    assert len(counted) == 2
    assert found[0.5].multiply_adds < found[0.25].multiply_adds


class _Clock:
    """Stands in for a comparer: counts what it is asked, and trusts every second measurement."""

    def __init__(self, asked: list[str], name: str) -> None:
        self._asked, self._name, self._dense_ms = asked, name, 4.0

    def refer_to(self, dense: Latency) -> None:
        self._dense_ms = dense.dense_ms

    def compare(self, model: object) -> Latency:
        self._asked.append(self._name)
        doubts = () if len(self._asked) % 2 == 0 else ("The host was busy.",)
        numbers = {"latency_ms": 2.0, "low_ms": 1.9, "high_ms": 2.1, "ratio": 0.5, "ratio_low": 0.4, "ratio_high": 0.6}
        return Latency(**numbers, dense_ms=self._dense_ms, backend="eager", rounds=1, doubts=doubts)


def test_a_latency_that_is_not_trusted_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(costs, "LatencyComparer", lambda dense, inputs, profile, timing: _Clock(asked, profile.name))
    context = TrialContext.of(image_task(), **timed(1))
    kept = KeptChannels.whole(context.topology)
    first, second, third = (context.costs.latencies(context.task.dense, kept)["default"] for _ in range(3))
    assert not first.trusted
    assert second.trusted
    assert third is second
    assert asked == ["default"] * 2


def test_the_profiles_of_a_study_are_measured_each_and_refer_to_one_dense_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(costs, "LatencyComparer", lambda dense, inputs, profile, timing: _Clock(asked, profile.name))
    profiles = tuple(LatencyProfile(name=name, backend="eager") for name in ("default", "batch"))
    context = TrialContext.of(image_task(), profiles=profiles, timing=Timing(bursts=1))
    kept = KeptChannels.whole(context.topology)
    before = _Clock([], "").compare(None)
    context.costs.refer_to({"batch": replace(before, dense_ms=7.0)})
    found = context.costs.latencies(context.task.dense, kept)
    assert {name: latency.dense_ms for name, latency in found.items()} == {"default": 4.0, "batch": 7.0}


def test_without_timing_there_is_no_latency() -> None:
    context = TrialContext.of(image_task())
    assert context.costs.latencies(context.task.dense, KeptChannels.whole(context.topology)) == {}
