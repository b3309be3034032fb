"""The front as a table, and the findings in words."""

from __future__ import annotations

from autoprune.front.findings import findings
from autoprune.front.front import Front
from autoprune.front.run import Run
from autoprune.front.table import text_table
from autoprune.records.candidate import work_of
from autoprune.report.section import Section, Table


def front_section(run: Run, front: Front) -> Section:
    """List the members of the front, the dense model first.

    Args:
        run: The run.
        front: Its front.

    Returns:
        The table with the findings of the study.
    """
    said = findings(front)
    return Section(
        anchor="front",
        title="The front",
        lead=_lead(run, front),
        notes=tuple(line for line, warning in said if not warning),
        warnings=tuple(line for line, warning in said if warning),
        table=front_table(front),
    )


def front_table(front: Front) -> Table:
    """Write the table of the members of the front.

    Args:
        front: Front of a study.

    Returns:
        A row for each member, and one for the dense model.
    """
    dense = front.dense
    records = [*([dense] if dense is not None and dense not in front.members else []), *front.members]
    head, rows = text_table(front.problem, dense, records, front.as_good_as)
    return Table(head=head, rows=rows, names=2)


def _lead(run: Run, front: Front) -> str:
    objectives = ", ".join(front.problem.objectives)
    return (
        f"{len(front.members)} of {len(front.records)} candidates are on the front over {objectives}: no other one is "
        f"better in all of them. {work_of(run.records).trained:,} samples trained with. The search split decides; the "
        "test split is shown for the final front and decides nothing. Latencies are ratios to the dense model, "
        "measured in turn, times its own median."
    )
