"""The loop of one run: ask, settle what needs no training, train, store, tell."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from autoprune.candidate import Bench, Candidate, evaluate_plan, measure_test, resolve_plan
from autoprune.criteria.amounts import planned_widths
from autoprune.errors import AutopruneError, StorageError
from autoprune.front.front import Front
from autoprune.front.record import BASELINES, CandidateRecord
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import RecoveryPlan
from autoprune.recovery.gradual import Stage
from autoprune.sensitivity.scan import scan
from autoprune.space.space import Space, build_space, dense_plan
from autoprune.study import checkpoints, duplicates, garbage, lineage, polish, repair, resolve, rungs, trials
from autoprune.study.folder import RunFolder
from autoprune.study.samplers import AUTO, build_sampler, default_sampler
from autoprune.study.settings import StudySettings
from autoprune.study.untested import Untested

#: This many trials that crash one after the other are no accident; the run stops and says why.
FAILURES_IN_A_ROW = 5
#: Proposals that may be made smaller; what a user asked for and the baselines are tried as they are.
_ADAPTED = (rungs.STOPPABLE, "solved")
#: Origins of plans whose length the space says, by what they cost.
_OF_THE_SPACE = (*_ADAPTED, "uniform")
#: Allocations of neighbouring budgets contain each other but for rounding, and are to cost what was asked for.
_SOLVED_SLACK = 0.05
#: After this many proposals in a row that are known already, a member of the front is trained further in place of them.
DUPLICATES_IN_A_ROW = 3
#: And after this many there is nothing left to propose: the run ends before its number of trials.
EXHAUSTED = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a run reports after each step.

    stage: "scan", "trial" or "test". done: finished candidates. target: asked for. front: as it is now.
    elapsed_seconds: since run() began. remaining_seconds: estimate, None before the first trial.
    failed: the error of the trial that just crashed, "" otherwise.
    """

    stage: str
    done: int
    target: int
    front: Front
    elapsed_seconds: float
    remaining_seconds: float | None
    failed: str = ""


OnProgress = Callable[[Progress], None]


class Loop:
    """The state of one run.

    where: folder, bench and settings. asked: the Optuna study, its storage, and a
    sampler in place of the settings'. front_of: the front of some records.
    records: every finished candidate; grows in place.
    """

    def __init__(
        self,
        where: tuple[RunFolder, Bench, StudySettings],
        asked: tuple[optuna.Study, BaseStorage, BaseSampler | None],
        front_of: Callable[[Sequence[CandidateRecord]], Front],
        records: list[CandidateRecord],
        on_progress: OnProgress,
    ) -> None:
        self.folder, self.bench, self.settings = where
        self.optuna, self.storage, self.chosen = asked
        self.sampler: BaseSampler | None = None
        self.front_of, self.records, self.on_progress = front_of, records, on_progress
        self.start = time.monotonic()
        self.first_done = self.known_in_a_row = 0
        self.untested = Untested()
        # Trials of the study in all, of which this run may do the first.
        self.planned = max(self.settings.trials, StudySettings.from_dict(self.folder.read_study().settings).trials)
        self.rung_split = rungs.part_of_search(self.bench.task, self.settings.rung_samples)

    def go(self) -> None:
        """Scan, warm starts, trials, test measurements."""
        self.records[:] = self.folder.read_candidates()
        trials.settle_interrupted((self.optuna, self.storage), self.records, self.settings, self._excess)
        if self.settings.collect_garbage:
            self._collect()  # where a run ended between a candidate and this
        self.first_done = len(self.records)
        if self.first_done < self.settings.trials:
            space = self._space()
            trials.enqueue_warm_starts(self.optuna, space, self.settings, self.bench.topology, self.planned)
            self._search(space)
        self._test()

    def _space(self) -> Space:
        folder, settings = self.folder, self.settings
        sensitivity = folder.read_sensitivity()
        if sensitivity is None and settings.scanned and self.bench.topology.groups:
            self._report("scan")
            sensitivity = scan(self.bench, settings.space.scan_criterion, samples=settings.scan_samples)
            folder.write_sensitivity(sensitivity)
        return build_space(settings.space, self.bench.topology, sensitivity)

    def _search(self, space: Space) -> None:
        failures = 0
        # The dense model is measured in any case: nothing can be said without it.
        while len(self.records) < self.settings.trials and not (self.records and self._out_of_budget()):
            self._solve_anew(space)
            trial = self._ask(space)
            try:
                self._settle(trial, space)
                failures, message = 0, ""
            except StorageError:
                raise  # the trial is not at fault: it is tried again on the next start
            except Exception as error:  # a crash of one trial never ends a study
                failures, message = failures + 1, f"{type(error).__name__}: {error}"
                if trials.is_finished(self.optuna, trial.number):
                    raise AutopruneError(f"{self._proposer()} failed after trial {trial.number}: {message}") from error
                trial.set_user_attr("error", message[:2000])
                self.folder.write_failure(trial.number, traceback.format_exc())
                self.optuna.tell(trial, state=TrialState.FAIL)
            self._report("trial", failed=message)
            if failures == FAILURES_IN_A_ROW:
                raise AutopruneError(f"{failures} trials crashed one after the other, the last with {message}")
            if self.known_in_a_row == EXHAUSTED:
                return

    def _solve_anew(self, space: Space) -> None:
        """Now and then, from what the candidates show of the scan."""
        settings, topology = self.settings, self.bench.topology
        sensitivity = self.folder.read_sensitivity() if resolve.due(len(self.records)) else None
        if sensitivity is not None:
            model = (settings.space, topology, self.bench.task.higher_is_better, settings.solved_points)
            resolve.enqueue(self.optuna, space, sensitivity, self.records, model)

    def _ask(self, space: Space) -> optuna.Trial:
        """Ask under a sampler that is seeded by what has been asked, so that resuming changes nothing."""
        settings = self.settings
        index = trials.settled(self.optuna)
        named = settings.sampler
        if named == AUTO:
            named = default_sampler(len(self.bench.topology.groups), bool(settings.scanned))
        self.sampler = build_sampler(self.chosen or named, settings.seed, index, self.sampler)
        self.optuna.sampler = self.sampler
        self._queue_polish()
        try:
            return self.optuna.ask(dict(space.distributions))
        except Exception as error:  # the user's sampler runs here
            message = f"{self._proposer()} proposed no trial: {type(error).__name__}: {error}"
            raise AutopruneError(message) from error

    def _proposer(self) -> str:
        return f"The sampler {type(self.sampler).__name__}"

    def _queue_polish(self) -> None:
        settings = self.settings
        asked = trials.proposals(self.optuna)
        if asked is None or not settings.lineage:
            return
        exhausted = self.known_in_a_row and self.known_in_a_row % DUPLICATES_IN_A_ROW == 0
        if not exhausted and not polish.due(asked, settings.polish):
            return
        record = polish.choose(self._front(), settings.space.cost, self.folder.has_weights)
        if record is not None:
            trials.enqueue_polish(self.optuna, record, self.bench.topology)

    def _settle(self, trial: optuna.Trial, space: Space) -> None:
        """Answer a trial: from the record when it is known, else by pruning and training."""
        plan = self._plan(trial, space)
        resolved, scored = resolve_plan(self.bench, plan)
        polished = trial.user_attrs.get("of")
        origin = trials.origin_of(trial)
        adapted = self._adapted(trial, origin, resolved) if origin in _ADAPTED else resolved
        if adapted != resolved:
            plan = resolved = adapted
        if origin in _OF_THE_SPACE:
            recovery = self._recovery(resolved)
            plan, resolved = replace(plan, recovery=recovery), replace(resolved, recovery=recovery)
        # What is never stopped is not answered by what was, nor a baseline by what is compared with it.
        known = [record for record in self.records if origin == rungs.STOPPABLE or not record.stopped]
        known = list(lineage.allowed(known, origin))
        twin = None if polished is not None else duplicates.find(known, resolved, self.bench.topology)
        if twin is not None:
            trials.mark(trial, twin, self._excess(twin))
            trial.set_user_attr("duplicate_of", twin.number)
            self.known_in_a_row += 1
            self.optuna.tell(trial, trials.values_of(twin, self.settings))
            return
        self.known_in_a_row = 0
        candidate = self._evaluate(trial, resolved, polished)
        self._finish(trial, replace(candidate, plan=plan, samples=candidate.samples + scored))

    def _adapted(self, trial: optuna.Trial, origin: str, resolved: PruningPlan) -> PruningPlan:
        """A proposal made smaller: to what the limits allow, and to an ancestor that nearly contains it."""
        found, slack = resolved, self.settings.lineage_slack
        if origin == rungs.STOPPABLE:
            found = repair.onto_limits(self.bench, self.settings, self._front(), resolved) or resolved
            if found != resolved:
                trial.set_user_attr("repaired", True)
        else:
            slack = min(slack, _SOLVED_SLACK)
        if not self.settings.lineage:
            return found
        return lineage.nestled(self._ancestors(), found, self.bench.topology, slack)

    def _recovery(self, resolved: PruningPlan) -> RecoveryPlan:
        """That of a resolved plan, with as many steps as the space has for what it costs."""
        space, topology = self.settings.space, self.bench.topology
        share = topology.share(planned_widths(resolved, topology), resolved.dropped)
        return replace(resolved.recovery, steps=space.lengthened(resolved.recovery.steps, share))

    def _evaluate(self, trial: optuna.Trial, resolved: PruningPlan, polished: int | None) -> Candidate:
        parent = None
        if polished is None:
            widths = planned_widths(resolved, self.bench.topology)
            ancestors = lineage.allowed(self._ancestors(), trials.origin_of(trial))
            ancestor = lineage.choose(ancestors, widths, resolved.dropped, resolved.weights)
        else:
            ancestor = self._front().get(polished)
        if ancestor is not None:
            parent = lineage.load(self.bench, self.folder, ancestor)
        planned = replace(self.settings, trials=self.planned)
        looks = rungs.rungs_of(
            planned, self.rung_split, self.records, self.bench.task.higher_is_better, trials.origin_of(trial)
        )
        return evaluate_plan(self.bench, resolved, parent, on_epoch=self._checkpoints(trial.number), rungs=looks)

    def _checkpoints(self, number: int) -> Callable[[Stage], None] | None:
        """Stores the model every so many passes, None where that is not asked for."""
        every = self.settings.checkpoint_epochs
        if not every:
            return None
        checkpoints.clear(self.folder, number)

        def store(stage: Stage) -> None:
            if stage.epoch % every == 0:
                checkpoints.write(self.folder, number, stage)

        return store

    def _ancestors(self) -> Sequence[CandidateRecord]:
        records = self.records if self.settings.lineage else [r for r in self.records if r.origin == "dense"]
        return [record for record in records if self.folder.has_weights(record.number)]

    def _plan(self, trial: optuna.Trial, space: Space) -> PruningPlan:
        seed = (self.settings.seed * 100_003 + trials.settled(self.optuna)) % 2**31
        given = trial.user_attrs.get("plan")
        if given is not None:
            plan = PruningPlan.from_dict(given)
            return replace(plan, seed=seed) if trials.origin_of(trial) == "polished" else plan
        if trial.user_attrs.get("origin") == "dense":
            return dense_plan(self.settings.space, self.bench.topology, seed)
        return space.decode(trial.params, seed=seed)

    def _finish(self, trial: optuna.Trial, candidate: Candidate) -> None:
        """Store first, then tell: after a kill in between the stored candidate is told on resume."""
        record = trials.record_of(trial, candidate, self.records)
        self.folder.write_candidate(record, candidate.model)
        self.records.append(record)
        trials.mark(trial, record, self._excess(record))
        self.optuna.tell(trial, trials.values_of(record, self.settings))
        if self.settings.collect_garbage:
            self._collect()

    def _collect(self) -> None:
        """Remove the weights that nobody will need."""
        useless = {found.number for found in garbage.removable(self._front())}
        for position, found in enumerate(self.records):
            if found.number in useless:
                self.folder.remove_weights(found.number)
                self.records[position] = replace(found, removed=True)

    def _excess(self, record: CandidateRecord) -> Mapping[str, float]:
        """By how much a candidate exceeds the limits of the search."""
        return self._front().excess(record, self.settings.limits)

    def _front(self) -> Front:
        return self.front_of(self.records)

    def _out_of_budget(self) -> bool:
        """Of time or of samples."""
        settings = self.settings
        if settings.samples is not None and self._processed() >= settings.samples:
            return True
        return settings.seconds is not None and time.monotonic() - self.start >= settings.seconds

    def _processed(self) -> int:
        """Samples until now, the scan's included."""
        scanned = self.folder.read_sensitivity()
        start = 0 if scanned is None else scanned.samples_forward + scanned.samples_trained
        return start + sum(record.samples_forward + record.samples_trained for record in self.records)

    def _test(self) -> None:
        """Measure the front, the dense model and the uniform sweep on the test split, once the search is over."""
        settings, processed = self.settings, self._processed()
        spent = settings.samples is not None and processed >= settings.samples
        done = len(self.records) >= settings.trials or spent or self.known_in_a_row == EXHAUSTED
        if self.bench.task.test_split is None or not done:
            return
        self._report("test")
        front = {record.number for record in self._front().records}
        for position, record in enumerate(self.records):
            wanted = record.number in front or record.origin in BASELINES
            if not wanted or record.test is not None:
                continue
            if self.untested.hopeless:
                break
            measured = None
            with self.untested.kept(record.number):
                model = lineage.load(self.bench, self.folder, record).model
                measured = measure_test(self.bench, model, record.search)
            if measured is not None:
                self.folder.write_test(record.number, measured)
                self.records[position] = replace(record, test=measured)
        self.untested.warn()

    def _report(self, stage: str, failed: str = "") -> None:
        done, elapsed = len(self.records), time.monotonic() - self.start
        fresh = done - self.first_done
        remaining = elapsed / fresh * (self.settings.trials - done) if fresh else None
        if remaining is not None and self.settings.seconds is not None:
            remaining = max(0.0, min(remaining, self.settings.seconds - elapsed))
        self.on_progress(
            Progress(
                stage=stage,
                done=done,
                target=self.settings.trials,
                front=self._front(),
                elapsed_seconds=elapsed,
                remaining_seconds=remaining,
                failed=failed,
            )
        )
