"""CandidateRecord: the stored data of a finished candidate, without its weights."""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from autoprune.codec import Format, from_plain, parse, stored, to_plain
from autoprune.display import describe_value
from autoprune.errors import NotFoundError, StorageError, error_message
from autoprune.plan.kept import KeptChannels
from autoprune.plan.plan import PruningPlan
from autoprune.records.energy import Energy
from autoprune.records.measurement import Latency, Measurement
from autoprune.records.origins import Origin
from autoprune.records.work import Work

RECORD_VERSION = 4
#: Name of its file.
RECORD_FILE = "candidate.json"
#: Fields that older records do not have; they get their defaults.
_OPTIONAL = ("dropped", "parameters", "warm_start", "samples_shared")


@stored(
    Format(
        what="a candidate",
        version=RECORD_VERSION,
        optional=_OPTIONAL,
        since={"rungs": 3, "fidelity": 3},
        apart=("test", "removed", "_widths", "_architecture"),
        any_number=("rungs",),
    )
)
@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRecord:
    """Finished candidate.

    Attributes:
        number: Number of its trial in the Optuna study.
        origin: Where its proposal came from.
        plan: Plan of the trial.
        kept: Group -> channels that stay, in indices of the dense model.
        search: Measurement on the search split.
        dropped: Blocks that were dropped.
        test: Measurement on the test split; None until the final front.
        parent: Number of the trial whose weights it started from; None for the dense model.
        samples_forward: Samples of this trial's forwards without training.
        samples_trained: Samples of this trial's training.
        samples_shared: Samples of work that several trials use and that is done once, such as a teacher's outputs for
            the train split; 0 in older records, which charged it to the first trial.
        lineage_trained: Samples of the training of this trial and all its ancestors.
        seconds: Phase -> time spent in it.
        note: What went wrong; "" for nothing.
        rungs: (fraction of the fine-tune's steps done, quality on part of the search split) at each rung passed.
        fidelity: Fraction of the fine-tune's steps done, < 1 for a candidate that was stopped early.
        removed: Whether its weights were deleted because no later step needs them.
        parameters: Parameters that its trial chose from the space; empty where they were not stored. A lost journal of
            trials is rebuilt from these and `warm_start`.
        warm_start: Key of the warm start that it was; "" for none.
    """

    number: int
    origin: Origin
    plan: PruningPlan
    kept: Mapping[str, tuple[int, ...]]
    search: Measurement
    dropped: tuple[str, ...] = ()
    test: Measurement | None = None
    parent: int | None = None
    samples_forward: int = 0
    samples_trained: int = 0
    samples_shared: int = 0
    lineage_trained: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    rungs: tuple[tuple[float, float], ...] = ()
    fidelity: float = 1.0
    removed: bool = False
    parameters: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    warm_start: str = ""
    _widths: Mapping[str, int] = field(init=False, repr=False, compare=False)
    _architecture: tuple[object, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "origin", Origin(self.origin))
        kept = {name: _shared(indices) if type(indices) is tuple else indices for name, indices in self.kept.items()}
        object.__setattr__(self, "kept", kept)
        widths = {name: len(indices) for name, indices in kept.items()}
        object.__setattr__(self, "_widths", MappingProxyType(widths))
        names, counts = tuple(widths), [*widths.values()]
        ordered, costs = _order(names), (self.search.multiply_adds, self.search.parameters, self.dropped)
        key = (*costs, *(names[place] for place in ordered), *(counts[place] for place in ordered))
        object.__setattr__(self, "_architecture", key)

    @classmethod
    def proposed(
        cls, costs: Measurement, kept: Mapping[str, tuple[int, ...]] | None = None, dropped: tuple[str, ...] = ()
    ) -> CandidateRecord:
        """Make the record of an untrained candidate, to compare its costs with other candidates.

        Args:
            costs: Costs of the candidate.
            kept: Group -> channels that stay; empty for unknown ones.
            dropped: Blocks that are dropped.

        Returns:
            A record with the number -1.
        """
        plan = PruningPlan(groups={})
        return cls(number=-1, origin=Origin.SAMPLED, plan=plan, kept=kept or {}, dropped=dropped, search=costs)

    @property
    def selectable(self) -> bool:
        """Whether the candidate may be on a front and be chosen: trained to the end, and its weights exist."""
        return not self.stopped and not self.removed

    @property
    def stopped(self) -> bool:
        """Whether the candidate was stopped early: it is measured, but kept out of the front and of lineages."""
        return self.fidelity < 1.0

    @property
    def widths(self) -> Mapping[str, int]:
        """Group name -> number of channels that stay; counted once, as searches ask for it again and again."""
        return self._widths

    @property
    def channels(self) -> KeptChannels:
        """Channels and blocks that stay, in the form that cuts a model."""
        return KeptChannels(groups=self.kept, dropped=self.dropped)

    @property
    def architecture(self) -> tuple[object, ...]:
        """Key of the architecture; candidates of the same key differ in weights alone."""
        return self._architecture

    def measured_on(self, split: str) -> Measurement | None:
        """Return the measurement on a split.

        Args:
            split: "search" or "test".

        Returns:
            The measurement; None where there is none on the test split.
        """
        return self.search if split == "search" else self.test

    def with_latencies(self, latencies: Mapping[str, Latency], energy: Energy | None = None) -> CandidateRecord:
        """Replace latencies and energy by later ones.

        Args:
            latencies: Name of a latency profile -> latency.
            energy: Energy; None leaves the earlier one.

        Returns:
            The record, with them in the measurements on both splits.
        """
        found, taken = {**self.search.latencies, **latencies}, energy or self.search.energy
        test = None if self.test is None else replace(self.test, latencies=found, energy=taken)
        return replace(self, search=replace(self.search, latencies=found, energy=taken), test=test)

    def to_json(self) -> str:
        """Write JSON without the test measurement and the mark of removed weights, which have their own files.

        Returns:
            JSON text.
        """
        return json.dumps(to_plain(self), indent=1)

    @classmethod
    def from_json(
        cls, text: str | bytes, test: Measurement | None = None, removed: bool = False, *, where: str = RECORD_FILE
    ) -> CandidateRecord:
        """Read a record.

        Args:
            text: JSON that `to_json` wrote.
            test: Measurement on the test split.
            removed: Whether the weights were deleted.
            where: Name of the text's source, for the message.

        Returns:
            The record.

        Raises:
            StorageError: For text that is no record of this or an earlier version.
        """
        record = replace(from_plain(cls, parse(text, where), where), test=test, removed=removed)
        faults = _faults(record)
        if faults:
            raise StorageError(error_message(where, "hold a candidate", f"one whose {'; '.join(faults)}"))
        return record


@functools.lru_cache(maxsize=1 << 14)
def _shared(indices: tuple[int, ...]) -> tuple[int, ...]:
    """Return one tuple for equal ones: candidates keep channels of their ancestors, which are most of their size."""
    return indices


@functools.lru_cache(maxsize=64)
def _order(names: tuple[str, ...]) -> tuple[int, ...]:
    """Return the places of names in their order, which all candidates of a study have in common."""
    return tuple(sorted(range(len(names)), key=names.__getitem__))


def dense_record(records: Iterable[CandidateRecord]) -> CandidateRecord | None:
    """Find the record of the dense model.

    Args:
        records: Candidates of one study.

    Returns:
        The record; None before it was measured.
    """
    return next((record for record in records if record.origin is Origin.DENSE), None)


def find_record(records: Sequence[CandidateRecord], number: int) -> CandidateRecord:
    """Look up a candidate by its number.

    Args:
        records: Candidates of one study.
        number: Number of the candidate.

    Returns:
        The candidate.

    Raises:
        NotFoundError: There is no such candidate.
    """
    for record in records:
        if record.number == number:
            return record
    raise NotFoundError(error_message("a candidate", "be a finished trial", f"{number!r}, of {len(records)}"))


def work_of(records: Iterable[CandidateRecord]) -> Work:
    """Add up the work of candidates; what they share counts once.

    Args:
        records: Candidates of one study.

    Returns:
        The work, without that of the scan.
    """
    parts = (
        Work(forward=record.samples_forward, trained=record.samples_trained, shared=record.samples_shared)
        for record in records
    )
    return sum(parts, Work())


def _faults(record: CandidateRecord) -> list[str]:
    """List impossible values of fields with the right types."""
    work = ("number", "samples_forward", "samples_trained", "samples_shared", "lineage_trained")
    found = [error_message(name, "be >= 0", getattr(record, name)) for name in work if getattr(record, name) < 0]
    if not 0 <= record.fidelity <= 1:
        found.append(error_message("fidelity", "lie in [0, 1]", record.fidelity))
    if record.parent is not None and record.parent < 0:
        found.append(error_message("parent", "be >= 0 or null", record.parent))
    for name, indices in record.kept.items():
        if not indices or indices[0] < 0 or any(map(operator.ge, indices, indices[1:])):
            found.append(
                error_message(f"kept[{name!r}]", "be one or more rising indices >= 0", describe_value(indices))
            )
    return [one.removesuffix(".") for one in found]
