"""Networks made of numbers alone: groups in a chain, each tensor between two that follow each other."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.records.cost_table import AxisLength, CostTable, Monomial


def chain(channels: Sequence[int], positions: Sequence[int]) -> CostTable:
    """Group i is channels[i] wide; multiply-adds are positions[i] * width[i] * width[i + 1], the last by itself."""
    lengths = tuple(AxisLength(whole=float(c), single=((number, float(c)),)) for number, c in enumerate(channels))
    terms = []
    for number, count in enumerate(positions):
        key = (number, number + 1) if number + 1 < len(channels) else (number,)
        terms.append(Monomial(lengths=key, multiply_adds=float(count), parameters=1.0, size_bytes=4.0))
    return CostTable(
        names=tuple(f"g{number}" for number in range(len(channels))),
        channels=tuple(channels),
        least=(1,) * len(channels),
        kinds=("channels",) * len(channels),
        lengths=lengths,
        terms=tuple(terms),
    )
