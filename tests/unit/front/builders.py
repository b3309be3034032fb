"""Records of candidates that never ran: numbers in, the objects of front/ and report/ out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from autoprune.front.front import Front
from autoprune.front.run import Run
from autoprune.plan.allocation import GroupPlan
from autoprune.plan.plan import PruningPlan
from autoprune.plan.weights import WeightPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.energy import Energy
from autoprune.records.limits import Limits
from autoprune.records.manifest import Manifest
from autoprune.records.measurement import DEFAULT_PROFILE, Latency, Measurement
from autoprune.records.problem import Problem
from autoprune.records.run_folder import RunFolder

#: The dense model's median in every latency below, milliseconds.
DENSE_MS = 10.0


def latency(ratio: float, half_width: float = 0.02, drift: float = 1.0, doubts: tuple[str, ...] = ()) -> Latency:
    """A latency of `ratio` to dense; `drift` > 1 is a machine that was slow for both models."""
    return Latency(
        latency_ms=ratio * DENSE_MS * drift,
        low_ms=(ratio - half_width) * DENSE_MS * drift,
        high_ms=(ratio + half_width) * DENSE_MS * drift,
        dense_ms=DENSE_MS * drift,
        ratio=ratio,
        ratio_low=ratio - half_width,
        ratio_high=ratio + half_width,
        backend="eager",
        rounds=9,
        doubts=doubts,
    )


def energy(ratio: float, half_width: float = 0.02, doubts: tuple[str, ...] = ()) -> Energy:
    """An energy of `ratio` to dense, which takes a hundred millijoules."""
    return Energy(
        energy_mj=100 * ratio,
        low_mj=100 * (ratio - half_width),
        high_mj=100 * (ratio + half_width),
        dense_mj=100.0,
        ratio=ratio,
        ratio_low=ratio - half_width,
        ratio_high=ratio + half_width,
        counter="rapl",
        backend="eager",
        bursts=6,
        doubts=doubts,
    )


def measurement(
    quality: float,
    multiply_adds: int = 1000,
    *,
    size_bytes: int | None = None,
    parameters: int | None = None,
    zeros: int = 0,
    took: Latency | None = None,
    masked: Latency | None = None,
    error: float = 0.0,
    split: str = "search",
) -> Measurement:
    """A measurement; size and parameters follow the multiply-adds unless given. zeros: parameters that are zero."""
    parameters = multiply_adds // 10 if parameters is None else parameters
    return Measurement(
        split=split,
        quality=quality,
        quality_error=error,
        metrics={"accuracy": quality},
        parameters=parameters,
        nonzero_parameters=parameters - zeros,
        multiply_adds=multiply_adds,
        size_bytes=4 * multiply_adds if size_bytes is None else size_bytes,
        latencies={} if took is None else {DEFAULT_PROFILE: took},
        mask_latency=masked,
    )


def record(
    number: int,
    search: Measurement,
    *,
    origin: str = "sampled",
    test: Measurement | None = None,
    kept: Mapping[str, tuple[int, ...]] | None = None,
    samples_trained: int = 0,
    parent: int | None = None,
    note: str = "",
    weights: WeightPlan | None = None,
) -> CandidateRecord:
    """A finished candidate that keeps what `kept` says, half of group "a" unless given.

    The width of "z" follows the number, so that no two candidates are the same network by accident.
    """
    kept = {"a": (0, 2), "z": tuple(range(number + 1))} if kept is None else kept
    return CandidateRecord(
        number=number,
        origin=origin,
        plan=PruningPlan(groups={name: GroupPlan(ratio=0.5, criterion="l1") for name in kept}, weights=weights),
        kept=kept,
        search=search,
        test=test,
        parent=parent,
        samples_forward=10,
        samples_trained=samples_trained,
        lineage_trained=samples_trained,
        seconds={"fine_tune": 0.5},
        note=note,
    )


def dense(quality: float = 0.9, multiply_adds: int = 1000, **changes: object) -> CandidateRecord:
    """The dense model as candidate 0; `changes` are arguments of `measurement`."""
    return record(0, measurement(quality, multiply_adds, **changes), origin="dense", kept={})  # type: ignore[arg-type]


def problem_of(
    objectives: Sequence[str] = ("quality", "multiply_adds"),
    higher_is_better: bool = True,
    metrics: Mapping[str, bool | None] | None = None,
    limits: Limits | None = None,
    metric: str = "",
    profiles: tuple[str, ...] = (),
) -> Problem:
    return Problem(
        objectives=tuple(objectives),
        metric=metric or ("accuracy" if higher_is_better else "mse"),
        higher_is_better=higher_is_better,
        limits=limits or Limits(),
        metrics=metrics or {},
        profiles=profiles,
    )


def front_of(
    records: Sequence[CandidateRecord],
    objectives: Sequence[str] = ("quality", "multiply_adds"),
    higher_is_better: bool = True,
) -> Front:
    return Front.of(records, problem_of(objectives, higher_is_better))


def run_of(
    path: Path,
    records: Sequence[CandidateRecord],
    objectives: Sequence[str] = ("quality", "multiply_adds"),
    quality: str = "accuracy",
) -> Run:
    """A run with these candidates, and with the description of its folder where there is one."""
    folder, settings = RunFolder(path), {"objectives": list(objectives)}
    described = (
        folder.read_study()
        if folder.holds_study
        else Manifest(name=path.name, quality=quality, higher_is_better=True, settings={})
    )
    return Run(folder=folder, manifest=replace(described, settings=settings), records=tuple(records))
