"""TPE that sees a part of many trials: which ones, and that few trials change nothing."""

from __future__ import annotations

import warnings

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoprune.search.samplers import bounded_tpe
from autoprune.search.samplers.bounded_tpe import BoundedTPESampler

SPACE = {name: FloatDistribution(0.0, 1.0) for name in "abc"}


def study_of(count: int) -> optuna.Study:
    """Finished trials drawn at random, some of which violate a constraint, a failed one and a running one."""
    study, rng = optuna.create_study(directions=["minimize", "maximize"]), np.random.default_rng(0)
    for number in range(count):
        values = dict(zip(SPACE, rng.random(3).tolist(), strict=True))
        constraints = {"limit": 1.0 if number % 10 == 0 else -1.0}
        losses = [values["a"] + values["b"], -((values["a"] - values["c"]) ** 2)]
        study.add_trial(create_trial(params=values, distributions=SPACE, values=losses, constraints=constraints))
    study.add_trial(create_trial(state=TrialState.FAIL))
    study.ask(SPACE)
    return study


def proposed(study: optuna.Study, kind: type[TPESampler]) -> dict[str, object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.sampler = kind(seed=1, multivariate=True, group=True, n_startup_trials=8)
    trial = study.ask(SPACE)
    study.tell(trial, state=TrialState.FAIL)
    return trial.params


def test_few_trials_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proposed(study_of(60), BoundedTPESampler) == proposed(study_of(60), TPESampler)
    monkeypatch.setattr(bounded_tpe, "SEEN", 60)
    assert proposed(study_of(60), BoundedTPESampler) == proposed(study_of(60), TPESampler)
    monkeypatch.setattr(bounded_tpe, "SEEN", 30)
    monkeypatch.setattr(bounded_tpe, "BEST", 10)
    assert proposed(study_of(60), BoundedTPESampler) != proposed(study_of(60), TPESampler)


def test_the_best_and_the_latest_are_seen_and_all_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_tpe, "SEEN", 40)
    monkeypatch.setattr(bounded_tpe, "BEST", 15)
    study, seen = study_of(200), []

    class Watching(BoundedTPESampler):
        def _sample(
            self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, object]
        ) -> dict[str, object]:
            seen.extend(study._get_trials(deepcopy=False))
            found: dict[str, object] = super()._sample(study, trial, search_space)  # type: ignore[arg-type]
            return found

    proposed(study, Watching)
    finished = [trial for trial in seen if trial.state is TrialState.COMPLETE]
    assert len(finished) == 40
    assert [trial.number for trial in seen] == sorted(trial.number for trial in seen)
    assert len([trial for trial in seen if trial.state is TrialState.RUNNING]) == 2, "also the one that is sampled"
    numbers = {trial.number for trial in finished}
    assert {trial.number for trial in study.best_trials} <= numbers, "no more than 15 are on the front"
    assert set(range(180, 200)) <= numbers
    feasible = [trial for trial in finished if trial.number < 175]
    assert all(trial.number % 10 for trial in feasible), "infeasible ones are none of the best"


def test_it_finds_the_front_of_a_simple_problem_with_what_it_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_tpe, "SEEN", 40)
    monkeypatch.setattr(bounded_tpe, "BEST", 15)
    found = [proposed(study_of(300 + number), BoundedTPESampler) for number in range(5)]
    drawn = [trial.params for trial in study_of(300).trials if trial.params]
    assert np.mean([float(one["b"]) for one in found]) < 0.7 * np.mean([one["b"] for one in drawn])  # type: ignore[arg-type]


def test_trials_that_are_all_infeasible_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_tpe, "SEEN", 20)
    study = optuna.create_study(directions=["minimize", "minimize"])
    for number in range(30):
        values = dict.fromkeys(SPACE, number / 30)
        constraints = {"limit": 1.0}
        study.add_trial(
            create_trial(params=values, distributions=SPACE, values=[number, -number], constraints=constraints)
        )
    assert set(proposed(study, BoundedTPESampler)) == set(SPACE)
