"""The front as a table, and the findings in words."""

from __future__ import annotations

from autoprune.front.chosen import table_records
from autoprune.front.findings import findings
from autoprune.front.front import Front
from autoprune.front.run import Run
from autoprune.front.table import text_table
from autoprune.records.annotations import Annotations
from autoprune.records.candidate import work_of
from autoprune.report.section import Section, Table


def front_section(run: Run, front: Front) -> Section:
    """List the members of the front, the dense model first, with what a person wrote about them.

    Args:
        run: The run.
        front: Its front.

    Returns:
        The table with the findings of the study.
    """
    said, annotations = findings(front), run.annotations
    return Section(
        anchor="front",
        title="The front",
        lead=_lead(run, front),
        notes=(*annotations.lines(), *(line for line, warning in said if not warning)),
        warnings=tuple(line for line, warning in said if warning),
        table=front_table(front, annotations),
    )


def front_table(front: Front, annotations: Annotations | None = None) -> Table:
    """Write the table of the members of the front.

    Args:
        front: Front of a study.
        annotations: What a person wrote about the run; None for nothing.

    Returns:
        A row for each member, one for the dense model, and one for a chosen candidate off the front.
    """
    records = table_records(front, annotations)
    head, rows = text_table(front.problem, front.dense, records, front.as_good_as, annotations)
    return Table(head=head, rows=rows, names=2)


def _lead(run: Run, front: Front) -> str:
    objectives = ", ".join(front.problem.objective(name).title for name in front.problem.objectives)
    return (
        f"{len(front.members)} of {len(front.records)} candidates are on the front over {objectives}: no other one is "
        f"better in all of them. All were trained on {work_of(run.records).trained:,} samples together. The search "
        "split decides; the test split is shown for the final front and decides nothing. A latency is the ratio to the "
        "dense model, measured in alternation with it, times the dense model's median."
    )
