"""A trial that goes on from a checkpoint ends with the bits and the counted work of one that never stopped."""

from __future__ import annotations

import copy
import dataclasses
import functools
from pathlib import Path

import pytest
import torch
from torch import nn

from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import (
    AveragingPlan,
    DistillationPlan,
    MaxNormPlan,
    ReconstructionPlan,
    SchedulePlan,
)
from autoprune.plan.weights import WeightPlan
from autoprune.recovery.trial_state import load_tensors
from autoprune.task.checkpoint import model_tensors
from autoprune.trial.candidate import Candidate, evaluate_resolved, resolve_plan
from autoprune.trial.context import Parent
from autoprune.trial.identity import identity_of
from tests.unit.recovery.watching import plan, same
from tests.unit.trial.resuming import DiedError, Trial, context_of, dying, interrupted_often, optimizer_steps, parts

CUBIC = SchedulePlan(name="cubic", updates=5, end=0.9)
REGROWN = SchedulePlan(name="cubic", updates=5, end=0.9, regrowth=0.3)
COUPLED = SchedulePlan(name="learning_rate", updates=6)
MASKS = WeightPlan(sparsity=0.7)


def planned(kind: str, ratio: float = 0.5, **changes: object) -> PruningPlan:
    return plan(ratio, context=context_of(kind), **changes)  # type: ignore[arg-type]


@functools.cache
def parent() -> Parent:
    """The perceptron with fewer channels and a third of its weights at zero."""
    context = context_of("perceptron")
    found = evaluate_resolved(context, resolve_plan(context, planned("perceptron", 0.25, steps=2))[0])
    model = copy.deepcopy(found.model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.flatten()[::3] = 0.0
    return Parent(number=3, model=model, kept=found.kept)


def trial(kind: str, **changes: object) -> Trial:
    own = ("parent", "shares", "stops_at")
    given = {name: changes.pop(name) for name in own if name in changes}
    return Trial(kind=kind, plan=planned(kind, **changes), **given)  # type: ignore[arg-type]


#: Trials with 12 steps: kind of context, changes. A pass over the data takes three steps or one.
TRIALS: dict[str, tuple[str, dict[str, object]]] = {
    "plain": ("perceptron", {}),
    "adamw": ("perceptron", {"optimizer": "adamw"}),
    "another order of the data": ("perceptron", {"seed": 11}),
    "a loader that draws noise, and dropout": ("loader", {}),
    "dropout, and a buffer that is not stored": ("drifting", {"optimizer": "adamw"}),
    "distillation": ("perceptron", {"distillation": DistillationPlan(weight=0.7)}),
    "progressive": ("convolutional", {"schedule": CUBIC}),
    "coupled to the rate": ("convolutional", {"schedule": COUPLED, "scheduler": "cosine"}),
    "coupled to a rate that follows the loss": (
        "convolutional",
        {"schedule": COUPLED, "scheduler": "plateau", "learning_rate": 0.3},
    ),
    "masks coupled to a rate that follows the loss": (
        "perceptron",
        {
            "weights": WeightPlan(sparsity=0.7, criterion="snip"),
            "schedule": SchedulePlan(name="learning_rate", updates=11),
            "scheduler": "plateau",
            "learning_rate": 0.5,
        },
    ),
    "movement of channels": ("convolutional", {"schedule": CUBIC, "criterion": "movement"}),
    "masks": ("perceptron", {"weights": MASKS}),
    "masks that regrow": ("convolutional", {"weights": MASKS, "schedule": REGROWN, "ratio": 0.25}),
    "masks by movement": (
        "convolutional",
        {"weights": WeightPlan(sparsity=0.7, criterion="movement"), "schedule": CUBIC, "ratio": 0.25},
    ),
    "zeros of the parent, and late masks": (
        "perceptron",
        {"weights": MASKS, "schedule": COUPLED, "scheduler": "linear", "parent": "pruned"},
    ),
    "every recovery step": (
        "convolutional",
        {
            "schedule": CUBIC,
            "averaging": AveragingPlan(share=0.6),
            "max_norm": MaxNormPlan(limit=0.8),
            "reconstruction": ReconstructionPlan(samples=50),
            "distillation": DistillationPlan(weight=0.5),
        },
    ),
    "a dropped block": ("convolutional", {"dropped": ("blocks.0",), "schedule": CUBIC}),
    "channels last": ("channels last", {"schedule": CUBIC}),
    "bfloat16": ("perceptron", {"precision": "bfloat16"}),
    "float16 with an overflow": ("overflowing", {"precision": "float16", "learning_rate": 1e-6}),
    "rungs": ("perceptron", {"shares": (0.0, 0.25, 0.5, 0.75)}),
    "rungs after the last pruning step": (
        "convolutional",
        {"schedule": SchedulePlan(name="cubic", end=0.5), "shares": (0.25, 0.5, 0.75)},
    ),
    "stopped at a rung": ("perceptron", {"shares": (0.25, 0.6, 0.8), "stops_at": 0.8}),
}


def named(name: str) -> Trial:
    kind, changes = TRIALS[name]
    return trial(kind, **{**changes, **({"parent": parent()} if "parent" in changes else {})})


def passes(chosen: Trial) -> int:
    """Passes of the whole training."""
    return 4 if chosen.kind in ("perceptron", "loader", "drifting") else 12


def same_candidate(one: Candidate, other: Candidate) -> None:
    assert parts(one) == parts(other)
    assert same(one.model, other.model)


@pytest.mark.parametrize("name", TRIALS)
def test_interrupted_after_each_pass(name: str, tmp_path: Path) -> None:
    chosen = named(name)
    with optimizer_steps() as needed:
        whole = chosen.run(dying(tmp_path / "whole", -1))
    with optimizer_steps() as taken:
        found = interrupted_often(chosen, tmp_path / "often", range(1, passes(chosen) - 1))
    same_candidate(found, whole)
    assert not whole.note
    assert taken == needed, "no step was done twice"
    assert set(found.seconds) == set(whole.seconds)


@pytest.mark.parametrize("epoch", [1, 6, 11])
def test_interrupted_once(epoch: int, tmp_path: Path) -> None:
    chosen = named("every recovery step")
    with pytest.raises(DiedError):
        chosen.run(dying(tmp_path, epoch))
    state = chosen.left(tmp_path)
    assert state is not None
    assert (state.training.epoch, state.training.step) == (epoch, epoch)
    with optimizer_steps() as taken:
        found = chosen.run(None, state)
    assert len(taken) == chosen.plan.recovery.steps - epoch
    same_candidate(found, chosen.run(None))


def test_time_before_the_interruption_counts(tmp_path: Path) -> None:
    chosen = named("plain")
    with pytest.raises(DiedError):
        chosen.run(dying(tmp_path, 2))
    state = chosen.left(tmp_path)
    assert state is not None
    assert state.seconds["train"] > 0, "of the phase that had not ended, too"
    later = dataclasses.replace(state, seconds={"train": 1000.0, "cut": 50.0})
    found = chosen.run(None, later)
    assert 1000 < found.seconds["train"]
    assert found.seconds["cut"] == 50.0


def test_a_training_that_diverges_later_counts_the_work_before(tmp_path: Path) -> None:
    chosen = trial("perceptron", learning_rate=1e18, scheduler="constant")
    whole = chosen.run(dying(tmp_path / "whole", -1))
    assert "diverged" in whole.note
    calm = trial("perceptron")
    with pytest.raises(DiedError):
        calm.run(dying(tmp_path / "calm", 1))
    state = calm.left(tmp_path / "calm")
    assert state is not None
    own = identity_of(context_of("perceptron"), chosen.resolved())
    found = chosen.run(None, dataclasses.replace(state, identity=own))
    assert "diverged" in found.note
    assert found.work.trained >= 150
    assert same(found.model, whole.model)


# ---- states that are of no use


def test_the_state_of_another_trial_is_ignored(tmp_path: Path) -> None:
    chosen, other = named("plain"), named("another order of the data")
    with pytest.raises(DiedError):
        other.run(dying(tmp_path, 2))
    state = other.left(tmp_path)
    assert state is not None
    with optimizer_steps() as taken:
        found = chosen.run(None, state)
    assert len(taken) == chosen.plan.recovery.steps
    same_candidate(found, chosen.run(None))


def test_everything_that_decides_a_trial_is_in_its_identity() -> None:
    context = context_of("perceptron")
    own = named("plain").resolved()
    found = [
        identity_of(context, own),
        identity_of(context, own, 0),
        identity_of(context, own, 3),
        identity_of(context, own, None, (0.5,)),
        identity_of(context, named("adamw").resolved()),
        identity_of(context, named("another order of the data").resolved()),
        identity_of(context, trial("perceptron", ratio=0.25).resolved()),
        identity_of(context_of("convolutional"), own),
    ]
    assert len(set(found)) == len(found)
    assert identity_of(context, named("plain").resolved()) == found[0]


def test_tensors_of_another_shape_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    tensors = model_tensors(model)
    with pytest.raises(Exception, match=r"the stored 0\.weight must have shape \(2, 4\), but got \(3, 4\)"):
        load_tensors(nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)), tensors)
    del tensors["0.bias"]
    with pytest.raises(Exception, match=r"the stored 0\.bias must have shape \(3,\), but got none"):
        load_tensors(model, tensors)
