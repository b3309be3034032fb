"""The sensitivity scan of a study: read from its folder, or made."""

from __future__ import annotations

from collections.abc import Callable

from autoprune.records.run_folder import RunFolder
from autoprune.records.sensitivity import Sensitivity
from autoprune.search.settings import StudySettings
from autoprune.sensitivity.scan import count_parts, scan
from autoprune.trial.context import TrialContext


def study_sensitivity(
    context: TrialContext,
    folder: RunFolder,
    settings: StudySettings,
    on_part: Callable[[int, int], None] | None = None,
) -> Sensitivity | None:
    """Return the scan of a study, which stays the same for its whole life.

    Args:
        context: Context of the trials.
        folder: Run folder, locked by this process.
        settings: Settings of the study, which say whether it has a scan.
        on_part: Called with (done, total) parts where the scan has to be made, first with 0; None for nothing.

    Returns:
        The scan; None where there is none and none is needed.
    """
    found, parts = folder.read_sensitivity(), count_parts(context.topology)
    if found is not None or not settings.scanned or not parts:
        return found
    if on_part is not None:
        on_part(0, parts)
    found = scan(context, settings.search.scan_criterion, samples=settings.scan_budget, on_part=on_part)
    folder.write_sensitivity(found)
    return found
