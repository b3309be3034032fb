"""State of a run: how far it is, and how long the rest takes, by what its trials took."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from autoprune.front.run import Run
from autoprune.records.candidate import CandidateRecord
from autoprune.records.columns import Columns
from autoprune.records.ending import Ending
from autoprune.records.origins import Origin
from autoprune.records.workers import Worker, read_workers


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """How far a run is.

    Attributes:
        target: Number of trials to reach; None where it is unknown.
        finished: Finished candidates, those that were stopped early included.
        stopped: Candidates that were stopped early.
        failed: Trials that crashed.
        spent_seconds: Time of the finished trials.
        scan_seconds: Time of the sensitivity scan, which no trial holds; 0 without one.
        trial_seconds: Mean time of a trial, without the dense model's, which trains nothing; None before there is one.
        ending: Why the run ended; None while it runs, and where it was interrupted.
        workers: What the workers of a running study do; empty where trials run in one process.
    """

    target: int | None
    finished: int
    stopped: int
    failed: int
    spent_seconds: float
    scan_seconds: float
    trial_seconds: float | None
    ending: Ending | None
    workers: tuple[Worker, ...] = ()

    @property
    def left(self) -> int:
        """Number of trials that are left."""
        return max((self.target or 0) - self.finished, 0)

    @property
    def remaining_seconds(self) -> float | None:
        """Time that the trials left take, judging by the finished ones; None where that is unknown, or none is left."""
        if self.ending is not None or not self.left or self.trial_seconds is None:
            return None
        return self.trial_seconds * self.left


def state_of(run: Run, columns: Columns | None = None) -> RunState:
    """Tell how far a run is.

    Args:
        run: Run.
        columns: Numbers of its candidates, where they are kept while it goes on.

    Returns:
        Its state when it was opened.

    Raises:
        StorageError: A file of the run cannot be read.
    """
    ending, scan, trials = run.ending, run.sensitivity(), run.manifest.settings.get("trials")
    took = (columns or Columns(run.records)).column("seconds", _took, 2)
    target = ending.target if ending is not None else trials if isinstance(trials, int) else None
    if target is not None and target < len(run.records):
        target = None  # a later run, which has not ended, was asked for more
    return RunState(
        target=target,
        finished=len(run.records),
        stopped=sum(record.stopped for record in run.records),
        failed=len(run.failures),
        spent_seconds=float(took[:, 0].sum()),
        scan_seconds=0.0 if scan is None else scan.seconds,
        trial_seconds=_mean(took[took[:, 1] == 0, 0].tolist()),
        ending=ending,
        workers=() if ending is not None else tuple(read_workers(run.folder.path)),
    )


def _took(record: CandidateRecord) -> tuple[float, float]:
    return seconds_of(record), float(record.origin is Origin.DENSE)


def mean_trial_seconds(records: Sequence[CandidateRecord]) -> float | None:
    """Compute the mean time of a trial.

    Args:
        records: Finished candidates.

    Returns:
        Seconds; None before there is a trial beside the dense model's, which trains nothing.
    """
    return _mean([seconds_of(record) for record in records if record.origin is not Origin.DENSE])


def _mean(seconds: Sequence[float]) -> float | None:
    return statistics.fmean(seconds) if seconds else None


def seconds_of(record: CandidateRecord) -> float:
    """Add up the time of a trial.

    Args:
        record: Candidate.

    Returns:
        Seconds of all its phases.
    """
    return sum(record.seconds.values())


def duration_text(seconds: float) -> str:
    """Write a duration for people.

    Args:
        seconds: Seconds, >= 0.

    Returns:
        Such as "3:05" for minutes and seconds, or "2 h 05 min".

    Example:
        >>> duration_text(185.0), duration_text(7500.0)
        ('3:05', '2 h 05 min')
    """
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
