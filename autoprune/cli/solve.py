"""The command `solve`."""

from __future__ import annotations

from typing import Annotated

import typer

from autoprune.cli.options import FolderArgument
from autoprune.cli.output import report_errors


@report_errors
def solve(
    folder: FolderArgument,
    budget: Annotated[float, typer.Option(help="Share of the dense cost, such as 0.3.")],
    cost: Annotated[
        str | None,
        typer.Option(help="Such as multiply_adds, size_bytes or latency_ms; by default the study's cost."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the widths that lose the least at a budget, from the stored scan. No model runs."""
    import json
    from dataclasses import asdict

    from autoprune.front.run import Run
    from autoprune.report.terminal import show_solved
    from autoprune.search.settings import StudySettings
    from autoprune.search.solve import solve_stored

    opened = Run.open(folder)
    settings = StudySettings.from_dict(opened.manifest.settings, f"settings of {folder}")
    found = solve_stored(opened, settings, budget, cost)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1))
    else:
        show_solved(found)
