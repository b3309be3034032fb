"""Rungs of a study: what is looked at while a candidate trains, and what its rule is told of the candidates before."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autoprune.candidate import RungPolicy, RungState
from autoprune.errors import user_code
from autoprune.front import dominance
from autoprune.front.record import CandidateRecord
from autoprune.study.early_stopping import RULES, FinishedTrial, RungContext
from autoprune.study.settings import StudySettings
from autoprune.task.data import IterableSplit, Split, take
from autoprune.task.task import Task

#: Only what the sampler proposes may be stopped.
STOPPABLE = "sampled"


def rung_split(task: Task, samples: int) -> Split:
    """The same `samples` of the search split each time, at random where the data allows it; all when it has no more."""
    split = task.search_split
    count = split.samples
    if count is not None and count <= samples:
        return split
    # Data is often sorted by class, and the first samples would hold few of them.
    device = torch.device(task.device)
    with user_code("Choosing the part of the search split that early stopping looks at"):
        batches = [batch.to(device) for batch in take(split.shuffled(task.seed), samples)]
    return IterableSplit([(batch.inputs, batch.targets) for batch in batches])


def rung_policy(
    settings: StudySettings, split: Split, records: Sequence[CandidateRecord], higher_is_better: bool, origin: str
) -> RungPolicy | None:
    """Where a new candidate pauses and what decides there; None where nothing is looked at.

    split: what the qualities are taken on. records: the candidates before. origin: of the trial. Warm starts and plans
    of the user pass the rungs and are never stopped; what is trained on does not, as its gains are another's. Where all
    trials are warm starts nothing would be learnt from looking at them.
    """
    if settings.early_stopping == "none" or not settings.rungs or origin in ("dense", "polished"):
        return None
    if settings.early_stopping != "audit" and settings.trials <= settings.warm_starts:
        return None
    rule, before = RULES[settings.early_stopping], list(records)

    def stop(state: RungState) -> bool:
        return origin == STOPPABLE and rule(rung_context(state, before, settings.objectives, higher_is_better))

    return RungPolicy(shares=settings.rungs, split=split, stop=stop)


def rung_context(
    state: RungState, records: Sequence[CandidateRecord], objectives: Sequence[str], higher_is_better: bool
) -> RungContext:
    """What a rule decides on. Costs are those that the front compares, latency as its ratio to dense."""
    now = CandidateRecord.proposed(state.costs, state.kept.groups, state.kept.dropped)
    costs = costs_of([*records, now], objectives)
    return RungContext(
        share=state.share,
        quality=state.quality,
        costs=costs[-1],
        past=finished_trials(records, costs),
        higher_is_better=higher_is_better,
    )


def costs_of(records: Sequence[CandidateRecord], objectives: Sequence[str]) -> list[tuple[float, ...]]:
    """The objectives of each but its quality, as dominance compares them."""
    names = [name for name in objectives if name != "quality"]
    return [tuple(row) for row in dominance.objective_matrix(records, names, True).tolist()]


def finished_trials(records: Sequence[CandidateRecord], costs: Sequence[tuple[float, ...]]) -> list[FinishedTrial]:
    """Records as rules see them."""
    return [
        FinishedTrial(rungs=dict(record.rungs), quality=record.search.quality, costs=cost, stopped=record.stopped)
        for record, cost in zip(records, costs, strict=False)
    ]
