"""Progress reports of a run, and the estimate of the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autoprune.front.front import Front
from autoprune.records.candidate import CandidateRecord, work_of
from autoprune.records.ending import Ending
from autoprune.records.workers import Worker
from autoprune.search.settings import StudySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """State of a run after one step.

    Attributes:
        stage: "profile", "scan", "trial", "latency", "test" or "end".
        done: Finished candidates.
        target: Candidates to reach.
        front: Current front.
        elapsed_seconds: Seconds since run() began.
        remaining_seconds: Estimated seconds left in the stage; None before there is an estimate.
        failed: Error of the trial that just crashed; "" otherwise.
        part: (done, total) models timed for the device profile, groups and blocks of the scan, or candidates whose
            latency is measured again or that are measured on the test split; (0, 0) in other stages.
        ending: Why the run ended; only in the stage "end".
        workers: The workers that run a trial; empty where trials run in this process.
        trials_per_hour: Trials that this run finishes in an hour; None before the first one.

    Example:
        >>> from autoprune import Study
        >>> def on_progress(progress: Progress) -> None:
        ...     print(f"{progress.stage}: {progress.done} of {progress.target}")
        >>> Study.open("runs/digits", task).run(on_progress=on_progress)  # doctest: +SKIP
    """

    stage: str
    done: int
    target: int
    front: Front
    elapsed_seconds: float
    remaining_seconds: float | None
    failed: str = ""
    part: tuple[int, int] = (0, 0)
    ending: Ending | None = None
    workers: tuple[Worker, ...] = ()
    trials_per_hour: float | None = None


OnProgress = Callable[[Progress], None]


class TimeEstimator:
    """Estimate the time left from the trials of this run.

    The scan and the dense model's trial train nothing, so only trials after them count.
    """

    def __init__(self, settings: StudySettings) -> None:
        self._settings = settings
        self.start = time.monotonic()
        self._since, self._from, self._samples = self.start, 0, 0

    @property
    def elapsed(self) -> float:
        """Return the seconds since the run began."""
        return time.monotonic() - self.start

    def begin(self, records: Sequence[CandidateRecord]) -> None:
        """Start counting at the next trial.

        Args:
            records: The finished candidates.
        """
        self._since, self._from, self._samples = time.monotonic(), len(records), work_of(records).total

    def trials_per_hour(self, records: Sequence[CandidateRecord]) -> float | None:
        """Compute how many trials are finished in an hour; None before the first counted trial.

        Args:
            records: The finished candidates.
        """
        fresh, took = len(records) - self._from, time.monotonic() - self._since
        return 3600.0 * fresh / took if fresh > 0 and took > 0 else None

    def remaining(self, records: Sequence[CandidateRecord], processed: int) -> float | None:
        """Estimate the seconds until trials, samples or seconds are used up; None before the first counted trial.

        Args:
            records: The finished candidates.
            processed: Samples processed so far, including the scan; used where samples are limited.
        """
        fresh = len(records) - self._from
        if fresh <= 0:
            return None
        settings = self._settings
        left = float(max(settings.trials - len(records), 0))
        each = max(work_of(records).total - self._samples, 1) / fresh
        if settings.samples is not None:
            left = min(left, max(settings.samples - processed, 0) / each)
        seconds = (time.monotonic() - self._since) / fresh * left
        return seconds if settings.seconds is None else max(0.0, min(seconds, settings.seconds - self.elapsed))


def estimate_remaining(start: float, part: tuple[int, int]) -> float | None:
    """Estimate the seconds left in a stage; None before its first part is done.

    Args:
        start: Time at which the stage began, from time.monotonic().
        part: (done, total) parts of the stage.
    """
    done, total = part
    return (time.monotonic() - start) / done * (total - done) if done else None
