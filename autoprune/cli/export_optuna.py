"""The command `export-optuna`."""

from __future__ import annotations

from typing import Annotated

import typer

from autoprune.cli.options import FolderArgument
from autoprune.cli.output import report_errors, tell


@report_errors
def export_optuna(
    folder: FolderArgument,
    storage: Annotated[
        str,
        typer.Option(
            help="Storage of Optuna: sqlite:///FILE.db, postgresql+psycopg://USER@HOST/NAME, any other URL of "
            "SQLAlchemy, or the path of a journal file.",
            show_default=False,
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the study there; that of the run if it is left out.")] = "",
) -> None:
    """Copy a study into a storage of Optuna, for its visualisations and other dashboards."""
    from autoprune.display import without_password
    from autoprune.front.run import Run
    from autoprune.search.optuna_export import export_to_optuna

    run = Run.open(folder)
    count = export_to_optuna(run, storage, name)
    tell(f"{count} trials are in {without_password(storage)} as {name or run.name!r}.")
