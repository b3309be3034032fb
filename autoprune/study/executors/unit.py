"""Unit: one trial, or one measurement of latency, as plain data that a worker process is sent."""

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from autoprune.codec import from_plain, parse, to_plain
from autoprune.errors import AutopruneError, StorageError, describe_exception, error_message
from autoprune.records.measurement import LaterLatencies
from autoprune.records.results import Results
from autoprune.records.run_folder import RunFolder
from autoprune.search.proposal import Failure, Proposal
from autoprune.search.settings import StudySettings
from autoprune.study.executors.crew import failure_of
from autoprune.study.executors.source import TaskSource
from autoprune.study.executors.task_worker import TaskWorker


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Work for a worker process. The process needs the run folder, under the same path.

    Attributes:
        folder: Path of the run folder.
        source: Where the task comes from.
        settings: JSON of the settings of the run.
        proposal: JSON of the trial to run; "" where a latency is to be measured.
        candidate: Number of the candidate whose latencies are measured, where no trial is run.
        attempt: How often the trial was begun before, so that no executor takes two attempts for one.
    """

    folder: str
    source: TaskSource
    settings: str
    proposal: str = ""
    candidate: int = -1
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Answer of a worker process; the result of a trial lies in the run folder.

    Attributes:
        failure: Why a trial has no result; None where it has one.
        traceback: Traceback of the failure.
        stops: Message of an error that is no fault of the trial, such as of a file that cannot be read: the run ends.
        setup: Whether the task could not be made in the worker.
        latencies: JSON of measured latencies; "" after a trial.
    """

    failure: Failure | None = None
    traceback: str = ""
    stops: str = ""
    setup: bool = False
    latencies: str = ""


def run_unit(unit: Unit) -> Report:
    """Do a unit of work in this process. The task is made once in a process for each run.

    Args:
        unit: The work.

    Returns:
        How it went. Exceptions are reported and not raised, so that what an executor raises is the death of a worker.
    """
    try:
        trial = Proposal.from_json(unit.proposal) if unit.proposal else None
        worker = _worker(_Setup(unit.folder, unit.source, unit.settings, trial=-1 if trial is None else trial.number))
    except (AutopruneError, OSError) as error:
        return Report(stops=str(error), traceback=traceback.format_exc(), setup=True)
    except BaseException as error:  # the user's code runs here, and may even call sys.exit
        return Report(stops=describe_exception(error), traceback=traceback.format_exc(), setup=True)
    return _measure(worker, unit.candidate) if trial is None else _run_trial(worker, trial)


@dataclass(frozen=True, slots=True)
class _Setup:
    """Run folder, task and settings of a worker, and the number of the trial that it is made for; -1 for none."""

    folder: str
    source: TaskSource
    settings: str
    trial: int = field(compare=False)


@lru_cache(maxsize=2)  # two studies may share an executor; tasks of earlier runs free their memory
def _worker(setup: _Setup) -> TaskWorker:
    folder = RunFolder(Path(setup.folder))
    if setup.trial >= 0:
        Results(folder).prepare(setup.trial)
    read = StudySettings.from_dict(json.loads(setup.settings), "settings of the run")
    return TaskWorker.of(folder, setup.source, read)


def _run_trial(worker: TaskWorker, proposal: Proposal) -> Report:
    results = Results(worker.folder)
    try:
        with results.claim(proposal.number):
            # Another worker may have ended this trial meanwhile, sent by a driver that is dead by now.
            if not results.has(proposal.number):
                results.begin(proposal.number)
                worker.run(proposal, results)
    except StorageError as error:
        return Report(stops=str(error), traceback=traceback.format_exc())
    except BaseException as error:  # the user's code runs here, and may even call sys.exit
        failure = failure_of(error, proposal, worker.context.topology)
        return Report(failure=failure, traceback=traceback.format_exc())
    return Report()


def _measure(worker: TaskWorker, number: int) -> Report:
    try:
        found = worker.measure(number)
    except BaseException as error:  # the user's code runs here, and may even call sys.exit
        return Report(stops=describe_exception(error), traceback=traceback.format_exc())
    return Report(latencies=json.dumps(to_plain(found)))


def latencies_of(report: Report) -> LaterLatencies:
    """Read the latencies of a report.

    Args:
        report: Report about a unit that measured latencies.

    Returns:
        Latencies and energy.

    Raises:
        StorageError: The report holds none.
    """
    where = "latencies that a worker measured"
    if not report.latencies:
        raise StorageError(error_message(where, "be there", report.stops or "none"))
    return from_plain(LaterLatencies, parse(report.latencies, where), where)
