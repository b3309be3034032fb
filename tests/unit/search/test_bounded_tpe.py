"""TPE that sees a part of many trials: which ones, and that few trials change nothing."""

from __future__ import annotations

import warnings

import moocore
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


def test_while_a_study_grows_the_same_trials_are_seen_as_by_a_new_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best are those of the first layers; a trial that was read is read again where another one has its number."""
    monkeypatch.setattr(bounded_tpe, "SEEN", 40)
    monkeypatch.setattr(bounded_tpe, "BEST", 25)
    rng, known = np.random.default_rng(0), bounded_tpe.FinishedLosses(2)
    study = optuna.create_study(directions=["minimize", "maximize"])
    trials, seldom = list[FrozenTrial](), 0
    for number in rng.permutation(150).tolist():
        violation = float(rng.random() < 0.7)
        made = create_trial(values=rng.integers(0, 9, 2).astype(float).tolist(), constraints={"a": violation})
        made.number = number
        trials = sorted([*trials, made], key=lambda trial: trial.number)
        losses = np.array([[trial.values[0], -trial.values[1]] for trial in trials])
        feasible = np.array([trial.constraints["a"] <= 0 for trial in trials])
        ranks = np.full(len(trials), 10**6)
        ranks[feasible] = moocore.pareto_rank(losses[feasible]) if feasible.any() else []
        numbers = np.arange(len(trials))
        best = np.lexsort((-numbers, ranks))[:25].tolist()
        rest = [place for place in numbers.tolist() if place not in best][-(40 - len(best)) :]
        expected = [trials[place].number for place in sorted([*best, *rest])]
        if len(trials) > 40:
            assert [trial.number for trial in bounded_tpe._choose(study, trials, known)] == expected
            seldom += feasible.sum() < 25
    assert 0 < seldom < 109
    other = create_trial(values=[-5.0, 20.0], constraints={"a": -1.0})
    other.number = trials[0].number
    assert bounded_tpe._choose(study, [other, *trials[1:]], known)[0] is other
