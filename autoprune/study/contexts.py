"""The context of a study: its prepared task, the structure of its model, and how latency is measured."""

from __future__ import annotations

from dataclasses import replace

from autoprune.errors import ConfigurationError, error_message, user_code
from autoprune.measure.latency.timing import Timing
from autoprune.plan.maskable import maskable
from autoprune.records.measurement import DEFAULT_PROFILE
from autoprune.records.run_folder import TOPOLOGY, RunFolder
from autoprune.recovery.teacher import Teacher
from autoprune.search.settings import MeasureSettings, StudySettings
from autoprune.search.space.setting_groups import LATENCY_COST
from autoprune.structure.topology import Topology
from autoprune.study.identity import weights_fingerprint
from autoprune.study.preflight import absent_kind_reason
from autoprune.task.prepare import prepare
from autoprune.task.task import Task
from autoprune.trial.context import TrialContext, judged_metrics
from autoprune.trial.energy import EnergyUse

#: Most bursts of a measurement of energy where latency is not measured.
_MOST = 30


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
            judged=settings.deciding,
        )
        context = replace(context, energy=_energy(settings), untimed=_untimed(settings))
    if not context.topology.groups and not context.topology.blocks and not context.masks_weights:
        why = " ".join(absent_kind_reason(kind, context) for kind in settings.structure.kinds)
        raise ConfigurationError(error_message("the model", "have something that can be pruned", "none", why))
    return context


def stored_context(task: Task, settings: StudySettings, folder: RunFolder) -> TrialContext:
    """Prepare the task in a worker; the structure of its model is read from the run folder, where it has been proved.

    Args:
        task: Task of the study, as this process made it.
        settings: Settings of the run.
        folder: Run folder.

    Returns:
        The context of the trials.

    Raises:
        ConfigurationError: The task has another dense model than the study.
    """
    structure = folder.read_topology()
    if structure is None:  # a study of a version that did not store it
        return make_context(task, settings)
    prepared, stored = prepare(task), folder.read_study()
    if weights_fingerprint(prepared.dense.state_dict()) != stored.weights:
        remedy = "Seed the training in task(), or load a checkpoint there, so that each process makes the same model."
        raise ConfigurationError(
            error_message("the dense model that a worker makes", "have the weights of the study's", "others", remedy)
        )
    topology = Topology.of(structure, str(folder.path / TOPOLOGY))
    return TrialContext(
        task=prepared,
        topology=topology,
        structure=stored.structure,
        teacher=Teacher(prepared),
        masks_weights="weights" in settings.structure.kinds and len(maskable(topology)) > 0,
        profiles=settings.measure.timed_profiles,
        timing=_timing(settings.measure),
        energy=_energy(settings),
        untimed=_untimed(settings),
        judged=judged_metrics(prepared, settings.deciding),
    )


def _untimed(settings: StudySettings) -> tuple[str, ...]:
    """Name the default profile where others are given, and nothing asks for its latency."""
    asked = LATENCY_COST in settings.deciding or settings.needs_device_profile
    return () if asked or not settings.measure.profiles else (DEFAULT_PROFILE,)


def _energy(settings: StudySettings) -> EnergyUse | None:
    """Return how energy is measured; None where nobody asks for it."""
    if not (settings.measure.energy or settings.energy_decides):
        return None
    measure = settings.measure
    bursts = measure.latency_rounds or _MOST
    timing = Timing(width=measure.latency_width, seconds=measure.latency_seconds, bursts=bursts)
    return EnergyUse(timing=timing, decides=settings.energy_decides)


def _timing(measure: MeasureSettings) -> Timing | None:
    """Return how long latency is measured; None where it is left out."""
    if not measure.latency_rounds:
        return None
    return Timing(width=measure.latency_width, seconds=measure.latency_seconds, bursts=measure.latency_rounds)
