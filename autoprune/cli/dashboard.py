"""The command `dashboard`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoprune.cli.output import report_errors, tell
from autoprune.errors import ConfigurationError, error_message


@report_errors
def dashboard(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="One or more run folders, also of studies that run.", show_default=False),
    ],
    host: Annotated[
        str,
        typer.Option(
            help="Address to bind. Any other than a loopback one is open to others, and needs the token of the address."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to bind; 0 for any free one.")] = 8050,
    read_only: Annotated[bool, typer.Option("--read-only", help="Write nothing into the run folders.")] = False,
    show: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = False,
) -> None:
    """Show runs in the browser: the front, limits, comparisons, notes; live while a study runs."""
    try:
        from autoprune.dashboard.serve import Dashboard
    except ModuleNotFoundError as error:
        if error.name != "dash":
            raise
        expected = "be installed for the dashboard"
        remedy = "Install it: pip install 'autoprune[dashboard]'."
        raise ConfigurationError(error_message("the package dash", expected, "none", remedy)) from None
    served = Dashboard(folders, host=host, port=port, read_only=read_only)
    tell(f"The dashboard is at {served.url}")
    tell("Ctrl+C ends it.")
    served.serve(show=show)
