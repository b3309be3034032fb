"""Follow a run on the command line: its plan, its progress, and the next commands at its end."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

from autoprune.display import printable_line
from autoprune.errors import SelectionError
from autoprune.front.advice import other_choices
from autoprune.front.findings import limit_findings, slow_widths
from autoprune.front.front import Front
from autoprune.front.run_state import duration_text, mean_trial_seconds
from autoprune.front.suggestion import limits_to_suggest
from autoprune.plan.widths import prunable_blocks
from autoprune.records.ending import Ending
from autoprune.report.terminal import front_tables, safe_console, show_ending
from autoprune.search.samplers.registry import named_sampler
from autoprune.search.settings import QUIET, StudySettings
from autoprune.sensitivity.scan import plan_scan
from autoprune.study.device import lacks_profile
from autoprune.study.executors.registry import LOGS
from autoprune.study.progress import OnProgress, Progress
from autoprune.study.study import Study
from autoprune.task.batches import batch_samples
from autoprune.task.evaluation import Evaluation

#: Members of the front shown while a study runs.
_LIVE_ROWS = 12
#: Seconds between two lines of progress in a log.
_EVERY = 5.0
_STAGES = {
    "profile": "device profile",
    "scan": "sensitivity scan",
    "trial": "trials",
    "latency": "latency again",
    "test": "test split",
    "end": "done",
}
#: Stages that are stored at their end only.
_LOST = ("profile", "scan")


def show_start(study: Study, folder: Path, settings: StudySettings, proposer: str = "") -> None:
    """Print on standard error what a run will do, before it starts.

    Args:
        study: The study, with its task.
        folder: The run folder, as the user named it.
        settings: Settings of this run; its trials and seconds may differ from the study's.
        proposer: Name of the source of trials that replaces the settings' sampler; "" for none.
    """
    console = safe_console(stderr=True, soft_wrap=True)
    done = len(study.records)
    have = f", {done} of them finished" if done else ""
    console.print(f"{study.name}: {settings.trials} trials{have}; written to {folder}")
    assert study.context is not None
    lines = [f"The task: {study.context.task.summary()}", _profile(study, settings), _scan(study, settings)]
    for line in filter(
        None,
        (*lines, _proposals(study, settings, proposer), _trial(study, settings), _workers(settings), _until(settings)),
    ):
        console.print(f"  {line}")
    stops = "Control-C lets running trials finish, and a second one ends at once; the same command goes on."
    console.print(f"  {_duration(study, settings)} {stops}")


def _profile(study: Study, settings: StudySettings) -> str:
    assert study.context is not None
    if not lacks_profile(study.context, study.folder, settings):
        return ""
    return (
        "First the device profile, from the user's cache or measured: cuts of the model are timed for a minute or "
        "more, to learn which widths are fast here. Control-C keeps nothing of it."
    )


def _scan(study: Study, settings: StudySettings) -> str:
    assert study.context is not None
    topology = study.context.topology
    groups, blocks = len(topology.groups), len(prunable_blocks(topology))
    if not settings.scanned or not groups + blocks:
        return "No sensitivity scan."
    if study.folder.read_sensitivity() is not None:
        return ""
    size = plan_scan(study.context, settings.search.scan_criterion, samples=settings.scan_budget)
    cuts = f"{len(size.keep_shares)} shares of each of {groups} groups" if groups else ""
    each = " and ".join(filter(None, (cuts, f"{blocks} blocks or layers dropped one by one" if blocks else "")))
    return f"First a sensitivity scan: {each} on {size.samples} samples, {size.forward:,} samples forward in all."


def _proposals(study: Study, settings: StudySettings, proposer: str) -> str:
    assert study.context is not None
    left, listed = max(settings.trials - 1, 0), ["the dense model"]
    for name, points in _series(settings).items():
        if min(points, left):
            listed.append(name.format(min(points, left)))
        left -= min(points, left)
    first = ", ".join(listed)
    needed = 1 + sum(_series(settings).values())
    if settings.search.uniform_points and needed > settings.trials:
        return f"Trials: {first}. The whole uniform sweep needs {needed} trials."
    if not left:
        return f"Trials: {first}."
    groups = len(study.context.topology.groups)
    rest = f"proposals by {proposer or named_sampler(settings.search.sampler, groups, bool(settings.scanned))}"
    if settings.search.lineage and settings.search.polish and settings.recovery.lengths != (0, 0):
        rest += f", {settings.search.polish:.0%} of them members of the front, trained further"
    return f"Trials: {first}; then {rest}."


def _series(settings: StudySettings) -> dict[str, int]:
    """Warm starts before the sampler's proposals, as templates for their number -> number of points."""
    chain, sweep = settings.search.solved_points, settings.search.uniform_points
    if settings.scanned:
        return {"a chain of {} solved allocations": chain, "a uniform sweep of {} points": sweep}
    return {"a uniform sweep of {} points": sweep} if sweep else {"a chain of {} uniform allocations": chain}


def _trial(study: Study, settings: StudySettings) -> str:
    assert study.context is not None
    task, space = study.context.task, settings
    fewest, most = space.recovery.lengths
    steps = f"{most}" if fewest == most else f"{fewest} to {most}"
    batch = batch_samples(task.train_split)
    each = f"of {batch} samples" if batch is not None else "of a batch of the train split"
    trained = f"{steps} steps {each}" if most else "no training"
    if most and space.recovery.length_exponent:
        trained += ", more where a candidate costs less"
    searched = task.search_split.samples
    judged = f"quality on {searched:,} search samples" if searched is not None else "quality on the search split"
    if isinstance(task.search_split, Evaluation):
        judged = "evaluate(model)"
    where = " where it would reach the front" if settings.measure.predicts else ""
    timed = f", latency{where}" if settings.measure.latency_rounds else ""
    if timed and not settings.workers.is_inline and settings.workers.latency != QUIET:
        timed = "; latency is predicted, and measured at the end"
    return f"Each trial: {trained}, then {judged}{timed}."


def _workers(settings: StudySettings) -> str:
    workers = settings.workers
    if workers.is_inline:
        return ""
    if not workers.ray_address:
        several = "one process" if workers.count == 1 else f"{workers.count} processes"
        return f"Trials run in {several} of this machine; their logs lie in {LOGS}/ in the run folder."
    count = f"{workers.count} at a time" if workers.count else "as many at a time as it has room for"
    return f"Trials run on the Ray cluster {workers.ray_address}, {count}."


def _until(settings: StudySettings) -> str:
    given = ", ".join(f"{name} {value:g}" for name, value in settings.limits.given.items())
    ends = [f"{settings.seconds:g} s"] if settings.seconds is not None else []
    ends += [f"{settings.samples:,} samples"] if settings.samples is not None else []
    sooner = f" It ends after {' or '.join(ends)} at the latest." if ends else ""
    return f"{f'Limits of the search: {given}.' if given else 'No limits of the search.'}{sooner}"


def _duration(study: Study, settings: StudySettings) -> str:
    """The estimated duration, from the finished trials."""
    left = settings.trials - len(study.records)
    took = mean_trial_seconds(study.records)
    if left <= 0:
        return "All trials are finished."
    if took is None:
        return "The duration is estimated after the first trials."
    return f"The remaining {left} take about {duration_text(took * left)}, judging by the finished ones."


@contextlib.contextmanager
def live(study: Study) -> Iterator[OnProgress]:
    """Show a table that follows the run: finished trials, current front, time left. Plain lines if not on a terminal.

    Args:
        study: The study.

    Yields:
        The function to call with each progress.

    Raises:
        KeyboardInterrupt: Control-C, with words on what is lost, if it came where a stage is lost.
    """
    stage = ""
    with _shown(study) as show, _naming_loss(lambda: stage):

        def follow(progress: Progress) -> None:
            nonlocal stage
            stage = progress.stage
            show(progress)

        yield follow


@contextlib.contextmanager
def _naming_loss(stage: Callable[[], str]) -> Iterator[None]:
    """Name what is lost when Control-C ends a stage of which nothing is stored before its end."""
    try:
        yield
    except KeyboardInterrupt:
        if stage() not in _LOST:
            raise
        lost = f"nothing of the {_STAGES[stage()]} is: the same command begins it anew."
        raise KeyboardInterrupt(f"Finished trials are kept; {lost}") from None


@contextlib.contextmanager
def _shown(study: Study) -> Iterator[OnProgress]:
    console = safe_console(stderr=True)
    if not console.is_terminal:
        lines = Lines(console.print)
        try:
            yield lines
        finally:
            lines.flush()
        return
    bar = Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}", markup=False),
        TextColumn("{task.fields[left]}", markup=False),
    )
    job = bar.add_task("trials", total=study.settings.trials, completed=len(study.records), left="")
    with Live(bar, console=console, refresh_per_second=4) as screen:

        def update(progress: Progress) -> None:
            done, total = progress.part if progress.part[1] else (progress.done, progress.target)
            stage = _STAGES[progress.stage]
            bar.update(job, completed=done, total=total, description=stage, left=_left(progress))
            if progress.failed:
                screen.console.print(_failure(progress), style="red")
            if progress.front.members:
                tables = front_tables(progress.front, progress.front.members[:_LIVE_ROWS], console)
                screen.update(Group(bar, *_worker_lines(progress), *tables))

        yield update


@contextlib.contextmanager
def live_profile() -> Iterator[Callable[[int, int, float | None], None]]:
    """Show on standard error how many models are timed for a device profile, and the time left.

    Yields:
        The function to call after each model: (done, total, seconds left or None).

    Raises:
        KeyboardInterrupt: Control-C, with words on what is lost.
    """
    console = safe_console(stderr=True)
    begin = last = time.monotonic()

    def follow(done: int, total: int, left: float | None) -> None:
        nonlocal last
        now = time.monotonic()
        if done in (1, total) or now - last >= _EVERY:
            last = now
            rest = "" if left is None else f", {duration_text(now - begin)} elapsed, about {duration_text(left)} left"
            console.print(f"{_STAGES['profile']} {done}/{total}{rest}")

    try:
        yield follow
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Nothing of the device profile is kept: the same command begins it anew.") from None


class Lines:
    """Prints progress as plain lines for a log: one every few seconds, every failure, and the last one.

    Args:
        say: Prints a line.
        clock: Monotonic time in seconds.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._stage, self._last, self._held = "", -_EVERY, ""

    def __call__(self, progress: Progress) -> None:
        """Print a line, or hold it back until a newer one.

        Args:
            progress: The current progress.
        """
        if progress.stage == "end":
            return
        now, line = self._clock(), _line(progress)
        if progress.failed:
            self._say(line)
        elif progress.stage != self._stage or now - self._last >= _EVERY:
            if progress.stage != self._stage:
                self.flush()
            # Before it is said: Control-C may come in the middle, and what is held back is older.
            self._stage, self._last, self._held = progress.stage, now, ""
            self._say(line)
        else:
            self._held = line

    def flush(self) -> None:
        """Print the line that is held back, if any."""
        if self._held:
            self._say(self._held)
        self._held = ""


def _line(progress: Progress) -> str:
    if progress.failed:
        return _failure(progress)
    done, total = progress.part
    if progress.stage != "trial":
        head = f"{_STAGES[progress.stage]} {done}/{total}"
    else:
        head = f"trial {progress.done}/{progress.target}, front {len(progress.front.members)}"
    workers = f"{len(progress.workers)} at work" if progress.workers else ""
    return ", ".join(filter(None, (head, workers, _left(progress))))


def _worker_lines(progress: Progress) -> list[str]:
    """Say what each worker does."""
    return [
        f"{printable_line(one.name)}: trial {one.trial}, since {time.strftime('%H:%M:%S', time.localtime(one.since))}"
        for one in progress.workers
    ]


def _failure(progress: Progress) -> str:
    return f"a trial failed: {progress.failed} (traceback under failures/ in the run folder)"


def _left(progress: Progress) -> str:
    if progress.remaining_seconds is None:
        return ""
    left = f"{duration_text(progress.elapsed_seconds)} elapsed, about {duration_text(progress.remaining_seconds)} left"
    an_hour = progress.trials_per_hour
    return left if an_hour is None or progress.stage != "trial" else f"{an_hour:,.0f} trials an hour, {left}"


def show_next(front: Front, folder: Path, report: Path, ending: Ending | None = None) -> None:
    """Print how the run ended, where the report lies, and how to choose and export.

    Args:
        front: The front of the run.
        folder: The run folder, as the user named it.
        report: The file of the report.
        ending: Why the run ended.

    """
    console = safe_console(soft_wrap=True)
    show_ending(ending, console)
    console.print(f"Report: {report}")
    for line, warning in (*limit_findings(front), *slow_widths(front)):
        console.print(line, style="yellow" if warning else None)
    # For pasting: a name that begins with a dash would be taken for an option.
    named = shlex.quote(f"./{folder}" if str(folder).startswith("-") else str(folder))
    limits = limits_to_suggest(front)
    usual = "" if front.problem.limits.given else "".join(f" --limit {a}={b:g}" for a, b in limits.given.items())
    try:
        choice = front.choice(limits)
    except SelectionError as error:
        console.print(str(error), style="yellow")
        for other in other_choices(front, limits):
            console.print(other.sentence)
            console.print("Choose: ", f"autoprune choose {named} {other.options}", sep="")
        return
    console.print("Choose: ", f"autoprune choose {named}{usual}", sep="")
    if choice.record.origin == "dense" and choice.nearest is None:
        sure = " for certain" if choice.doubts else ""
        said = f"No smaller candidate meets the limits{sure}: the choice is the dense model itself."
        console.print(said, style="yellow")
    for line in choice.remarks:
        console.print(line, style="yellow" if choice.nearest is not None else None)
    options = f"--candidate {choice.record.number} --format safetensors --to model.safetensors"
    console.print("Export: ", f"autoprune export {named} {options}", sep="")
