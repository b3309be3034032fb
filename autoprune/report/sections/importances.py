"""Which parameters of the space mattered."""

from __future__ import annotations

from autoprune.front.front import Front
from autoprune.front.importance import importances
from autoprune.front.run import Run
from autoprune.report.figures.importance import importance
from autoprune.report.section import Picture, Section, Table


def importances_section(_: Run, front: Front) -> Section:
    """Show the share of the variance that each parameter explains.

    Args:
        _: The run.
        front: Its front.

    Returns:
        Bars and a table; a sentence where trials are too few.
    """
    found, title = importances(front), "Which parameters mattered"
    if not found.parameters:
        return Section(anchor="importances", title=title, notes=found.notes)
    left = "; ".join(f"{name}: {why}" for name, why in found.left_out.items())
    target = found.targets[-1]
    first = found.parameters[0]
    rows = tuple(
        (row.name, *(str(row.targets[name]) for name in found.targets)) for row in (*found.parameters, *found.members)
    )
    return Section(
        anchor="importances",
        title=title,
        lead=f"Share of the variance of ranks that each parameter explains alone, over the {found.trials} trials "
        "that the sampler chose, with its 68 % interval. Pale, and in brackets: no more than chance gives. The budget "
        f"decides most of the quality, so look at {target}: the quality less that of trials of about the same cost.",
        pictures=(
            Picture(
                figure=importance(found),
                text=f"Importance of {len(found.parameters)} parameters; for {target} the first is {first.name} with "
                f"{first.targets[target]}.",
            ),
        ),
        notes=(*found.notes, *([f"Left out: {left}."] if left else [])),
        table=Table(head=("parameter", *found.targets), rows=rows),
    )
