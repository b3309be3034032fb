"""Reference and predictions of latency for trials in workers, from the measured dense model."""

from __future__ import annotations

from autoprune.records.candidate import CandidateRecord
from autoprune.records.measurement import DEFAULT_PROFILE
from autoprune.records.run_folder import RunFolder
from autoprune.search.allocation.proportional import ProportionalLatency
from autoprune.search.settings import QUIET, StudySettings
from autoprune.study.device import study_latency
from autoprune.trial.context import TrialContext
from autoprune.trial.costs import LatencyPredictor


def refer_to_dense(context: TrialContext, folder: RunFolder, settings: StudySettings, dense: CandidateRecord) -> None:
    """Take the numbers of the dense model, and predict latencies from now on, as training disturbs measurements.

    They are predicted by the device profile where there is one, else in proportion to the multiply-adds; not where
    workers measure while the host is quiet.

    Args:
        context: Context of the trials, in a worker or in the process of a study that has workers.
        folder: Run folder.
        settings: Settings of the run.
        dense: The measured dense model.
    """
    context.costs.refer_to(dense.search.latencies, dense.search.energy)
    if settings.workers.latency == QUIET or (context.timing is None and context.energy is None):
        return
    predictors: dict[str, LatencyPredictor] = {
        name: ProportionalLatency(context.topology, latency) for name, latency in dense.search.latencies.items()
    }
    model = None if context.timing is None else study_latency(context, folder, settings)
    if model is not None:
        predictors[DEFAULT_PROFILE] = model
    context.costs.predict_with(predictors, only=True)
