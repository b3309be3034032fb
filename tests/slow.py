"""Arguments of tests that only `make test-slow` runs: of the kind of others that each commit runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pytest


def slow(*values: object) -> object:
    """One set of arguments that each commit leaves out."""
    return pytest.param(*values, marks=pytest.mark.slow)


def quick(values: Iterable[object], taken: Collection[object]) -> list[object]:
    """All values of one argument, of which each commit runs those that are taken."""
    every = list(values)
    assert set(taken) <= set(every), "a value that is taken is none of the test"
    return [value if value in taken else slow(value) for value in every]


def diagonal(first: Iterable[object], second: Iterable[object]) -> list[object]:
    """All pairs, of which each commit runs as many as hold every value of both."""
    rows, columns = list(first), list(second)
    least = min(len(rows), len(columns))
    return [
        (row, column) if (one - other) % least == 0 else slow(row, column)
        for one, row in enumerate(rows)
        for other, column in enumerate(columns)
    ]
