"""The context of a study: its prepared task, the structure of its model, and how latency is measured."""

from __future__ import annotations

from autoprune.errors import ConfigurationError, error_message, user_code
from autoprune.measure.latency.timing import Timing
from autoprune.search.settings import MeasureSettings, StudySettings
from autoprune.study.preflight import absent_kind_reason
from autoprune.task.task import Task
from autoprune.trial.context import TrialContext


def make_context(task: Task, settings: StudySettings) -> TrialContext:
    """Prepare the task, prove the structure of its model, and check that something can be pruned.

    Args:
        task: Task of the study.
        settings: Settings of the study.

    Raises:
        ConfigurationError: Nothing can be pruned.
    """
    with user_code("Tracing the model", "Nothing was changed: mend the code and start again."):
        context = TrialContext.of(
            task,
            protect=settings.structure.protect,
            kinds=settings.structure.kinds,
            profiles=settings.measure.timed_profiles,
            timing=_timing(settings.measure),
            judged={*settings.objectives, *(limit.objective for limit in settings.limits.each.values())},
        )
    if not context.topology.groups and not context.topology.blocks and not context.masks_weights:
        why = " ".join(absent_kind_reason(kind, context) for kind in settings.structure.kinds)
        raise ConfigurationError(error_message("the model", "have something that can be pruned", "none", why))
    return context


def _timing(measure: MeasureSettings) -> Timing | None:
    """Return how long latency is measured; None where it is left out."""
    if not measure.latency_rounds:
        return None
    return Timing(width=measure.latency_width, seconds=measure.latency_seconds, bursts=measure.latency_rounds)
