"""Columns of the table of candidates: defined once, for the terminal, the report, CSV, JSON and pandas."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from autoprune.display import shorten
from autoprune.records.annotations import Annotations
from autoprune.records.candidate import CandidateRecord
from autoprune.records.comparison import Comparison
from autoprune.records.objectives import Objective
from autoprune.records.problem import Problem

#: (candidate, dense model or None before it was measured) -> value.
Cell = Callable[[CandidateRecord, CandidateRecord | None], str]
Data = Callable[[CandidateRecord, CandidateRecord | None], Mapping[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table of candidates.

    Attributes:
        heading: Heading for people.
        text: Function that writes its cell for people; "" where there is nothing to say.
        data: Function that gives its values for programs, by name.
        needed: Function that tells whether the column is worth its place for some candidates; None for always where a
            cell is not empty.
    """

    heading: str
    text: Cell
    data: Data
    needed: Callable[[Sequence[CandidateRecord]], bool] | None = None


def columns(
    problem: Problem, as_good_as: Mapping[int, int] | None = None, annotations: Annotations | None = None
) -> list[Column]:
    """List the columns of the table of candidates.

    Args:
        problem: Problem of the study.
        as_good_as: Number of a candidate that is dominated within noise -> that of the one that it is as good as.
        annotations: Notes and the chosen candidate; None for a table without its columns.

    Returns:
        Number, origin and marks, the quality, further metrics, every cost in the order of its registry, then notes.
    """
    marks = as_good_as or {}
    return [
        Column(
            heading="candidate",
            text=lambda record, _: str(record.number),
            data=lambda record, _: {"candidate": record.number},
        ),
        Column(
            heading="origin",
            text=lambda record, _: str(record.origin),
            data=lambda record, _: {"origin": str(record.origin)},
        ),
        *([] if annotations is None else [_chosen(annotations)]),
        Column(
            heading="as good as",
            text=lambda record, _: str(marks.get(record.number, "")),
            data=lambda record, _: {"as_good_as": marks.get(record.number)},
        ),
        *_quality(problem.metric),
        *(column for name in problem.further_metrics for column in _metric(name)),
        *(column for cost in problem.costs.values() for column in _cost(cost)),
        _compared("ratio to itself without masks", "masks_{}".format, _against_itself),
        *([] if annotations is None else [_note(annotations)]),
    ]


def text_table(
    problem: Problem,
    dense: CandidateRecord | None,
    records: Sequence[CandidateRecord],
    as_good_as: Mapping[int, int] | None = None,
    annotations: Annotations | None = None,
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Write a table of candidates for people; columns without content are left out.

    Args:
        problem: Problem of the study.
        dense: Record of the dense model; None before it was measured.
        records: Candidates, one for each row.
        as_good_as: See `columns`.
        annotations: See `columns`.

    Returns:
        Headings, and the cells of each row.
    """
    shown = [
        (column.heading, cells)
        for column in columns(problem, as_good_as, annotations)
        if any(cells := [column.text(record, dense) for record in records])
        and (column.needed is None or column.needed(records))
    ]
    return tuple(heading for heading, _ in shown), tuple(zip(*(cells for _, cells in shown), strict=True))


def data_rows(
    shown: Sequence[Column], records: Sequence[CandidateRecord], dense: CandidateRecord | None
) -> list[dict[str, object]]:
    """Write a table of candidates for programs.

    Args:
        shown: Columns of the table.
        records: Candidates, one for each row.
        dense: Record of the dense model; None before it was measured.

    Returns:
        Column name -> value for each; every row has all columns, with None where it has no value.
    """
    found: list[dict[str, object]] = [{} for _ in records]
    for row, record in zip(found, records, strict=True):
        for column in shown:
            row |= column.data(record, dense)
    names = dict.fromkeys(name for row in found for name in row)
    return [{name: row.get(name) for name in names} for row in found]


def share_text(objective: Objective, record: CandidateRecord, dense: CandidateRecord | None) -> str:
    """Write a cost as a share of dense, for a cell of a table.

    Args:
        objective: A cost.
        record: Candidate.
        dense: Record of the dense model; None before it was measured.

    Returns:
        Such as "31.4%"; "unknown" before the dense model was measured.
    """
    return "unknown" if dense is None else f"{share_of(objective, record, dense):.1%}"


def share_of(objective: Objective, record: CandidateRecord, dense: CandidateRecord | None) -> float:
    """Compute a cost as a share of dense.

    Args:
        objective: A cost.
        record: Candidate.
        dense: Record of the dense model; None before it was measured.

    Returns:
        The share; NaN without a dense record.
    """
    if dense is None:
        return math.nan
    return objective.shown(record.search, dense.search) / max(objective.shown(dense.search, dense.search), 1)


def _chosen(annotations: Annotations) -> Column:
    """Make the column that marks the chosen candidate."""
    return Column(
        heading="chosen",
        text=lambda record, _: "chosen" if record.number == annotations.chosen else "",
        data=lambda record, _: {"chosen": record.number == annotations.chosen},
    )


def _note(annotations: Annotations) -> Column:
    """Make the column of notes; people see the first line, shortened."""

    def text(record: CandidateRecord, _: object) -> str:
        lines = annotations.note_on(record.number).strip().splitlines()
        return f"{shorten(lines[0])}{' ...' if len(lines) > 1 else ''}" if lines else ""

    return Column(heading="note", text=text, data=lambda record, _: {"note": annotations.note_on(record.number)})


def _quality(metric: str) -> Iterator[Column]:
    for split in ("search", "test"):
        name = f"{split}_{metric}"

        def text(record: CandidateRecord, _: object, split: str = split) -> str:
            found = record.measured_on(split)
            return "" if found is None else f"{found.quality:.4f} ± {found.quality_error:.4f}"

        def data(record: CandidateRecord, _: object, split: str = split, name: str = name) -> Mapping[str, object]:
            found = record.measured_on(split)
            return {} if found is None else {name: found.quality, f"{name}_error": found.quality_error}

        yield Column(heading=f"{metric} ({split})", text=text, data=data)


def _metric(metric: str) -> Iterator[Column]:
    for split in ("search", "test"):
        name = f"{split}_{metric}"

        def text(record: CandidateRecord, _: object, split: str = split) -> str:
            found = record.measured_on(split)
            return "" if found is None else _number(found.metrics.get(metric, math.nan), ".4f")

        def data(record: CandidateRecord, _: object, split: str = split, name: str = name) -> Mapping[str, object]:
            found = record.measured_on(split)
            return {} if found is None else {name: found.metrics.get(metric, math.nan)}

        yield Column(heading=f"{metric} ({split})", text=text, data=data)


def _cost(cost: Objective) -> Iterator[Column]:
    def value(record: CandidateRecord, dense: CandidateRecord | None) -> float:
        return cost.shown(record.search, None if dense is None else dense.search)

    def needed(records: Sequence[CandidateRecord]) -> bool:
        return cost.redundant is None or not all(cost.redundant(record.search) for record in records)

    yield Column(
        heading=cost.heading or cost.axis_title,
        text=lambda record, dense: _number(value(record, dense), cost.form),
        data=lambda record, dense: {cost.name: value(record, dense)},
        needed=needed,
    )
    if cost.shared:
        yield Column(
            heading=f"{cost.title} / dense",
            text=lambda record, dense: share_text(cost, record, dense),
            data=lambda record, dense: {f"{cost.name}_share": share_of(cost, record, dense)},
        )
    if cost.is_compared:
        yield replace(_compared(f"{cost.title} / dense", cost.derived, cost.against_dense), needed=needed)


def _against_itself(record: CandidateRecord) -> Comparison | None:
    """Compare a model with itself without masks."""
    return None if record.search.mask_latency is None else record.search.mask_latency.comparison


def _compared(
    heading: str, named: Callable[[str], str], read: Callable[[CandidateRecord], Comparison | None]
) -> Column:
    """Make the column of a ratio with its interval."""

    def text(record: CandidateRecord, _: object) -> str:
        found = read(record)
        if found is None:
            return ""
        return f"{found.text} predicted" if found.predicted else f"{found.text}{'' if found.trusted else ' in doubt'}"

    def data(record: CandidateRecord, _: object) -> Mapping[str, object]:
        found = read(record)
        values: tuple[object, ...] = (math.nan, math.nan, math.nan, None)
        if found is not None:
            values = (found.ratio, found.low, found.high, found.trusted)
        data = dict(zip(map(named, ("ratio", "ratio_low", "ratio_high", "trusted")), values, strict=True))
        return {**data, named("predicted"): True} if found is not None and found.predicted else data

    return Column(heading=f"{heading} (95 %)", text=text, data=data)


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)
