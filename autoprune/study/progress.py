"""Progress: what a run reports while it goes on, and its estimate of the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autoprune.front.front import Front
from autoprune.front.record import CandidateRecord, samples_processed
from autoprune.study.ending import Ending
from autoprune.study.settings import StudySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a run reports after each step.

    stage: "scan", "trial", "test" or "end". done: finished candidates. target: asked for. front: as it is now.
    elapsed_seconds: since run() began. remaining_seconds: estimate for the stage, None before there is one.
    failed: the error of the trial that just crashed, "" otherwise.
    part: (done, total) of a scan's groups and blocks, or of the candidates to measure on the test split; (0, 0) in
        other stages.
    ending: why the run ended, with the stage "end" alone.
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


OnProgress = Callable[[Progress], None]


class TimeEstimator:
    """How long trials take, for the time left.

    The scan and the dense model's trial, which trains nothing, say nothing of the trials to come: the estimate rests
    on the trials after them alone.
    """

    def __init__(self, settings: StudySettings) -> None:
        self._settings = settings
        self.start = time.monotonic()
        self._since, self._from, self._samples = self.start, 0, 0

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.start

    def begin(self, records: Sequence[CandidateRecord]) -> None:
        """Start to count at the trial that comes next."""
        self._since, self._from, self._samples = time.monotonic(), len(records), samples_processed(records)

    def remaining(self, records: Sequence[CandidateRecord], processed: int) -> float | None:
        """Estimate the seconds until trials, samples or seconds are used up; None before there is a trial to go by.

        Args:
            records: The finished candidates.
            processed: Samples until now, the scan's included; looked at where samples are limited.

        """
        fresh = len(records) - self._from
        if fresh <= 0:
            return None
        settings = self._settings
        left = float(max(settings.trials - len(records), 0))
        each = max(samples_processed(records) - self._samples, 1) / fresh
        if settings.samples is not None:
            left = min(left, max(settings.samples - processed, 0) / each)
        seconds = (time.monotonic() - self._since) / fresh * left
        return seconds if settings.seconds is None else max(0.0, min(seconds, settings.seconds - self.elapsed))


def estimate_remaining(start: float, part: tuple[int, int]) -> float | None:
    """Estimate the seconds that the rest of a stage takes, which began at `start`; None before its first part."""
    done, total = part
    return (time.monotonic() - start) / done * (total - done) if done else None
