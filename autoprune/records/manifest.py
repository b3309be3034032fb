"""Manifest: the description of a study in study.json, which suffices for front, report and `solve`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from autoprune.codec import Format, stored
from autoprune.errors import StorageError, error_message
from autoprune.records.candidate import CandidateRecord
from autoprune.records.cost_table import CostTable
from autoprune.records.limits import Limits
from autoprune.records.problem import Problem
from autoprune.records.sensitivity import Sensitivity

FOLDER_VERSION = 1
#: Fields of UnprunableModule that earlier versions did not store.
_SINCE_KINDS = (
    *("of", "kind", "title", "why", "remedy", "docs", "operator", "at", "line", "group", "parts"),
    "multiply_adds",
)


@stored(Format(what="a row of groups", optional=None))
@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow:
    """A group of coupled channels.

    Attributes:
        name: Name of the group.
        channels: Dense width.
        kind: Kind of the group.
        layers: Modules that produce its channels.
        tensors: Number of tensors that it runs through.
        parameters_saved_by_half: Share of the model's parameters that halving the group saves, in [0, 1].
        multiply_adds_saved_by_half: The same for multiply-adds.
    """

    name: str
    channels: int
    kind: str = ""
    layers: tuple[str, ...] = ()
    tensors: int = 0
    parameters_saved_by_half: float = 0.0
    multiply_adds_saved_by_half: float = 0.0


@stored(Format(what="a row of blocks", optional=None))
@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRow:
    """A residual block or a layer.

    Attributes:
        name: Name of the block.
        kind: Kind of the block.
        chosen: Whether trials choose to drop it as a whole, and not only its parts.
        parameters_saved: Share of the model's parameters that dropping it saves, in [0, 1].
        multiply_adds_saved: The same for multiply-adds.
    """

    name: str
    kind: str = "block"
    chosen: bool = True
    parameters_saved: float = 0.0
    multiply_adds_saved: float = 0.0


@stored(Format(what="a module that is left alone", optional=_SINCE_KINDS))
@dataclass(frozen=True, slots=True, kw_only=True)
class UnprunableModule:
    """A module with channels that cannot be pruned.

    The fields after `reason` are empty in a run folder of an earlier version.

    Attributes:
        module: Name of the module.
        channels: Number of channels that stay.
        reason: Why and where, in words.
        of: Number of channels that the module produces.
        kind: Kind of the reason.
        title: Title of the kind.
        why: Reason in words.
        remedy: Advice.
        docs: Section of the docs.
        operator: Operator that causes it.
        at: Module of the operator.
        line: Line of code of the operator.
        group: Name of the withdrawn group.
        parts: Name of what the channels are, such as heads.
        multiply_adds: Share of the dense multiply-adds that stays with the channels, in [0, 1].
    """

    module: str
    channels: int
    reason: str
    of: int = 0
    kind: str = ""
    title: str = ""
    why: str = ""
    remedy: str = ""
    docs: str = ""
    operator: str = ""
    at: str = ""
    line: str = ""
    group: str = ""
    parts: str = "channels"
    multiply_adds: float = 0.0


@stored(Format(what="a study", version=FOLDER_VERSION, optional=None))
@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Description of a study as it was created.

    Attributes:
        name: Name for people.
        settings: JSON of StudySettings.
        quality: Name of the quality metric.
        higher_is_better: Direction of the quality.
        structure: Fingerprint of the dense model's structure.
        weights: Fingerprint of the dense model's weights.
        metrics: Names of the metrics.
        directions: Metric -> whether higher is better; None where that is unknown. Empty in a run folder of an earlier
            version.
        groups: Groups of the model.
        blocks: Blocks of the model.
        costs: Costs of any widths; None in a run folder of an earlier version.
        ties: For each group the number of the first group of its tie.
        unprunable: Modules with channels that cannot be pruned.
        not_finite: Names of the dense tensors with values that are not finite, such as attention masks; None in a run
            folder of an earlier version.
        bytes: Bytes of the dense tensors; None in a run folder of an earlier version.
    """

    name: str
    settings: Mapping[str, object]
    quality: str
    higher_is_better: bool
    structure: str = ""
    weights: str = ""
    metrics: tuple[str, ...] = ()
    directions: Mapping[str, bool | None] = field(default_factory=dict)
    groups: tuple[GroupRow, ...] = ()
    blocks: tuple[BlockRow, ...] = ()
    costs: CostTable | None = None
    ties: tuple[int, ...] = ()
    unprunable: tuple[UnprunableModule, ...] = ()
    not_finite: tuple[str, ...] | None = None
    bytes: int | None = None

    def problem(self, objectives: Sequence[str], limits: Limits, profiles: Sequence[str] = ()) -> Problem:
        """Make the problem of the study.

        Args:
            objectives: Names of the objectives, from the settings.
            limits: Limits of the search, from the settings.
            profiles: Names of the latency profiles beside the default one, from the settings.

        Returns:
            The problem, with the metrics of the study's task.

        Raises:
            UnknownNameError: The task has no such objective or limit.
        """
        return Problem(
            objectives=tuple(objectives),
            metric=self.quality,
            higher_is_better=self.higher_is_better,
            limits=limits,
            metrics={name: self.directions.get(name) for name in self.metrics},
            profiles=tuple(profiles),
        )

    def check(self, where: str) -> None:
        """Check that the parts agree.

        Args:
            where: Path of the file, for the message.

        Raises:
            StorageError: Parts contradict each other.
        """
        wrong = self._inconsistency()
        if wrong:
            raise StorageError(error_message(where, "hold a study", f"one in which {wrong}"))

    def check_scan(self, scan: Sensitivity, where: str) -> None:
        """Check that a scan has the study's groups and blocks.

        Args:
            scan: Stored scan.
            where: Path of the file, for the message.

        Raises:
            StorageError: The scan is of another model.
        """
        groups, scanned = {row.name for row in self.groups}, scan.added_loss.keys()
        other = sorted(groups ^ scanned)
        if other:
            got = f"others, such as {other[0]!r}"
            raise StorageError(error_message(f"added_loss of {where}", "hold the groups of study.json", got))
        odd = [one.name for one in scan.dropped if one.name not in {row.name for row in self.blocks}]
        if odd:
            got = f"others, such as {odd[0]!r}"
            raise StorageError(error_message(f"dropped of {where}", "hold blocks of study.json", got))

    def check_records(
        self, records: Sequence[CandidateRecord], where: str, numbers: Collection[int] | None = None
    ) -> None:
        """Check that candidates fit the study and that their parents exist.

        Args:
            records: Stored candidates.
            where: Folder of the candidates, for the message.
            numbers: Numbers of the candidates to check, where the others are known to fit; None for all.

        Raises:
            StorageError: A candidate does not fit.
        """
        channels = {row.name: row.channels for row in self.groups}
        blocks = {row.name for row in self.blocks}
        parents = {record.number: record.parent for record in records}
        for record in records if numbers is None else [one for one in records if one.number in numbers]:
            wrong = _mismatch(record, channels, blocks) or _broken_lineage(record, parents)
            if wrong:
                remedy = f"Without {where}/{record.number:05d} and its descendants the rest can be read."
                raise StorageError(
                    error_message(f"candidate {record.number} in {where}", "be one of the study", wrong, remedy)
                )

    def mismatch(self, record: CandidateRecord) -> str:
        """Say how a candidate does not fit the study's groups and blocks.

        Args:
            record: Stored candidate.

        Returns:
            Words that follow "but got"; "" if it fits.
        """
        return _mismatch(record, {row.name: row.channels for row in self.groups}, {row.name for row in self.blocks})

    def _inconsistency(self) -> str:
        names = [row.name for row in self.groups]
        if len(set(names)) < len(names):
            return "two groups have the same name"
        if any(row.channels < 1 for row in self.groups):
            return "a group has no channels"
        if self.costs is None:
            return ""
        wrong = self.costs.inconsistency()
        if wrong:
            return f"costs contradict themselves: {wrong}"
        priced = zip(self.costs.names, self.costs.channels, strict=True)
        if [(row.name, row.channels) for row in self.groups] != [*priced]:
            return "costs are of other groups"
        return self._of_ties(self.costs.channels)

    def _of_ties(self, channels: Sequence[int]) -> str:
        if len(self.ties) != len(channels):
            return f"ties are {len(self.ties)} for {len(channels)} groups"
        for position, leader in enumerate(self.ties):
            if not 0 <= leader <= position or self.ties[leader] != leader or channels[leader] != channels[position]:
                return f"ties[{position}] is no group of the same width before it"
        return ""


def _mismatch(record: CandidateRecord, channels: Mapping[str, int], blocks: Iterable[str]) -> str:
    """Return in words how a candidate does not fit the study's groups and blocks; "" if it fits."""
    other = sorted(channels.keys() ^ record.kept.keys())
    if other:
        return f"one with other groups ({other[0]!r})"
    for name, indices in record.kept.items():
        if indices[-1] >= channels[name]:
            return f"one that keeps channel {indices[-1]} of {name!r}, which has {channels[name]}"
    gone = sorted({*record.dropped} - {*blocks})
    return f"one without a block {gone[0]!r}, of which there is none" if gone else ""


def _broken_lineage(record: CandidateRecord, parents: Mapping[int, int | None]) -> str:
    """Return in words where the parents of a candidate are missing or circular; "" if they end in dense."""
    seen, number = {record.number}, parents[record.number]
    while number is not None:
        if number not in parents:
            return f"one that descends from {number}, which is not there"
        if number in seen:
            return "one that descends from itself"
        seen.add(number)
        number = parents[number]
    return ""
