"""Pinned candidates side by side with the dense model."""

from __future__ import annotations

from collections.abc import Sequence

from dash import html
from dash.development.base_component import Component

from autoprune.dashboard.elements import sentences
from autoprune.dashboard.live import Snapshot


def compare(snapshots: Sequence[Snapshot], pinned: Sequence[tuple[int, int]]) -> list[Component]:
    """Compare pinned candidates.

    Args:
        snapshots: The runs.
        pinned: (position of the run, number) of each candidate.

    Returns:
        The elements.
    """
    return sentences(["Nothing is pinned."])
