"""Manifest: what study.json says of a study, enough for the front, the report and `solve` without the script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autoprune.codec import Format, stored
from autoprune.errors import StorageError, error_message
from autoprune.front.record import CandidateRecord
from autoprune.sensitivity.cost_table import CostTable
from autoprune.sensitivity.scan import Sensitivity

FOLDER_VERSION = 1
#: What is known of what is left alone beside module, channels and reason.
_SINCE_KINDS = (
    *("of", "kind", "title", "why", "remedy", "docs", "operator", "at", "line", "group", "parts"),
    "multiply_adds",
)


@stored(Format(what="a row of groups", optional=None))
@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow:
    """A group of coupled channels.

    name, channels, kind: of the group. layers: modules that make its channels. tensors: how many it runs through.
    parameters_saved_by_half, multiply_adds_saved_by_half: shares of the model that go when half of the channels do.
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

    name: of the block. kind: what it is. chosen: trials choose whether it goes, and not only its parts.
    parameters_saved, multiply_adds_saved: shares of the model that go with it.
    """

    name: str
    kind: str = "block"
    chosen: bool = True
    parameters_saved: float = 0.0
    multiply_adds_saved: float = 0.0


@stored(Format(what="a module that is left alone", optional=_SINCE_KINDS))
@dataclass(frozen=True, slots=True, kw_only=True)
class UnprunableModule:
    """A module of whose channels some stay.

    module, channels, of: how many stay of how many it makes. reason: why and where, in words.
    In a run folder of an earlier version these are empty:
    kind, title, why, remedy, docs: kind of reason, its name, why in words, what to do, and the section of the docs.
    operator, at, line: what it is due to, in which module, and in which line of code.
    group: the group that was withdrawn. parts: what stays, such as heads.
    multiply_adds: share of the dense model's that stays with it, in [0, 1].
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
    """A study as it was created.

    name: for people. settings: JSON of StudySettings. structure, weights: fingerprints of the dense model.
    quality, metrics, higher_is_better: what it is measured by. groups, blocks, unprunable: of the model.
    costs: what any widths cost; None in a run folder of an earlier version. ties: for each group the number of the
    first one that it shares its width with. not_finite: tensors of the dense model that hold other numbers, as masks of
    attention do. bytes: of its tensors. None in a run folder of an earlier version.
    """

    name: str
    settings: Mapping[str, object]
    quality: str
    higher_is_better: bool
    structure: str = ""
    weights: str = ""
    metrics: tuple[str, ...] = ()
    groups: tuple[GroupRow, ...] = ()
    blocks: tuple[BlockRow, ...] = ()
    costs: CostTable | None = None
    ties: tuple[int, ...] = ()
    unprunable: tuple[UnprunableModule, ...] = ()
    not_finite: tuple[str, ...] | None = None
    bytes: int | None = None

    def check(self, where: str) -> None:
        """Raise StorageError for parts that contradict each other. where: the file, for the message."""
        wrong = self._inconsistency()
        if wrong:
            raise StorageError(error_message(where, "hold a study", f"one in which {wrong}"))

    def check_scan(self, scan: Sensitivity, where: str) -> None:
        """Raise StorageError for a scan of other groups or blocks. where: the file, for the message."""
        groups, scanned = {row.name for row in self.groups}, scan.added_loss.keys()
        other = sorted(groups ^ scanned)
        if other:
            got = f"others, such as {other[0]!r}"
            raise StorageError(error_message(f"added_loss of {where}", "hold the groups of study.json", got))
        odd = [one.name for one in scan.dropped if one.name not in {row.name for row in self.blocks}]
        if odd:
            got = f"others, such as {odd[0]!r}"
            raise StorageError(error_message(f"dropped of {where}", "hold blocks of study.json", got))

    def check_records(self, records: Sequence[CandidateRecord], where: str) -> None:
        """Raise StorageError for candidates that are not of this study, or whose parents lead nowhere.

        where: the folder of the candidates, for the message.
        """
        channels = {row.name: row.channels for row in self.groups}
        blocks = {row.name for row in self.blocks}
        parents = {record.number: record.parent for record in records}
        for record in records:
            wrong = _mismatch(record, channels, blocks) or _broken_lineage(record, parents)
            if wrong:
                remedy = f"Without {where}/{record.number:05d} and its descendants the rest can be read."
                raise StorageError(
                    error_message(f"candidate {record.number} in {where}", "be one of the study", wrong, remedy)
                )

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
    """What of a candidate does not fit the groups and blocks of the study, in words; "" for nothing."""
    other = sorted(channels.keys() ^ record.kept.keys())
    if other:
        return f"one with other groups ({other[0]!r})"
    for name, indices in record.kept.items():
        if indices[-1] >= channels[name]:
            return f"one that keeps channel {indices[-1]} of {name!r}, which has {channels[name]}"
    gone = sorted({*record.dropped} - {*blocks})
    return f"one without a block {gone[0]!r}, of which there is none" if gone else ""


def _broken_lineage(record: CandidateRecord, parents: Mapping[int, int | None]) -> str:
    """Where the line of a candidate's parents ends in nothing or in itself, in words; "" for an end in dense."""
    seen, number = {record.number}, parents[record.number]
    while number is not None:
        if number not in parents:
            return f"one that descends from {number}, which is not there"
        if number in seen:
            return "one that descends from itself"
        seen.add(number)
        number = parents[number]
    return ""
