"""The command `choose`."""

from __future__ import annotations

from typing import Annotated

import typer

from autoprune.cli.options import FolderArgument, LimitOption
from autoprune.cli.output import report_errors
from autoprune.errors import ConfigurationError, error_message
from autoprune.records.confidence import CONFIDENCE


@report_errors
def choose(  # noqa: PLR0913, PLR0917  # one option each
    folder: FolderArgument,
    max_drop: Annotated[float | None, typer.Option(help="Largest loss of quality against dense, such as 0.01.")] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="Largest latency, in milliseconds.")] = None,
    max_size_bytes: Annotated[float | None, typer.Option(help="Largest file, in bytes.")] = None,
    by: Annotated[
        str,
        typer.Option(help="Best by: quality, a cost such as size_bytes or latency_ms, or another metric of the task."),
    ] = "multiply_adds",
    knee: Annotated[bool, typer.Option("--knee", help="Choose the bend of the front instead of using limits.")] = False,
    limit: LimitOption = None,
    confidence: Annotated[
        float,
        typer.Option(
            help="Confidence with which limits of quality and latency are kept, given their noise; 0.5 takes every "
            "number as measured, also what is in doubt."
        ),
    ] = CONFIDENCE,
    mark: Annotated[
        bool, typer.Option("--mark", help="Mark it as the chosen one, in the run folder, like `autoprune mark`.")
    ] = False,
) -> None:
    """Print the number of the best candidate within limits, by default those of the search.

    Its row goes to stderr, with what its loss may be and how much of its quality may be luck.
    """
    from autoprune.cli.arguments import read_limits
    from autoprune.front.run import Run
    from autoprune.report.terminal import show_candidate

    named = {"max_drop": max_drop, "max_latency_ms": max_latency_ms, "max_size_bytes": max_size_bytes}
    given = [*(f"{name}={value}" for name, value in named.items() if value is not None), *(limit or ())]
    if knee and given:
        raise ConfigurationError(error_message("a choice", "be by limits or by --knee", "both"))
    # Without limits here, the limits of the search apply.
    limits = read_limits(given) if given else None
    run = Run.open(folder)
    found = run.front()
    if knee:
        bend = found.knee_choice()
        record, remarks = bend.choice.record, bend.remarks
    else:
        choice = found.choice(limits, by, confidence)
        record, remarks = choice.record, choice.remarks
    noted = run.mark(record.number) if mark else run.annotations
    show_candidate(found, record, remarks, noted)
    typer.echo(record.number)
