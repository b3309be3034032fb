"""The loop of one run: scan, dense model, warm starts, then ask and run until there is a reason to end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from optuna.samplers import BaseSampler

from autoprune.errors import AutopruneError, StorageError, plain_text
from autoprune.front.front import Front
from autoprune.plan.resolved import ResolvedPlan
from autoprune.records.candidate import CandidateRecord, dense_record, work_of
from autoprune.records.ending import Ending
from autoprune.records.measurement import DEFAULT_PROFILE, Measurement
from autoprune.records.problem import Problem
from autoprune.records.results import PROPOSAL, Results
from autoprune.records.sensitivity import Sensitivity
from autoprune.records.workers import WORKERS, Worker, write_workers
from autoprune.search import attempts
from autoprune.search.allocation.latency_model import LatencyModel
from autoprune.search.interrupted import settle_folder
from autoprune.search.ledger import EXHAUSTED, Ledger
from autoprune.search.proposal import Proposal, Result
from autoprune.search.search import Search
from autoprune.search.settings import StudySettings
from autoprune.search.state import Model
from autoprune.study.device import study_latency
from autoprune.study.executors.crew import Crew
from autoprune.study.executors.registry import Hiring, hire, measuring
from autoprune.study.finish import is_unmeasured, measure_doubtful_latencies, measure_predicted_latencies, measure_tests
from autoprune.study.predicting import refer_to_dense
from autoprune.study.progress import OnProgress, Progress, TimeEstimator, estimate_remaining
from autoprune.study.retention import remove_useless_weights
from autoprune.study.scanned import study_sensitivity
from autoprune.study.trial_loop import TrialLoop
from autoprune.study.untested import UntestedCandidates
from autoprune.trial.candidate import resolve_plan


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSetup:
    """Everything that one run is given.

    Attributes:
        hiring: Study, settings and executor of the trials.
        ledger: Trials of the study.
        sampler: Optuna sampler in place of the settings'; None without.
        problem: Objectives, limits and metrics of the study.
        on_progress: Called after each step.
    """

    hiring: Hiring
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
        self._setup, self._hiring, self._records = setup, setup.hiring, records
        self._folder, self._context = self._hiring.folder, self._hiring.context
        self._settings = self._hiring.settings
        self._time, self.untested = TimeEstimator(self._settings), UntestedCandidates()
        self._knows_dense = False
        self._workers: Sequence[Worker] = ()

    def run(self) -> None:
        """Run scan, dense model, warm starts, trials and test measurements; store why the run ended."""
        self._folder.remove_ending()
        (self._folder.path / WORKERS).unlink(missing_ok=True)  # of a run that was killed
        try:
            reason = self._search_to_end()
            self._measure_predicted(reason)
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
        arrived = Results(self._folder).numbers()
        for number in settle_folder(self._folder, ledger, self._records, self._setup.problem, alive=arrived):
            self._report("trial", failed=f"trial {number}: {attempts.GIVEN_UP}")
        if self._settings.storage.collect_garbage:  # a killed run may have stored a candidate without doing this
            remove_useless_weights(self._folder, self._records, self._front())
        ledger.forgive_exhaustion()
        if not self._end_reason():
            latency = self._latency()
            # An earlier run of this study, in this process, may have predicted for its workers.
            predicting = latency if self._settings.measure.predicts else None
            self._context.costs.predict_with({} if predicting is None else {DEFAULT_PROFILE: predicting})
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
        return study_sensitivity(self._context, self._folder, self._settings, self._following("scan"))

    def _run_trials(self, search: Search) -> None:
        self._time.begin(self._records)
        self._adopt_results(search)
        if not self._hiring.is_inline and search.dense is None:
            # It comes first, alone, and trains nothing: it is measured where no worker disturbs it.
            with hire(self._hiring.inline, search) as alone:
                self._loop(search, alone, lambda: "" if search.dense is None else "dense").run()
        self._look_at_dense()
        if self._end_reason():
            return
        with hire(self._hiring, search) as crew:
            try:
                self._loop(search, crew, self._end_reason).run()
            finally:
                (self._folder.path / WORKERS).unlink(missing_ok=True)
        Results(self._folder).clear()  # of workers of an earlier run, too

    def _loop(self, search: Search, crew: Crew, end_reason: Callable[[], str]) -> TrialLoop:
        return TrialLoop(
            hiring=self._hiring,
            search=search,
            ledger=self._setup.ledger,
            records=self._records,
            crew=crew,
            end_reason=end_reason,
            report=self._report_trial,
            look=partial(self._look_at, crew),
        )

    def _adopt_results(self, search: Search) -> None:
        """Tell the results that workers stored for a run which ended before it learned them."""
        results = Results(self._folder)
        for number in results.numbers():
            if self._folder.holds_candidate(number) or not self._setup.ledger.reopen(number):
                results.remove(number)
                continue
            proposal = Proposal.from_json(results.read(number, PROPOSAL)[0])
            search.tell(proposal, Result.from_json(*results.read(number)), results.adopt)
            self._report("trial")

    def _look_at_dense(self) -> None:
        """Take milliseconds and predictions from the dense model, once it is measured."""
        dense = dense_record(self._records)
        if dense is not None and not self._knows_dense:
            self._knows_dense = True
            if not self._hiring.is_inline:
                refer_to_dense(self._context, self._folder, self._settings, dense)
            self._time.begin(self._records)  # the dense model's trial trains nothing

    def _report_trial(self, failed: str) -> None:
        self._look_at_dense()
        self._report("trial", failed=failed)

    def _look_at(self, crew: Crew) -> None:
        """Store which worker runs which trial, where that has changed."""
        workers, now = crew.workers, time.time()
        if {(one.name, one.trial) for one in workers} == {(one.name, one.trial) for one in self._workers}:
            return
        self._workers = [Worker(name=one.name, trial=one.trial, since=now - one.seconds) for one in workers]
        write_workers(self._folder.path, self._workers)
        self._report("trial")

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
        return Ending(
            reason=reason,
            done=len(self._records),
            target=self._settings.trials,
            detail=detail,
            energy_lacks=self._context.costs.energy_lacks,
        )

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

    @property
    def _measures_in_turn(self) -> bool:
        """Whether anything is measured in turn with the dense model."""
        return self._context.timing is not None or self._context.costs.measures_energy

    def _measure_predicted(self, reason: str) -> None:
        """Measure what the front lacks: latencies that workers predicted, and energy; not where the time is used up."""
        if not self._measures_in_turn or reason == "seconds":
            return
        follow = self._following("latency")
        if any(is_unmeasured(self._context, record) for record in self._front().members):
            with measuring(self._hiring) as measure:
                measure_predicted_latencies(self._context, self._folder, self._records, self._front, measure, follow)

    def _measure_doubtful(self, reason: str) -> None:
        """Measure again what is in doubt; not where the time is used up, which a later run makes up for."""
        if self._measures_in_turn and reason != "seconds":
            measure_doubtful_latencies(self._context, self._folder, self._records, self._following("latency"))

    def _measure_on_test(self, reason: str) -> None:
        """Measure on the test split after the search; not where the time is used up, which a later run makes up for."""
        if self._context.task.test_split is not None and reason != "seconds":
            follow = self._following("test")
            measure_tests(self._context, self._folder, self._records, self._front(), self.untested, follow)

    def _following(self, stage: str) -> Callable[[int, int], None]:
        """Return a function that reports how much of a stage is done."""
        start = time.monotonic()

        def follow(done: int, total: int) -> None:
            self._report(stage, part=(done, total), remaining=estimate_remaining(start, (done, total)))

        return follow

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
                workers=tuple(self._workers),
                trials_per_hour=self._time.trials_per_hour(self._records),
            )
        )
