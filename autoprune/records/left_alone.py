"""Modules that cannot be pruned, by reason, for `explain`, a run and its report. Plain data, without torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from autoprune.records.manifest import UnprunableModule


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Modules that cannot be pruned because of one line of code.

    Attributes:
        where: Operator, line and module, in words; "" if there is no line to name.
        detail: More detailed reason than that of the cause; "" for none.
        multiply_adds: Share of the dense multiply-adds that stays with the modules, in [0, 1].
        layers: The modules.
    """

    where: str
    detail: str
    multiply_adds: float
    layers: tuple[UnprunableModule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One reason why modules cannot be pruned.

    Attributes:
        why: Reason, in words that follow the name of a layer.
        remedy: Advice; "" in a run folder of an earlier version.
        docs: Page and section of the docs.
        multiply_adds: Share of the dense multiply-adds that stays with the modules, in [0, 1].
        places: Lines of code.
    """

    why: str
    remedy: str
    docs: str
    multiply_adds: float
    places: tuple[Place, ...]


def causes(rows: Iterable[UnprunableModule]) -> list[Cause]:
    """Group modules by the reason why they cannot be pruned, most multiply-adds first.

    Args:
        rows: Modules that cannot be pruned.
    """
    found: dict[tuple[str, str], list[UnprunableModule]] = {}
    for row in rows:
        found.setdefault((row.kind or row.reason, row.operator), []).append(row)
    return sorted((_cause(alike) for alike in found.values()), key=lambda cause: -cause.multiply_adds)


def _cause(rows: list[UnprunableModule]) -> Cause:
    words = {row.why or row.reason for row in rows}
    lines: dict[tuple[str, str, str], list[UnprunableModule]] = {}
    for row in rows:
        lines.setdefault((row.why, row.line, "" if row.line else row.at), []).append(row)
    return Cause(
        why=words.pop() if len(words) == 1 else rows[0].title,
        remedy=rows[0].remedy,
        docs=rows[0].docs,
        multiply_adds=_staying(rows),
        places=tuple(_place(alike, detailed=len({row.why for row in rows}) > 1) for alike in lines.values()),
    )


def _place(rows: list[UnprunableModule], *, detailed: bool) -> Place:
    first = rows[0]
    modules = list(dict.fromkeys(row.at for row in rows if row.at))
    more = f" and {len(modules) - 1} more like it" if len(modules) > 1 else ""
    inside = f"in {modules[0]}{more}" if modules else "in the model's own forward" if first.operator else ""
    where = " ".join(filter(None, (first.operator, inside)))
    where = ", ".join(filter(None, (where, first.line)))
    why = first.why if detailed else ""
    return Place(where=where, detail=why, multiply_adds=_staying(rows), layers=tuple(rows))


def _staying(rows: Iterable[UnprunableModule]) -> float:
    shares: dict[str, float] = {}
    for row in rows:  # heads and their width may both stay
        shares[row.module] = max(shares.get(row.module, 0.0), row.multiply_adds)
    return sum(shares.values())
