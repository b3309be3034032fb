"""Study: create or open a run folder, search, and read the front and its models."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from optuna.samplers import BaseSampler
from torch import nn

from autoprune.errors import AutopruneWarning, ConfigurationError, error_message, user_code
from autoprune.front.front import Front
from autoprune.front.importance import Importances
from autoprune.front.run import Run
from autoprune.plan.plan import PruningPlan
from autoprune.records.candidate import CandidateRecord, dense_record
from autoprune.records.device_profile import DeviceProfile
from autoprune.records.ending import Ending
from autoprune.records.problem import Problem
from autoprune.records.run_folder import STUDY, RunFolder
from autoprune.records.work import Work
from autoprune.search.identity import check_same, check_unused
from autoprune.search.journal import open_ledger
from autoprune.search.ledger import Ledger
from autoprune.search.settings import StudySettings
from autoprune.search.space.optimizers import resolve_optimizers
from autoprune.search.space.space import Space, build_space
from autoprune.search.storage import exclusive
from autoprune.sensitivity.scan import count_parts, plan_scan
from autoprune.study import checkpoints
from autoprune.study.artifacts import check_storage, use_storage
from autoprune.study.checkpoints import Checkpoint
from autoprune.study.contexts import make_context
from autoprune.study.device import store_profile, study_latency
from autoprune.study.executors.registry import Hiring, with_workers
from autoprune.study.identity import new_manifest, problem_of, without_new_blocks
from autoprune.study.loop import Loop, RunSetup
from autoprune.study.preflight import (
    NOTHING_WRITTEN,
    absent_kind_notes,
    check_energy,
    check_latency,
    check_plan,
    check_space,
    frozen_note,
    warn_of_distillation,
)
from autoprune.study.progress import OnProgress
from autoprune.study.scanned import study_sensitivity
from autoprune.study.script import ScriptPlace
from autoprune.study.search_noise import search_noise_note
from autoprune.study.store import load_parent
from autoprune.task.prepare import prepare
from autoprune.task.task import Task
from autoprune.task.trained import assert_trained
from autoprune.trial.context import TrialContext


@dataclass(slots=True)
class Study:
    """One search in one run folder: a Run and its task. Make it with `create` or `open`.

    Attributes:
        opened: The run when the study was opened; `stored` reads the folder again.
        settings: Settings of the study.
        context: Everything the trials share; None when opened without a task, which a Run suffices for.
        untested: Number of a candidate -> why the last run could not measure it on the test split.
        script: Study script from which worker processes make the task; None sends them the pickled task.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from torch import nn
        >>> inputs = torch.randn(400, 4)
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> data = (inputs, model(inputs).argmax(1))
        >>> task = Task(
        ...     model=model,
        ...     example_inputs=inputs[:1],
        ...     train=data,
        ...     loss=nn.functional.cross_entropy,
        ...     metrics=("accuracy",),
        ...     quality="accuracy",
        ... )
        >>> settings = StudySettings(trials=1, objectives=("quality", "parameters"))
        >>> settings = settings.changed({"measure.latency_rounds": 0})
        >>> study = Study.create(task, settings, out=tempfile.mkdtemp())
        >>> [str(record.origin) for record in study.run().records]
        ['dense']
    """

    opened: Run
    settings: StudySettings
    context: TrialContext | None
    untested: Mapping[int, str] = field(default_factory=dict)
    script: ScriptPlace | None = None
    _records: list[CandidateRecord] = field(default_factory=list)

    @classmethod
    def create(cls, task: Task, settings: StudySettings | None = None, *, out: str | Path, name: str = "") -> Study:
        """Create a study in a folder, or open the study that is there if it is the same.

        Prepares the task, traces its model and proves its groups first. Nothing is written if an error is raised.

        Args:
            task: Model, data, loss and metrics, prepared or not.
            settings: Settings of the study; the defaults when None.
            out: Run folder.
            name: Name for people; the folder's name when "".

        Returns:
            The study, which has not been run.

        Raises:
            TaskError: The task has faults.
            ConfigurationError: Nothing can be pruned, or a criterion does not apply to the model.
            StudyConflictError: `out` holds something else.
        """
        settings = settings if settings is not None else StudySettings()
        folder = RunFolder(Path(out).absolute())  # the user's code may change the working directory
        if not folder.holds_study:
            check_unused(folder.path)
        check_storage(folder, settings.storage.artifacts)
        prepared = prepare(task)
        if prepared.require_trained:
            with user_code("The check that the model is trained", NOTHING_WRITTEN):
                assert_trained(prepared)
        problem_of(prepared, settings)
        context = make_context(prepared, settings)
        if folder.holds_study:
            context = without_new_blocks(context, folder.read_study())
        check_energy(context)
        check_space(settings, context, scanned=settings.scanned)
        if not folder.trials_seen():
            check_latency(context)
        if settings.scanned and count_parts(context.topology):
            plan_scan(context, settings.search.scan_criterion, samples=settings.scan_budget)
        new = new_manifest(context, settings, name or folder.path.name)
        build_space(settings, context.topology, None)
        if folder.holds_study:
            check_same(folder, new)
        else:
            folder.write_study(new)
        if folder.read_topology() is None:  # a new study, or one of a version that did not store it
            folder.write_topology(context.topology)
        return cls._of(Run.open(folder.path), settings, context)

    @classmethod
    def open(cls, out: str | Path, task: Task | None = None) -> Study:
        """Open an existing study.

        Args:
            out: Run folder.
            task: Task of the study. Without it the study can only be read; with it, it can run and rebuild models.

        Returns:
            The study with its finished candidates.

        Raises:
            NotFoundError: `out` holds no study.
            TaskError: The task has faults.
            StudyConflictError: The task is not the study's.
        """
        opened = Run.open(out)
        stored, folder = opened.manifest, opened.folder
        settings = StudySettings.from_dict(stored.settings, f"settings of {folder.path / STUDY}")
        context = None
        if task is not None:
            context = without_new_blocks(make_context(task, settings), stored)
            check_same(folder, new_manifest(context, settings, stored.name))
        return cls._of(opened, settings, context)

    @classmethod
    def _of(cls, opened: Run, settings: StudySettings, context: TrialContext | None) -> Study:
        study = cls(opened=opened, settings=settings, context=context, _records=list(opened.records))
        if context is not None:
            warn_of_distillation(settings.recovery.distillation, context)
            frozen = frozen_note(context) if settings.recovery.lengths != (0, 0) else ""
            for note in (*([frozen] if frozen else []), *absent_kind_notes(settings, context)):
                warnings.warn(note, AutopruneWarning, stacklevel=3)
        return study

    @property
    def folder(self) -> RunFolder:
        """Return the run folder."""
        return self.opened.folder

    @property
    def name(self) -> str:
        """Return the name for people."""
        return self.opened.name

    @property
    def stored(self) -> Run:
        """Return the run with every candidate so far."""
        return replace(self.opened, records=self.records)

    @property
    def problem(self) -> Problem:
        """Return the objectives, limits and metrics of the study."""
        settings = self.settings
        return self.opened.manifest.problem(settings.objectives, settings.limits, settings.measure.profile_names)

    @property
    def records(self) -> tuple[CandidateRecord, ...]:
        """Return every finished candidate."""
        return tuple(self._records)

    def front(self) -> Front:
        """Find the non-dominated candidates so far.

        Returns:
            The front over the objectives of the settings.
        """
        return self.stored.front()

    def samples(self) -> Work:
        """Add up the work done so far.

        Returns:
            Samples of the sensitivity scan and of all candidates; what candidates share counts once.
        """
        return self.stored.samples()

    @property
    def ending(self) -> Ending | None:
        """Return why the last run ended; None before a run has ended."""
        return self.opened.ending

    def importances(self) -> Importances:
        """Work out how much each sampled parameter mattered.

        Returns:
            Importances for each objective; notes say why there are none.
        """
        return self.stored.importances()

    def rebuild(self, number: int, *, epoch: int | None = None) -> nn.Module:
        """Rebuild the model of a candidate, in eval mode; bit-identical to the measured model.

        Args:
            number: Number of the candidate.
            epoch: Number of a stored checkpoint, in passes over the train split; None takes the final weights.

        Returns:
            A new model.

        Raises:
            NotFoundError: The weights are missing.
            ConfigurationError: The study was opened without its task.
        """
        context = self._need_context("rebuild")
        if epoch is not None:
            return checkpoints.load_model(context, self.folder, number, epoch)
        return load_parent(context, self.folder, self.front().get(number)).model.eval()

    def checkpoints(self, number: int) -> list[Checkpoint]:
        """List the stored checkpoints of a trial.

        Args:
            number: Number of the trial.

        Returns:
            Checkpoints in the order of their epochs.
        """
        return checkpoints.read(self.folder, number)

    def use_device_profile(self, profile: DeviceProfile) -> None:
        """Store a device profile that was made elsewhere, in place of one that would be made here.

        Args:
            profile: Profile of the task's model.

        Raises:
            ConfigurationError: The study has another profile, or was opened without its task.
            StorageError: It is a profile of another model.
        """
        with exclusive(self.folder.path):
            store_profile(self._need_context("use a device profile"), self.folder, profile)

    def enqueue(self, plan: PruningPlan) -> None:
        """Queue a plan to be evaluated next; it counts as a trial.

        Args:
            plan: Plan for the task's model.

        Raises:
            ConfigurationError: The plan does not fit the model.
        """
        context = self._need_context("enqueue")
        check_plan(plan, context)
        warn_of_distillation((plan.recovery.distillation.weight,), context)
        with exclusive(self.folder.path):
            self._journal(self.folder.read_candidates()).enqueue_plan(plan, self._space(context).encode(plan))

    def run(
        self,
        *,
        trials: int | None = None,
        seconds: float | None = None,
        sampler: BaseSampler | None = None,
        on_progress: OnProgress | None = None,
        workers: int | None = None,
        executor: Executor | None = None,
    ) -> Front:
        """Search until enough candidates are finished or time is used up; a further call continues the search.

        A trial that crashes is recorded as failed and the study goes on; sys.exit in the user's code is such a crash.
        The dense model's trial is tried again, because candidates are compared with it. Candidates that fail on the
        test split are listed in `untested`, with an AutopruneWarning. `ending` says why the run ended.

        Args:
            trials: Finished candidates to reach; overrides the settings.
            seconds: Time limit in seconds; overrides the settings.
            sampler: Optuna sampler in place of the settings'. It keeps its own seed and state, so a resumed run differs
                from an uninterrupted one.
            on_progress: Called after each part of the scan, each trial, each test measurement, and at the end.
            workers: Trials that run at the same time, in worker processes; overrides the settings (docs/workers.md).
            executor: Executor of concurrent.futures whose workers run the trials, such as Dask's or MPI's, in place of
                that of the settings; `workers` is then the number of trials that are sent to it at the same time, by
                default its number of workers where it tells it.

        Returns:
            The front.

        Raises:
            AutopruneError: FAILURES_IN_A_ROW trials crashed in a row, or the dense model cannot be measured.
            ConfigurationError: The study was opened without its task.
        """
        context = self._need_context("run")
        settings = replace(
            _settled(self.settings, context),
            trials=self.settings.trials if trials is None else trials,
            seconds=self.settings.seconds if seconds is None else seconds,
        )
        settings = with_workers(settings, workers, executor)
        hiring = Hiring(folder=self.folder, context=context, settings=settings, script=self.script, executor=executor)
        hiring.check()
        threads = torch.get_num_threads()
        torch.set_num_threads(settings.measure.threads)
        try:
            with exclusive(self.folder.path):
                self.folder.remove_partial_writes()
                use_storage(self.folder, settings.storage.artifacts)
                self._records[:] = self.folder.read_candidates()
                self._prepare_measurements(context)
                setup = RunSetup(
                    hiring=hiring,
                    ledger=self._journal(self._records),
                    sampler=sampler,
                    problem=self.problem,
                    on_progress=on_progress or (lambda _: None),
                )
                loop = Loop(setup, self._records)
                self.untested = loop.untested.why
                loop.run()
        finally:
            torch.set_num_threads(threads)
        return self.front()

    def _prepare_measurements(self, context: TrialContext) -> None:
        """Keep the dense model's milliseconds of an earlier run, and warn of a search split too small for a limit."""
        dense = dense_record(self._records)
        if dense is not None:
            context.costs.refer_to(dense.search.latencies, dense.search.energy)
        for left_out in check_energy(context):
            warnings.warn(left_out, AutopruneWarning, stacklevel=3)
        note = search_noise_note(context.task, self.settings.limits, dense)
        if note:
            warnings.warn(note, AutopruneWarning, stacklevel=3)

    def _need_context(self, what: str) -> TrialContext:
        if self.context is None:
            expected, remedy = "be opened with its task", "Study.open(out, task)."
            raise ConfigurationError(error_message(f"a study to {what}", expected, "a study without", remedy))
        return self.context

    def _space(self, context: TrialContext) -> Space:
        settings = _settled(self.settings, context)
        latency = study_latency(context, self.folder, settings)
        return build_space(settings, context.topology, self.folder.read_sensitivity(), latency)

    def _journal(self, records: list[CandidateRecord]) -> Ledger:
        """Return the trials of the study. A lost journal is rebuilt from its candidates. Needs the folder's lock."""
        context, settings = self._need_context("run"), self.settings

        def space() -> Space:
            study_sensitivity(context, self.folder, settings)  # parameters of its space belong to trials
            return self._space(context)

        return open_ledger(self.folder, records, self.problem, space)


def _settled(settings: StudySettings, context: TrialContext) -> StudySettings:
    return resolve_optimizers(settings, context.topology, context.task.prediction.kind)
