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
