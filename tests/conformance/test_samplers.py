"""Every sampler by name makes the same promises, and ours passes Optuna's own suite."""

from __future__ import annotations

import functools
from collections.abc import Callable

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import TrialState

from autoprune.search.samplers.evolution import EvolutionSampler
from autoprune.search.samplers.registry import SAMPLERS, sampler

#: What our spaces are made of.
SPACE: dict[str, BaseDistribution] = {
    "budget": FloatDistribution(0.05, 1.0, log=True),
    "residual/a": FloatDistribution(-1.0, 1.0),
    "residual/b": FloatDistribution(-1.0, 1.0),
    "residual/c": FloatDistribution(-1.0, 1.0),
    "sparsity": FloatDistribution(0.0, 0.75, step=0.25),
    "blocks": IntDistribution(0, 3),
    "criterion": CategoricalDistribution(("l1", "l2", "taylor")),
    "drop/d": CategoricalDistribution((False, True)),
}
Params = dict[str, object]


class TestEvolution(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    """Optuna's public suite, with a start so short that most of it sees children and not random trials."""

    @pytest.fixture(params=[1, 8])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return lambda: EvolutionSampler(seed=0, n_startup=request.param, allocation_prefixes=("x", "y"))


def answer(params: Params) -> tuple[float, float]:
    budget, residual = params["budget"], params["residual/a"]
    assert isinstance(budget, float) and isinstance(residual, float)
    return 1.0 - budget + 0.1 * residual**2 + (params["criterion"] == "l1"), budget


def search(name: str, trials: int = 16, seed: int = 3, fresh: bool = False) -> list[Params]:
    """Parameters of a search with enqueued, failed, infeasible and running trials. fresh: a sampler for each ask."""
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler(name, seed, n_startup=4))
    study.enqueue_trial({"budget": 0.5, "residual/a": 0.0})
    # GP takes seconds for each ask, and more beside a running trial: it models one trial, and sees none that runs.
    found = [study.ask(SPACE).params] if name != "gp" else []
    for number in range(len(found), min(trials, 5) if name == "gp" else trials):
        if fresh:
            study.sampler = sampler(name, seed, n_startup=4)
        trial = study.ask(SPACE)
        found.append(trial.params)
        if number == 5:
            study.tell(trial, state=TrialState.FAIL)
            continue
        trial.set_constraint("max_drop", answer(trial.params)[0] - 0.8)
        study.tell(trial, answer(trial.params))
    return found


@functools.cache
def searched(name: str) -> list[Params]:
    """One search of each sampler."""
    return search(name)


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_proposed_lies_in_the_space(name: str) -> None:
    found = searched(name)
    for params in found:
        assert list(params) == list(SPACE)
        for key, distribution in SPACE.items():
            assert distribution._contains(distribution.to_internal_repr(params[key])), key
            assert type(params[key]) in (float, int, str, bool)
    assert found[0]["budget"] == 0.5
    assert len({str(params) for params in found}) == len(found)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_seed_is_one_search(name: str) -> None:
    assert search(name) == searched(name)
    # GP, which takes seconds for each trial that it models, has drawn another start by then.
    assert search(name, trials=4, seed=4)[1:] != searched(name)[1:4]


@pytest.mark.parametrize("name", ["evolution", "qmc"])
def test_one_seed_serves_a_search_that_is_resumed_at_every_trial(name: str) -> None:
    # The first trial of QMC is drawn by its independent sampler, anew after each resume.
    assert search(name, fresh=True)[3:] == searched(name)[3:]


@pytest.mark.parametrize("name", SAMPLERS)
def test_parameters_that_only_some_trials_have(name: str) -> None:
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler(name, 0, n_startup=4))
    for _ in range(16 if name != "gp" else 6):
        trial = study.ask()
        kind = trial.suggest_categorical("kind", ["flat", "steep"])
        value = trial.suggest_float(f"{kind}/value", 0.0, 1.0)
        study.tell(trial, (value, value if kind == "steep" else value / 2))
    assert all(len(trial.params) == 2 for trial in study.trials)
