"""Report of a run: one HTML file with plotly inside, which opens without a network."""

from __future__ import annotations

from pathlib import Path

from autoprune.front.run import Run
from autoprune.records.atomic import write_atomically
from autoprune.report.page import Page, render
from autoprune.report.sections.registry import sections_of
from autoprune.report.sections.summary import summary


def write_report(run: Run, to: Path | None = None) -> Path:
    """Write the report of a run.

    Args:
        run: The run.
        to: File to write; report.html in the run folder when None.

    Returns:
        Path of the report.

    Raises:
        StorageError: When a file of the run cannot be read.
    """
    front = run.front()
    page = Page(
        title=f"{run.name}: autoprune",
        heading=run.name,
        summary=summary(run, front),
        parts=[*sections_of(run, front)],
    )
    path = to if to is not None else run.folder.report
    write_atomically(path, render(page).encode())
    return path
