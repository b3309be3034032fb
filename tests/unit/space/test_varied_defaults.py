"""Fine-tune lengths as a parameter, and parameters that take turns over the solved allocations."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from optuna.distributions import CategoricalDistribution, IntDistribution

import autoprune
from autoprune.errors import ConfigurationError
from autoprune.search.space.encode import defaults, distributions, parameters_of
from autoprune.search.space.space import build_space
from autoprune.search.space.varied_defaults import varied_defaults
from tests.settings import space_of
from tests.tasks import flat_task
from tests.unit.space.test_parameters import residual, space
from tests.unit.study.small import settings
from tests.unit.study.small import space as small_space


def test_the_length_of_a_fine_tune_is_drawn_in_the_logarithm() -> None:
    chosen = space(steps=(10, 160))
    assert distributions(chosen, residual())["steps"] == IntDistribution(10, 160, log=True)
    assert defaults(chosen, residual())["steps"] == 40
    whole = build_space(space(steps=(10, 160), scan=False), residual(), None)
    plan = whole.decode({**whole.uniform(0.5), "steps": 33}, seed=0)
    assert plan.recovery.steps == 33
    assert parameters_of(chosen, residual(), plan)["steps"] == 33
    assert "steps" not in distributions(space(steps=40), residual())
    assert "steps" not in distributions(space(steps=(40, 40)), residual())
    assert whole.decode({n: v for n, v in whole.uniform(0.5).items() if n != "steps"}, seed=0).recovery.steps == 40


@pytest.mark.parametrize("steps", [(0, 10), (10, 5), (1.5, 3), (True, 3), (10,), (1, 2, 3), "40", -1])
def test_what_is_no_length(steps: object) -> None:
    with pytest.raises(ConfigurationError, match="steps must be an integer >= 0, or a tuple"):
        space_of(steps=steps)  # type: ignore[arg-type]


def test_a_study_samples_lengths(tmp_path: Path) -> None:
    chosen = settings(
        trials=5,
        uniform_points=1,
        sampler="random",
        early_stopping="none",
        space=small_space(scan=False, steps=(2, 12), criteria=("l2",)),
    )
    study = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run")
    study.run()
    sampled = [r.plan.recovery.steps for r in study.records if r.origin == "sampled"]
    assert len({*sampled}) > 1
    assert all(2 <= steps <= 12 for steps in sampled)
    for record in study.records[1:]:
        assert record.samples_trained > 0
        assert record.samples_trained <= record.plan.recovery.steps * flat_task().batch_size
    assert autoprune.Study.open(tmp_path / "run").settings == chosen


def test_steps_are_longer_the_less_a_plan_costs() -> None:
    chosen = space(length_exponent=0.5, min_budget=0.04)
    assert [chosen.lengthened(10, share) for share in (1.5, 1.0, 0.25, 0.04, 0.001)] == [10, 10, 20, 50, 50]
    assert space(length_exponent=1.0, min_budget=0.04).lengthened(10, 0.1) == 100
    assert space(length_exponent=0.0, min_budget=0.04).lengthened(10, 0.1) == 10


@pytest.mark.parametrize("exponent", [-0.1, 1.1, float("nan"), "1"])
def test_what_is_no_exponent(exponent: object) -> None:
    with pytest.raises(ConfigurationError, match=r"length_exponent must lie in \[0, 1\]"):
        space_of(length_exponent=exponent)  # type: ignore[arg-type]


def test_the_longest_fine_tune_is_tried_before_any_work(tmp_path: Path) -> None:
    def stubborn(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        if steps > 100:
            raise ValueError("too long for me")
        return torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0, steps)

    task = flat_task(schedulers={"stubborn": stubborn})
    for exponent, fails in ((0.0, False), (1.0, True)):
        chosen = settings(
            space=small_space(scan=False, steps=20, min_budget=0.1, schedulers=("stubborn",), length_exponent=exponent)
        )
        create = functools.partial(autoprune.Study.create, task, chosen, out=tmp_path / str(exponent))
        if fails:
            with pytest.raises(ConfigurationError, match="too long for me"):
                create()
        else:
            create()


def test_every_choice_has_its_turn() -> None:
    chosen = space(learning_rate=(0.01, 0.16), steps=(10, 160))
    found = distributions(chosen, residual())
    seen = [varied_defaults(chosen, residual(), number) for number in range(6)]
    assert all(point.keys() <= found.keys() for point in seen)
    assert {"criterion", "learning_rate", "steps", "distillation", "reconstruction", "max_norm"} <= seen[0].keys()
    # What goes is the allocation's alone.
    assert not {"pattern", "sparsity", "amount", "blocks", "budget"} & seen[0].keys()
    for name in seen[0]:
        values = [point[name] for point in seen]
        distribution = found[name]
        if isinstance(distribution, CategoricalDistribution):
            assert {*values} == {*distribution.choices}
        else:
            assert len({*values}) == len(values)
            assert all(distribution._contains(distribution.to_internal_repr(value)) for value in values)
    assert sorted(point["learning_rate"] for point in seen)[0] < 0.02  # type: ignore[type-var]
    assert sorted(point["learning_rate"] for point in seen)[-1] > 0.08  # type: ignore[type-var]
    assert varied_defaults(space(), residual(), 3) == varied_defaults(space(), residual(), 3)


def test_solved_allocations_take_turns_and_the_sweep_does_not(tmp_path: Path) -> None:
    chosen = settings(
        trials=8,
        solved_points=3,
        uniform_points=3,
        space=small_space(criteria=("l2", "l1"), learning_rate=(0.01, 0.1), averaging=(0.0, 0.5)),
    )
    study = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run")
    study.run()

    def parameters(origin: str) -> set[tuple[object, ...]]:
        plans = [r.plan for r in study.records if r.origin == origin]
        assert len(plans) == 3
        return {
            (p.recovery.learning_rate, p.recovery.averaging.share, *{g.criterion for g in p.groups.values()})
            for p in plans
        }

    assert len(parameters("uniform")) == 1
    assert len(parameters("solved")) == 3
    assert {criterion for *_, criterion in parameters("solved")} == {"l1", "l2"}
