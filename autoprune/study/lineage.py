"""Lineage: a trial starts from the smallest recovered ancestor that contains its plan, so recovery adds up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autoprune.candidate import Bench, Parent
from autoprune.criteria.kept import KeptChannels
from autoprune.errors import NotFoundError, fault
from autoprune.front.record import CandidateRecord
from autoprune.plan.weights import WeightPlan
from autoprune.study.folder import RunFolder
from autoprune.surgery.clone import clone_with
from autoprune.surgery.cut import rebuild
from autoprune.task.checkpoint import read_weights


def choose(
    records: Sequence[CandidateRecord],
    widths: Mapping[str, int],
    dropped: Sequence[str] = (),
    weights: WeightPlan | None = None,
) -> CandidateRecord | None:
    """The candidate with the fewest multiply-adds that is at least as wide as `widths` in every group.

    It has every block but those that are to be dropped, and no masks but those that the masks to come contain.

    One of equal widths counts: its training goes on. Of equals the better recovered (later) one is taken;
    candidates whose fine-tune failed or was stopped are left out. None when nothing contains the plan, not even dense.
    """
    fitting = [
        record
        for record in records
        if not record.note
        and not record.stopped
        and set(record.dropped) <= set(dropped)
        and _looser(record.plan.weights, weights)
        and all(record.widths[name] >= width for name, width in widths.items())
    ]
    return min(fitting, key=lambda record: (record.search.multiply_adds, -record.number), default=None)


def _looser(parent: WeightPlan | None, child: WeightPlan | None) -> bool:
    """Whether what a parent's masks silence is silenced in the child too, so that no weight has to grow back."""
    if parent is None:
        return True
    if child is None or parent.pattern != child.pattern:
        return False
    layers = {*parent.layers, *child.layers}
    pairs = [(plan.layers.get(name, plan.target) for plan in (parent, child)) for name in layers]
    return parent.spread == child.spread and parent.target <= child.target and all(a <= b for a, b in pairs)


def load(bench: Bench, folder: RunFolder, record: CandidateRecord) -> Parent:
    """A stored candidate as a parent. Raises NotFoundError when its weights are gone."""
    kept = KeptChannels(groups=record.kept, dropped=record.dropped)
    if record.origin == "dense":
        return Parent(number=record.number, model=clone_with(bench.task.dense), kept=kept)
    path = folder.weights(record.number)
    if not path.is_file():
        remedy = "Dominated candidates lose them, unless StudySettings.collect_garbage is False."
        raise NotFoundError(
            fault(f"the weights of candidate {record.number}", f"lie at {path}", "nothing there", remedy)
        )
    model = rebuild(bench.task.dense, bench.topology, kept, read_weights(path))
    return Parent(number=record.number, model=model, kept=kept)
