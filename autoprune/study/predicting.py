"""Latencies that are predicted while workers run trials, whose training would disturb measurements."""

from __future__ import annotations

from autoprune.records.candidate import CandidateRecord
from autoprune.records.measurement import DEFAULT_PROFILE
from autoprune.records.run_folder import RunFolder
from autoprune.search.allocation.proportional import ProportionalLatency
from autoprune.search.settings import QUIET, StudySettings
from autoprune.study.device import study_latency
from autoprune.trial.context import TrialContext
from autoprune.trial.costs import LatencyPredictor


def predict_latencies(
    context: TrialContext, folder: RunFolder, settings: StudySettings, dense: CandidateRecord
) -> None:
    """Predict latencies from now on where trials run in workers, unless these measure while the host is quiet.

    They are predicted by the device profile where there is one, else in proportion to the multiply-adds.

    Args:
        context: Context of the trials, in the process of the study or of a worker.
        folder: Run folder.
        settings: Settings of the run.
        dense: The measured dense model.
    """
    workers = settings.workers
    if workers.is_inline or workers.latency == QUIET or context.timing is None or context.costs.leaves_out_masks:
        return
    predictors: dict[str, LatencyPredictor] = {
        name: ProportionalLatency(context.topology, latency) for name, latency in dense.search.latencies.items()
    }
    model = study_latency(context, folder, settings)
    if model is not None:
        predictors[DEFAULT_PROFILE] = model
    context.costs.predict_with(predictors, leave_out_masks=True)
