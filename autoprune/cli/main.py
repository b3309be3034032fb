"""Command line. Heavy modules are imported inside the commands, so that --help is quick."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, ParamSpec, TypeVar

import typer

from autoprune.display import csv_cell, json_rows, printable_lines
from autoprune.errors import (
    AutopruneError,
    AutopruneWarning,
    ConfigurationError,
    StorageError,
    UnknownNameError,
    error_message,
)

if TYPE_CHECKING:
    from autoprune.cli.script import Script
    from autoprune.study.progress import OnProgress
    from autoprune.study.study import Study

P = ParamSpec("P")
R = TypeVar("R")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Search how to prune a trained PyTorch model: smaller, faster, and how much accuracy it costs.",
)

ScriptArgument = Annotated[
    Path, typer.Argument(metavar="STUDY.py", help="Script with task() and, if it wants, settings.", show_default=False)
]
FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="Run folder, as `autoprune run` printed it.", show_default=False)
]
OutOption = Annotated[Path | None, typer.Option(help="Run folder; runs/<script's name, or its folder's for study.py>.")]
TrialsOption = Annotated[int | None, typer.Option(help="Finished candidates to reach, those of earlier runs included.")]
SecondsOption = Annotated[float | None, typer.Option(help="Stop starting trials after this many seconds.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of everything random.")]
LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=NUMBER",
        help="A field of autoprune.Limits, such as max_drop=0.01 or max_size_share=0.3; may be given several times.",
    ),
]


def _report_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn errors of a command into one message and an exit code: 2 for wrong input and files, 1 for others."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always", AutopruneWarning)
                warnings.showwarning = functools.partial(_show_warning, warnings.showwarning)
                return command(*args, **kwargs)
        except (ConfigurationError, StorageError) as error:
            _fail(str(error), 2)
        except AutopruneError as error:
            _fail(str(error), 1)
        except OSError as error:
            _fail(f"A file or folder cannot be read or written: {error}. Name another path.", 2)
        except KeyboardInterrupt:
            _fail("Interrupted. Finished trials are kept; the same command continues from here.", 130)

    return wrapped


@app.command()
@_report_errors
def explain(
    script: ScriptArgument,
    everything: Annotated[
        bool, typer.Option("--all", help="List every layer and tensor, however many are alike.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with everything.")] = False,
) -> None:
    """Show what can be pruned, what the study searches, what is left alone and why, and the costs within reach.

    Nothing is written.
    """
    import contextlib
    import json

    from autoprune.cli.script import load_script
    from autoprune.explaining.explain import explain as explain_topology
    from autoprune.explaining.text import show

    # Output of the script is no JSON.
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        loaded = load_script(script)
        found = explain_topology(loaded.task, loaded.settings.space)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
    else:
        show(found, everything=everything)


@app.command()
@_report_errors
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
    baseline: Annotated[
        str | None, typer.Option(help="uniform: a sweep of one ratio everywhere, to compare the search with.")
    ] = None,
) -> None:
    """Search, or resume where the folder holds this study. Ends with the front and a report."""
    from autoprune.cli.following import live, show_next, show_start
    from autoprune.cli.script import (
        check_numbers,
        check_out,
        load_script,
        make_sampler,
        read_baseline,
        read_limits,
        study_name,
    )
    from autoprune.report.html import write_report
    from autoprune.report.terminal import show_front
    from autoprune.study.study import Study

    check_numbers({"--trials": trials, "--samples": samples, "--seeds": seeds}, seconds, seed)
    # Read the working directory before the script is imported, which may change it.
    start = context.obj if isinstance(context.obj, Path) else Path.cwd()
    named = out if out is not None else Path("runs") / study_name(script)
    folder, script = start / named, script.absolute()
    check_out(folder)
    limits = read_limits(limit) if limit else None
    given = {"trials": trials, "seconds": seconds, "seed": seed, "samples": samples, "limits": limits}
    given["uniform_points"] = read_baseline(baseline)
    found = load_script(script, {name: value for name, value in given.items() if value is not None})
    settings = found.settings
    if seeds > 1:
        _repeat(script, found, seeds, folder)
        return
    study = Study.create(found.task, settings, out=folder, name=study_name(script))
    sampler = make_sampler(script, found.sampler, settings.seed)
    show_start(study, named, settings, type(sampler).__name__ if sampler is not None else "")
    with live(study) as on_progress:
        front = study.run(trials=settings.trials, seconds=settings.seconds, sampler=sampler, on_progress=on_progress)
    report_path = write_report(study.folder, front)
    show_front(front)
    show_next(front, named, named / report_path.name, study.ending)
    _check_tested([study])


@app.command()
@_report_errors
def front(
    folder: FolderArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Print the front of a run as a table."""
    from autoprune.cli.following import show_ending
    from autoprune.report.terminal import show_front

    if as_json and as_csv:
        raise ConfigurationError(error_message("the format", "be --json or --csv", "both"))
    study = _open(folder)
    found = study.front()
    if as_json:
        typer.echo(json_rows(found.table().to_dict("records")))
    elif as_csv:
        typer.echo(found.table().map(csv_cell).rename(columns=csv_cell).to_csv(index=False), nl=False)
    else:
        show_front(found)
        show_ending(study.ending)


@app.command()
@_report_errors
def choose(  # noqa: PLR0913, PLR0917  # one option each
    folder: FolderArgument,
    max_drop: Annotated[float | None, typer.Option(help="Largest loss of quality against dense, such as 0.01.")] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="Largest latency, in milliseconds.")] = None,
    max_size_bytes: Annotated[float | None, typer.Option(help="Largest file, in bytes.")] = None,
    by: Annotated[
        str,
        typer.Option(help="Best by: quality or a cost: size_bytes, latency_ms, (nonzero_)parameters, multiply_adds."),
    ] = "multiply_adds",
    knee: Annotated[bool, typer.Option("--knee", help="Choose the bend of the front instead of using limits.")] = False,
    limit: LimitOption = None,
) -> None:
    """Print the number of the best candidate within limits, by default those of the search; its row goes to stderr."""
    from autoprune.cli.script import read_limits
    from autoprune.report.terminal import show_candidate

    named = {"max_drop": max_drop, "max_latency_ms": max_latency_ms, "max_size_bytes": max_size_bytes}
    given = [*(f"{name}={value}" for name, value in named.items() if value is not None), *(limit or ())]
    if knee and given:
        raise ConfigurationError(error_message("a choice", "be by limits or by --knee", "both"))
    # Without limits here, the limits of the search apply.
    limits = read_limits(given) if given else None
    found = _open(folder).front()
    record = found.knee() if knee else found.choose(limits, by)
    show_candidate(found, record)
    typer.echo(record.number)


@app.command()
@_report_errors
def importances(
    folder: FolderArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print which parameters of the space mattered, for each objective and for the quality at equal cost."""
    import json

    from autoprune.report.terminal import show_importances

    found = _open(folder).importances()
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
    else:
        show_importances(found)


@app.command()
@_report_errors
def solve(
    folder: FolderArgument,
    budget: Annotated[float, typer.Option(help="Share of the dense cost, such as 0.3.")],
    cost: Annotated[
        str | None,
        typer.Option(help="multiply_adds, parameters, size_bytes or latency_ms; by default the study's cost."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the widths that lose the least at a budget, from the stored scan. No model runs."""
    import json
    from dataclasses import asdict

    from autoprune.report.terminal import show_solved
    from autoprune.study.solve import solve_stored

    found = solve_stored(_open(folder), budget, cost)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1))
    else:
        show_solved(found)


@app.command()
@_report_errors
def report(
    folder: FolderArgument,
    to: Annotated[
        Path | None, typer.Option(help="File to write; report.html in the run folder when not given.")
    ] = None,
) -> None:
    """Write the self-contained HTML report of a run."""
    from autoprune.report.html import write_report

    study = _open(folder)
    _print_path(write_report(study.folder, study.front(), to))


@app.command()
@_report_errors
def export(
    folder: FolderArgument,
    candidate: Annotated[int, typer.Option(help="Number of the candidate, as `front` and `choose` print it.")],
    to: Annotated[Path, typer.Option(help="File to write.")],
    format: Annotated[  # noqa: A002  # the option's name
        str, typer.Option(help="safetensors, or sparse: smaller where many weights are zero, for autoprune alone.")
    ] = "safetensors",
) -> None:
    """Write a candidate as files that need neither the study nor Optuna."""
    from autoprune.export.formats import EXPORT_FORMATS

    if format not in EXPORT_FORMATS:
        raise UnknownNameError("--format", format, EXPORT_FORMATS)
    study = _open(folder)
    for path in EXPORT_FORMATS[format](study.folder, study.front().get(candidate), to):
        _print_path(path)


def main() -> None:
    """Run the command line from the end of a study script.

    `python study.py --trials 20` is `autoprune run study.py --trials 20`. Does nothing while the command line imports
    the script.

    Example:
        >>> main()  # does nothing: this module is not the script that runs
    """
    import autoprune
    from autoprune.cli.script import SCRIPT_MODULE

    script = sys.modules["__main__"]
    path = getattr(script, "__file__", None)
    caller = sys._getframe(1).f_globals.get("__name__")
    if caller != "__main__" or path is None:
        return
    sys.modules[SCRIPT_MODULE] = script
    arguments = sys.argv[1:]
    command = arguments.pop(0) if arguments[:1] == ["explain"] else "run"
    app(args=[command, str(path), *arguments], prog_name=Path(path).name, obj=autoprune.STARTED_IN)


def _repeat(script: Path, found: Script, seeds: int, folder: Path) -> None:
    """Run the same study with several seeds, and report their spread."""
    from contextlib import ExitStack

    from autoprune.cli.following import live, show_ending, show_start
    from autoprune.cli.script import make_sampler
    from autoprune.report.html import write_report
    from autoprune.report.repeats import write_repeats_report
    from autoprune.report.terminal import show_repeats
    from autoprune.study.repeats import repeat

    studies: list[Study] = []
    with ExitStack() as stack:

        def follow(number: int, study: Study) -> OnProgress:
            stack.close()  # the progress of the previous study
            studies.append(study)
            typer.echo(f"seed {study.settings.seed}, {number + 1} of {seeds}", err=True)
            show_start(study, study.folder.path, study.settings)
            return stack.enter_context(live(study))

        repeats = repeat(
            found.task,
            found.settings,
            seeds,
            out=folder,
            follow=follow,
            make_sampler=functools.partial(make_sampler, script, found.sampler),
        )
    for own, front in zip(repeats.folders, repeats.fronts, strict=True):
        write_report(own, front)
        show_ending(own.read_ending())
    show_repeats(repeats)
    _print_path(write_repeats_report(repeats, folder / "report.html"))
    _check_tested(studies)


def _open(folder: Path) -> Study:
    from autoprune.study.study import Study

    return Study.open(folder)


def _check_tested(studies: Sequence[Study]) -> None:
    """Exit with 1 where test numbers are missing, which a warning has told: the user asked for these numbers."""
    if any(study.untested for study in studies):
        raise typer.Exit(1)


def _show_warning(others: Callable[..., None], message: Warning | str, category: type[Warning], *place: object) -> None:
    """Print a warning of autoprune as a line; pass others on."""
    if issubclass(category, AutopruneWarning):
        _tell(message, fg=typer.colors.YELLOW, err=True)
    else:
        others(message, category, *place)


def _tell(message: object, *, fg: str | None = None, err: bool = False) -> None:
    """Print a sentence, which may hold text from users."""
    typer.secho(printable_lines(message), fg=fg, err=err)


def _print_path(path: Path) -> None:
    """Print a path: as safe text for people, byte by byte for programs."""
    typer.echo(printable_lines(path) if sys.stdout.isatty() else os.fsencode(path))


def _fail(message: str, code: int) -> NoReturn:
    _tell(message, fg=typer.colors.RED, err=True)
    raise typer.Exit(code)
