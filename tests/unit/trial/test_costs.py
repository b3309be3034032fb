"""Costs of cut models: counted once for each architecture, and equal to those of a fresh count."""

from __future__ import annotations

import pytest

from autoprune.measure.cost import count_multiply_adds, count_parameters
from autoprune.plan.allocation import GroupPlan
from autoprune.plan.plan import PruningPlan
from autoprune.plan.resolved import ResolvedPlan
from autoprune.surgery.cut import cut
from autoprune.trial import costs
from autoprune.trial.context import TrialContext
from tests.tasks import image_task


def test_an_architecture_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    context = TrialContext.of(image_task(), latency_rounds=0)
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
