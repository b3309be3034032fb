"""Candidates of all runs as columns of plain numbers: compact to send, and quick to sort and to brush in the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from autoprune.dashboard.live import Snapshot
from autoprune.display import printable_line
from autoprune.front.front import Front
from autoprune.front.quantities import SPLITS, Quantity, quantities
from autoprune.records.candidate import CandidateRecord
from autoprune.records.limits import Limits
from autoprune.records.objectives import QUALITY
from autoprune.records.origins import Origin
from autoprune.report.figure import Properties

#: Significant digits of a number that is sent: those of a float32, so that the page rounds it as the command line does.
_DIGITS = 9


def key_of(run: int, number: int) -> str:
    """Make the key of a candidate among those of all runs.

    Args:
        run: Position of the run.
        number: Number of the candidate.

    Returns:
        The key.
    """
    return f"{run}.{number}"


def table_data(snapshots: Sequence[Snapshot], version: str) -> Properties:
    """Collect the candidates of all runs.

    Args:
        snapshots: The runs.
        version: State that they are in.

    Returns:
        Names of the runs, one entry for each candidate under "key", "state", "origin" and "note", the columns of
        numbers, and the limits that can be set, for each run.
    """
    parts = [one.once("columns", lambda one=one: _run_columns(one)) for one in snapshots]  # type: ignore[misc]
    counts = [len(one.front.records) for one in snapshots]
    names = dict.fromkeys(name for part in parts for name in part)
    columns = [_joined(name, parts, counts) for name in names]
    keyed = [(place, one) for place, one in enumerate(snapshots)]
    return {
        "version": version,
        "runs": [
            {"name": printable_line(one.run.name, 80), "metric": printable_line(one.front.metric, 80)}
            for one in snapshots
        ],
        "key": [key_of(place, record.number) for place, one in keyed for record in one.front.records],
        "state": [state for _, one in keyed for state in _states(one.front)],
        "origin": [str(record.origin) for _, one in keyed for record in one.front.records],
        "note": {key_of(place, number): text for place, one in keyed for number, text in _notes(one).items()},
        "marked": [key_of(place, number) for place, one in keyed for number in _marked(one)],
        "columns": columns,
        "limits": [one.once("limits", lambda one=one: _limits(one.front)) for one in snapshots],  # type: ignore[misc]
        "given": [dict(one.front.problem.limits.given) for one in snapshots],
        "by": [
            [{"name": name, "title": printable_line(known.axis_title, 80)} for name, known in _choosable(one)]
            for one in snapshots
        ],
    }


def _notes(one: Snapshot) -> dict[int, str]:
    """Collect notes of people, and what went wrong in a trial."""
    found = {record.number: record.note for record in one.front.records if record.note}
    return {number: printable_line(text) for number, text in {**found, **one.annotations.notes}.items()}


def _marked(one: Snapshot) -> list[int]:
    return [] if one.annotations.chosen is None else [one.annotations.chosen]


def _choosable(one: Snapshot) -> list[tuple[str, Quantity]]:
    return [(name, quantity) for name, quantity in quantities(one.front).items() if quantity.objective is not None]


def _run_columns(one: Snapshot) -> dict[str, Properties]:
    """Collect the columns of one run."""
    found = {}
    for quantity in quantities(one.front).values():
        for split in SPLITS:
            values = quantity.values(one.front, split)
            if split == "test" and (quantity.is_cost or not np.isfinite(values).any()):
                continue
            name = quantity.name if split == "search" else f"{quantity.name}@{split}"
            errors = _errors(one.front, split) if quantity.name == QUALITY else None
            numbers = {"values": _sent(one.front, name, values)}
            if errors is not None:
                numbers["errors"] = _sent(one.front, f"{name} error", errors)
            found[name] = {**_titles(quantity, name), **numbers}
    return found


def _sent(front: Front, name: str, values: np.ndarray) -> list[float | int | None]:
    """Round the numbers of a column: those that were there the last time are taken over."""
    kept = front.numbers.columns.kept
    before = kept.get(f"sent {name}")
    numbers: list[float | int | None] = []
    if isinstance(before, tuple) and np.array_equal(before[0], values[: len(before[0])], equal_nan=True):
        numbers = before[1]
    numbers = [*numbers, *compact(values[len(numbers) :])]
    kept[f"sent {name}"] = values, numbers
    return numbers


def _errors(front: Front, split: str) -> np.ndarray:
    """Collect the standard errors of the quality."""

    def read(record: CandidateRecord) -> float:
        found = record.measured_on(split)
        return math.nan if found is None else found.quality_error

    return front.numbers.column(f"{split} error", read)


def _titles(quantity: Quantity, name: str) -> Properties:
    title, split = printable_line(quantity.axis_title, 60), name.partition("@")[2] or "search"
    return {
        "name": name,
        "heading": title if quantity.is_cost else f"{title} ({split})",
        "short": title if quantity.is_cost or split == "search" else f"{title} ({split})",
        "form": quantity.form,
    }


def compact(values: np.ndarray) -> list[float | int | None]:
    """Round numbers to the digits that are worth sending.

    Args:
        values: Numbers.

    Returns:
        The numbers with few digits, None where they are not finite.
    """
    return [_short(value) if math.isfinite(value) else None for value in values.tolist()]


def _short(value: float) -> float | int:
    return int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.{_DIGITS}g}")


def _joined(name: str, parts: Sequence[dict[str, Properties]], counts: Sequence[int]) -> Properties:
    """Join a column over the runs; a run without it has no numbers."""
    known = [part[name] for part in parts if name in part]
    joined = dict(known[0])
    for title in ("heading", "short"):  # runs may have other metrics
        joined[title] = " / ".join(dict.fromkeys(str(one[title]) for one in known))
    for field in ("values", "errors"):
        if any(field in part.get(name, {}) for part in parts):
            lists = [part.get(name, {}).get(field, [None] * count) for part, count in zip(parts, counts, strict=True)]
            joined[field] = [value for values in lists if isinstance(values, list) for value in values]
    return joined


def _states(front: Front) -> Iterator[str]:
    """Say of each candidate where it stands."""
    places = {one.number: "front" for one in front.members} | dict.fromkeys(front.as_good_as, "as good")
    places |= {one.number: "in doubt" for one in front.undecided}
    for record in front.records:
        yield _state(record, places)


def _state(record: CandidateRecord, places: Mapping[int, str]) -> str:
    if record.origin is Origin.DENSE:
        return "dense"
    if record.stopped:
        return "stopped"
    if record.number in places:
        return places[record.number]
    return "removed" if record.removed else "dominated"


def _limits(front: Front) -> list[Properties]:
    """List the limits that can be set: those with a range of numbers, and those of the search."""
    found = list(_ranged(front))
    named = {str(one["name"]) for one in found}
    others = [name for name in front.problem.limits.given if name not in named]
    return found + [{"name": name, "title": printable_line(name, 60), "low": 0.0, "high": 0.0} for name in others]


def _ranged(front: Front) -> Iterator[Properties]:
    for quantity in quantities(front).values():
        values = quantity.values(front)
        values = values[np.isfinite(values)]
        if not values.size or not quantity.better or values.min() == values.max():
            continue
        if quantity.name == QUALITY:
            yield from _drop(front)
        elif quantity.is_cost:
            yield _limit(f"max_{quantity.name}", quantity, values, f"{quantity.axis_title}, at most")
        else:
            side, word = ("min", "at least") if quantity.better == "higher" else ("max", "at most")
            yield _limit(f"{side}_{quantity.name}", quantity, values, f"{quantity.axis_title}, {word}")


def _drop(front: Front) -> Iterator[Properties]:
    if front.dense is None:
        return
    worse = front.numbers.losses - front.problem.quality.loss(front.dense.search.quality)
    losses = worse[front.numbers.complete & np.isfinite(worse)]
    most = float(np.quantile(losses, 0.9)) if len(losses) else 0.0
    if most > 0:
        title = f"loss of {printable_line(front.metric, 60)} against dense, at most"
        yield {
            "name": "max_drop",
            "title": title,
            "low": 0.0,
            "high": float(f"{most:.2g}"),
            "log": False,
            "form": ".4f",
            "side": "max",
            "objective": QUALITY,
        }


def _limit(name: str, quantity: Quantity, values: np.ndarray, title: str) -> Properties:
    low, high = float(values.min()), float(values.max())
    return {
        "name": name,
        "title": printable_line(title, 100),
        "low": low,
        "high": high,
        "log": quantity.is_cost and low > 0 and high > 4 * low,
        "form": quantity.form,
        "side": name[:3],
        "objective": quantity.name,
    }


def limits_of(values: object) -> Limits:
    """Read limits as a client sends them.

    Args:
        values: Name -> number.

    Returns:
        The limits.

    Raises:
        AutopruneError: A name is no limit, or a number out of its range.
    """
    return Limits(**numbers_of(values))


def numbers_of(values: object) -> dict[str, float]:
    """Read numbers with their names as a client sends them.

    Args:
        values: Name -> number.

    Returns:
        Name -> number; anything else is left out.
    """
    given = values if isinstance(values, dict) else {}
    numbers = {str(name): value for name, value in given.items() if isinstance(value, int | float)}
    return {name: _float(value) for name, value in numbers.items() if not isinstance(value, bool)}


def _float(value: float) -> float:
    """Convert a number; JSON has integers that are too large for a float."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
