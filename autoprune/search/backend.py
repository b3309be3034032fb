"""SearchBackend: the search for a caller that prunes, trains and measures by other means. Without torch."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from autoprune.errors import (
    AutopruneError,
    ConfigurationError,
    StorageError,
    StudyConflictError,
    error_message,
    plain_text,
)
from autoprune.front.front import Front
from autoprune.front.run import Run
from autoprune.plan.plan import PruningPlan
from autoprune.plan.resolved import ResolvedPlan
from autoprune.records.candidate import CandidateRecord, dense_record
from autoprune.records.manifest import Manifest
from autoprune.records.origins import Origin
from autoprune.records.run_folder import RunFolder
from autoprune.records.sensitivity import Sensitivity
from autoprune.search import attempts
from autoprune.search.given import check_kind, check_metrics, searched_topology
from autoprune.search.identity import check_same, check_unused, make_problem, manifest_of
from autoprune.search.interrupted import settle_folder
from autoprune.search.journal import open_ledger
from autoprune.search.ledger import Ledger
from autoprune.search.proposal import Failure, Proposal
from autoprune.search.search import ResolveError, Search
from autoprune.search.settings import StudySettings
from autoprune.search.space.optimizers import resolve_optimizers
from autoprune.search.space.space import build_space
from autoprune.search.state import Model
from autoprune.search.storage import exclusive
from autoprune.search.told import Details, Numbers, Told
from autoprune.structure.stored import Structure
from autoprune.structure.topology import Topology

#: Proposals in a row without a valid plan, after which the search stops.
_FAILURES_IN_A_ROW = 5


class SearchBackend:
    """The search of a study for your own loop: it proposes plans, and learns from the numbers that you tell.

    It prunes, trains and measures nothing, and needs neither torch nor the model. Everything it knows lies in its run
    folder, which the commands of autoprune read like that of a study. A process may die between any two calls: what was
    told is there, and proposals that were not told come back. The folder is locked until `close`, or the end of a
    `with` block.

    Args:
        structure: Structure of the model: its groups, its blocks, and the costs that these save.
        settings: Settings of the search. Its `trials` end `ask`; seconds, samples and the recovery are for you to keep.
        out: Run folder; the search that is there goes on if it is the same. None keeps it in a temporary folder, which
            goes with the object.
        metrics: Metric -> whether higher is better. The first is the quality that the search keeps up. A cost of your
            own, such as energy, is a metric of which lower is better.
        sensitivity: How much narrowing each group hurts, such as `Run.open(...).sensitivity()`; None begins without it.
        has_weights: Number of a candidate -> whether you can start from its weights. None starts every trial from the
            dense model.

    Raises:
        ConfigurationError: The settings need weights or a device, or nothing can be pruned.
        StudyConflictError: `out` holds something else, or another process has it.

    Example:
        >>> from autoprune import Group, Layer, structure_of_layers
        >>> groups = [Group(name="a", channels=16), Group(name="b", channels=32)]
        >>> layers = [Layer(name="ab", groups=("a", "b"), weights=9), Layer(name="b", groups=("b",), weights=10)]
        >>> settings = StudySettings(trials=4, objectives=("quality", "multiply_adds"))
        >>> backend = SearchBackend(structure_of_layers(groups, layers), settings)
        >>> while (proposal := backend.ask()) is not None:
        ...     quality = 0.9 - 1 / sum(proposal.plan.widths.values())  # prune, train and measure here
        ...     record = backend.tell(proposal, quality=quality)
        >>> len(backend.run.records)
        4
    """

    def __init__(
        self,
        structure: Structure,
        settings: StudySettings,
        out: str | Path | None = None,
        *,
        metrics: Mapping[str, bool] | None = None,
        sensitivity: Sensitivity | None = None,
        has_weights: Callable[[int], bool] | None = None,
    ) -> None:
        check_kind("the structure", structure, Structure, "`discover(...).describe()` makes one.")
        check_kind("the settings", settings, StudySettings, "Use StudySettings(...).")
        check_metrics(metrics or {})
        directions = dict(metrics or {"quality": True})
        quality = next(iter(directions))
        topology = searched_topology(structure, settings)
        self.settings = settings
        self._problem = make_problem(settings, quality, directions[quality], directions)
        self._closing = contextlib.ExitStack()
        self._finalizer = weakref.finalize(self, self._closing.close)
        try:
            self.folder = _run_folder(out, self._closing)
            self._open(topology, sensitivity, has_weights)
        except BaseException:  # whoever holds the error must not hold the lock
            self._finalizer()
            raise

    def _open(
        self, topology: Topology, sensitivity: Sensitivity | None, has_weights: Callable[[int], bool] | None
    ) -> None:
        """Lock the folder, and go on with the search that is there."""
        self._manifest, self._dense_failures = self._claim(topology), 0
        sensitivity = _scan_of(self.folder, sensitivity)
        self._records = self.folder.read_candidates()
        settled = _settled(self.settings, topology, scanned=sensitivity is not None, lineage=has_weights is not None)
        model = Model(
            topology=topology,
            problem=self._problem,
            sensitivity=sensitivity,
            has_weights=lambda number: self._is_dense(number) or has_weights is None or has_weights(number),
        )
        self._search = Search(
            model,
            settled,
            ledger=self._ledger(model, settled),
            records=self._records,
            planned=StudySettings.from_dict(self._manifest.settings).trials,
        )

    def ask(self) -> Proposal | None:
        """Propose the next trial. Several may be out at once.

        Returns:
            The proposal: its number, its plan with the widths of all groups and the dropped blocks, and the candidate
            from whose weights it starts. None while the dense model is out, which comes first, once as many as
            `trials` are finished or out, and where nothing new is left.

        Raises:
            AutopruneError: The search failed.
        """
        self._check_open()
        for attempt in range(_FAILURES_IN_A_ROW):
            if len(self._records) + len(self._search.pending) >= self.settings.trials:
                return None
            try:
                return self._search.ask()
            except ResolveError as error:
                self._fail(error.number, str(error))
                if attempt == _FAILURES_IN_A_ROW - 1:
                    raise
        raise AssertionError

    def tell(
        self,
        proposal: Proposal,
        *,
        quality: float,
        costs: Mapping[str, Told] | None = None,
        quality_error: float = 0.0,
        metrics: Mapping[str, float] | None = None,
        details: Details | None = None,
    ) -> CandidateRecord:
        """Store the result of a proposal, and learn from it.

        Args:
            proposal: Proposal that `ask` returned, in this process or an earlier one.
            quality: Value of the metric that the search keeps up.
            costs: Cost -> number; a latency may be a pair of number and standard error. What follows from the structure
                may be left out.
            quality_error: Standard error of the quality; 0 where that is unknown.
            metrics: Value of every further metric.
            details: Further facts of the trial.

        Returns:
            The record, which is stored.

        Raises:
            ConfigurationError: A number is missing or wrong, or the proposal has been told; nothing is stored.
            StorageError: The folder cannot be written, as on a full disk; tell it again.
        """
        self._take(proposal)
        model = self._search.state.model
        numbers = Numbers(quality=quality, quality_error=quality_error, costs=costs or {}, metrics=metrics or {})
        dense = None if proposal.origin is Origin.DENSE else dense_record(self._records)
        found = numbers.measurement(model.expected_costs(proposal.plan), self._problem, dense)
        result = (details or Details()).result(found, proposal.plan, model.topology)
        record = self._search.tell(proposal, result, self._store)
        assert record is not None
        return record

    def tell_failed(self, proposal: Proposal, reason: str, *, infeasible: bool = False) -> None:
        """Store that a proposal failed. That of the dense model is proposed again.

        Args:
            proposal: Proposal that `ask` returned, in this process or an earlier one.
            reason: What went wrong, such as a traceback; stored under failures/.
            infeasible: Whether the plan ran out of memory, which the sampler learns from.

        Raises:
            ConfigurationError: The proposal has been told.
            AutopruneError: The dense model failed three times, without which nothing can be compared.
        """
        self._take(proposal)
        check_kind("the reason", reason, str, "Tell str(error) of an error.")
        self.folder.write_failure(proposal.number, reason)
        self._search.tell(proposal, Failure(_line(reason), infeasible))
        self._dense_failures += proposal.origin is Origin.DENSE
        if proposal.origin is Origin.DENSE and self._dense_failures % attempts.MAX_ATTEMPTS == 0:
            raise AutopruneError(attempts.dense_failed_message(f"the last time with {_line(reason)}"))

    def should_stop(self, proposal: Proposal, share: float, quality: float) -> bool:
        """Tell whether the training of a proposal is not worth going on.

        Args:
            proposal: Proposal that is tried, at one of its `rungs`.
            share: Share of the fine-tune's steps that are done, in [0, 1).
            quality: Quality there.

        Returns:
            Whether to stop it, and to tell it with that `fidelity`.
        """
        return self._search.should_stop(proposal, share, quality)

    def enqueue(self, plan: PruningPlan) -> None:
        """Queue a plan to be proposed next.

        Args:
            plan: Plan of widths and blocks.

        Raises:
            ConfigurationError: The plan does not fit the structure.
        """
        self._check_open()
        check_kind("a plan", plan, PruningPlan, "A proposal has one in `plan.asked`.")
        ResolvedPlan.of(plan, self._search.state.model.topology)
        self._search.enqueue(plan)

    def front(self) -> Front:
        """Find the non-dominated candidates so far.

        Returns:
            The front.
        """
        return self._search.front()

    @property
    def run(self) -> Run:
        """The run so far, as the commands and the report read it."""
        return Run(folder=self.folder, manifest=self._manifest, records=tuple(self._records))

    @property
    def pending(self) -> Sequence[Proposal]:
        """Proposals that are out, in the order of their numbers."""
        return self._search.pending

    @property
    def is_done(self) -> bool:
        """Whether as many trials as the settings name are finished, or nothing new is left."""
        return len(self._records) >= self.settings.trials or (not self.pending and self._search.exhausted)

    def close(self) -> None:
        """Unlock the folder. Proposals that were not told come back when the search is opened again."""
        if self._finalizer.alive:
            for proposal in self.pending:
                self._search.give_back(proposal.number)
            self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _is_dense(self, number: int) -> bool:
        dense = dense_record(self._records)
        return dense is not None and dense.number == number

    def _claim(self, topology: Topology) -> Manifest:
        """Lock the folder, and check that it holds this search; begin it where the folder is empty."""
        folder, own = self.folder, {"structure": topology.fingerprint(), "weights": ""}
        new = manifest_of(folder.path.name, topology, self.settings, self._problem, own)
        if not folder.holds_study:
            check_unused(folder.path)
            folder.write_study(new)
        self._closing.enter_context(exclusive(folder.path))
        check_same(folder, new, also=("costs",))
        folder.remove_partial_writes()
        if folder.read_topology() is None:
            folder.write_topology(topology)
        return folder.read_study()

    def _ledger(self, model: Model, settings: StudySettings) -> Ledger:
        """Open the trials, and settle those that were out when the last process ended."""
        records, topology = self._records, model.topology
        space = partial(build_space, settings, topology, model.sensitivity)
        ledger = open_ledger(self.folder, records, self._problem, space)
        settle_folder(self.folder, ledger, records, self._problem)
        ledger.forgive_exhaustion()
        return ledger

    def _store(self, record: CandidateRecord) -> None:
        """Store a record; refuse one that could not be read again, as for a number that is too large."""
        try:
            CandidateRecord.from_json(record.to_json(), where="what was told")
        except StorageError as error:
            raise ConfigurationError(str(error)) from error
        self.folder.write_candidate(record, None)

    def _take(self, proposal: Proposal) -> None:
        """Check that a proposal is still to be told."""
        self._check_open()
        check_kind("a proposal", proposal, Proposal, "Proposal.from_json makes one of a text.")
        if not self._search.state.ledger.reopen(proposal.number):
            got = f"number {proposal.number}, which has been told or was never asked"
            raise ConfigurationError(error_message("a proposal", "be one that is still to be told", got))

    def _check_open(self) -> None:
        if not self._finalizer.alive:
            raise ConfigurationError(error_message("a search", "be open", "one that was closed"))

    def _fail(self, number: int, reason: str) -> None:
        self.folder.write_failure(number, reason)
        self._search.fail(number, _line(reason))


def _run_folder(out: str | Path | None, closing: contextlib.ExitStack) -> RunFolder:
    """Return the run folder; a temporary one goes when the search is closed."""
    if out is not None:
        return RunFolder(Path(out).absolute())
    path = tempfile.mkdtemp(prefix="autoprune-")
    closing.callback(shutil.rmtree, path, ignore_errors=True)
    return RunFolder(Path(path))


def _settled(settings: StudySettings, topology: Topology, *, scanned: bool, lineage: bool) -> StudySettings:
    """Return the settings without what the caller does not give."""
    changes = {"search.scan": settings.search.scan and scanned, "search.lineage": settings.search.lineage and lineage}
    return resolve_optimizers(settings.changed(changes), topology, "")


def _scan_of(folder: RunFolder, given: Sensitivity | None) -> Sensitivity | None:
    """Return the scan of a search, which stays the same for its whole life."""
    stored = folder.read_sensitivity()
    if stored is not None and given is not None and stored != given:
        raise StudyConflictError(
            error_message("the scan", "be that of the search", "another one", "Name another folder.")
        )
    if stored is None and given is not None:
        if folder.read_candidates():
            raise StudyConflictError(error_message("a scan", "be given from the beginning", "one that comes later"))
        folder.read_study().check_scan(given, "the scan")
        folder.write_sensitivity(given)
    return given if stored is None else stored


def _line(reason: str) -> str:
    """Return the last line of a reason, which says what went wrong in a traceback."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return plain_text(lines[-1] if lines else "no reason", 500)
