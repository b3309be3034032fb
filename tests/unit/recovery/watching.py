"""Small benches whose passes are one batch long, and what is seen of a model after every pass."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import autoprune
from autoprune.plan.allocation import GroupPlan
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import RecalibrationPlan, RecoveryPlan, SchedulePlan
from autoprune.plan.weights import WeightPlan
from autoprune.recovery.callbacks import Snapshot
from autoprune.trial.candidate import Candidate, evaluate_plan
from autoprune.trial.context import Parent, TrialContext
from tests.tasks import blobs, image_task, trained_mlp, trained_resnet

#: Shapes of the weights of the perceptron: 64 inputs, 32 and 16 hidden units, 4 classes.
SHAPES = {"0.weight": (32, 64), "2.weight": (16, 32), "5.weight": (4, 16)}


def one_batch_task(*, flat: bool, **changes: object) -> autoprune.PreparedTask:
    """A task whose train split is one batch of 50, so that every step ends a pass."""
    images, targets = blobs()
    images = images.flatten(1) if flat else images
    given: dict[str, object] = {
        "model": trained_mlp() if flat else trained_resnet(),
        "example_inputs": images[:4],
        "train": (images[:50], targets[:50]),
        "search": (images[50:150], targets[50:150]),
        "test": None,
        "calibration_samples": 50,
    }
    return image_task(**{**given, **changes})


@functools.cache
def flat() -> TrialContext:
    """A perceptron: groups "0" of 32 and "2" of 16 channels, the second with a norm."""
    return TrialContext.of(one_batch_task(flat=True))


@functools.cache
def convolutional() -> TrialContext:
    """A residual network with norms: two groups each of 8 and 12 channels, and the block "blocks.0"."""
    return TrialContext.of(one_batch_task(flat=False))


def plan(
    ratio: float = 0.75,
    *,
    weights: WeightPlan | None = None,
    criterion: str = "l2",
    schedule: SchedulePlan | None = None,
    context: TrialContext | None = None,
    dropped: tuple[str, ...] = (),
    seed: int = 0,
    **recovery: object,
) -> PruningPlan:
    """`ratio` of every group goes within 12 steps."""
    found = context or flat()
    given: dict[str, object] = {"steps": 12, "recalibration": RecalibrationPlan(samples=50)}
    given["schedule"] = schedule or SchedulePlan()
    return PruningPlan(
        groups={name: GroupPlan(ratio=ratio, criterion=criterion) for name in found.topology.widths},
        weights=weights,
        dropped=dropped,
        recovery=RecoveryPlan(**{**given, **recovery}),  # type: ignore[arg-type]
        seed=seed,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A stage, copied. zeros: share of the entries of each masked weight that is zero."""

    step: int
    epoch: int
    rate: float
    widths: dict[str, int]
    masks: dict[str, Tensor]
    weights: dict[str, Tensor]
    zeros: dict[str, float]


def look(snapshot: Snapshot) -> Seen:
    """What a stage holds now."""
    weights = {name: parameter.detach().clone() for name, parameter in snapshot.model.named_parameters()}
    return Seen(
        step=snapshot.step,
        epoch=snapshot.epoch,
        rate=snapshot.rate,
        widths=dict(snapshot.kept.widths),
        masks={name: mask.clone() for name, mask in snapshot.masks.items()},
        weights=weights,
        zeros={name: zeros(weight) for name, weight in weights.items() if weight.ndim > 1},
    )


def callbacks(context: TrialContext, wanted: PruningPlan, parent: Parent | None = None) -> tuple[Candidate, list[Seen]]:
    """The candidate of a plan, and what was seen after each pass."""
    seen: list[Seen] = []
    found = evaluate_plan(context, wanted, parent, on_epoch=lambda snapshot: seen.append(look(snapshot)))
    return found, seen


def as_parent(candidate: Candidate) -> Parent:
    """A candidate to start from, as a copy."""
    return Parent(number=3, model=copy.deepcopy(candidate.model), kept=candidate.kept)


def zeros(weight: Tensor) -> float:
    """Share of its entries that is zero."""
    return float((weight == 0).double().mean())


def zeros_of(model: nn.Module) -> dict[str, float]:
    """Name of each matrix -> share of its entries that is zero."""
    return {name: zeros(parameter) for name, parameter in model.named_parameters() if parameter.ndim > 1}


def same(left: nn.Module, right: nn.Module) -> bool:
    """Whether two models hold the same bits."""
    own, other = left.state_dict(), right.state_dict()
    return own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)
