"""The command `doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from autoprune.cli.options import FolderArgument
from autoprune.cli.output import report_errors


@report_errors
def doctor(
    folder: FolderArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is broken, and change nothing.")] = False,
) -> None:
    """Find what is broken in a run folder, and repair it. Nothing is deleted: it is moved to lost+found in the folder.

    Exits with 1 where something stays broken.
    """
    from rich.table import Table

    from autoprune.report.terminal import safe_console
    from autoprune.search.doctor import examine

    found = examine(folder, dry_run=dry_run)
    console = safe_console()
    if not found:
        console.print("Nothing is broken.")
        return
    table = Table("what", "is wrong", "to do" if dry_run else "done")
    for one in found:
        table.add_row(one.place, one.fault, one.repair or "nothing can be done")
    console.print(table)
    left = len(found) if dry_run else sum(not one.repair for one in found)
    if dry_run:
        console.print(f"{_faults(left)}; nothing was changed.")
    else:
        console.print(f"{_faults(len(found) - left)} {'is' if len(found) - left == 1 else 'are'} repaired.")
    raise typer.Exit(1 if left else 0)


def _faults(count: int) -> str:
    return "1 fault" if count == 1 else f"{count} faults"
