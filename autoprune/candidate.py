"""One candidate: a plan applied to a parent, recovered and measured. The study merely calls this often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from autoprune.criteria.amounts import resolve, signals_to_resolve
from autoprune.criteria.gathering import gather, passes
from autoprune.criteria.kept import KeptChannels
from autoprune.measure.cost import count_multiply_adds, count_nonzero, count_parameters, stored_bytes
from autoprune.measure.latency import compare
from autoprune.measure.measurement import Latency, Measurement
from autoprune.measure.quality import evaluate
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import SchedulePlan
from autoprune.recovery.distillation import Teacher
from autoprune.recovery.fine_tune import DivergedError, Samples
from autoprune.recovery.gradual import Clock, Gradual, Stage
from autoprune.surgery.clone import clone_with
from autoprune.surgery.prove import survey
from autoprune.surgery.sparsity import maskable
from autoprune.task.data import Split
from autoprune.task.task import Task
from autoprune.trace.topology import KINDS, Topology


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
        kinds: Sequence[str] = (*KINDS, "blocks", "weights"),
        latency_rounds: int = 30,
        latency_backend: str = "torch",
    ) -> Bench:
        """Trace the task's model and prove its groups. Raises TraceError, ConfigurationError for a pattern.

        protect: patterns of modules that stay. kinds: what may go, of KINDS, "blocks" and "weights".
        """
        topology = survey(task.dense, task.example_inputs)
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
class Candidate:
    """A finished candidate.

    samples: work done for it alone. seconds: where its time went, by phase. note: "" or what went wrong.
    """

    plan: PruningPlan
    kept: KeptChannels
    model: nn.Module = field(repr=False)
    measurement: Measurement
    parent: int | None
    samples: Samples
    seconds: dict[str, float]
    note: str = ""


def resolve_plan(bench: Bench, plan: PruningPlan) -> tuple[PruningPlan, Samples]:
    """The plan with thresholds, ranking and blocks turned into counts and names, and the samples that took.

    They are decided by scores on the dense model, so that a plan says the same whatever a candidate starts from.
    Raises ConfigurationError for amounts that can not be had.
    """
    if not plan.needs_scores:
        return plan, Samples()
    task, names = bench.task, signals_to_resolve(plan)
    whole = KeptChannels.whole(bench.topology)
    signals = gather(task.dense, names, (bench.topology, whole), task.calibration, task.loss, plan.seed)
    seen = sum(batch.size for batch in task.calibration)
    forward, trained = passes(names)
    return resolve(plan, bench.topology, signals), Samples(forward=seen * forward, trained=seen * trained)


def evaluate_plan(
    bench: Bench, plan: PruningPlan, parent: Parent | None = None, *, on_epoch: Callable[[Stage], None] | None = None
) -> Candidate:
    """Prune, recover and measure: the whole of one trial.

    parent: a recovered model at least as wide as the plan in every group; the dense model when None.
    on_epoch: called after each pass over the train split.
    A fine-tune that diverges is answered by what the plan gives without any training, with a note.
    """
    resolved, scored = resolve_plan(bench, plan)
    task = bench.task
    start = (task.dense, KeptChannels.whole(bench.topology)) if parent is None else (parent.model, parent.kept)
    way = Gradual(task, bench.topology, resolved, start, teacher=bench.teacher, on_epoch=on_epoch)
    note = ""
    try:
        way.run()
        samples = way.samples
    except DivergedError as error:
        note = f"fine-tune diverged, what the plan gives without training is kept: {error}"
        untrained = replace(resolved.recovery, steps=0, schedule=SchedulePlan())
        lost, way = way, Gradual(task, bench.topology, replace(resolved, recovery=untrained), start)
        way.clock = lost.clock
        way.run()
        samples = lost.samples + way.samples
    measurement, seen = _measure(bench, way.model, way.clock, masked=resolved.weights is not None)
    return Candidate(
        plan=plan,
        kept=way.kept,
        model=way.model,
        measurement=measurement,
        parent=parent.number if parent is not None else None,
        samples=scored + samples + Samples(forward=seen),
        seconds=way.clock.seconds,
        note=note,
    )


def _measure(bench: Bench, model: nn.Module, clock: Clock, *, masked: bool) -> tuple[Measurement, int]:
    """The measurement on the search split, and the samples it took."""
    task = bench.task
    with clock.phase("evaluate"):
        quality = evaluate(task, model, task.search_split)
    with clock.phase("latency"):
        latency = measure_latency(bench, model)
        against_itself = measure_masks(bench, model) if masked else None
    with clock.phase("cost"):
        measurement = Measurement(
            split="search",
            quality=quality.value,
            quality_error=quality.error,
            metrics=quality.metrics,
            parameters=count_parameters(model),
            nonzero_parameters=count_nonzero(model),
            multiply_adds=count_multiply_adds(model, task.example_inputs),
            size_bytes=stored_bytes(model),
            latency=latency,
            masked=against_itself,
        )
    return measurement, quality.samples


def measure_latency(bench: Bench, model: nn.Module) -> Latency | None:
    """Latency against the dense model, None when the bench leaves it out."""
    if bench.latency_rounds == 0:
        return None
    task = bench.task
    return compare(model, task.dense, task.example_inputs, rounds=bench.latency_rounds, backend=bench.latency_backend)


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
    return compare(model, filled, inputs, rounds=bench.latency_rounds, backend=bench.latency_backend)


def measure_test(bench: Bench, model: nn.Module, search: Measurement) -> Measurement | None:
    """The same model on the test split, None when the task has none. For the final front only."""
    split: Split | None = bench.task.test_split
    if split is None:
        return None
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
