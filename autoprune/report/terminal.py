"""Output of the command line: tables of a front, a candidate, importances and solved allocations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from autoprune.display import number_text, printable_lines
from autoprune.front.front import NO_DENSE, Front
from autoprune.front.importance import Importances
from autoprune.front.repeats import Repeats
from autoprune.front.table import text_table
from autoprune.records.candidate import CandidateRecord
from autoprune.records.ending import Ending
from autoprune.search.solve import SolvedAllocation


class _SafeConsole(Console):
    """Console on which text is data: no markup, no emoji codes, no terminal escapes; styles are arguments."""

    def __init__(
        self, *, stderr: bool = False, width: int = 200, soft_wrap: bool = False, file: IO[str] | None = None
    ) -> None:
        super().__init__(
            stderr=stderr,
            soft_wrap=soft_wrap,
            markup=False,
            emoji=False,
            highlight=False,
            file=file,
            force_terminal=None if file is None else False,
        )
        if not self.is_terminal:
            self.width = width

    def render_str(self, text: str, **how: object) -> Text:
        """Convert any printed string, such as cells and titles of tables, to a safe Text."""
        return super().render_str(printable_lines(text), **how)  # type: ignore[arg-type]


def safe_console(
    *, stderr: bool = False, width: int = 200, soft_wrap: bool = False, file: IO[str] | None = None
) -> Console:
    """Make a console on which text is data.

    Args:
        stderr: Print to standard error.
        width: Columns where there is no terminal.
        soft_wrap: Leave line breaks to the terminal.
        file: File to write to, without styles; None for the terminal.

    Returns:
        The console.
    """
    return _SafeConsole(stderr=stderr, width=width, soft_wrap=soft_wrap, file=file)


def show_front(front: Front) -> None:
    """Print the front as a table, the dense model first.

    Args:
        front: Front of a study.
    """
    dense = front.dense
    records = [*([dense] if dense is not None and dense not in front.members else []), *front.members]
    console = safe_console()
    if not records:
        console.print("No finished candidate yet.")
        return
    console.print(front_table(front, records))
    if front.dense is None:
        console.print(NO_DENSE, style="yellow")


def show_ending(ending: Ending | None, console: Console | None = None) -> None:
    """Print why the last run ended before its number of trials, if it did.

    Args:
        ending: Why the run ended; None if that is not known.
        console: Console to print to; None for standard output.
    """
    if ending is not None and ending.early:
        (console or safe_console(soft_wrap=True)).print(ending.sentence, style="yellow")


def show_repeats(repeats: Repeats) -> None:
    """Print median and spread over the seeds, then each study, as tables.

    Args:
        repeats: Studies with several seeds.
    """
    console = safe_console()
    summary = repeats.summary()
    table = Table("over the seeds", "median", "low", "high")
    for name, row in summary.iterrows():
        cells = (number_text(float(row[column])) for column in ("median", "low", "high"))
        table.add_row(str(name).replace("_", " "), *cells)
    console.print(table)
    each = repeats.table()
    rows = Table(*(str(name).replace("_", " ") for name in each.columns))
    for line in each.to_numpy().tolist():
        rows.add_row(*map(number_text, line))
    console.print(rows)


def show_candidate(front: Front, record: CandidateRecord) -> None:
    """Print one candidate's row on standard error, so that standard output holds its number alone.

    Args:
        front: Front of a study.
        record: Candidate.
    """
    console = safe_console(stderr=True)
    console.print(front_table(front, [record]))


def show_importances(found: Importances) -> None:
    """Print shares of the variance and their intervals as a table; in brackets where chance explains as much.

    Args:
        found: Importances of a study.
    """
    console = safe_console()
    for note in found.notes:
        console.print(note)
    if not found.parameters:
        return
    table = Table("parameter", title=f"What mattered over {found.trials} trials", title_justify="left")
    for target in found.targets:
        table.add_column(target, justify="right")
    for rows in (found.parameters, found.members):
        for row in rows:
            cells = (row.targets[target] for target in found.targets)
            shown = (console.render_str(str(cell), style="dim" if cell.is_noise else "") for cell in cells)
            table.add_row(row.name, *shown)
        table.add_section()
    console.print(table)
    console.print(
        "Share of the variance of ranks that each parameter explains alone, 68 % interval; in brackets: no more than "
        "chance."
    )
    for name, why in found.left_out.items():
        console.print(f"left out: {name}, {why}")


def show_solved(found: SolvedAllocation) -> None:
    """Print the widths of a solved allocation as a table, with its costs and notes.

    Args:
        found: Solved allocation.
    """
    console = safe_console()
    console.print(f"Widths at {found.allocation.budget:.1%} of the dense {found.cost}")
    table = Table("group")
    for column in ("dense", "stay", "share"):
        table.add_column(column, justify="right")
    for name, width in found.allocation.widths.items():
        dense = found.channels[name]
        table.add_row(name, str(dense), str(width), f"{width / dense:.0%}")
    console.print(table)
    console.print(
        "Of dense: " + ", ".join(f"{name} {share:.2%}" for name, share in found.shares.items()), highlight=False
    )
    for note in found.notes:
        console.print(note)


def front_table(front: Front, records: Sequence[CandidateRecord]) -> Table:
    """Make a table of candidates.

    Args:
        front: Front of the study.
        records: Candidates, one for each row.

    Returns:
        The table.
    """
    head, rows = text_table(front.problem, front.dense, records)
    table = Table(*head[:2])
    for heading in head[2:]:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    return table
