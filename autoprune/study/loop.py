"""The loop of one run: scan, dense model, warm starts, then ask and evaluate until there is a reason to end."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Sequence

import optuna
import torch
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from autoprune.errors import AutopruneError, StorageError, describe_exception, plain_text
from autoprune.front.front import Front
from autoprune.records.candidate import CandidateRecord, samples_processed
from autoprune.records.ending import Ending
from autoprune.records.run_folder import FAILURES, RunFolder
from autoprune.search import attempts, ledger
from autoprune.search.samplers.registry import build_sampler, named_sampler
from autoprune.search.settings import StudySettings
from autoprune.search.sources import polish, rescan
from autoprune.search.space.space import Space, build_space
from autoprune.sensitivity.scan import count_parts, scan
from autoprune.study.execution import Execution
from autoprune.study.progress import OnProgress, Progress, TimeEstimator, estimate_remaining
from autoprune.study.untested import UntestedCandidates
from autoprune.trial.context import TrialContext

#: Consecutive crashes after which the run stops with an error.
FAILURES_IN_A_ROW = 5
#: Consecutive known proposals after which a member of the front is trained further instead.
DUPLICATES_IN_A_ROW = 3
#: Consecutive known proposals after which the space is exhausted and the run ends.
EXHAUSTED = 50


class Loop:
    """State of one run.

    Attributes:
        folder: Run folder.
        context: Context of the trials.
        settings: Settings of the run.
        optuna: Optuna study.
        chosen: Sampler in place of the settings', or None.
        asked: Optuna study and its storage.
        front_of: Function from records to their front.
        records: Every finished candidate; grows in place.
    """

    def __init__(
        self,
        where: tuple[RunFolder, TrialContext, StudySettings],
        asked: tuple[optuna.Study, BaseStorage, BaseSampler | None],
        front_of: Callable[[Sequence[CandidateRecord]], Front],
        records: list[CandidateRecord],
        on_progress: OnProgress,
    ) -> None:
        self.folder, self.context, self.settings = where
        self.optuna, storage, self.chosen = asked
        self.asked = (self.optuna, storage)
        self.sampler: BaseSampler | None = None
        self.front_of, self.records, self.on_progress = front_of, records, on_progress
        self.time_estimator, self.untested = TimeEstimator(self.settings), UntestedCandidates()
        self.execution = Execution(where, self.optuna, front_of, records)

    def run(self) -> None:
        """Run scan, dense model, warm starts, trials and test measurements; store why the run ended."""
        self.records[:] = self.folder.read_candidates()
        self.folder.remove_ending()
        try:
            reason = self._search_to_end()
            self._measure_on_test(reason)
        except AutopruneError as error:
            with contextlib.suppress(OSError, StorageError):  # on a full disk the first error matters
                self.folder.write_ending(self._ending("error", plain_text(str(error), 500)))
            raise
        ending = self._ending(reason, self._detail(reason))
        self.folder.write_ending(ending)
        self._report("end", ending=ending)

    def _search_to_end(self) -> str:
        """Run trials until a reason to end; return the reason."""
        self._resume_interrupted()
        if self.settings.collect_garbage:
            self.execution.remove_useless_weights()  # a killed run may have stored a candidate without doing this
        known = ledger.duplicates_in_a_row(self.optuna)
        # An exhausted run may continue: another sampler or plan may bring new proposals.
        self.execution.duplicates_in_a_row = known if known < EXHAUSTED else 0
        if not self._end_reason():
            space = self._space()
            ledger.enqueue_warm_starts(self.optuna, space, self.settings, self.context.topology, self.execution.planned)
            if self._dense is None:
                ledger.queue_dense(self.optuna, space)
            self._search(space)
        return self._end_reason()

    def _resume_interrupted(self) -> None:
        """Tell interrupted trials that have a stored result; repeat the others, up to MAX_ATTEMPTS times."""
        problem = self.execution.problem
        for trial in ledger.tell_interrupted(self.asked, self.records, problem, self.execution.excess):
            given_up = attempts.count(trial.user_attrs) >= attempts.MAX_ATTEMPTS
            if given_up and ledger.origin_of(trial) != "dense":
                self._store_failure(trial, attempts.GIVEN_UP, attempts.GIVEN_UP)
                self._report("trial", failed=f"trial {trial.number}: {attempts.GIVEN_UP}")
                continue
            if given_up:
                attempts.reset(self.optuna, trial)  # a user who starts the run again wants it tried
            ledger.put_back(self.asked, trial.number)
            if given_up:
                raise AutopruneError(attempts.dense_failed_message("the process ended in it each time"))

    def _space(self) -> Space:
        folder, settings = self.folder, self.settings
        sensitivity = folder.read_sensitivity()
        there = count_parts(self.context.topology)
        if sensitivity is None and settings.scanned and there:
            start = time.monotonic()

            def follow(done: int, total: int) -> None:
                self._report("scan", part=(done, total), remaining=estimate_remaining(start, (done, total)))

            self._report("scan", part=(0, there))
            criterion = settings.space.scan_criterion
            sensitivity = scan(self.context, criterion, samples=settings.scan_samples, on_part=follow)
            folder.write_sensitivity(sensitivity)
        return build_space(settings.space, self.context.topology, sensitivity)

    def _search(self, space: Space) -> None:
        failures = 0
        self.time_estimator.begin(self.records)
        while not self._end_reason():
            dense = self._dense is None
            message = self._run_trial(space)
            failures = failures + 1 if message else 0
            if dense and not message:
                self.time_estimator.begin(self.records)
            self._report("trial", failed=message)
            if dense and failures == attempts.MAX_ATTEMPTS:
                raise AutopruneError(attempts.dense_failed_message(f"the last time with {message}"))
            if failures == FAILURES_IN_A_ROW:
                raise AutopruneError(
                    f"{failures} trials crashed one after the other, the last with {message}. Their tracebacks are "
                    f"in {self.folder.path / FAILURES}; what is finished is kept, and the same command goes on."
                )

    def _run_trial(self, space: Space) -> str:
        """Run one trial; return its crash message, "" without a crash. A crash of one trial never ends a study."""
        if self._dense is not None:
            self._enqueue_rescanned(space)
        trial = self._ask(space)
        try:
            # The user's code may change the number of threads, and bits and latencies depend on it.
            torch.set_num_threads(self.settings.threads)
            self.execution.evaluate_or_reuse(trial, space)
        except (KeyboardInterrupt, GeneratorExit, StorageError):
            attempts.reset(self.optuna, trial)  # not the trial's fault: it runs again on the next start
            raise
        except BaseException as error:  # the user's code runs here, and may even call sys.exit
            message = describe_exception(error)
            if ledger.is_finished(self.optuna, trial.number):
                raise AutopruneError(f"{self._proposer()} failed after trial {trial.number}: {message}") from error
            self._store_failure(trial, message, traceback.format_exc())
            return message
        return ""

    def _store_failure(self, trial: optuna.Trial, message: str, text: str) -> None:
        """Store a crash and tell it. The dense model's trial is queued again."""
        self.execution.duplicates_in_a_row = 0
        trial.set_user_attr("error", message)
        self.folder.write_failure(trial.number, text)
        if ledger.origin_of(trial) == "dense":
            attempts.reset(self.optuna, trial)
            ledger.put_back(self.asked, trial.number)
        else:
            self.optuna.tell(trial.number, state=TrialState.FAIL)

    def _enqueue_rescanned(self, space: Space) -> None:
        """Queue allocations of the corrected scan when they are due."""
        settings, topology = self.settings, self.context.topology
        sensitivity = self.folder.read_sensitivity() if rescan.is_rescan_due(len(self.records)) else None
        if sensitivity is not None:
            model = (settings.space, topology, self.execution.problem.quality, settings.solved_points)
            rescan.enqueue_rescanned(self.optuna, space, sensitivity, self.records, model)

    def _ask(self, space: Space) -> optuna.Trial:
        """Ask for a trial. The sampler is seeded by the number of finished trials; a resumed run asks the same."""
        settings = self.settings
        index = ledger.finished_count(self.optuna)
        named = named_sampler(settings.sampler, len(self.context.topology.groups), bool(settings.scanned))
        self.sampler = build_sampler(self.chosen or named, settings.seed, index, self.sampler)
        self.optuna.sampler = self.sampler
        if self._dense is None:
            trial = ledger.take_dense(self.asked)
        else:
            self._queue_polish()
            self._queue_untried(space)
            trial = self.optuna.ask()
        attempts.begin(trial)
        try:
            ledger.suggest(trial, space)
        except (KeyboardInterrupt, GeneratorExit, StorageError):
            attempts.reset(self.optuna, trial)
            raise
        except BaseException as error:  # the user's sampler runs here
            attempts.reset(self.optuna, trial)
            message = f"{self._proposer()} proposed no trial: {describe_exception(error)}"
            raise AutopruneError(message) from error
        return trial

    def _proposer(self) -> str:
        return f"The sampler {type(self.sampler).__name__}"

    def _queue_polish(self) -> None:
        settings = self.settings
        asked = ledger.proposal_count(self.optuna)
        if asked is None or not settings.lineage:
            return
        exhausted = self.execution.duplicates_in_a_row and self.execution.duplicates_in_a_row % DUPLICATES_IN_A_ROW == 0
        if not exhausted and not polish.is_polish_due(asked, settings.polish):
            return
        record = polish.choose_to_polish(self.execution.front(), settings.space.cost, self.folder.has_weights)
        if record is not None:
            ledger.enqueue_polish(self.optuna, record, self.context.topology)

    def _queue_untried(self, space: Space) -> None:
        """Queue a new proposal where the sampler repeats known ones and nothing can be polished."""
        if self.execution.duplicates_in_a_row != DUPLICATES_IN_A_ROW or ledger.is_queued(self.optuna):
            return
        self.execution.queue_untried(space)

    @property
    def _dense(self) -> CandidateRecord | None:
        """Return the dense model's record; None before it is measured."""
        return next((record for record in self.records if record.origin == "dense"), None)

    def _end_reason(self) -> str:
        """Return the reason to end the run, as in Ending; "" while the search goes on."""
        settings = self.settings
        if self._dense is None:
            return ""
        if len(self.records) >= settings.trials:
            return "trials"
        if settings.samples is not None and self._processed() >= settings.samples:
            return "samples"
        if settings.seconds is not None and self.time_estimator.elapsed >= settings.seconds:
            return "seconds"
        return (
            "exhausted" if self.execution.duplicates_in_a_row >= EXHAUSTED and not ledger.is_queued(self.optuna) else ""
        )

    def _ending(self, reason: str, detail: str) -> Ending:
        return Ending(reason=reason, done=len(self.records), target=self.settings.trials, detail=detail)

    def _detail(self, reason: str) -> str:
        """Return the value that completes the sentence of an ending."""
        return {
            "seconds": f"{self.settings.seconds or 0.0:g} s",
            "samples": f"{self.settings.samples or 0:,}",
            "exhausted": f"the last {EXHAUSTED} proposals were known already, and the space held no untried one",
        }.get(reason, "")

    def _processed(self) -> int:
        """Return the samples processed so far, including the scan."""
        scanned = self.folder.read_sensitivity()
        start = 0 if scanned is None else scanned.work.total
        return start + samples_processed(self.records)

    def _measure_on_test(self, reason: str) -> None:
        """Measure on the test split after the search; not where the time is used up, which a later run makes up for."""
        if self.context.task.test_split is None or reason == "seconds":
            return
        start = time.monotonic()

        def follow(done: int, total: int) -> None:
            self._report("test", part=(done, total), remaining=estimate_remaining(start, (done, total)))

        self.execution.measure_tests(self.untested, follow)

    def _report(
        self,
        stage: str,
        *,
        failed: str = "",
        part: tuple[int, int] = (0, 0),
        remaining: float | None = None,
        ending: Ending | None = None,
    ) -> None:
        if stage == "trial":
            processed = self._processed() if self.settings.samples is not None else 0
            remaining = self.time_estimator.remaining(self.records, processed)
        self.on_progress(
            Progress(
                stage=stage,
                done=len(self.records),
                target=self.settings.trials,
                front=self.execution.front(),
                elapsed_seconds=self.time_estimator.elapsed,
                remaining_seconds=remaining,
                failed=failed,
                part=part,
                ending=ending,
            )
        )
