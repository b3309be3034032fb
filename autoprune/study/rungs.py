"""Rungs of a study: early evaluations of a candidate, and the input of its early-stopping rule."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autoprune.errors import user_code
from autoprune.front import dominance
from autoprune.records.candidate import CandidateRecord
from autoprune.search.early_stopping import RULES, FinishedTrial, RungContext
from autoprune.search.settings import StudySettings
from autoprune.task.data import IterableSplit, take_batches
from autoprune.task.evaluation import Evaluation, Scorable
from autoprune.task.task import Task
from autoprune.trial.candidate import RungPolicy, RungState

#: Origin of the trials that may be stopped: the sampler's proposals.
STOPPABLE = "sampled"


def rung_split(task: Task, samples: int) -> Scorable:
    """Return the part of the search split that is evaluated at rungs, the same each time; all of the user's evaluation.

    Args:
        task: Task of the study.
        samples: Samples of the part, >= 1; random ones where the data can be shuffled. All if the split has no more.
    """
    split = task.search_split
    if isinstance(split, Evaluation) or (split.samples is not None and split.samples <= samples):
        return split
    # Data is often sorted by class, so the first samples would hold few classes.
    device = torch.device(task.device)
    with user_code("Choosing the part of the search split that early stopping looks at"):
        batches = [batch.to(device) for batch in take_batches(split.shuffled(task.seed), samples)]
    return IterableSplit([(batch.inputs, batch.targets) for batch in batches])


def rung_policy(
    settings: StudySettings, split: Scorable, records: Sequence[CandidateRecord], higher_is_better: bool, origin: str
) -> RungPolicy | None:
    """Return the rungs of a new candidate and its stopping rule; None where no rung is evaluated.

    Warm starts and user plans are evaluated at rungs but never stopped. Polished candidates are not evaluated, because
    part of their gain belongs to their parent. If all trials are warm starts, the rungs would teach nothing.

    Args:
        settings: Settings of the study.
        split: Data that is evaluated at rungs.
        records: The earlier candidates.
        higher_is_better: Direction of the quality.
        origin: Origin of the trial.
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
    """Return the input of an early-stopping rule. Costs are those of the front, latency as a ratio to dense.

    Args:
        state: State of the candidate at the rung.
        records: The earlier candidates.
        objectives: Names of the objectives.
        higher_is_better: Direction of the quality.
    """
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
    """Return all objectives but the quality for each record, as dominance compares them.

    Args:
        records: Candidates.
        objectives: Names of the objectives.
    """
    names = [name for name in objectives if name != "quality"]
    return [tuple(row) for row in dominance.objective_matrix(records, names, True).tolist()]


def finished_trials(records: Sequence[CandidateRecord], costs: Sequence[tuple[float, ...]]) -> list[FinishedTrial]:
    """Return records as early-stopping rules see them.

    Args:
        records: Finished candidates.
        costs: Costs of each record.
    """
    return [
        FinishedTrial(rungs=dict(record.rungs), quality=record.search.quality, costs=cost, stopped=record.stopped)
        for record, cost in zip(records, costs, strict=False)
    ]
