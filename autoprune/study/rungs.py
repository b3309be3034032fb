"""Rungs of a study: early evaluations of a candidate, and the input of its early-stopping rule."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autoprune.errors import user_code
from autoprune.records.candidate import CandidateRecord
from autoprune.records.objectives import QUALITY, Objective
from autoprune.records.problem import Problem
from autoprune.search.early_stopping import RULES, FinishedTrial, RungContext
from autoprune.search.settings import StudySettings
from autoprune.task.data import IterableSplit, take_batches
from autoprune.task.evaluation import Evaluation, Scorable
from autoprune.task.prepare import PreparedTask
from autoprune.trial.candidate import RungPolicy, RungState

#: Origin of the trials that may be stopped: the sampler's proposals.
STOPPABLE = "sampled"


def rung_split(task: PreparedTask, samples: int) -> Scorable:
    """Return the part of the search split that is evaluated at rungs, the same each time; all of the user's evaluation.

    Args:
        task: PreparedTask of the study.
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
    settings: StudySettings, split: Scorable, records: Sequence[CandidateRecord], problem: Problem, origin: str
) -> RungPolicy | None:
    """Return the rungs of a new candidate and its stopping rule; None where no rung is evaluated.

    Warm starts and user plans are evaluated at rungs but never stopped. Polished candidates are not evaluated, because
    part of their gain belongs to their parent. If all trials are warm starts, the rungs would teach nothing. With a
    further metric among the objectives no candidate is stopped: the metric is known at the end alone, and may be what
    the candidate is good at.

    Args:
        settings: Settings of the study.
        split: Data that is evaluated at rungs.
        records: The earlier candidates.
        problem: Objectives of the study.
        origin: Origin of the trial.
    """
    judged = all(objective.is_cost for objective in problem.rows if objective.name != QUALITY)
    if settings.early_stopping == "none" or not settings.rungs or origin in ("dense", "polished"):
        return None
    if settings.early_stopping != "audit" and (settings.trials <= settings.warm_starts or not judged):
        return None
    rule, before = RULES[settings.early_stopping], list(records)

    def stop(state: RungState) -> bool:
        return origin == STOPPABLE and rule(rung_context(state, before, problem))

    return RungPolicy(shares=settings.rungs, split=split, stop=stop)


def rung_context(state: RungState, records: Sequence[CandidateRecord], problem: Problem) -> RungContext:
    """Return the input of an early-stopping rule. Costs are those of the front, latency as a ratio to dense.

    Args:
        state: State of the candidate at the rung.
        records: The earlier candidates.
        problem: Objectives of the study.
    """
    now = CandidateRecord.proposed(state.costs, state.kept.groups, state.kept.dropped)
    costs = costs_of([*records, now], problem)
    return RungContext(
        share=state.share,
        loss=problem.quality.loss(state.quality),
        costs=costs[-1],
        past=finished_trials(records, costs, problem.quality),
    )


def costs_of(records: Sequence[CandidateRecord], problem: Problem) -> list[tuple[float, ...]]:
    """Return the costs among the objectives for each record, as dominance compares them.

    Args:
        records: Candidates.
        problem: Objectives of the study.
    """
    names = [objective.name for objective in problem.rows if objective.is_cost]
    return [tuple(row) for row in problem.losses(records, names).tolist()]


def finished_trials(
    records: Sequence[CandidateRecord], costs: Sequence[tuple[float, ...]], quality: Objective
) -> list[FinishedTrial]:
    """Return records as early-stopping rules see them.

    Args:
        records: Finished candidates.
        costs: Costs of each record.
        quality: Objective of the quality.
    """
    return [
        FinishedTrial(
            rungs={share: quality.loss(value) for share, value in record.rungs},
            loss=quality.loss(record.search.quality),
            costs=cost,
            stopped=record.stopped,
        )
        for record, cost in zip(records, costs, strict=False)
    ]
