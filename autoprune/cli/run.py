"""The command `run`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoprune.cli.options import (
    ArtifactsOption,
    DeviceProfileOption,
    LatencyProfileOption,
    LimitOption,
    OutOption,
    RayOption,
    ScriptArgument,
    SecondsOption,
    SeedOption,
    SetOption,
    TrialsOption,
    TrialTimeoutOption,
    WorkersOption,
)
from autoprune.cli.output import print_path, report_errors

if TYPE_CHECKING:
    from autoprune.records.device_profile import DeviceProfile
    from autoprune.study.progress import OnProgress
    from autoprune.study.script import Script, ScriptPlace
    from autoprune.study.study import Study


@report_errors
def run(  # noqa: PLR0913, PLR0917  # one option each
    context: typer.Context,
    script: ScriptArgument,
    trials: TrialsOption = None,
    seconds: SecondsOption = None,
    out: OutOption = None,
    seed: SeedOption = None,
    samples: Annotated[
        int | None, typer.Option(help="Stop starting trials after this many samples (training, evaluation, scan).")
    ] = None,
    seeds: Annotated[
        int, typer.Option(help="Number of seeds to run the study with; each has a folder, the report shows the spread.")
    ] = 1,
    limit: LimitOption = None,
    profile: LatencyProfileOption = None,
    device_profile: DeviceProfileOption = None,
    artifacts: ArtifactsOption = None,
    assignments: SetOption = None,
    baseline: Annotated[
        str | None, typer.Option(help="uniform: a sweep of one ratio everywhere, to compare the search with.")
    ] = None,
    workers: WorkersOption = None,
    ray: RayOption = None,
    trial_timeout: TrialTimeoutOption = None,
) -> None:
    """Search, or resume where the folder holds this study. Ends with the front and a report."""
    from autoprune.cli.arguments import check_numbers, check_out, read_baseline, read_limits, study_name
    from autoprune.cli.following import live, show_next, show_start
    from autoprune.records.device_profile import DeviceProfile
    from autoprune.records.profile import parse_profile
    from autoprune.report.html import write_report
    from autoprune.report.terminal import show_front
    from autoprune.study.script import ScriptPlace, load_script, make_sampler
    from autoprune.study.study import Study

    counts = {"--trials": trials, "--samples": samples, "--seeds": seeds, "--workers": workers}
    check_numbers(counts, {"--seconds": seconds, "--trial-timeout": trial_timeout}, seed)
    # Read the working directory before the script is imported, which may change it.
    start = context.obj if isinstance(context.obj, Path) else Path.cwd()
    named = out if out is not None else Path("runs") / study_name(script)
    folder, script = start / named, script.absolute()
    check_out(folder)
    limits = read_limits(limit) if limit else None
    device = DeviceProfile.read(start / device_profile) if device_profile is not None else None
    given: dict[str, object] = {
        "trials": trials,
        "seconds": seconds,
        "seed": seed,
        "samples": samples,
        "limits": limits,
        "workers.count": workers,
        "workers.ray_address": ray,
        "workers.trial_timeout": trial_timeout,
    }
    given["search.uniform_points"] = read_baseline(baseline)
    given["storage.artifacts"] = artifacts
    given["measure.profiles"] = tuple(parse_profile(text) for text in profile) if profile else None
    chosen = {name: value for name, value in given.items() if value is not None}
    found = load_script(script, chosen, assignments or ())
    settings = found.settings
    place = ScriptPlace(path=script, start=start)
    if seeds > 1:
        _repeat(place, found, seeds, folder, device)
        return
    study = Study.create(found.task, settings, out=folder, name=study_name(script))
    study.script = place
    if device is not None:
        study.use_device_profile(device)
    sampler = make_sampler(script, found.sampler, settings.seed)
    show_start(study, named, settings, type(sampler).__name__ if sampler is not None else "")
    with live(study) as on_progress:
        front = study.run(trials=settings.trials, seconds=settings.seconds, sampler=sampler, on_progress=on_progress)
    report_path = write_report(study.stored)
    show_front(front)
    show_next(front, named, named / report_path.name, study.ending)
    _check_tested([study])


def _repeat(script: ScriptPlace, found: Script, seeds: int, folder: Path, device: DeviceProfile | None) -> None:
    """Run the same study with several seeds, and report their spread."""
    from contextlib import ExitStack

    from autoprune.cli.following import live, show_start
    from autoprune.report.html import write_report
    from autoprune.report.repeats import write_repeats_report
    from autoprune.report.terminal import show_ending, show_repeats
    from autoprune.study.repeat import repeat
    from autoprune.study.script import make_sampler

    studies: list[Study] = []
    with ExitStack() as stack:

        def follow(number: int, study: Study) -> OnProgress:
            stack.close()  # the progress of the previous study
            studies.append(study)
            study.script = script
            typer.echo(f"seed {study.settings.seed}, {number + 1} of {seeds}", err=True)
            if device is not None:
                study.use_device_profile(device)
            show_start(study, study.folder.path, study.settings)
            return stack.enter_context(live(study))

        repeats = repeat(
            found.task,
            found.settings,
            seeds,
            out=folder,
            follow=follow,
            make_sampler=functools.partial(make_sampler, script.path, found.sampler),
        )
    for opened in repeats.runs:
        write_report(opened)
        show_ending(opened.ending)
    show_repeats(repeats)
    print_path(write_repeats_report(repeats, folder / "report.html"))
    _check_tested(studies)


def _check_tested(studies: Sequence[Study]) -> None:
    """Exit with 1 where test numbers are missing, which a warning has told: the user asked for these numbers."""
    if any(study.untested for study in studies):
        raise typer.Exit(1)
