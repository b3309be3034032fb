"""Trials that went wrong, with their messages."""

from __future__ import annotations

from autoprune.display import printable_line
from autoprune.front.front import Front
from autoprune.front.run import Run
from autoprune.report.section import Section, Table

#: Most characters of a message; errors may be thousands of lines long.
_LONGEST = 500


def failures_section(run: Run, front: Front) -> Section | None:
    """List the trials that crashed, and the candidates that diverged.

    Args:
        run: The run.
        front: Its front.

    Returns:
        A table; None where nothing went wrong.
    """
    rows = [(str(one.number), "crashed", printable_line(one.message, _LONGEST)) for one in run.failures]
    rows += [(str(one.number), "finished", one.note) for one in front.records if one.note]
    if not rows:
        return None
    return Section(
        anchor="failures",
        title="Failures",
        lead="A trial that crashes ends no study. Whole tracebacks are under failures/ in the run folder. A candidate "
        "whose training diverged kept the weights from before it.",
        table=Table(head=("trial", "end", "message"), rows=tuple(rows), names=3),
    )
