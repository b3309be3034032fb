"""Output of the command line: tables of a front, a candidate, importances and solved allocations."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import IO

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from autoprune.display import number_text, printable_line, printable_lines
from autoprune.front.chosen import table_records
from autoprune.front.doubts import front_doubts
from autoprune.front.front import Front
from autoprune.front.importance import Importances
from autoprune.front.limit_check import NO_DENSE
from autoprune.front.repeats import Repeats
from autoprune.front.table import text_table
from autoprune.records.annotations import Annotations
from autoprune.records.candidate import CandidateRecord
from autoprune.records.ending import Ending
from autoprune.records.objectives import COSTS
from autoprune.search.solve import SolvedAllocation

#: Upper limit of the width of a table, and of a heading before it is wrapped, in characters.
_WIDEST, _HEADING = 10_000, 80
#: Characters of a table beside the cells: those of each column, and its left border.
_COLUMN, _BORDER = 3, 1


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


def show_front(front: Front, annotations: Annotations | None = None) -> None:
    """Print the front as a table, the dense model first.

    Args:
        front: Front of a study.
        annotations: What a person wrote about the run; None for nothing. A chosen candidate off the front is shown,
            too.
    """
    records = table_records(front, annotations)
    console = safe_console()
    if not records:
        console.print("No finished candidate yet.")
        return
    show_tables(console, front_tables(front, records, console, annotations))
    if annotations is not None and annotations.note:
        console.print(f"Note: {annotations.note}")
    show_doubts(front)
    if front.dense is None:
        console.print(NO_DENSE, style="yellow")


def show_doubts(front: Front, *, stderr: bool = False) -> None:
    """Print which candidates are in doubt: those that are left off the front for it, and those on it.

    Args:
        front: Front of a study.
        stderr: Print to standard error.
    """
    console = safe_console(stderr=stderr, soft_wrap=True)
    for line in front_doubts(front.numbers, front.numbers.places(front.members), front.as_good_as):
        console.print(line, style="yellow")


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
    head = [str(name).replace("_", " ") for name in each.columns]
    rows = [[number_text(cell) for cell in line] for line in each.to_numpy().tolist()]
    show_tables(console, split_table(head, rows, _room(console)))


def show_candidate(
    front: Front, record: CandidateRecord, remarks: Sequence[str] = (), annotations: Annotations | None = None
) -> None:
    """Print one candidate's row on standard error, so that standard output holds its number alone.

    Args:
        front: Front of a study.
        record: Candidate.
        remarks: Sentences below the row.
        annotations: What a person wrote about the run; None for nothing.
    """
    console = safe_console(stderr=True)
    show_tables(console, front_tables(front, [record], console, annotations))
    for line in remarks:
        safe_console(stderr=True, soft_wrap=True).print(line)


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
    console.print(f"Widths at {found.allocation.budget:.1%} of the dense {_cost_title(found.cost)}")
    table = Table("group")
    for column in ("dense", "stay", "share"):
        table.add_column(column, justify="right")
    for name, width in found.allocation.widths.items():
        dense = found.channels[name]
        table.add_row(name, str(dense), str(width), f"{width / dense:.0%}")
    console.print(table)
    shares = (f"{_cost_title(name)} {share:.2%}" for name, share in found.shares.items())
    console.print(f"Of dense: {', '.join(shares)}")
    for note in found.notes:
        console.print(note)


def _cost_title(name: str) -> str:
    return COSTS[name].title


def front_tables(
    front: Front, records: Sequence[CandidateRecord], console: Console, annotations: Annotations | None = None
) -> list[Table]:
    """Make a table of candidates, or several where one is wider than the terminal.

    Args:
        front: Front of the study.
        records: Candidates, one for each row.
        console: Console that will print the tables.
        annotations: What a person wrote about the run; None for nothing.

    Returns:
        The tables.
    """
    head, rows = text_table(front.problem, front.dense, records, front.as_good_as, annotations)
    return split_table(head, rows, _room(console), named=2)


def split_table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int, named: int = 1) -> list[Table]:
    """Make a table of at most some width without cutting a cell: headings are wrapped, then columns go to a next table.

    Args:
        head: Headings.
        rows: Cells of each row.
        width: Largest width, in characters. A table of two columns may be wider.
        named: Number of columns in front that hold names; the others hold numbers, which are aligned.

    Returns:
        One or more tables, each of which begins with the first column.
    """
    cells = [[printable_line(row[place]) for row in rows] for place in range(len(head))]
    heads = [printable_line(heading, _HEADING) for heading in head]
    if _BORDER + sum(map(_size, heads, cells)) > width:
        heads = [_wrapped(heading, column) for heading, column in zip(heads, cells, strict=True)]
    sizes = list(map(_size, heads, cells))
    tables: list[list[int]] = [[0]]
    for place in range(1, len(head)):
        full = _BORDER + sum(sizes[column] for column in (*tables[-1], place)) > width
        if full and len(tables[-1]) > 1:
            tables.append([0])
        tables[-1].append(place)
    found = [Table() for _ in tables]
    for table, places in zip(found, tables, strict=True):
        for place in places:
            table.add_column(heads[place], justify="left" if place < named else "right", no_wrap=True)
        for row in zip(*(cells[place] for place in places), strict=True):
            table.add_row(*row)
    return found


def _size(heading: str, cells: Sequence[str]) -> int:
    """Count the characters of a column's width."""
    return _COLUMN + max(map(cell_len, (*heading.splitlines(), *cells)), default=0)


def _wrapped(heading: str, cells: Sequence[str]) -> str:
    """Break a heading between words to about the width of the cells; "95 %" stays together."""
    room = max(1, *map(cell_len, cells))
    joined = heading.replace(" %", "\N{NO-BREAK SPACE}%")
    lines = textwrap.wrap(joined, room, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def show_tables(console: Console, tables: Sequence[Table]) -> None:
    """Print tables uncut: a terminal that is too narrow breaks their lines.

    Args:
        console: Console to print to.
        tables: The tables.
    """
    width = console.width
    for table in tables:
        needed = Measurement.get(console, console.options.update(width=_WIDEST), table)
        wraps = any(not column.no_wrap for column in table.columns)
        console.width = max(width, needed.minimum if wraps else needed.maximum)
        console.print(table, crop=False, no_wrap=True, overflow="ignore")
    console.width = width


def _room(console: Console) -> int:
    """Return the width that tables may have: that of the terminal; a file has no limit."""
    return console.width if console.is_terminal else _WIDEST
