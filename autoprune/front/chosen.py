"""The candidates of a table of the front, with the one that a person chose."""

from __future__ import annotations

from autoprune.front.front import Front
from autoprune.records.annotations import Annotations
from autoprune.records.candidate import CandidateRecord


def table_records(front: Front, annotations: Annotations | None = None) -> list[CandidateRecord]:
    """List the candidates of a table of the front: the dense model, the members, and a chosen one off the front.

    Args:
        front: Front of a study.
        annotations: Notes and the chosen candidate; None for nothing.

    Returns:
        The candidates.
    """
    dense = front.dense
    records = [*([dense] if dense is not None and dense not in front.members else []), *front.members]
    chosen = None if annotations is None else annotations.chosen
    shown = {record.number for record in records}
    return records + [one for one in front.records if one.number == chosen and one.number not in shown]
