"""Every recovery step: off by default, in the docs, in JSON, in the search space, and at work on small models."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from pathlib import Path

import pytest
import torch

from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import STEP_SETTINGS, RecalibrationPlan, RecoveryPlan, SchedulePlan, strength_field
from autoprune.plan.weights import WeightPlan
from autoprune.recovery.fine_tune import FineTune
from autoprune.recovery.step import RecoveryStep
from autoprune.recovery.steps import RECOVERY_STEPS, Recovery
from autoprune.search.space.build import build_plan
from autoprune.search.space.encode import distributions
from autoprune.search.space.parameters import PARAMETERS
from autoprune.trial.candidate import evaluate_plan
from tests.architecture.test_docs import rows_of
from tests.settings import space_of
from tests.tasks import trained_resnet
from tests.unit.recovery.watching import convolutional, plan, same
from tests.unit.trial.resuming import Trial, dying, interrupted_often, parts

#: Phase in words, as in the docs -> method of a step.
PHASES = {
    "after each cut": "after_cut",
    "after pruning": "after_pruning",
    "before training": "before_training",
    "loss": "on_loss",
    "each step": "each_step",
    "end": "at_end",
}
OFF = {"recalibration": RecalibrationPlan()}
#: Strengths that do something on the small models. A step without one here is tried at 0.5.
STRENGTHS = {"reconstruction": 50, "recalibration": 50}
STEPS = sorted(RECOVERY_STEPS)
CUBIC = SchedulePlan(name="cubic", updates=3)


def settings_of(step: str, strength: float | None = None) -> object:
    """The step's settings at a strength; at one that does something by default."""
    kind = dataclasses.fields(RecoveryPlan)[[one.name for one in dataclasses.fields(RecoveryPlan)].index(step)]
    settings = type(getattr(RecoveryPlan(), kind.name))
    strength = STRENGTHS.get(step, 0.5) if strength is None else strength
    return settings(**{strength_field(settings): strength})


def phases_of(step: str) -> set[str]:
    """Methods that the step has of its own."""
    return {name for name in PHASES.values() if getattr(RECOVERY_STEPS[step], name) is not getattr(RecoveryStep, name)}


def test_every_step_has_a_field_of_the_plan_and_a_row_in_the_order_of_the_registry() -> None:
    rows = rows_of("recovery.md", "step |")
    assert [row[0].strip("`") for row in rows] == list(RECOVERY_STEPS)
    for name, settings, phases, *_, paper, file in rows:
        step = name.strip("`")
        kind = type(getattr(RecoveryPlan(), step))
        fields = ", ".join(one.name for one in dataclasses.fields(kind))
        assert settings == f"`{kind.__name__}({fields})`"
        assert {PHASES[phase] for phase in phases.split(", ")} == phases_of(step)
        assert paper
        assert file == f"`{Path(inspect.getfile(RECOVERY_STEPS[step])).name}`"


@pytest.mark.parametrize("step", STEPS)
def test_its_settings_are_off_by_default_and_survive_json(step: str) -> None:
    kind = type(getattr(RecoveryPlan(), step))
    assert getattr(kind(), strength_field(kind)) == 0
    on = RecoveryPlan(**{step: settings_of(step)})  # type: ignore[arg-type]
    assert on.strength(step) == STRENGTHS.get(step, 0.5)
    assert PruningPlan.from_json(PruningPlan(recovery=on).to_json()).recovery == on


@pytest.mark.parametrize("step", STEPS)
def test_the_steps_that_are_on_are_those_of_positive_strength(step: str) -> None:
    task, model = convolutional().task, convolutional().task.dense
    off = Recovery(model, task, RecoveryPlan(**OFF))  # type: ignore[arg-type]
    assert off.steps == []
    on = Recovery(model, task, RecoveryPlan(**{**OFF, step: settings_of(step)}))  # type: ignore[arg-type]
    assert [type(one) for one in on.steps] == [RECOVERY_STEPS[step]]


@pytest.mark.parametrize("step", STEPS)
def test_it_changes_what_comes_out_and_nothing_when_it_is_off(step: str) -> None:
    context = convolutional()
    recovery = {"context": context, "steps": 6, "schedule": CUBIC}
    without = evaluate_plan(context, plan(0.5, **{**recovery, **OFF}))
    off = evaluate_plan(context, plan(0.5, **{**recovery, **OFF, step: settings_of(step, 0)}))
    assert same(without.model, off.model)
    assert off.work == without.work
    once, again = (evaluate_plan(context, plan(0.5, **{**recovery, **OFF, step: settings_of(step)})) for _ in range(2))
    assert not same(once.model, without.model)
    assert same(once.model, again.model), "the same seed, the same weights"
    assert once.work == again.work


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("schedule", ["one_shot", "cubic"])
def test_cuts_and_masks_hold_in_the_middle_of_a_schedule(step: str, schedule: str) -> None:
    context = convolutional()
    given = {
        "weights": WeightPlan(sparsity=0.5),
        "steps": 6,
        "schedule": SchedulePlan(name=schedule, updates=3, end=1.0),
        **OFF,
        step: settings_of(step),
    }
    found = evaluate_plan(context, plan(0.5, context=context, **given))  # type: ignore[arg-type]
    assert not found.note
    assert all(bool(tensor.isfinite().all()) for tensor in found.model.state_dict().values())
    for name, parameter in found.model.named_parameters():
        if parameter.ndim == 4:
            assert (parameter == 0).float().mean() >= 0.45, name
    assert {name: len(channels) for name, channels in found.kept.groups.items()} == {
        name: width // 2 for name, width in context.topology.widths.items()
    }


@pytest.mark.parametrize("step", STEPS)
def test_it_runs_without_optimizer_steps_and_on_a_frozen_model(step: str) -> None:
    context = convolutional()
    still = evaluate_plan(context, plan(0.5, context=context, **{**OFF, "steps": 0, step: settings_of(step)}))
    assert not still.note
    frozen = copy.deepcopy(trained_resnet()).requires_grad_(False)
    before = {name: parameter.clone() for name, parameter in frozen.named_parameters()}
    run = FineTune(Recovery(frozen, context.task, RecoveryPlan(steps=3, **{**OFF, step: settings_of(step)})), seed=0)  # type: ignore[arg-type]
    run.run(3)
    run.finish()
    assert all(torch.equal(before[name], parameter) for name, parameter in frozen.named_parameters())


@pytest.mark.parametrize("step", STEPS)
def test_a_trial_with_it_goes_on_from_a_checkpoint(step: str, tmp_path: Path) -> None:
    recovery = {**OFF, "steps": 6, "schedule": CUBIC, step: settings_of(step)}
    trial = Trial(kind="convolutional", plan=plan(0.5, context=convolutional(), **recovery))  # type: ignore[arg-type]
    whole = trial.run(dying(tmp_path / "whole", -1))
    again = interrupted_often(trial, tmp_path / "often", range(1, 6))
    assert same(again.model, whole.model)
    assert parts(again) == parts(whole)


@pytest.mark.parametrize("step", STEPS)
def test_a_study_can_choose_its_strength(step: str) -> None:
    strengths = (0, STRENGTHS.get(step, 0.5))
    several = space_of(**{step: strengths})
    assert step in distributions(several, convolutional().topology)
    assert PARAMETERS[step].field == f"recovery.{step}.{strength_field(STEP_SETTINGS[step])}"
    found = {
        build_plan(several, convolutional().topology, {step: strength}, ({}, 1.0), 0).recovery.strength(step)
        for strength in strengths
    }
    assert found == set(strengths)
