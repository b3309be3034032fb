"""The command `explain`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from autoprune.cli.options import ScriptArgument, SetOption
from autoprune.cli.output import report_errors


@report_errors
def explain(
    script: ScriptArgument,
    assignments: SetOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="List every layer and tensor, however many are alike.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with everything.")] = False,
) -> None:
    """Show the prunable structures, the search space, the layers left alone with reasons, and the reachable costs.

    Nothing is written.
    """
    import contextlib
    import json

    from autoprune.explaining.explain import explain as explain_topology
    from autoprune.explaining.explanation import show
    from autoprune.study.script import load_script

    # Output of the script is no JSON.
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        loaded = load_script(script, assignments=assignments or ())
        found = explain_topology(loaded.task, loaded.settings)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
    else:
        show(found, everything=everything)
