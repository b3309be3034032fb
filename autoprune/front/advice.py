"""Advice where no candidate keeps the limits: which limit to give up, and which candidate keeps the others."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from autoprune.errors import SelectionError
from autoprune.front.front import Front
from autoprune.front.limit_check import LimitCheck
from autoprune.records.confidence import AS_MEASURED, CONFIDENCE
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
    check = LimitCheck(problem=front.problem, dense=front.dense, limits=limits)
    costs = {name: number for name, number in given.items() if limits.each[name].is_cost}
    rest = {name: number for name, number in given.items() if name not in costs}
    yield from _choices(
        front, given, "multiply_adds", check, {AS_MEASURED: "By the measured numbers alone, whatever their noise"}
    )
    measured = ", by the measured numbers"
    for kept, by, what in (
        (costs, QUALITY, "The best within the limits of cost"),
        (rest, "multiply_adds", "The cheapest within the other limits"),
    ):
        yield from _choices(front, kept, by, check, {CONFIDENCE: what, AS_MEASURED: what + measured})


def _choices(
    front: Front, kept: Mapping[str, float], by: str, check: LimitCheck, tries: Mapping[float, str]
) -> Iterator[OtherChoice]:
    """Choose within some limits; with the first confidence at which a pruned model keeps them.

    check: limits whose numbers are told; tries: confidence -> what the choice is.
    """
    for confidence, what in tries.items() if kept else ():
        try:
            record = front.choose(Limits(**kept), by, confidence)
        except SelectionError:
            continue
        if record.origin is Origin.DENSE:
            continue
        options = [f"--limit {shlex.quote(name)}={number:.10g}" for name, number in kept.items()]
        options += ["--by quality"] if by == QUALITY else []
        options += [f"--confidence {AS_MEASURED}"] if confidence == AS_MEASURED else []
        costs = check.told(record) if check.absolute() else [f"multiply_adds {record.search.multiply_adds}"]
        has = [f"{front.metric} {record.search.quality:.4g}", *costs]
        said = f"{what}, candidate {record.number}: {', '.join(has)}."
        yield OtherChoice(number=record.number, sentence=said, options=" ".join(options))
        return
