"""Candidates side by side with the dense model, as data: widths, costs, lineage, and the noise of their differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autoprune.front.front import Front
from autoprune.front.lead import Gap, quality_gap
from autoprune.records.candidate import CandidateRecord
from autoprune.records.layer_table import LayerTable
from autoprune.records.manifest import GroupRow
from autoprune.records.origins import Origin

#: Widths and dropped blocks -> layer -> number.
LayerNumbers = Callable[[Mapping[str, int], Sequence[str]], Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedGroup:
    """A group of channels in each candidate.

    Attributes:
        name: Name of the group.
        channels: Dense width.
        layers: Modules that produce its channels.
        widths: Number of channels that stay, for each candidate.
        criteria: Criterion that ranked its channels, for each candidate; "" where it stays whole.
    """

    name: str
    channels: int
    layers: tuple[str, ...]
    widths: tuple[int, ...]
    criteria: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedLayer:
    """A layer in each candidate.

    Attributes:
        name: Name of its weight; for a product of activations, of its module with a number.
        kind: Kind of the layer, such as "pointwise convolution".
        multiply_adds: Multiply-adds, for each candidate; 0 where it is dropped.
        latency_ms: Predicted milliseconds, for each candidate; NaN without a device profile.
    """

    name: str
    kind: str
    multiply_adds: tuple[float, ...]
    latency_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Candidates side by side; every tuple "for each candidate" is in the order of `records`.

    Attributes:
        records: The dense model, if it was measured, then the candidates in the order in which they were named.
        groups: Groups of the model.
        layers: Layers of the model in the order of the forward; empty in a run of a version that did not store them.
        lineages: For each candidate, the numbers of its ancestors, from its parent to the dense model.
        curves: For each candidate, (share of the training done, quality) at each rung, on part of the search split, and
            at the end, on all of it.
        against_dense: For each candidate, the difference of its quality to dense with the noise of the difference; None
            for dense itself, and before it was measured.
        pairs: (number, number, difference) of the qualities of each two named candidates, with the noise.
        masks: For each candidate, the pattern and sparsity of its masks; "" without.
    """

    records: tuple[CandidateRecord, ...]
    groups: tuple[ComparedGroup, ...]
    layers: tuple[ComparedLayer, ...]
    lineages: tuple[tuple[int, ...], ...]
    curves: tuple[tuple[tuple[float, float], ...], ...]
    against_dense: tuple[Gap | None, ...]
    pairs: tuple[tuple[int, int, Gap], ...]
    masks: tuple[str, ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of the candidates."""
        return tuple(record.number for record in self.records)

    @property
    def predicts_latency(self) -> bool:
        """Whether the latency of layers is known."""
        return any(math.isfinite(value) for layer in self.layers for value in layer.latency_ms)


def compare(
    front: Front,
    numbers: Sequence[int],
    groups: Sequence[GroupRow],
    layers: LayerTable | None = None,
    latencies: LayerNumbers | None = None,
) -> Compared:
    """Put candidates side by side with the dense model.

    Args:
        front: Front of the study, with all candidates.
        numbers: Numbers of the candidates; one that is named twice is shown once.
        groups: Groups of the model, from the manifest.
        layers: Work of the layers, see `RunFolder.read_layers`; None where it is not known.
        latencies: Function that predicts the latency of each layer, in milliseconds; None where nothing does.

    Returns:
        The comparison.

    Raises:
        NotFoundError: There is no such candidate.
    """
    named = [front.get(number) for number in dict.fromkeys(numbers)]
    dense = front.dense
    records = (*([] if dense is None else [dense]), *(one for one in named if one is not dense))
    known = {record.number: record for record in front.records}
    others = [one for one in named if one is not dense]
    return Compared(
        records=records,
        groups=tuple(_group(row, records) for row in groups),
        layers=_layers(records, layers, latencies),
        lineages=tuple(ancestors(record, known) for record in records),
        curves=tuple(_curve(record) for record in records),
        against_dense=tuple(
            None if dense is None or one is dense else quality_gap(one, dense, front.problem) for one in records
        ),
        pairs=tuple(
            (one.number, other.number, quality_gap(one, other, front.problem))
            for place, one in enumerate(others)
            for other in others[place + 1 :]
        ),
        masks=tuple(_masks(record) for record in records),
    )


def _group(row: GroupRow, records: Sequence[CandidateRecord]) -> ComparedGroup:
    widths = tuple(record.widths.get(row.name, row.channels) for record in records)
    return ComparedGroup(
        name=row.name,
        channels=row.channels,
        layers=row.layers,
        widths=widths,
        criteria=tuple(
            _criterion(record, row.name) if width < row.channels else ""
            for record, width in zip(records, widths, strict=True)
        ),
    )


def _criterion(record: CandidateRecord, group: str) -> str:
    """Return the criterion that ranked the channels of a group; "" where none did, as the parent was as narrow."""
    plan = record.plan.groups.get(group)
    if plan is not None:
        return plan.criterion if plan.prunes else ""
    return "" if record.plan.ranking is None else record.plan.ranking.criterion


def _layers(
    records: Sequence[CandidateRecord], table: LayerTable | None, latencies: LayerNumbers | None
) -> tuple[ComparedLayer, ...]:
    if table is None:
        return ()
    kinds = {one.layer: one.kind for one in table.work}
    costs = [table.amounts(record.widths, record.dropped) for record in records]
    # Masks change the work of layers in ways that no prediction knows.
    times = [
        {} if latencies is None or record.plan.weights is not None else latencies(record.widths, record.dropped)
        for record in records
    ]
    return tuple(
        ComparedLayer(
            name=name,
            kind=kinds[name],
            multiply_adds=tuple(cost[name] for cost in costs),
            latency_ms=tuple(time.get(name, math.nan) for time in times),
        )
        for name in (costs[0] if costs else {})
    )


def ancestors(record: CandidateRecord, known: Mapping[int, CandidateRecord]) -> tuple[int, ...]:
    """List the candidates that a candidate descends from.

    Args:
        record: Candidate.
        known: Number -> candidate, of all candidates of the study.

    Returns:
        Their numbers, from the parent on; the line ends at an unknown one, and before one that is in it.
    """
    found: list[int] = []
    parent = record.parent
    while parent is not None and parent in known and parent not in found:
        found.append(parent)
        parent = known[parent].parent
    return tuple(found)


def _curve(record: CandidateRecord) -> tuple[tuple[float, float], ...]:
    if record.origin is Origin.DENSE:
        return ()
    return (*record.rungs, (record.fidelity, record.search.quality))


def _masks(record: CandidateRecord) -> str:
    plan = record.plan.weights
    return "" if plan is None else f"{plan.pattern}, {plan.target:.0%} zero"
