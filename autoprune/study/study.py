"""Study: create or open a run folder, search, and hand out the front and its models."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import optuna
import torch
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from torch import nn

from autoprune.errors import AutopruneWarning, ConfigurationError, error_message, user_code
from autoprune.front.front import Front
from autoprune.front.record import CandidateRecord
from autoprune.plan.plan import PruningPlan
from autoprune.recovery.fine_tune import Work
from autoprune.sensitivity.scan import parts, plan_scan, work_of
from autoprune.space.optimizers import resolve_optimizers
from autoprune.space.settings import SpaceSettings
from autoprune.space.space import Space, build_space
from autoprune.study import checkpoints, ledger, lineage
from autoprune.study.checkpoints import Checkpoint
from autoprune.study.ending import Ending
from autoprune.study.folder import STUDY, RunFolder
from autoprune.study.identity import check_same, check_unused, new_manifest, without_new_blocks
from autoprune.study.importance import Importances, read_importances
from autoprune.study.journal import JournalSource, make_study, matches_folder, restore
from autoprune.study.loop import Loop
from autoprune.study.preflight import (
    NOTHING_WRITTEN,
    absent_kind_notes,
    absent_kind_reason,
    check_plan,
    check_space,
    frozen_note,
    mode_notes,
)
from autoprune.study.progress import OnProgress
from autoprune.study.settings import StudySettings
from autoprune.study.storage import exclusive, open_journal
from autoprune.task.task import Task, assert_trained
from autoprune.trial_context import TrialContext


@dataclass(slots=True)
class Study:
    """One search in one folder. Make it with `create` or `open`.

    folder: where everything lies. settings: how it searches. name: for people.
    context: task and topology; None when opened without a task, for looking only.
    untested: number of a candidate -> why the last run could not measure it on the test split.
    """

    folder: RunFolder
    settings: StudySettings
    name: str
    quality_name: str
    higher_is_better: bool
    context: TrialContext | None
    untested: Mapping[int, str] = field(default_factory=dict)
    _records: list[CandidateRecord] = field(default_factory=list)

    @classmethod
    def create(cls, task: Task, settings: StudySettings | None = None, *, out: str | Path, name: str = "") -> Study:
        """A new study in `out`, or the one that is there when it is the same.

        Traces and proves the model first. Raises ConfigurationError when nothing can be pruned or a criterion
        does not apply, StudyConflictError when `out` holds something else; then nothing is written.
        """
        settings = settings if settings is not None else StudySettings()
        folder = RunFolder(Path(out).absolute())  # the user's code may change the working directory during the run
        if not folder.holds_study:
            check_unused(folder.path)
        if task.require_trained:
            with user_code("The check that the model is trained", NOTHING_WRITTEN):
                assert_trained(task)
        context = _bench(task, settings)
        if folder.holds_study:
            context = without_new_blocks(context, folder.read_study())
        check_space(settings.space, context, scanned=settings.scanned)
        if settings.scanned and parts(context.topology):
            plan_scan(context, settings.space.scan_criterion, samples=settings.scan_samples)
        new = new_manifest(context, settings, name or folder.path.name)
        build_space(settings.space, context.topology, None)
        if folder.holds_study:
            check_same(folder, new)
        else:
            folder.write_study(new)
        if folder.read_topology() is None:  # new, or of before it was stored
            folder.write_topology(context.topology)
        return cls._of(folder, settings, context)

    @classmethod
    def open(cls, out: str | Path, task: Task | None = None) -> Study:
        """An existing study. Without a task it can be looked at; with its task it can run on and rebuild.

        Raises NotFoundError without a study in `out`, StudyConflictError when the task is another one.
        """
        folder = RunFolder(Path(out).absolute())
        stored = folder.read_study()
        settings = StudySettings.from_dict(stored.settings, f"settings of {folder.path / STUDY}")
        context = None
        if task is not None:
            context = without_new_blocks(_bench(task, settings), stored)
            check_same(folder, new_manifest(context, settings, stored.name))
        return cls._of(folder, settings, context)

    @classmethod
    def _of(cls, folder: RunFolder, settings: StudySettings, context: TrialContext | None) -> Study:
        stored = folder.read_study()
        study = cls(
            folder=folder,
            settings=settings,
            name=stored.name,
            quality_name=stored.quality,
            higher_is_better=stored.higher_is_better,
            context=context,
        )
        study._records = folder.read_candidates()
        if context is not None:
            _warn_of_distillation(settings.space.distillation, context)
            frozen = frozen_note(context) if settings.space.lengths != (0, 0) else ""
            for told in (*([frozen] if frozen else []), *absent_kind_notes(settings.space, context)):
                warnings.warn(told, AutopruneWarning, stacklevel=3)
        return study

    @property
    def records(self) -> tuple[CandidateRecord, ...]:
        """Every finished candidate."""
        return tuple(self._records)

    def front(self) -> Front:
        """The non-dominated candidates so far."""
        return self.front_of(self._records)

    def front_of(self, records: Sequence[CandidateRecord]) -> Front:
        """The non-dominated ones of these candidates."""
        settings = self.settings
        return Front.of(records, settings.objectives, self.higher_is_better, self.quality_name, settings.limits)

    def samples(self) -> Work:
        """All the work done so far, the sensitivity scan's included."""
        scanned = self.folder.read_sensitivity()
        total = work_of(scanned) if scanned is not None else Work()
        for record in self._records:
            total += Work(forward=record.samples_forward, trained=record.samples_trained, shared=record.samples_shared)
        return total

    @property
    def ending(self) -> Ending | None:
        """Why the last run ended, and before its number of trials or not; None before one has ended."""
        return self.folder.read_ending()

    def importances(self) -> Importances | None:
        """What each sampled knob mattered, for every objective and for quality at equal cost; None without trials."""
        return read_importances(self.folder)

    def rebuild(self, number: int, *, epoch: int | None = None) -> nn.Module:
        """The model of a candidate, in eval mode: bit-identical to the one that was measured.

        epoch: as it was after that many passes over the train split, where checkpoints were stored.
        """
        context = self._need_bench("rebuild")
        if epoch is not None:
            return checkpoints.load_model(context, self.folder, number, epoch)
        return lineage.load_parent(context, self.folder, self.front().get(number)).model.eval()

    def checkpoints(self, number: int) -> list[Checkpoint]:
        """What was stored of a trial on its way, in the order of the epochs."""
        return checkpoints.read(self.folder, number)

    def enqueue(self, plan: PruningPlan) -> None:
        """Have a plan of your own evaluated next; it counts as a trial."""
        context = self._need_bench("enqueue")
        check_plan(plan, context)
        _warn_of_distillation((plan.recovery.distillation_weight,), context)
        with exclusive(self.folder.path):
            ledger.enqueue_plan(self._journal()[0], plan, self._space(context).encode(plan))

    def run(
        self,
        *,
        trials: int | None = None,
        seconds: float | None = None,
        sampler: BaseSampler | None = None,
        on_progress: OnProgress | None = None,
    ) -> Front:
        """Search until `trials` candidates are finished or `seconds` have passed; goes on where it stopped.

        trials, seconds: override the settings. sampler: any Optuna sampler in place of the settings'; it is used as it
        is, with its own seed and state, so that a run that is resumed goes on differently.
        on_progress: called after each part of the scan, each trial and each test measurement, and at the end.
        What fails on the test split is in `untested`, with an AutopruneWarning, and the front stands.
        A trial that crashes is recorded as failed and the study goes on; sys.exit in the user's code is such a crash.
        The dense model's trial is tried again, since nothing can be said without it. `ending` says why the run ended.
        Raises AutopruneError after FAILURES_IN_A_ROW crashes in a row, or where the dense model cannot be measured.
        """
        context = self._need_bench("run")
        settings = replace(
            self.settings,
            trials=self.settings.trials if trials is None else trials,
            seconds=self.settings.seconds if seconds is None else seconds,
            space=_settled(self.settings, context),
        )
        threads = torch.get_num_threads()
        torch.set_num_threads(settings.threads)
        try:
            with exclusive(self.folder.path):
                self.folder.remove_partial_writes()
                loop = Loop(
                    (self.folder, context, settings),
                    (*self._journal(), sampler),
                    self.front_of,
                    self._records,
                    on_progress or (lambda _: None),
                )
                self.untested = loop.untested.why
                loop.run()
        finally:
            torch.set_num_threads(threads)
        return self.front()

    def _need_bench(self, what: str) -> TrialContext:
        if self.context is None:
            raise ConfigurationError(
                error_message(
                    f"a study to {what}", "be opened with its task", "a study without", "Study.open(out, task)."
                )
            )
        return self.context

    def _space(self, context: TrialContext) -> Space:
        return build_space(_settled(self.settings, context), context.topology, self.folder.read_sensitivity())

    def _journal(self) -> tuple[optuna.Study, JournalStorage]:
        """The Optuna study and its storage; the folder is held. A journal that is lost is made from the candidates."""
        context, folder, settings = self._need_bench("run"), self.folder, self.settings
        records = folder.read_candidates()
        front = self.front_of(records)
        source = JournalSource(
            records=records,
            settings=settings,
            higher_is_better=self.higher_is_better,
            trial_count=folder.trials_seen(),
            space=lambda: self._space(context),
            excess=lambda record: front.excess(record, settings.limits),
        )
        storage = open_journal(folder.path, partial(matches_folder, source=source), partial(restore, source=source))
        return make_study(storage, source), storage


def _warn_of_distillation(weights: Iterable[float], context: TrialContext) -> None:
    """Say before work that distillation is asked for and off."""
    weights = tuple(weights)
    if any(weights) and context.teacher.comparison.fault:
        warnings.warn(mode_notes(weights, context)[0], AutopruneWarning, stacklevel=4)


def _settled(settings: StudySettings, context: TrialContext) -> SpaceSettings:
    return resolve_optimizers(settings.space, context.topology, context.task.prediction.kind)


def _bench(task: Task, settings: StudySettings) -> TrialContext:
    with user_code("Tracing the model", "Nothing was changed: mend the code and start again."):
        context = TrialContext.of(
            task,
            protect=settings.space.protect,
            kinds=settings.space.kinds,
            latency_rounds=settings.latency_rounds,
            latency_backend=settings.latency_backend,
        )
    if not context.topology.groups and not context.topology.blocks and not context.masks_weights:
        why = " ".join(absent_kind_reason(kind, context) for kind in settings.space.kinds)
        raise ConfigurationError(error_message("the model", "have something that can be pruned", "none", why))
    return context
