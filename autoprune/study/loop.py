"""The loop of one run: scan, dense model, warm starts, then ask and run until there is a reason to end."""

from __future__ import annotations

import contextlib
import time
import traceback
from dataclasses import dataclass

from optuna.samplers import BaseSampler

from autoprune.errors import AutopruneError, StorageError, describe_exception, plain_text
from autoprune.front.front import Front
from autoprune.plan.resolved import ResolvedPlan
from autoprune.records.candidate import CandidateRecord, dense_record, work_of
from autoprune.records.ending import Ending
from autoprune.records.measurement import Measurement
from autoprune.records.problem import Problem
from autoprune.records.run_folder import FAILURES, RunFolder
from autoprune.records.sensitivity import Sensitivity
from autoprune.search import attempts
from autoprune.search.allocation.latency_model import LatencyModel
from autoprune.search.interrupted import settle_folder
from autoprune.search.ledger import EXHAUSTED, Ledger
from autoprune.search.search import ResolveError, Search
from autoprune.search.settings import StudySettings
from autoprune.search.state import Model
from autoprune.study.device import study_latency
from autoprune.study.finish import measure_doubtful_latencies, measure_tests
from autoprune.study.progress import OnProgress, Progress, TimeEstimator, estimate_remaining
from autoprune.study.retention import remove_useless_weights
from autoprune.study.scanned import study_sensitivity
from autoprune.study.trials import TrialRunner
from autoprune.study.untested import UntestedCandidates
from autoprune.trial.candidate import resolve_plan
from autoprune.trial.context import TrialContext

#: Consecutive crashes after which the run stops with an error.
FAILURES_IN_A_ROW = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSetup:
    """Everything that one run is given.

    Attributes:
        folder: Run folder, locked by this process.
        context: Context of the trials.
        settings: Settings of the run.
        ledger: Trials of the study.
        sampler: Optuna sampler in place of the settings'; None without.
        problem: Objectives, limits and metrics of the study.
        on_progress: Called after each step.
    """

    folder: RunFolder
    context: TrialContext
    settings: StudySettings
    ledger: Ledger
    sampler: BaseSampler | None
    problem: Problem
    on_progress: OnProgress


class Loop:
    """One run: hands the proposals of a search to a trial runner, until there is a reason to end.

    Args:
        setup: Everything that the run is given.
        records: Every finished candidate, as the folder holds them; grows in place.
    """

    def __init__(self, setup: RunSetup, records: list[CandidateRecord]) -> None:
        self._setup, self._records = setup, records
        self._folder, self._context, self._settings = setup.folder, setup.context, setup.settings
        self._time, self.untested = TimeEstimator(setup.settings), UntestedCandidates()

    def run(self) -> None:
        """Run scan, dense model, warm starts, trials and test measurements; store why the run ended."""
        self._folder.remove_ending()
        try:
            reason = self._search_to_end()
            self._measure_doubtful(reason)
            self._measure_on_test(reason)
        except AutopruneError as error:
            with contextlib.suppress(OSError, StorageError):  # on a full disk the first error matters
                self._folder.write_ending(self._ending("error", plain_text(str(error), 500)))
            raise
        ending = self._ending(reason, self._detail(reason))
        self._folder.write_ending(ending)
        self._report("end", ending=ending)

    def _search_to_end(self) -> str:
        """Run trials until a reason to end; return the reason."""
        ledger = self._setup.ledger
        for number in settle_folder(self._folder, ledger, self._records, self._front()):
            self._report("trial", failed=f"trial {number}: {attempts.GIVEN_UP}")
        if self._settings.storage.collect_garbage:  # a killed run may have stored a candidate without doing this
            remove_useless_weights(self._folder, self._records, self._front())
        ledger.forgive_exhaustion()
        if not self._end_reason():
            latency = self._latency()
            if latency is not None and self._settings.measure.predicts:
                self._context.costs.predict_with(latency)
            self._run_trials(self._make_search(self._sensitivity(), latency))
        return self._end_reason()

    def _make_search(self, sensitivity: Sensitivity | None, latency: LatencyModel | None) -> Search:
        context, setup = self._context, self._setup

        def costs(plan: ResolvedPlan, timed: bool) -> Measurement:
            return context.costs.expected(plan, timed=timed)

        model = Model(
            topology=context.topology,
            problem=setup.problem,
            sensitivity=sensitivity,
            resolve=lambda plan: resolve_plan(context, plan),
            costs=costs,
            latency=latency,
            has_weights=self._folder.has_weights,
        )
        planned = StudySettings.from_dict(self._folder.read_study().settings).trials
        return Search(
            model, self._settings, ledger=setup.ledger, records=self._records, sampler=setup.sampler, planned=planned
        )

    def _latency(self) -> LatencyModel | None:
        """Return the latency model, by a device profile that is made where one is needed; None without one."""

        def follow(done: int, total: int, left: float | None) -> None:
            self._report("profile", part=(done, total), remaining=left)

        return study_latency(self._context, self._folder, self._settings, follow)

    def _sensitivity(self) -> Sensitivity | None:
        """Read the scan, or scan the dense model."""
        start = time.monotonic()

        def follow(done: int, total: int) -> None:
            self._report("scan", part=(done, total), remaining=estimate_remaining(start, (done, total)))

        return study_sensitivity(self._context, self._folder, self._settings, follow)

    def _run_trials(self, search: Search) -> None:
        failures, runner = 0, TrialRunner.of(self._folder, self._context, self._settings)
        self._time.begin(self._records)
        while not self._end_reason():
            dense = search.dense is None
            message = self._run_trial(search, runner).removesuffix(".")  # it stands within sentences
            failures = failures + 1 if message else 0
            if dense and not message:
                self._time.begin(self._records)
            self._report("trial", failed=message)
            if dense and failures == attempts.MAX_ATTEMPTS:
                raise AutopruneError(attempts.dense_failed_message(f"the last time with {message}"))
            if failures == FAILURES_IN_A_ROW:
                raise AutopruneError(
                    f"{failures} trials crashed one after the other, the last with {message}. Their tracebacks are "
                    f"in {self._folder.path / FAILURES}; what is finished is kept, and the same command goes on."
                )

    def _run_trial(self, search: Search, runner: TrialRunner) -> str:
        """Run one trial; return its crash message, "" without a crash. A crash of one trial never ends a study."""
        runner.limit_threads()
        try:
            proposal = search.ask(self._gives_up)
        except ResolveError as error:
            return self._fail(search, error.number, str(error))
        if proposal is None:
            return ""
        try:
            runner.run(proposal, search)
        except (KeyboardInterrupt, GeneratorExit, StorageError):
            search.give_back(proposal.number)  # not the trial's fault: it runs again on the next start
            raise
        except BaseException as error:  # the user's code runs here, and may even call sys.exit
            message = describe_exception(error)
            if self._setup.ledger.is_finished(proposal.number):
                sampler = f"The sampler {search.sampler_name}"
                raise AutopruneError(f"{sampler} failed after trial {proposal.number}: {message}") from error
            return self._fail(search, proposal.number, message)
        return ""

    def _gives_up(self) -> bool:
        """Report a proposal whose result was known; return whether there is a reason to end."""
        self._report("trial")
        return bool(self._end_reason())

    def _fail(self, search: Search, number: int, message: str) -> str:
        """Store the traceback of the error at hand, and mark its trial as failed."""
        self._folder.write_failure(number, traceback.format_exc())
        search.fail(number, message)
        return message

    def _end_reason(self) -> str:
        """Return the reason to end the run, as in Ending; "" while the search goes on."""
        settings = self._settings
        if dense_record(self._records) is None:
            return ""
        if len(self._records) >= settings.trials:
            return "trials"
        if settings.samples is not None and self._processed() >= settings.samples:
            return "samples"
        if settings.seconds is not None and self._time.elapsed >= settings.seconds:
            return "seconds"
        return "exhausted" if self._setup.ledger.is_exhausted else ""

    def _front(self) -> Front:
        return Front.of(self._records, self._setup.problem)

    def _ending(self, reason: str, detail: str) -> Ending:
        return Ending(reason=reason, done=len(self._records), target=self._settings.trials, detail=detail)

    def _detail(self, reason: str) -> str:
        """Return the value that completes the sentence of an ending."""
        return {
            "seconds": f"{self._settings.seconds or 0.0:g} s",
            "samples": f"{self._settings.samples or 0:,}",
            "exhausted": f"the last {EXHAUSTED} proposals were known already, and the space held no untried one",
        }.get(reason, "")

    def _processed(self) -> int:
        """Return the samples processed so far, including the scan."""
        scanned = self._folder.read_sensitivity()
        start = 0 if scanned is None else scanned.work.total
        return start + work_of(self._records).total

    def _measure_doubtful(self, reason: str) -> None:
        """Measure latencies in doubt again; not where the time is used up, which a later run makes up for."""
        if self._context.timing is None or reason == "seconds":
            return
        start = time.monotonic()

        def follow(done: int, total: int) -> None:
            self._report("latency", part=(done, total), remaining=estimate_remaining(start, (done, total)))

        measure_doubtful_latencies(self._context, self._folder, self._records, follow)

    def _measure_on_test(self, reason: str) -> None:
        """Measure on the test split after the search; not where the time is used up, which a later run makes up for."""
        if self._context.task.test_split is None or reason == "seconds":
            return
        start = time.monotonic()

        def follow(done: int, total: int) -> None:
            self._report("test", part=(done, total), remaining=estimate_remaining(start, (done, total)))

        measure_tests(self._context, self._folder, self._records, self._front(), self.untested, follow)

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
            processed = self._processed() if self._settings.samples is not None else 0
            remaining = self._time.remaining(self._records, processed)
        self._setup.on_progress(
            Progress(
                stage=stage,
                done=len(self._records),
                target=self._settings.trials,
                front=self._front(),
                elapsed_seconds=self._time.elapsed,
                remaining_seconds=remaining,
                failed=failed,
                part=part,
                ending=ending,
            )
        )
