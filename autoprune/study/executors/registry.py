"""Executors by name, and the crew that the settings of a run ask for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from autoprune.errors import error_message, raise_all
from autoprune.records.measurement import LaterLatencies
from autoprune.records.results import Results
from autoprune.records.run_folder import RunFolder
from autoprune.search.search import Search
from autoprune.search.settings import AT_END, QUIET, StudySettings, WorkerSettings
from autoprune.study.executors.crew import Crew
from autoprune.study.executors.inline import InlineCrew
from autoprune.study.executors.processes import ProcessExecutor, one_gpu_each
from autoprune.study.executors.ray import RayExecutor
from autoprune.study.executors.source import TaskSource
from autoprune.study.executors.unit import Report, Unit, latencies_of, run_unit
from autoprune.study.executors.worker_crew import WorkerCrew
from autoprune.study.script import ScriptPlace
from autoprune.study.trials import TrialRunner
from autoprune.trial.context import TrialContext

#: Folder of the logs of workers in the run folder.
LOGS = "logs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hiring:
    """Study, settings and executor from which a crew is made.

    Attributes:
        folder: Run folder, locked by this process.
        context: Context of the trials in this process.
        settings: Settings of the run.
        script: Study script from which workers make the task; None pickles the task.
        executor: Executor of the user; None takes the one of the settings.
    """

    folder: RunFolder
    context: TrialContext
    settings: StudySettings
    script: ScriptPlace | None = None
    executor: Executor | None = None

    @property
    def is_inline(self) -> bool:
        """Whether trials run in this process."""
        return self.executor is None and self.settings.workers.is_inline

    @property
    def inline(self) -> Hiring:
        """The same for trials in this process."""
        return replace(self, executor=None, settings=replace(self.settings, workers=WorkerSettings()))

    def check(self) -> None:
        """Check that what the settings and the caller ask for fits together.

        Raises:
            ConfigurationError: It does not; all faults are named.
        """
        workers, faults = self.settings.workers, []
        if isinstance(self.executor, ThreadPoolExecutor):
            remedy = "Threads of one process share torch's random numbers. Give workers=N for processes."
            got = type(self.executor).__name__
            faults.append(error_message("executor", "run calls in other processes", got, remedy))
        if workers.latency not in (AT_END, QUIET) and not workers.ray_address:
            expected = f"be {AT_END!r} or {QUIET!r}, or with Ray the name of a resource"
            faults.append(error_message("workers.latency", expected, repr(workers.latency)))
        if self.settings.energy_decides and workers.latency != QUIET and not self.is_inline:
            expected = f"be {QUIET!r} where energy is an objective or limited, as other trials would be counted, too"
            faults.append(error_message("workers.latency", expected, repr(workers.latency)))
        if workers.trial_timeout is not None and self.is_inline:
            expected = "be given with workers, as a trial in this process cannot be ended"
            remedy = "Give --workers 1, or more."
            got = f"{workers.trial_timeout:g} s without"
            faults.append(error_message("workers.trial_timeout", expected, got, remedy))
        raise_all("the workers", faults)


def with_workers(settings: StudySettings, workers: int | None, executor: Executor | None) -> StudySettings:
    """Put the number of workers that a caller asks for into the settings of a run.

    Args:
        settings: Settings of the run.
        workers: Number of workers; None for that of the settings.
        executor: Executor of the user, whose number of workers is taken where no other is given; None without.

    Returns:
        The settings.
    """
    if executor is not None and workers is None and settings.workers.count is None:
        workers = int(getattr(executor, "_max_workers", 1))
    return settings if workers is None else settings.changed({"workers.count": workers})


def _processes(hiring: Hiring) -> tuple[Executor, int]:
    count = hiring.settings.workers.count or 1
    logs = hiring.folder.path / LOGS
    return ProcessExecutor(count, logs, list(one_gpu_each()), imports=run_unit.__module__), count


def _ray(hiring: Hiring) -> tuple[Executor, int]:
    workers = hiring.settings.workers
    executor = RayExecutor(workers.ray_address, cpus=workers.cpus, gpus=workers.gpus, resources=workers.amounts)
    return executor, workers.count or executor.capacity


#: Name -> makes the executor, and the number of trials that run at the same time.
EXECUTORS: Mapping[str, Callable[[Hiring], tuple[Executor, int]]] = {"processes": _processes, "ray": _ray}


@contextmanager
def hire(hiring: Hiring, search: Search) -> Iterator[Crew]:
    """Make the crew of a run, and dismiss it afterwards.

    Args:
        hiring: Study, settings and executor.
        search: Search that proposes.

    Yields:
        The crew.

    Raises:
        ConfigurationError: The workers cannot be had.
    """
    if hiring.is_inline:
        yield InlineCrew(TrialRunner.of(hiring.folder, hiring.context, hiring.settings), search)
        return
    results, workers = Results(hiring.folder), hiring.settings.workers
    with _executor(hiring) as (executor, count), _unit(hiring) as unit:
        yield WorkerCrew(
            executor,
            count,
            unit,
            results,
            search,
            timeout=workers.trial_timeout,
            task_timeout=workers.task_timeout,
        )


@contextmanager
def measuring(hiring: Hiring) -> Iterator[Callable[[int], LaterLatencies] | None]:
    """Open where latencies are measured at the end of a run.

    Args:
        hiring: Study, settings and executor.

    Yields:
        Function from the number of a candidate to its latencies, measured where a Ray cluster has the resource that the
        settings name; None where they are measured in this process.
    """
    resource = hiring.settings.workers.latency
    if hiring.is_inline or resource in (AT_END, QUIET):
        yield None
        return
    with _executor(hiring) as (executor, _), _unit(hiring) as unit:

        def measure(number: int) -> LaterLatencies:
            assert isinstance(executor, RayExecutor)
            future: Future[Report] = executor.submit_where(resource, run_unit, replace(unit, candidate=number))
            return latencies_of(future.result())

        yield measure


@contextmanager
def _executor(hiring: Hiring) -> Iterator[tuple[Executor, int]]:
    """Open the executor; the user's own is left open."""
    workers = hiring.settings.workers
    if hiring.executor is not None:
        yield hiring.executor, workers.count or 1
        return
    executor, count = EXECUTORS["ray" if workers.ray_address else "processes"](hiring)
    try:
        yield executor, count
    finally:
        executor.shutdown(wait=False, cancel_futures=True)  # nothing is out any more, or it is to end at once


@contextmanager
def _unit(hiring: Hiring) -> Iterator[Unit]:
    source = TaskSource.of(hiring.folder, hiring.context.task, hiring.script)
    settings = json.dumps(hiring.settings.to_dict(), sort_keys=True)
    try:
        yield Unit(folder=str(hiring.folder.path), source=source, settings=settings)
    finally:
        source.remove(hiring.folder)
