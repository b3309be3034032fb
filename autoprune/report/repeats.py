"""Report of a study with several seeds: one HTML file beside their run folders."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from autoprune.display import number_text
from autoprune.front.repeats import Repeats
from autoprune.records.atomic import write_atomically
from autoprune.report.figures.growth import ALONG, growth_figure
from autoprune.report.page import Page, render
from autoprune.report.section import Picture, Section, Table


def write_repeats_report(repeats: Repeats, to: Path) -> Path:
    """Write medians and ranges over the seeds, the growth of the hypervolume, and each study's numbers.

    Args:
        repeats: Studies with several seeds.
        to: File to write.

    Returns:
        Path of the report.
    """
    page = Page(
        title="autoprune, several seeds",
        heading=f"{len(repeats.fronts)} seeds",
        lead="The same study, with another seed each time. Low and high: the 95 % interval of the median from six "
        "studies on, and the lowest and highest with fewer. Hypervolumes are those of the search split, over quality "
        "above the worst of all studies and multiply-adds as a share of dense.",
        parts=[("Several seeds", _sections(repeats))],
    )
    write_atomically(to, render(page).encode())
    return to


def _sections(repeats: Repeats) -> list[Section]:
    curves = repeats.curves()
    pictures = tuple(
        Picture(
            figure=growth_figure(curves, by),
            title=f"Over {'work' if by == 'samples' else 'time'}",
            text=f"The hypervolume of {len(curves)} studies against {ALONG[by]}, with the median and the range.",
        )
        for by in ("samples", "seconds")
    )
    return [
        Section(anchor="seeds", title="Over the seeds", table=_table(repeats.summary().reset_index(names="number"))),
        Section(anchor="hypervolume", title="Hypervolume", pictures=pictures),
        Section(anchor="studies", title="Each study", table=_table(repeats.table())),
    ]


def _table(rows: pd.DataFrame) -> Table:
    """Make a table with four significant digits."""
    return Table(
        head=tuple(str(name) for name in rows.columns),
        rows=tuple(tuple(number_text(value) for value in row) for row in rows.to_numpy().tolist()),
    )
