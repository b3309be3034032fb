"""One candidate: a plan applied to a parent, recovered and measured. The study merely calls this often."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from autoprune.criteria.gathering import count_passes, gather_signals
from autoprune.criteria.kept import KeptChannels
from autoprune.criteria.resolve import planned_widths, resolve_allocation, signals_to_resolve
from autoprune.errors import user_code
from autoprune.measure.cost import count_multiply_adds, count_nonzero, count_parameters, stored_bytes
from autoprune.measure.latency import compare_latency
from autoprune.measure.measurement import Latency, Measurement
from autoprune.measure.quality import evaluate, quality_alone
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import SchedulePlan
from autoprune.plan.weights import WeightPlan, block_pattern
from autoprune.recovery.distillation import Teacher
from autoprune.recovery.fine_tune import DivergedError, Samples
from autoprune.recovery.gradual import Clock, Gradual, Stage, Watch
from autoprune.surgery.cut import cut
from autoprune.surgery.prove import discover_structure
from autoprune.surgery.weight_masks import maskable
from autoprune.task.clone import clone_with
from autoprune.task.data import Split
from autoprune.task.task import Task
from autoprune.trace.topology import GROUP_KINDS, Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every candidate of one model shares.

    task: the user's task. topology: proved groups of the dense model, but those that the user protects.
    structure: fingerprint of all proved groups, which any process finds again.
    teacher: the dense model's outputs for distillation.
    masks_weights: masks may be laid on single weights.
    latency_rounds: pairs of calls per latency measurement, 0 leaves latency out. latency_backend: its name.
    """

    task: Task
    topology: Topology
    structure: str
    teacher: Teacher
    masks_weights: bool = True
    latency_rounds: int = 30
    latency_backend: str = "torch"

    @classmethod
    def of(
        cls,
        task: Task,
        *,
        protect: Sequence[str] = (),
        kinds: Sequence[str] = (*GROUP_KINDS, "blocks", "layers", "weights"),
        latency_rounds: int = 30,
        latency_backend: str = "torch",
    ) -> Bench:
        """Trace the task's model and prove its groups. Raises TraceError, ConfigurationError for a pattern.

        protect: patterns of modules that stay. kinds: what may go, of KINDS, "blocks", "layers" and "weights".
        """
        topology = discover_structure(task.dense, task.example_inputs)
        return cls(
            task=task,
            topology=topology.protected(protect).only(kinds),
            structure=topology.fingerprint(),
            teacher=Teacher(task),
            masks_weights="weights" in kinds and len(maskable(topology)) > 0,
            latency_rounds=latency_rounds,
            latency_backend=latency_backend,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The recovered model that a candidate starts from.

    number: its trial. model: its modules with recovered weights. kept: what it still has, in dense indices.
    """

    number: int
    model: nn.Module
    kept: KeptChannels


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is known of a candidate on its way.

    kept: how many channels of each group stay; which ones is not said. dropped blocks are.
    costs: its measurement but for the quality, which is not a number. Bytes and parameters other than zero are no
        more than they will be.
    share: of the fine-tune's steps done. quality: on the part of the search split that rungs look at.
    """

    kept: KeptChannels
    costs: Measurement
    share: float
    quality: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rungs:
    """Where the fine-tune of a candidate pauses, and who decides there whether it goes on.

    shares: of its steps, each in [0, 1), rising; 0 is before the first step. split: what the quality is taken on.
    stop: True ends the training.
    """

    shares: tuple[float, ...]
    split: Split
    stop: Callable[[Outlook], bool]

    def steps(self, steps: int) -> dict[int, float]:
        """Optimizer step of a fine-tune of so many -> share; of shares that fall on one step the first."""
        found: dict[int, float] = {}
        for share in self.shares:
            if round(share * steps) < steps:
                found.setdefault(round(share * steps), share)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A finished candidate.

    samples: work done for it alone. seconds: where its time went, by phase. note: "" or what went wrong.
    rungs: (share of the fine-tune's steps, quality there). fidelity: share of its steps done, < 1 when it was stopped.
    """

    plan: PruningPlan
    kept: KeptChannels
    model: nn.Module = field(repr=False)
    measurement: Measurement
    parent: int | None
    samples: Samples
    seconds: dict[str, float]
    note: str = ""
    rungs: tuple[tuple[float, float], ...] = ()
    fidelity: float = 1.0


def resolve_plan(bench: Bench, plan: PruningPlan) -> tuple[PruningPlan, Samples]:
    """The plan with thresholds, ranking and blocks turned into counts and names, and the samples that took.

    They are decided by scores on the dense model, so that a plan says the same whatever a candidate starts from.
    Raises ConfigurationError for amounts that cannot be had.
    """
    if not plan.needs_scores:
        return resolve_allocation(plan, bench.topology, None), Samples()
    task, names = bench.task, signals_to_resolve(plan)
    whole = KeptChannels.whole(bench.topology)
    with user_code("Scoring the dense model"):
        signals = gather_signals(
            task.dense, names, (bench.topology, whole), task.calibration, task.objective, plan.seed
        )
    seen = sum(batch.size for batch in task.calibration)
    forward, trained = count_passes(names, len(bench.topology.blocks))
    return resolve_allocation(plan, bench.topology, signals), Samples(forward=seen * forward, trained=seen * trained)


def evaluate_plan(
    bench: Bench,
    plan: PruningPlan,
    parent: Parent | None = None,
    *,
    on_epoch: Callable[[Stage], None] | None = None,
    rungs: Rungs | None = None,
) -> Candidate:
    """Prune, recover and measure: the whole of one trial.

    parent: a recovered model at least as wide as the plan in every group; the dense model when None.
    on_epoch: called after each pass over the train split. rungs: where the training may end early.
    A fine-tune that diverges is answered by what the plan gives without any training, with a note.
    """
    resolved, scored = resolve_plan(bench, plan)
    task, steps = bench.task, resolved.recovery.steps
    start = (task.dense, KeptChannels.whole(bench.topology)) if parent is None else (parent.model, parent.kept)
    clock = Clock()
    looks = _Looks(bench, resolved, rungs, clock) if rungs is not None and steps else None
    watch = Watch(on_epoch=on_epoch) if looks is None else Watch(on_epoch=on_epoch, on_rung=looks, rungs=looks.steps)
    way = Gradual(task, bench.topology, resolved, start, teacher=bench.teacher, watch=watch)
    way.clock = clock
    note, fidelity = "", 1.0
    try:
        way.run()
        samples, fidelity = way.samples, way.steps / steps if steps else 1.0
    except DivergedError as error:
        note = f"fine-tune diverged, what the plan gives without training is kept: {error}"
        untrained = replace(resolved.recovery, steps=0, schedule=SchedulePlan())
        lost, way = way, Gradual(task, bench.topology, replace(resolved, recovery=untrained), start)
        way.clock = clock
        way.run()
        samples = lost.samples + way.samples
    masked = resolved.weights is not None
    measurement, seen = _measure(bench, way.model, clock, masked=masked, known=None if looks is None else looks.costs)
    return Candidate(
        plan=plan,
        kept=way.kept,
        model=way.model,
        measurement=measurement,
        parent=parent.number if parent is not None else None,
        samples=scored + samples + Samples(forward=seen + (looks.samples if looks is not None else 0)),
        seconds=clock.seconds,
        note=note,
        rungs=tuple(looks.seen) if looks is not None and not note else (),
        fidelity=fidelity,
    )


def expected_costs(bench: Bench, plan: PruningPlan, *, timed: bool) -> Measurement:
    """What a plan will cost, known before any training; its quality is not a number.

    plan: resolved. timed: measure its latency too. Under masks bytes and non-zero parameters are what they cannot
    fall below.
    """
    model = cut(bench.task.dense, bench.topology, _of_widths(plan, bench.topology))
    costs = _costs(bench if timed else replace(bench, latency_rounds=0), model, Clock(), masked=False)
    return costs if plan.weights is None else _least(costs, model, plan.weights, bench.topology)


def _of_widths(plan: PruningPlan, topology: Topology) -> KeptChannels:
    """Channels of the right number: which ones stay is nothing to the costs."""
    widths = planned_widths(plan, topology)
    return KeptChannels(groups={name: tuple(range(width)) for name, width in widths.items()}, dropped=plan.dropped)


class _Looks:
    """A candidate at its rungs. costs: measured before any training. seen: (share, quality). samples: looked at."""

    def __init__(self, bench: Bench, plan: PruningPlan, rungs: Rungs, clock: Clock) -> None:
        self._task, self._rungs, self._clock = bench.task, rungs, clock
        self._shares = rungs.steps(plan.recovery.steps)
        self.seen: list[tuple[float, float]] = []
        self.samples = 0
        self._kept = _of_widths(plan, bench.topology)
        with clock.phase("cut"):
            model = cut(bench.task.dense, bench.topology, self._kept)
        self.costs = _costs(bench, model, clock, masked=False)
        self._least = self.costs if plan.weights is None else _least(self.costs, model, plan.weights, bench.topology)

    @property
    def steps(self) -> tuple[int, ...]:
        """Optimizer steps of the rungs."""
        return tuple(self._shares)

    def __call__(self, model: nn.Module, step: int) -> bool:
        """Look at the model after so many steps; True ends its training."""
        with self._clock.phase("rungs"):
            quality, samples = quality_alone(self._task, model, self._rungs.split)
        self.samples += samples
        self.seen.append((self._shares[step], quality))
        return self._rungs.stop(Outlook(kept=self._kept, costs=self._least, share=self._shares[step], quality=quality))


def _least(costs: Measurement, model: nn.Module, plan: WeightPlan, topology: Topology) -> Measurement:
    """The costs of a model without masks -> what they cannot fall below with them."""
    weights = {n: parameter for n, parameter in model.named_parameters() if n in maskable(topology)}
    rows, columns = block_pattern(plan.pattern) or (1, 1)
    # Each weight may lose up to a block more than its share, as whole blocks go.
    zeros = {
        n: min(weight.numel(), math.ceil(plan.layers.get(n, plan.target) * weight.numel()) + rows * columns)
        for n, weight in weights.items()
    }
    widest = max((weight.element_size() for weight in weights.values()), default=0)
    return replace(
        costs,
        nonzero_parameters=max(costs.nonzero_parameters - sum(zeros.values()), 0),
        size_bytes=max(costs.size_bytes - sum(zeros.values()) * widest, 0),
    )


def _measure(
    bench: Bench, model: nn.Module, clock: Clock, *, masked: bool, known: Measurement | None = None
) -> tuple[Measurement, int]:
    """The measurement on the search split, and the samples it took.

    known: costs of the same widths with other weights. The clock and the counts depend on no weight but for masks.
    """
    task = bench.task
    with clock.phase("evaluate"):
        quality = evaluate(task, model, task.search_split)
    if known is None or masked:
        costs = _costs(bench, model, clock, masked=masked)
    else:
        with clock.phase("cost"):
            costs = replace(known, nonzero_parameters=count_nonzero(model), size_bytes=stored_bytes(model))
    found = replace(costs, quality=quality.value, quality_error=quality.error, metrics=quality.metrics)
    return found, quality.samples


def _costs(bench: Bench, model: nn.Module, clock: Clock, *, masked: bool) -> Measurement:
    """What a model costs; its quality is not a number."""
    with clock.phase("latency"):
        latency = measure_latency(bench, model)
        against_itself = measure_masks(bench, model) if masked else None
    with clock.phase("cost"):
        return Measurement(
            split="search",
            quality=math.nan,
            quality_error=0.0,
            metrics={},
            parameters=count_parameters(model),
            nonzero_parameters=count_nonzero(model),
            multiply_adds=count_multiply_adds(model, bench.task.example_inputs),
            size_bytes=stored_bytes(model),
            latency=latency,
            masked=against_itself,
        )


def measure_latency(bench: Bench, model: nn.Module) -> Latency | None:
    """Latency against the dense model, None when the bench leaves it out."""
    if bench.latency_rounds == 0:
        return None
    task = bench.task
    return compare_latency(
        model, task.dense, task.example_inputs, rounds=bench.latency_rounds, backend=bench.latency_backend
    )


@torch.no_grad()
def measure_masks(bench: Bench, model: nn.Module) -> Latency | None:
    """Latency against the same model without masks: what they alone do to the clock. None without latencies."""
    if bench.latency_rounds == 0:
        return None
    filled = clone_with(model)
    for name, parameter in filled.named_parameters():
        if name in maskable(bench.topology):
            # The values do not matter to the clock, but that they are neither zero nor denormal.
            parameter.masked_fill_(parameter == 0, 0.01)
    inputs = bench.task.example_inputs
    return compare_latency(model, filled, inputs, rounds=bench.latency_rounds, backend=bench.latency_backend)


def measure_test(bench: Bench, model: nn.Module, search: Measurement) -> Measurement | None:
    """The same model on the test split, None when the task has none. For the final front only."""
    split: Split | None = bench.task.test_split
    if split is None:
        return None
    with user_code("The measurement on the test split"):
        quality = evaluate(bench.task, model, split)
    return Measurement(
        split="test",
        quality=quality.value,
        quality_error=quality.error,
        metrics=quality.metrics,
        parameters=search.parameters,
        nonzero_parameters=search.nonzero_parameters,
        multiply_adds=search.multiply_adds,
        size_bytes=search.size_bytes,
        latency=search.latency,
        masked=search.masked,
    )
