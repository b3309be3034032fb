"""Lineage: a trial starts from the smallest recovered ancestor that contains its plan, so recovery adds up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autoprune.candidate import Bench, Parent
from autoprune.criteria.kept import KeptChannels
from autoprune.errors import NotFoundError
from autoprune.front.record import CandidateRecord
from autoprune.study.folder import RunFolder
from autoprune.surgery.clone import clone_with
from autoprune.surgery.cut import rebuild
from autoprune.task.checkpoint import read_weights


def choose(
    records: Sequence[CandidateRecord], widths: Mapping[str, int], dropped: Sequence[str] = ()
) -> CandidateRecord | None:
    """The candidate with the fewest multiply-adds that is at least as wide as `widths` in every group.

    It has every block but those that are to be dropped.

    One of equal widths counts: its training goes on. Of equals the better recovered (later) one is taken;
    candidates whose fine-tune failed are left out. None when nothing contains the plan, not even dense.
    """
    fitting = [
        record
        for record in records
        if not record.note
        and set(record.dropped) <= set(dropped)
        and all(record.widths[name] >= width for name, width in widths.items())
    ]
    return min(fitting, key=lambda record: (record.search.multiply_adds, -record.number), default=None)


def load(bench: Bench, folder: RunFolder, record: CandidateRecord) -> Parent:
    """A stored candidate as a parent. Raises NotFoundError when its weights are gone."""
    kept = KeptChannels(groups=record.kept, dropped=record.dropped)
    if record.origin == "dense":
        return Parent(number=record.number, model=clone_with(bench.task.dense), kept=kept)
    path = folder.weights(record.number)
    if not path.is_file():
        raise NotFoundError(f"the weights of candidate {record.number} must lie at {path}, but are not there")
    model = rebuild(bench.task.dense, bench.topology, kept, read_weights(path))
    return Parent(number=record.number, model=model, kept=kept)
