"""What to choose where no candidate keeps the limits: which limit to give up, and what that gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autoprune.errors import SelectionError
from autoprune.front.front import Front
from autoprune.records.confidence import CONFIDENCE
from autoprune.records.limits import Limits
from autoprune.records.objectives import QUALITY
from autoprune.records.origins import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherChoice:
    """A choice that gives something up.

    Attributes:
        number: Number of the candidate that it takes.
        sentence: What is given up, and what the candidate has.
        options: Options of `autoprune choose` that take it.
    """

    number: int
    sentence: str
    options: str


def other_choices(front: Front, limits: Limits) -> Iterator[OtherChoice]:
    """Find choices with fewer limits, where no candidate keeps all of them.

    Args:
        front: Front of a study.
        limits: Limits that no candidate keeps.

    Yields:
        Choices that take a pruned model: by the measured numbers; the best within the limits of cost; the cheapest
        within the other ones.
    """
    given = limits.given
    costs = {name: number for name, number in given.items() if limits.each[name].is_cost}
    rest = {name: number for name, number in given.items() if name not in costs}
    for kept, by, confidence, what in (
        (given, "multiply_adds", 0.5, "By the measured numbers alone, whatever their noise and doubts"),
        (costs, QUALITY, CONFIDENCE, "The best within the limits of cost"),
        (rest, "multiply_adds", CONFIDENCE, "The cheapest within the other limits"),
    ):
        try:
            record = front.choose(Limits(**kept), by, confidence)
        except SelectionError:
            continue
        if not kept or record.origin is Origin.DENSE:
            continue
        options = [f"--limit {name}={number:.10g}" for name, number in kept.items()]
        options += ["--by quality"] if by == QUALITY else []
        options += ["--confidence 0.5"] if confidence < CONFIDENCE else []
        has = [f"{front.metric} {record.search.quality:.4g}"]
        limited = {limit.objective for limit in limits.each.values() if limit.is_cost} or {by}
        has += [f"{name} {front.value(record, name):.6g}" for name in sorted(limited)]
        said = f"{what}, candidate {record.number}: {', '.join(has)}."
        yield OtherChoice(number=record.number, sentence=said, options=" ".join(options))
