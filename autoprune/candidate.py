"""One candidate: a plan applied to a parent, recovered and measured. The study merely calls this often."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from autoprune.criteria.kept import KeptChannels
from autoprune.criteria.registry import select, signals_for
from autoprune.criteria.signals import gather, passes
from autoprune.measure.cost import count_multiply_adds, count_parameters, serialized_bytes
from autoprune.measure.latency import compare
from autoprune.measure.measurement import Latency, Measurement
from autoprune.measure.quality import evaluate
from autoprune.plan.plan import PruningPlan
from autoprune.recovery.batch_norm import recalibrate
from autoprune.recovery.distillation import Teacher
from autoprune.recovery.fine_tune import DivergedError, Samples, fine_tune
from autoprune.surgery.clone import clone_with
from autoprune.surgery.cut import cut
from autoprune.surgery.prove import survey
from autoprune.task.data import Batch, Split, head
from autoprune.task.task import Task
from autoprune.trace.topology import KINDS, Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every candidate of one model shares.

    task: the user's task. topology: proved groups of the dense model, but those that the user protects.
    structure: fingerprint of all proved groups, which any process finds again.
    teacher: the dense model's outputs for distillation.
    latency_rounds: pairs of calls per latency measurement, 0 leaves latency out. latency_backend: its name.
    """

    task: Task
    topology: Topology
    structure: str
    teacher: Teacher
    latency_rounds: int = 30
    latency_backend: str = "torch"

    @classmethod
    def of(
        cls,
        task: Task,
        *,
        protect: Sequence[str] = (),
        kinds: Sequence[str] = (*KINDS, "blocks"),
        latency_rounds: int = 30,
        latency_backend: str = "torch",
    ) -> Bench:
        """Trace the task's model and prove its groups. Raises TraceError, ConfigurationError for a pattern.

        protect: patterns of modules that stay. kinds: what may go, of KINDS and "blocks".
        """
        topology = survey(task.dense, task.example_inputs)
        return cls(
            task=task,
            topology=topology.protected(protect).only(kinds),
            structure=topology.fingerprint(),
            teacher=Teacher(task),
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


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to a phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def evaluate_plan(bench: Bench, plan: PruningPlan, parent: Parent | None = None) -> Candidate:
    """Prune, recover and measure: the whole of one trial.

    parent: a recovered model at least as wide as the plan in every group; the dense model when None.
    A fine-tune that diverges is answered by the recalibrated weights from before it, with a note.
    """
    task, clock = bench.task, Clock()
    source = parent.model if parent is not None else task.dense
    before = parent.kept if parent is not None else KeptChannels.whole(bench.topology)
    with clock.phase("score"):
        kept, scored = choose_channels(bench, plan, source, before)
    with clock.phase("cut"):
        model = cut(source, bench.topology, kept, parent=before)
    untouched = plan.recovery.steps == 0 and kept == before
    with clock.phase("recalibrate"):
        calibrated = 0 if untouched else recalibrate(model, calibration_batches(task, plan.recovery.batch_norm_samples))
    with clock.phase("train"):
        model, trained, note = _recover(bench, plan, model)
    with clock.phase("evaluate"):
        quality = evaluate(task, model, task.search_split)
    with clock.phase("latency"):
        latency = measure_latency(bench, model)
    with clock.phase("cost"):
        parameters, multiply_adds = count_parameters(model), count_multiply_adds(model, task.example_inputs)
        size_bytes = serialized_bytes(model)
    measurement = Measurement(
        split="search",
        quality=quality.value,
        quality_error=quality.error,
        metrics=quality.metrics,
        parameters=parameters,
        multiply_adds=multiply_adds,
        size_bytes=size_bytes,
        latency=latency,
    )
    samples = scored + Samples(forward=calibrated + quality.samples) + trained
    number = parent.number if parent is not None else None
    return Candidate(
        plan=plan,
        kept=kept,
        model=model,
        measurement=measurement,
        parent=number,
        samples=samples,
        seconds=clock.seconds,
        note=note,
    )


def choose_channels(
    bench: Bench, plan: PruningPlan, source: nn.Module, before: KeptChannels
) -> tuple[KeptChannels, Samples]:
    """Which channels stay, and the samples that scoring them took."""
    needed = signals_for(group.criterion for name, group in plan.groups.items() if group.ratio > 0)
    batches = bench.task.calibration
    signals = gather(source, needed, (bench.topology, before), batches, bench.task.loss, plan.seed)
    seen = sum(batch.size for batch in batches)
    forward, trained = passes(needed)
    scored = Samples(forward=seen * forward, trained=seen * trained)
    return select(plan, bench.topology, signals), scored


def measure_latency(bench: Bench, model: nn.Module) -> Latency | None:
    """Latency against the dense model, None when the bench leaves it out."""
    if bench.latency_rounds == 0:
        return None
    task = bench.task
    return compare(model, task.dense, task.example_inputs, rounds=bench.latency_rounds, backend=bench.latency_backend)


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
        multiply_adds=search.multiply_adds,
        size_bytes=search.size_bytes,
        latency=search.latency,
    )


def calibration_batches(task: Task, samples: int) -> list[Batch]:
    """The first `samples` training samples on the task's device; the task's own calibration batches when they do."""
    if samples <= 0:
        return []
    if samples == sum(batch.size for batch in task.calibration):
        return list(task.calibration)
    device = torch.device(task.device)
    return [batch.to(device) for batch in head(task.train_split, samples)]


def _recover(bench: Bench, plan: PruningPlan, model: nn.Module) -> tuple[nn.Module, Samples, str]:
    """Fine-tune; when that diverges give the model back as it was before."""
    before = clone_with(model)
    try:
        return model, fine_tune(model, bench.task, plan.recovery, seed=plan.seed, teacher=bench.teacher), ""
    except DivergedError as error:
        return before.eval(), error.samples, f"fine-tune diverged, weights from before it are kept: {error}"
