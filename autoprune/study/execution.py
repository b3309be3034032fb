"""Execution of proposed trials: reuse the known result, or prune, train, store and tell."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import optuna

from autoprune.front.front import Front
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import RecoveryPlan
from autoprune.plan.widths import planned_widths
from autoprune.records.candidate import BASELINES, CandidateRecord
from autoprune.records.measurement import Measurement
from autoprune.records.run_folder import RunFolder
from autoprune.recovery.callbacks import Snapshot
from autoprune.search import duplicates, ledger, lineage
from autoprune.search.samplers import untried
from autoprune.search.settings import StudySettings
from autoprune.search.sources import repair
from autoprune.search.space.parameters import Parameters
from autoprune.search.space.settings import SCORED_MODES
from autoprune.search.space.space import Space, dense_plan
from autoprune.study import checkpoints, retention, rungs, store
from autoprune.study.untested import UntestedCandidates
from autoprune.trial.candidate import Candidate, evaluate_plan, expected_costs, measure_test, resolve_plan
from autoprune.trial.context import TrialContext

#: Origins whose plans may be shrunk. User plans and baselines are evaluated unchanged.
_SHRINKABLE = (rungs.STOPPABLE, "solved")
#: Origins whose number of fine-tune steps is scaled by cost.
_LENGTH_FOLLOWS_COST = (*_SHRINKABLE, "uniform")
#: Slack for solved allocations: enough to absorb rounding, small enough to stay near the requested budget.
_SOLVED_SLACK = 0.05


class Execution:
    """Execution of the trials of one run.

    Attributes:
        folder: Run folder.
        context: Context of the trials.
        settings: Settings of the run.
        optuna: Optuna study.
        front_of: Function from records to their front.
        records: Every finished candidate; grows in place.
        problem: Objectives, limits and metrics of the study.
        duplicates_in_a_row: Number of latest trials in a row whose result was known.
    """

    def __init__(
        self,
        where: tuple[RunFolder, TrialContext, StudySettings],
        study: optuna.Study,
        front_of: Callable[[Sequence[CandidateRecord]], Front],
        records: list[CandidateRecord],
    ) -> None:
        self.folder, self.context, self.settings = where
        self.optuna, self.front_of, self.records = study, front_of, records
        self.problem = front_of(()).problem
        self.duplicates_in_a_row = 0
        # Trials of the whole study; this run may do fewer.
        self.planned = max(self.settings.trials, StudySettings.from_dict(self.folder.read_study().settings).trials)
        self.rung_split = rungs.rung_split(self.context.task, self.settings.rung_samples)

    def queue_untried(self, space: Space) -> None:
        """Queue a proposal that gives a new model, if one can be found.

        Args:
            space: Search space.
        """
        settings, topology = self.settings, self.context.topology
        known, seed = duplicates.keys(self.records, topology), self.seed()
        expensive = bool(
            {*settings.space.amounts} & {*SCORED_MODES} or settings.limits.given or settings.space.block_criteria
        )

        def is_untried(point: Parameters) -> bool:
            try:
                plan = self.adjust(resolve_plan(self.context, space.decode(point, seed=seed))[0])
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException:  # the user's loss runs here; skip points that cannot be scored
                return False
            return duplicates.key(plan, planned_widths(plan, topology), topology) not in known

        untried.enqueue(self.optuna, space, is_untried, seed, untried.EXPENSIVE_DRAWS if expensive else untried.DRAWS)

    def adjust(self, resolved: PruningPlan) -> PruningPlan:
        """Shrink a proposal to the limits and scale its fine-tune with its cost, without fitting it to an ancestor.

        Args:
            resolved: Resolved plan.
        """
        found = self._shrink_to_limits(resolved)
        return replace(found, recovery=self._recovery_scaled_to_cost(found))

    def evaluate_or_reuse(self, trial: optuna.Trial, space: Space) -> None:
        """Give a trial its result: a known one, or that of pruning and training.

        Args:
            trial: Trial to settle.
            space: Search space.
        """
        plan = self._plan(trial, space)
        resolved, scored = resolve_plan(self.context, plan)
        polished = trial.user_attrs.get("of")
        origin = ledger.origin_of(trial)
        adapted = self._shrink(trial, origin, resolved) if origin in _SHRINKABLE else resolved
        if adapted != resolved:
            plan = resolved = adapted
        if origin in _LENGTH_FOLLOWS_COST:
            recovery = self._recovery_scaled_to_cost(resolved)
            plan, resolved = replace(plan, recovery=recovery), replace(resolved, recovery=recovery)
        # Stopped candidates answer only for trials that may be stopped, and baselines only for baselines.
        known = [record for record in self.records if origin == rungs.STOPPABLE or not record.stopped]
        known = list(lineage.allowed_parents(known, origin))
        anew = polished is not None or origin == "dense"
        twin = None if anew else duplicates.find(known, resolved, self.context.topology)
        if twin is not None:
            ledger.set_constraints(trial, twin, self.excess(twin))
            trial.set_user_attr("duplicate_of", twin.number)
            self.duplicates_in_a_row += 1
            self.optuna.tell(trial, ledger.values_of(twin, self.problem))
            return
        self.duplicates_in_a_row = 0
        candidate = self._evaluate(trial, resolved, polished)
        self._store_and_tell(trial, replace(candidate, plan=plan, work=candidate.work + scored))

    def _shrink(self, trial: optuna.Trial, origin: str, resolved: PruningPlan) -> PruningPlan:
        """Shrink a proposal to the limits, and to an ancestor that nearly contains it."""
        found, slack = resolved, self.settings.lineage_slack
        if origin == rungs.STOPPABLE:
            found = self._shrink_to_limits(resolved)
            if found != resolved:
                trial.set_user_attr("repaired", True)
        else:
            slack = min(slack, _SOLVED_SLACK)
        if not self.settings.lineage or untried.UNTRIED in trial.user_attrs:
            return found
        return lineage.shrink_to_ancestor(self._ancestors(), found, self.context.topology, slack)

    def _shrink_to_limits(self, resolved: PruningPlan) -> PruningPlan:
        """Return the plan, shrunk where it would exceed a limit and smaller widths keep it."""

        def costs(plan: PruningPlan, timed: bool) -> Measurement:
            return expected_costs(self.context, plan, timed=timed)

        found = repair.shrink_to_limits(resolved, self.context.topology, costs, self.settings, self.front())
        return found or resolved

    def _recovery_scaled_to_cost(self, resolved: PruningPlan) -> RecoveryPlan:
        """Return the recovery settings with `steps` scaled to the plan's cost."""
        space, topology = self.settings.space, self.context.topology
        share = topology.share(planned_widths(resolved, topology), resolved.dropped)
        return replace(resolved.recovery, steps=space.lengthened(resolved.recovery.steps, share))

    def _evaluate(self, trial: optuna.Trial, resolved: PruningPlan, polished: int | None) -> Candidate:
        parent = None
        if polished is None:
            topology = self.context.topology
            widths = planned_widths(resolved, topology)
            ancestors = lineage.allowed_parents(self._ancestors(), ledger.origin_of(trial))
            ancestor = lineage.choose_parent(ancestors, widths, topology.gone(resolved.dropped), resolved.weights)
        else:
            ancestor = self.front().get(polished)
        if ancestor is not None:
            parent = store.load_parent(self.context, self.folder, ancestor)
        planned = replace(self.settings, trials=self.planned)
        looks = rungs.rung_policy(planned, self.rung_split, self.records, self.problem, ledger.origin_of(trial))
        return evaluate_plan(self.context, resolved, parent, on_epoch=self._checkpoints(trial.number), rungs=looks)

    def _checkpoints(self, number: int) -> Callable[[Snapshot], None] | None:
        """Return the callback that stores checkpoints; None where none are requested."""
        every = self.settings.checkpoint_epochs
        if not every:
            return None
        checkpoints.clear(self.folder, number)

        def store(snapshot: Snapshot) -> None:
            if snapshot.epoch % every == 0:
                checkpoints.write(self.folder, number, snapshot)

        return store

    def _ancestors(self) -> Sequence[CandidateRecord]:
        records = self.records if self.settings.lineage else [r for r in self.records if r.origin == "dense"]
        return [record for record in records if self.folder.has_weights(record.number)]

    def _plan(self, trial: optuna.Trial, space: Space) -> PruningPlan:
        seed = self.seed()
        given = trial.user_attrs.get("plan")
        if given is not None:
            plan = PruningPlan.from_dict(given)
            return replace(plan, seed=seed) if ledger.origin_of(trial) == "polished" else plan
        if trial.user_attrs.get("origin") == "dense":
            return dense_plan(self.settings.space, self.context.topology, seed)
        return space.decode(trial.params, seed=seed)

    def seed(self) -> int:
        """Return the seed of the next trial; a resumed run gets the same seed."""
        return (self.settings.seed * 100_003 + ledger.finished_count(self.optuna)) % 2**31

    def _store_and_tell(self, trial: optuna.Trial, candidate: Candidate) -> None:
        """Store first, then tell: after a kill in between, a resumed run tells the stored candidate."""
        record = store.record_of(trial, candidate, self.records)
        store.store_candidate(self.folder, record, candidate.model)
        bisect.insort(self.records, record, key=lambda one: one.number)  # the order in which a folder is read
        ledger.set_constraints(trial, record, self.excess(record))
        self.optuna.tell(trial, ledger.values_of(record, self.problem))
        if self.settings.collect_garbage:
            self.remove_useless_weights()

    def remove_useless_weights(self) -> None:
        """Delete the weights that no later trial can need."""
        useless = {found.number for found in retention.removable_weights(self.front())}
        for position, found in enumerate(self.records):
            if found.number in useless:
                self.folder.remove_weights(found.number)
                self.records[position] = replace(found, removed=True)

    def excess(self, record: CandidateRecord) -> Mapping[str, float]:
        """Return by how much a candidate exceeds each limit of the search.

        Args:
            record: Finished candidate.
        """
        return self.front().excess(record, self.settings.limits)

    def front(self) -> Front:
        """Return the front of all candidates so far."""
        return self.front_of(self.records)

    def measure_tests(self, untested: UntestedCandidates, follow: Callable[[int, int], None]) -> None:
        """Measure the front, the dense model and the uniform sweep on the test split.

        Args:
            untested: Collects the candidates that cannot be measured.
            follow: Called with (done, total) candidates.
        """
        front = {record.number for record in self.front().members}
        wanted = [
            position
            for position, record in enumerate(self.records)
            if record.test is None and (record.number in front or record.origin in BASELINES)
        ]
        if wanted:
            follow(0, len(wanted))
        for count, position in enumerate(wanted, 1):
            if untested.hopeless:
                break
            record, measured = self.records[position], None
            with untested.kept(record.number):
                model = store.load_parent(self.context, self.folder, record).model
                measured = measure_test(self.context, model, record.search)
            if measured is not None:
                self.folder.write_test(record.number, measured)
                self.records[position] = replace(record, test=measured)
            follow(count, len(wanted))
        untested.warn()
