"""Weights that nothing needs any more are removed; what is known of their candidates stays."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.front.front import Front
from autoprune.front.record import CandidateRecord

#: Baselines are measured on the test split at the end, whether they are on the front or not.
_BASELINES = ("dense", "uniform")


def removable(front: Front) -> Sequence[CandidateRecord]:
    """Candidates whose weights nobody needs: dominated, without descendants, and no baseline."""
    members = {record.number for record in front.records}
    parents = {record.parent for record in front.everything}
    return [
        record
        for record in front.everything
        if record.number not in members and record.number not in parents and record.origin not in _BASELINES
    ]
