"""Every section of a report, in its order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from autoprune.front.front import Front
from autoprune.front.run import Run
from autoprune.report.section import Section
from autoprune.report.sections.device import device_section
from autoprune.report.sections.early_stopping import early_stopping_section
from autoprune.report.sections.failures import failures_section
from autoprune.report.sections.front import front_section
from autoprune.report.sections.importances import importances_section
from autoprune.report.sections.layers import layers_section
from autoprune.report.sections.lineages import lineages_section
from autoprune.report.sections.progress import progress_section
from autoprune.report.sections.sensitivity import dropped_section, sensitivity_section
from autoprune.report.sections.settings import left_alone_section, settings_section
from autoprune.report.sections.trade_offs import all_quantities_section, trade_offs_section

#: Part of a report -> anchor of a section -> function that makes it; None where it has nothing to show.
SECTIONS: Mapping[str, Mapping[str, Callable[[Run, Front], Section | None]]] = {
    "Candidates": {
        "front": front_section,
        "trade-offs": trade_offs_section,
        "all-quantities": all_quantities_section,
    },
    "Understanding": {
        "layers": layers_section,
        "sensitivity": sensitivity_section,
        "sensitivity-blocks": dropped_section,
        "device": device_section,
        "importances": importances_section,
        "progress": progress_section,
        "early-stopping": early_stopping_section,
        "lineages": lineages_section,
    },
    "Failures and settings": {
        "failures": failures_section,
        "left-alone": left_alone_section,
        "settings": settings_section,
    },
}


def sections_of(run: Run, front: Front) -> Iterator[tuple[str, list[Section]]]:
    """Make all sections of a run.

    Args:
        run: The run.
        front: Its front.

    Yields:
        Title of a part, and its sections.
    """
    for part, makers in SECTIONS.items():
        found = [section for make in makers.values() if (section := make(run, front)) is not None]
        if found:
            yield part, found
