"""Evaluate one candidate: apply a plan to a parent, recover the model, measure it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import nn

from autoprune.criteria.gathering import count_passes, gather_signals
from autoprune.criteria.resolve import resolve_allocation, signals_to_resolve
from autoprune.errors import user_code
from autoprune.measure.quality import Quality, evaluate, quality_alone
from autoprune.plan.kept import KeptChannels
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import SchedulePlan
from autoprune.plan.resolved import ResolvedPlan
from autoprune.records.measurement import Measurement
from autoprune.records.work import Work
from autoprune.recovery.callbacks import RecoveryCallbacks, Snapshot
from autoprune.recovery.fine_tune import DivergedError
from autoprune.recovery.step import PhaseTimer
from autoprune.recovery.trial_state import TrialState
from autoprune.surgery.cut import cut
from autoprune.task.evaluation import Scorable
from autoprune.trial.context import Parent, TrialContext
from autoprune.trial.identity import identity_of
from autoprune.trial.prune_and_recover import PruneAndRecover


@dataclass(frozen=True, slots=True, kw_only=True)
class RungState:
    """State of a candidate at a rung, for an early-stopping rule.

    Attributes:
        kept: Channels of each group. Their number is right; which channels they are is not. Dropped blocks are right.
        costs: Measurement of the candidate with NaN as its quality. Bytes and non-zero parameters are lower bounds.
        share: Share of the fine-tune's steps that are done, in [0, 1).
        quality: Quality on the part of the search split that rungs are evaluated on.
    """

    kept: KeptChannels
    costs: Measurement
    share: float
    quality: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RungPolicy:
    """Where a fine-tune pauses, and the rule that may end it there.

    Attributes:
        shares: Rungs as shares of the fine-tune's steps, ascending, each in [0, 1); 0 is before the first step.
        split: Split that the quality is taken on.
        stop: Rule; True ends the training.
    """

    shares: tuple[float, ...]
    split: Scorable
    stop: Callable[[RungState], bool]

    def steps(self, steps: int) -> dict[int, float]:
        """Map the optimizer step of each rung to its share.

        Args:
            steps: Optimizer steps of the fine-tune.

        Returns:
            Step -> share. Of several shares at one step, the first.
        """
        found: dict[int, float] = {}
        for share in self.shares:
            if round(share * steps) < steps:
                found.setdefault(round(share * steps), share)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A finished candidate.

    Attributes:
        plan: The plan as asked for.
        kept: Channels that stay, in dense indices, and dropped blocks.
        model: The recovered model.
        measurement: Quality and costs on the search split.
        parent: Number of the parent's trial; None for the dense model.
        work: Work done for this candidate alone.
        seconds: Phase -> seconds.
        note: What went wrong; "" for nothing.
        rungs: (share of the fine-tune's steps, quality) of each rung.
        fidelity: Share of the fine-tune's steps that were done; below 1 when it was stopped early.

    Example:
        >>> from autoprune import evaluate
        >>> candidate = evaluate(plan, task)  # doctest: +SKIP
        >>> candidate.measurement.quality, candidate.model  # doctest: +SKIP
    """

    plan: PruningPlan
    kept: KeptChannels
    model: nn.Module = field(repr=False)
    measurement: Measurement
    parent: int | None
    work: Work
    seconds: dict[str, float]
    note: str = ""
    rungs: tuple[tuple[float, float], ...] = ()
    fidelity: float = 1.0


def resolve_plan(context: TrialContext, plan: PruningPlan) -> tuple[ResolvedPlan, Work]:
    """Turn the thresholds, rankings and block choices of a plan into widths and block names.

    Scores are taken on the dense model, so that a plan means the same whatever parent a candidate starts from.

    Args:
        context: Context of the trials.
        plan: The plan as asked for.

    Returns:
        The resolved plan, and the work of scoring.

    Raises:
        ConfigurationError: The model cannot be pruned by these amounts.
    """
    if not plan.needs_scores:
        counted = resolve_allocation(plan, context.topology, None)
        return ResolvedPlan.of(counted, context.topology, asked=plan), Work()
    task, names = context.task, signals_to_resolve(plan)
    whole = KeptChannels.whole(context.topology)
    with user_code("Scoring the dense model"):
        signals = gather_signals(
            task.dense, names, (context.topology, whole), task.calibration, task.objective, plan.seed
        )
    seen = sum(batch.size for batch in task.calibration)
    forward, trained = count_passes(names, len(context.topology.blocks))
    counted = resolve_allocation(plan, context.topology, signals)
    work = Work(forward=seen * forward, trained=seen * trained)
    return ResolvedPlan.of(counted, context.topology, asked=plan), work


def evaluate_plan(
    context: TrialContext,
    plan: PruningPlan,
    parent: Parent | None = None,
    *,
    on_epoch: Callable[[Snapshot], None] | None = None,
    rungs: RungPolicy | None = None,
) -> Candidate:
    """Resolve a plan, and run its trial; see `evaluate_resolved`.

    Args:
        context: Context of the trials.
        plan: The plan as asked for.
        parent: Recovered model, at least as wide as the plan in every group; None for the dense model.
        on_epoch: Called after each pass over the train split.
        rungs: Where the training may end early; None for nowhere.

    Returns:
        The finished candidate, with the work of resolving.
    """
    resolved, scored = resolve_plan(context, plan)
    found = evaluate_resolved(context, resolved, parent, on_epoch=on_epoch, rungs=rungs)
    return replace(found, work=scored + found.work)


def evaluate_resolved(
    context: TrialContext,
    resolved: ResolvedPlan,
    parent: Parent | None = None,
    *,
    on_epoch: Callable[[Snapshot], None] | None = None,
    rungs: RungPolicy | None = None,
    resume: TrialState | None = None,
) -> Candidate:
    """Run one trial: prune, recover and measure.

    If the fine-tune diverges, the untrained result is returned with a note.

    Args:
        context: Context of the trials.
        resolved: Plan to try.
        parent: Recovered model, at least as wide as the plan in every group; None for the dense model.
        on_epoch: Called after each pass over the train split.
        rungs: Where the training may end early; None for nowhere.
        resume: State of this trial, from a snapshot of `on_epoch` in an earlier process. The trial goes on from there,
            and its result is bit-identical to one that was never interrupted. One of another trial is ignored.

    Returns:
        The finished candidate.
    """
    number = None if parent is None else parent.number
    identity = identity_of(context, resolved, number, () if rungs is None else rungs.shares)
    resume = resume if resume is not None and resume.identity == identity else None
    task, steps = context.task, resolved.recovery.steps
    start = (task.dense, KeptChannels.whole(context.topology)) if parent is None else (parent.model, parent.kept)
    timer = PhaseTimer() if resume is None else PhaseTimer(resume.seconds)
    evaluator = _RungEvaluator(context, resolved, rungs, timer) if rungs is not None and steps else None
    if evaluator is not None and resume is not None:
        evaluator.go_on(resume)
    callbacks = _callbacks(on_epoch, evaluator, timer, identity)
    pruner = PruneAndRecover(task, context.topology, resolved, start, teacher=context.teacher, callbacks=callbacks)
    pruner.timed_by(timer)
    note, fidelity = "", 1.0
    try:
        pruner.run(resume)
        work, fidelity = pruner.work, pruner.steps / steps if steps else 1.0
    except DivergedError as error:
        note = f"fine-tune diverged, the result without training is kept: {error}"
        untrained = replace(resolved.recovery, steps=0, schedule=SchedulePlan())
        lost, pruner = pruner, PruneAndRecover(task, context.topology, resolved.with_recovery(untrained), start)
        pruner.timed_by(timer).run()
        work = lost.work + pruner.work
    masked = resolved.weights is not None
    measurement, seen = _measure(context, pruner, masked=masked, known=None if evaluator is None else evaluator.costs)
    return Candidate(
        plan=resolved.asked,
        kept=pruner.kept,
        model=pruner.model,
        measurement=measurement,
        parent=number,
        work=work + Work(forward=seen + (evaluator.samples if evaluator is not None else 0)),
        seconds=timer.seconds,
        note=note,
        rungs=tuple(evaluator.seen) if evaluator is not None and not note else (),
        fidelity=fidelity,
    )


def _callbacks(
    on_epoch: Callable[[Snapshot], None] | None, evaluator: _RungEvaluator | None, timer: PhaseTimer, identity: str
) -> RecoveryCallbacks:
    """Callbacks that add to the state of a snapshot what the recovery does not know."""

    def whole(state: TrialState) -> TrialState:
        state = replace(state, identity=identity, seconds=timer.so_far())
        if evaluator is None:
            return state
        return replace(state, rungs=tuple(evaluator.seen), rung_samples=evaluator.samples)

    def after_epoch(snapshot: Snapshot) -> None:
        assert on_epoch is not None
        described = snapshot.state
        on_epoch(snapshot if described is None else replace(snapshot, state=lambda: whole(described())))

    called = None if on_epoch is None else after_epoch
    if evaluator is None:
        return RecoveryCallbacks(on_epoch=called)
    return RecoveryCallbacks(on_epoch=called, on_rung=evaluator, rungs=evaluator.steps)


class _RungEvaluator:
    """Evaluates a candidate at its rungs.

    Attributes:
        costs: Measured before any training.
        seen: (share, quality) of each rung so far.
        samples: Samples passed forward at rungs.
    """

    def __init__(self, context: TrialContext, plan: ResolvedPlan, rungs: RungPolicy, timer: PhaseTimer) -> None:
        self._task, self._rungs, self._timer = context.task, rungs, timer
        self._shares = rungs.steps(plan.recovery.steps)
        self.seen: list[tuple[float, float]] = []
        self.samples = 0
        self._kept = plan.first_channels
        with timer.phase("cut"):
            model = cut(context.task.dense, context.topology, self._kept)
        self.costs = _costs(context, model, self._kept, timer)
        self._lower_bounds = (
            self.costs if plan.weights is None else context.costs.lower_bounds(self.costs, model, plan.weights)
        )

    def go_on(self, found: TrialState) -> None:
        """Take over the rungs that an earlier process has evaluated."""
        self.seen, self.samples = list(found.rungs), found.rung_samples

    @property
    def steps(self) -> tuple[int, ...]:
        """Optimizer steps of the rungs."""
        return tuple(self._shares)

    def __call__(self, model: nn.Module, step: int) -> bool:
        """Evaluate the model after `step` optimizer steps; True ends its training."""
        with self._timer.phase("rungs"):
            quality, samples = quality_alone(self._task, model, self._rungs.split)
        self.samples += samples
        self.seen.append((self._shares[step], quality))
        return self._rungs.stop(
            RungState(kept=self._kept, costs=self._lower_bounds, share=self._shares[step], quality=quality)
        )


def _measure(
    context: TrialContext, pruner: PruneAndRecover, *, masked: bool, known: Measurement | None = None
) -> tuple[Measurement, int]:
    """The measurement on the search split, and the samples it took.

    known: costs of the same widths with other weights. Without masks, latency does not depend on the weights.
    """
    task, model, timer = context.task, pruner.model, pruner.timer
    with timer.phase("evaluate"):
        quality = evaluate(task, model, task.search_split, context.judged)
    if known is None or masked:
        costs = _costs(context, model, pruner.kept, timer, masked=masked)
    else:
        with timer.phase("cost"):
            costs = context.costs.of(model, pruner.kept, latencies=known.latencies, energy=known.energy)
    return _with_quality(costs, quality), quality.samples


def _costs(
    context: TrialContext, model: nn.Module, kept: KeptChannels, timer: PhaseTimer, *, masked: bool = False
) -> Measurement:
    """The costs of a model, with NaN as its quality."""
    with timer.phase("latency"):
        latencies = context.costs.latencies(model, kept)
        mask_latency = context.costs.mask_latency(model) if masked else None
    with timer.phase("energy"):
        energy = context.costs.energy(model, kept)
    with timer.phase("cost"):
        return context.costs.of(model, kept, latencies=latencies, energy=energy, mask_latency=mask_latency)


def measure_latency(context: TrialContext, candidate: Candidate) -> Candidate:
    """Measure the latency of a candidate for which it was predicted, and its energy.

    Args:
        context: Context of the trials.
        candidate: A finished candidate.

    Returns:
        The candidate with measured latencies.
    """
    timer, costs = PhaseTimer(), context.costs
    with timer.phase("latency"):
        latencies = costs.latencies(candidate.model, candidate.kept, measured=True)
    with timer.phase("energy"):
        energy = costs.energy(candidate.model, candidate.kept, measured=True)
    took = {name: candidate.seconds.get(name, 0.0) + seconds for name, seconds in timer.seconds.items()}
    measurement = replace(candidate.measurement, latencies=latencies, energy=energy)
    return replace(candidate, measurement=measurement, seconds={**candidate.seconds, **took})


def measure_test(context: TrialContext, model: nn.Module, search: Measurement) -> Measurement | None:
    """Measure the quality of a model on the test split. For the final front only.

    Args:
        context: Context of the trials.
        model: A recovered model.
        search: Its measurement on the search split, from which the costs are taken.

    Returns:
        The measurement; None when the task has no test split.
    """
    split = context.task.test_split
    if split is None:
        return None
    with user_code("The measurement on the test split"):
        quality = evaluate(context.task, model, split, context.judged)
    return replace(_with_quality(search, quality), split="test")


def _with_quality(costs: Measurement, found: Quality) -> Measurement:
    return replace(
        costs,
        quality=found.value,
        quality_error=found.error,
        metrics=found.metrics,
        deviations=found.deviations,
        metric_deviations=found.metric_deviations,
    )
