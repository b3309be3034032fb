"""Lineages of the candidates."""

from __future__ import annotations

from autoprune.front.front import Front
from autoprune.front.run import Run
from autoprune.report.figures.lineage import lineage_figure
from autoprune.report.section import Picture, Section


def lineages_section(_: Run, front: Front) -> Section | None:
    """Draw which candidate started from whose weights.

    Args:
        _: The run.
        front: Its front.

    Returns:
        The section; None where every candidate started from the dense model alone.
    """
    children = [record for record in front.records if record.parent is not None]
    if not children:
        return None
    longest = max(front.records, key=lambda record: record.lineage_trained)
    text = (
        f"{len(children)} candidates, each joined to the one whose weights it started from. Candidate {longest.number} "
        f"has the longest training along its line: {longest.lineage_trained:,} samples."
    )
    return Section(
        anchor="lineages",
        title="Lineages",
        lead="A candidate starts from the weights of a larger one, and is cut and trained from there.",
        pictures=(Picture(figure=lineage_figure(front), text=text),),
    )
