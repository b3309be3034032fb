"""Evaluate one plan without a study."""

from __future__ import annotations

from autoprune.plan.plan import PruningPlan
from autoprune.study.preflight import check_plan
from autoprune.task.task import Task
from autoprune.trial.candidate import Candidate, evaluate_plan
from autoprune.trial.context import TrialContext


def evaluate(plan: PruningPlan, on: Task | TrialContext) -> Candidate:
    """Run one trial in one call: prune the dense model, recover it and measure it. Nothing is stored.

    Args:
        plan: Plan for the task's model.
        on: The task; or, for several plans, `TrialContext.of(task)`, which prepares it and proves its structure once.

    Returns:
        The finished candidate, with its model and its measurement on the search split.

    Raises:
        TaskError: The task has faults.
        ConfigurationError: The plan does not fit the model.

    Example:
        >>> import torch
        >>> from autoprune import GroupPlan, RecoveryPlan
        >>> inputs = torch.randn(200, 4)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> task = Task(
        ...     model=model,
        ...     example_inputs=inputs[:1],
        ...     train=(inputs, model(inputs).argmax(1)),
        ...     loss=torch.nn.functional.cross_entropy,
        ...     metrics=("accuracy",),
        ...     quality="accuracy",
        ... )
        >>> plan = PruningPlan(groups={"0": GroupPlan(ratio=0.5)}, recovery=RecoveryPlan(steps=2))
        >>> evaluate(plan, task).measurement.parameters
        30
    """
    context = on if isinstance(on, TrialContext) else TrialContext.of(on)
    check_plan(plan, context)
    return evaluate_plan(context, plan)
