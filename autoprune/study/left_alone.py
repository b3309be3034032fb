"""What is left alone, by reason: the same list for `explain`, a run and its report. Plain data, without torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from autoprune.study.manifest import UnprunableModule


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Layers that are left alone because of one line of code.

    Args:
        where: Operator, line and module, in words; "" where no code is to be named.
        detail: Why in more words than the reason above says; "" for no more.
        multiply_adds: Of the layers, as a share of the dense model's, in [0, 1].
        layers: Those that it keeps.

    """

    where: str
    detail: str
    multiply_adds: float
    layers: tuple[UnprunableModule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One reason for which layers are left alone.

    Args:
        why: The reason, in words that follow the name of a layer.
        remedy: What to do about it; "" in a run folder of an earlier version.
        docs: Page and section that say more.
        multiply_adds: Of the layers, as a share of the dense model's, in [0, 1].
        places: Where it is.

    """

    why: str
    remedy: str
    docs: str
    multiply_adds: float
    places: tuple[Place, ...]


def causes(rows: Iterable[UnprunableModule]) -> list[Cause]:
    """Group what is left alone by reason, what keeps the most multiply-adds first."""
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
