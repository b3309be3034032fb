"""The command `profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoprune.cli.options import LatencyProfileOption, ScriptArgument, SetOption
from autoprune.cli.output import print_path, report_errors


@report_errors
def profile(
    context: typer.Context,
    script: ScriptArgument,
    latency: LatencyProfileOption = None,
    assignments: SetOption = None,
    out: Annotated[Path | None, typer.Option(help="File to write, for `run --device-profile` elsewhere.")] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Measure again, even if this device has been measured.")] = False,
) -> None:
    """Measure on this device which widths are fast, and fit the latency model. Nothing is trained.

    With --latency-profile, the profile is that of the first one given.
    """
    from autoprune.cli.following import live_profile
    from autoprune.profiling.cache import cached_path
    from autoprune.records.profile import parse_profile
    from autoprune.report.device import show_profile
    from autoprune.study.contexts import make_context
    from autoprune.study.device import device_profile
    from autoprune.study.script import load_script

    start = context.obj if isinstance(context.obj, Path) else Path.cwd()
    wanted = parse_profile(latency[0]) if latency else None
    found = load_script(script.absolute(), {}, assignments or ())
    trials = make_context(found.task, found.settings)
    with live_profile() as on_timed:
        measured = device_profile(trials, wanted or found.settings.measure.timed_profiles[0], on_timed, anew=anew)
    show_profile(measured)
    path = start / out if out is not None else None
    if path is not None:
        measured.write(path)
        print_path(path)
        return
    cached = cached_path(measured.structure, measured.device, measured.latency_profile)
    if measured.trusted and cached is not None and cached.is_file():
        print_path(cached)
