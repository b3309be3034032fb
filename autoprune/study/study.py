"""Study: create or open a run folder, search, and hand out the front and its models."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import optuna
import torch
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from torch import nn

from autoprune.candidate import Bench, Candidate, evaluate_plan, measure_test, resolve_plan
from autoprune.criteria.amounts import planned_widths
from autoprune.errors import AutopruneError, ConfigurationError, StorageError, fault
from autoprune.front.front import Front
from autoprune.front.record import CandidateRecord
from autoprune.plan.plan import PruningPlan
from autoprune.recovery.fine_tune import Samples
from autoprune.recovery.gradual import Stage
from autoprune.sensitivity.scan import scan, spent
from autoprune.space.space import Space, build_space, dense_plan
from autoprune.study import checkpoints, lineage, polish, trials
from autoprune.study.checkpoints import Checkpoint
from autoprune.study.checks import check_plan, check_space
from autoprune.study.description import check_free, check_same, describe
from autoprune.study.folder import RunFolder
from autoprune.study.samplers import build_sampler
from autoprune.study.settings import StudySettings
from autoprune.study.storage import exclusive, open_journal
from autoprune.task.task import Task, assert_trained

#: This many trials that crash one after the other are no accident; the run stops and says why.
FAILURES_IN_A_ROW = 5


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


@dataclass(slots=True)
class Study:
    """One search in one folder. Make it with `create` or `open`.

    folder: where everything lies. settings: how it searches. name: for people.
    bench: task and topology; None when opened without a task, for looking only.
    """

    folder: RunFolder
    settings: StudySettings
    name: str
    quality_name: str
    higher_is_better: bool
    bench: Bench | None
    _records: list[CandidateRecord] = field(default_factory=list)

    @classmethod
    def create(cls, task: Task, settings: StudySettings | None = None, *, out: str | Path, name: str = "") -> Study:
        """A new study in `out`, or the one that is there when it is the same.

        Traces and proves the model first. Raises ConfigurationError when nothing can be pruned or a criterion
        does not apply, StudyConflictError when `out` holds something else; then nothing is written.
        """
        settings = settings if settings is not None else StudySettings()
        folder = RunFolder(Path(out))
        if not folder.holds_study:
            check_free(folder.path)
        if task.require_trained:
            assert_trained(task)
        bench = _bench(task, settings)
        check_space(settings.space, bench, scanned=_scanned(settings))
        new = describe(bench, settings, name or folder.path.name)
        build_space(settings.space, bench.topology, None)
        if folder.holds_study:
            check_same(folder, new)
        else:
            folder.write_study(new)
        return cls._of(folder, settings, bench)

    @classmethod
    def open(cls, out: str | Path, task: Task | None = None) -> Study:
        """An existing study. Without a task it can be looked at; with its task it can run on and rebuild.

        Raises NotFoundError without a study in `out`, StudyConflictError when the task is another one.
        """
        folder = RunFolder(Path(out))
        stored = folder.read_study()
        missing = sorted({"name", "settings", "quality", "higher_is_better"} - stored.keys())
        if missing:
            raise StorageError(fault(f"study.json in {out}", "describe a study", f"one without {', '.join(missing)}"))
        settings = StudySettings.from_dict(stored["settings"])  # type: ignore[arg-type]
        bench = None
        if task is not None:
            bench = _bench(task, settings)
            check_same(folder, describe(bench, settings, str(stored["name"])))
        return cls._of(folder, settings, bench)

    @classmethod
    def _of(cls, folder: RunFolder, settings: StudySettings, bench: Bench | None) -> Study:
        stored = folder.read_study()
        study = cls(
            folder=folder,
            settings=settings,
            name=str(stored["name"]),
            quality_name=str(stored["quality"]),
            higher_is_better=bool(stored["higher_is_better"]),
            bench=bench,
        )
        study._records = folder.read_candidates()
        return study

    @property
    def records(self) -> tuple[CandidateRecord, ...]:
        """Every finished candidate."""
        return tuple(self._records)

    def front(self) -> Front:
        """The non-dominated candidates so far."""
        return Front.of(self._records, self.settings.objectives, self.higher_is_better, self.quality_name)

    def samples(self) -> Samples:
        """All the work done so far, the sensitivity scan's included."""
        scanned = self.folder.read_sensitivity()
        total = spent(scanned) if scanned is not None else Samples()
        for record in self._records:
            total = total + Samples(forward=record.samples_forward, trained=record.samples_trained)
        return total

    def rebuild(self, number: int, *, epoch: int | None = None) -> nn.Module:
        """The model of a candidate, in eval mode: bit-identical to the one that was measured.

        epoch: as it was after that many passes over the train split, where checkpoints were stored.
        """
        bench = self._need_bench("rebuild")
        if epoch is not None:
            return checkpoints.load(bench, self.folder, number, epoch)
        return lineage.load(bench, self.folder, self.front().get(number)).model.eval()

    def checkpoints(self, number: int) -> list[Checkpoint]:
        """What was stored of a trial on its way, in the order of the epochs."""
        return checkpoints.read(self.folder, number)

    def enqueue(self, plan: PruningPlan) -> None:
        """Have a plan of your own evaluated next; it counts as a trial."""
        topology = self._need_bench("enqueue").topology
        check_plan(plan, self._need_bench("enqueue"))
        with exclusive(self.folder.path):
            space = build_space(self.settings.space, topology, self.folder.read_sensitivity())
            trials.enqueue_plan(self._optuna(), plan, space.encode(plan))

    def run(
        self, *, trials: int | None = None, seconds: float | None = None, on_progress: OnProgress | None = None
    ) -> Front:
        """Search until `trials` candidates are finished or `seconds` have passed; goes on where it stopped.

        trials, seconds: override the settings. on_progress: called after the scan and each trial.
        A trial that crashes is recorded as failed and the study goes on. Raises AutopruneError after
        FAILURES_IN_A_ROW crashes in a row.
        """
        settings = replace(
            self.settings,
            trials=self.settings.trials if trials is None else trials,
            seconds=self.settings.seconds if seconds is None else seconds,
        )
        bench = self._need_bench("run")
        threads = torch.get_num_threads()
        torch.set_num_threads(settings.threads)
        try:
            with exclusive(self.folder.path):
                self.folder.sweep()
                _Run(self, bench, settings, on_progress or (lambda _: None)).go()
        finally:
            torch.set_num_threads(threads)
        return self.front()

    def _need_bench(self, what: str) -> Bench:
        if self.bench is None:
            raise ConfigurationError(
                fault(f"a study to {what}", "be opened with its task", "a study without", "Study.open(out, task).")
            )
        return self.bench

    def _optuna(self, storage: BaseStorage | None = None) -> optuna.Study:
        better = StudyDirection.MAXIMIZE if self.higher_is_better else StudyDirection.MINIMIZE
        directions = [better if name == "quality" else StudyDirection.MINIMIZE for name in self.settings.objectives]
        study = optuna.create_study(
            storage=storage if storage is not None else open_journal(self.folder.path),
            study_name="autoprune",
            directions=directions,
            load_if_exists=True,
        )
        # Study.set_metric_names is still experimental; the names are for other tools that read the journal.
        study.set_user_attr("objectives", list(self.settings.objectives))
        return study


class _Run:
    """The state of one run() call."""

    def __init__(self, study: Study, bench: Bench, settings: StudySettings, on_progress: OnProgress) -> None:
        self.study, self.bench, self.settings, self.on_progress = study, bench, settings, on_progress
        self.start = time.monotonic()
        self.first_done = 0
        self.storage = open_journal(study.folder.path)
        self.optuna = study._optuna(self.storage)

    def go(self) -> None:
        """Scan, warm starts, trials, test measurements."""
        trials.settle_interrupted(self.optuna, self.storage, self.study.folder, self.settings)
        self.study._records = self.study.folder.read_candidates()
        self.first_done = len(self.study._records)
        if self.first_done < self.settings.trials:
            space = self._space()
            trials.enqueue_warm_starts(self.optuna, space, self.settings, self.bench.topology)
            self._search(space)
        self._test()

    def _space(self) -> Space:
        folder, settings = self.study.folder, self.settings
        sensitivity = folder.read_sensitivity()
        if sensitivity is None and _scanned(settings) and self.bench.topology.groups:
            self._report("scan")
            sensitivity = scan(self.bench, settings.space.scan_criterion)
            folder.write_sensitivity(sensitivity)
        return build_space(settings.space, self.bench.topology, sensitivity)

    def _search(self, space: Space) -> None:
        failures = 0
        while len(self.study._records) < self.settings.trials and not self._out_of_time():
            trial = self._ask(space)
            try:
                self._finish(trial, self._evaluate(trial, space))
                failures, message = 0, ""
            except Exception as error:  # a crash of one trial never ends a study
                failures, message = failures + 1, f"{type(error).__name__}: {error}"
                trial.set_user_attr("error", message[:2000])
                self.study.folder.write_failure(trial.number, traceback.format_exc())
                self.optuna.tell(trial, state=TrialState.FAIL)
            self._report("trial", failed=message)
            if failures == FAILURES_IN_A_ROW:
                raise AutopruneError(f"{failures} trials crashed one after the other, the last with {message}")

    def _ask(self, space: Space) -> optuna.Trial:
        """Ask under a sampler that is seeded by what has been asked, so that resuming changes nothing."""
        settings = self.settings
        index = trials.settled(self.optuna)
        self.optuna.sampler = build_sampler(settings.sampler, settings.seed, index)
        self._queue_polish()
        return self.optuna.ask(dict(space.distributions))

    def _queue_polish(self) -> None:
        settings = self.settings
        asked = trials.proposals(self.optuna)
        if asked is None or not settings.lineage or not polish.due(asked, settings.polish):
            return
        record = polish.choose(self.study.front(), settings.space.cost)
        if record is not None:
            trials.enqueue_polish(self.optuna, record, self.bench.topology)

    def _evaluate(self, trial: optuna.Trial, space: Space) -> Candidate:
        plan = self._plan(trial, space)
        resolved, scored = resolve_plan(self.bench, plan)
        parent = None
        polished = trial.user_attrs.get("of")
        if polished is None:
            widths = planned_widths(resolved, self.bench.topology)
            ancestor = lineage.choose(self._ancestors(), widths, resolved.dropped, resolved.weights)
        else:
            ancestor = self.study.front().get(polished)
        if ancestor is not None:
            parent = lineage.load(self.bench, self.study.folder, ancestor)
        candidate = evaluate_plan(self.bench, resolved, parent, on_epoch=self._checkpoints(trial.number))
        return replace(candidate, plan=plan, samples=candidate.samples + scored)

    def _checkpoints(self, number: int) -> Callable[[Stage], None] | None:
        """Stores the model every so many passes, None where that is not asked for."""
        every = self.settings.checkpoint_epochs
        if not every:
            return None

        def store(stage: Stage) -> None:
            if stage.epoch % every == 0:
                checkpoints.write(self.study.folder, number, stage)

        return store

    def _ancestors(self) -> Sequence[CandidateRecord]:
        records = self.study._records
        return records if self.settings.lineage else [record for record in records if record.origin == "dense"]

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
        record = trials.record_of(trial.number, trials.origin_of(trial), candidate, self.study._records)
        self.study.folder.write_candidate(record, candidate.model)
        self.study._records.append(record)
        self.optuna.tell(trial, trials.values_of(record, self.settings))

    def _out_of_time(self) -> bool:
        return self.settings.seconds is not None and time.monotonic() - self.start >= self.settings.seconds

    def _test(self) -> None:
        """Measure the front, the dense model and the uniform sweep on the test split, once the search is over."""
        if self.bench.task.test_split is None or len(self.study._records) < self.settings.trials:
            return
        self._report("test")
        front = {record.number for record in self.study.front().records}
        for position, record in enumerate(self.study._records):
            wanted = record.number in front or record.origin in ("dense", "uniform")
            if not wanted or record.test is not None:
                continue
            model = lineage.load(self.bench, self.study.folder, record).model
            measured = measure_test(self.bench, model, record.search)
            if measured is not None:
                self.study.folder.write_test(record.number, measured)
                self.study._records[position] = replace(record, test=measured)

    def _report(self, stage: str, failed: str = "") -> None:
        done, elapsed = len(self.study._records), time.monotonic() - self.start
        fresh = done - self.first_done
        remaining = elapsed / fresh * (self.settings.trials - done) if fresh else None
        if remaining is not None and self.settings.seconds is not None:
            remaining = max(0.0, min(remaining, self.settings.seconds - elapsed))
        self.on_progress(
            Progress(
                stage=stage,
                done=done,
                target=self.settings.trials,
                front=self.study.front(),
                elapsed_seconds=elapsed,
                remaining_seconds=remaining,
                failed=failed,
            )
        )


def _bench(task: Task, settings: StudySettings) -> Bench:
    bench = Bench.of(
        task,
        protect=settings.space.protect,
        kinds=settings.space.kinds,
        latency_rounds=settings.latency_rounds,
        latency_backend=settings.latency_backend,
    )
    if not bench.topology.groups and not bench.topology.blocks and not bench.masks_weights:
        reasons = "; ".join(f"{u.module}: {u.reason}" for u in bench.topology.unprunable[:5])
        raise ConfigurationError(fault("the model", "have a group of channels that can be pruned", f"none ({reasons})"))
    return bench


def _scanned(settings: StudySettings) -> tuple[str, ...]:
    space = settings.space
    return (space.scan_criterion,) if space.scan and space.kind == "guided" else ()
