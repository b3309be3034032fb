"""The evolutionary sampler."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import TrialState

from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.front.dominance import hypervolume
from autoprune.search.samplers import evolution, variation
from autoprune.search.samplers.evolution import EvolutionSampler
from autoprune.search.samplers.registry import SAMPLERS, build_sampler, default_sampler, sampler
from autoprune.search.samplers.surrogate import fit
from autoprune.search.samplers.variation import VARIATIONS
from autoprune.search.samplers.vectors import Coordinates
from tests.slow import slow

GROUPS = 24
RATIOS: dict[str, BaseDistribution] = {f"ratio/{n}": FloatDistribution(0.0, 0.95) for n in range(GROUPS)}
SPACE: dict[str, BaseDistribution] = {**RATIOS, "criterion": CategoricalDistribution(("l1", "l2"))}
Params = dict[str, float | str]


def answer(params: Params) -> tuple[float, float]:
    """Error and cost of unequal groups: the last ones are sensitive, the first ones dear."""
    keep = np.array([1.0 - float(params[name]) for name in RATIOS])
    worth = np.exp(np.linspace(-2.5, 2.5, GROUPS))
    lost = (worth * (1.0 / keep - 1.0)).sum() / worth.sum() / 4
    cost = (keep / worth**0.5).sum() / (1.0 / worth**0.5).sum()
    return float(1.0 - np.exp(-lost - 0.1 * (params["criterion"] == "l1"))), float(cost)


def search(
    proposer: BaseSampler, trials: int = 80, limit: float | None = None, sweep: Sequence[float] = (0.0, 0.3, 0.6)
) -> optuna.Study:
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=proposer)
    for ratio in sweep:
        study.enqueue_trial({**dict.fromkeys(RATIOS, ratio), "criterion": "l1"})
    for _ in range(trials):
        trial = study.ask(SPACE)
        values = answer(trial.params)
        if limit is not None:
            trial.set_constraint("max_drop", values[0] - limit)
        study.tell(trial, values)
    return study


def reached(study: optuna.Study) -> float:
    return hypervolume(np.array([trial.values for trial in study.trials]), (0.5, 1.0))


def test_it_goes_far_beyond_what_it_was_given() -> None:
    found = reached(search(EvolutionSampler(seed=0)))
    others = [reached(search(proposer)) for proposer in (RandomSampler(seed=0), SAMPLERS["nsga2"](0, 8))]
    assert found > 1.25 * max(others)


def test_one_objective() -> None:
    def best(proposer: BaseSampler) -> float:
        study = optuna.create_study(direction="maximize", sampler=proposer)
        study.optimize(lambda t: -sum((t.suggest_float(f"x{n}", 0, 1) - 0.37) ** 2 for n in range(5)), n_trials=60)
        return study.best_value

    assert best(EvolutionSampler(seed=0)) > -0.02 > best(RandomSampler(seed=0))


def test_three_objectives() -> None:
    study = optuna.create_study(directions=["minimize", "minimize", "maximize"], sampler=EvolutionSampler(seed=0))
    for _ in range(40):
        trial = study.ask(SPACE)
        error, cost = answer(trial.params)
        study.tell(trial, (error, cost, -cost * (1 + float(trial.params["ratio/0"]))))
    late = [trial.number for trial in study.best_trials if trial.number >= 8]
    assert len(late) > 8


@pytest.mark.parametrize("seed", [0, slow(1)])
def test_a_limit_keeps_it_where_it_holds(seed: int) -> None:
    def inside(limit: float | None) -> float:
        found = search(EvolutionSampler(seed=seed), trials=60, limit=limit).trials[20:]
        return float(np.mean([trial.values[0] <= 0.15 for trial in found]))

    assert inside(0.15) > 0.75
    assert inside(None) < 0.65


def test_it_finds_its_way_into_the_limit() -> None:
    def inside(proposer: BaseSampler) -> int:
        found = search(proposer, trials=40, limit=0.12, sweep=(0.7, 0.9))
        return sum(trial.values[0] <= 0.12 for trial in found.trials[20:])

    assert inside(RandomSampler(seed=0)) == 0
    assert sum(inside(EvolutionSampler(seed=seed)) for seed in range(3)) > 9


def test_one_seed_is_one_search_and_another_is_another() -> None:
    one, same, other = (search(EvolutionSampler(seed=seed), trials=15) for seed in (1, 1, 2))
    assert [t.params for t in one.trials] == [t.params for t in same.trials]
    assert [t.params for t in one.trials[3:]] != [t.params for t in other.trials[3:]]


def test_a_new_sampler_goes_on_as_the_old_one_would() -> None:
    whole = search(EvolutionSampler(seed=1), trials=15)
    half = search(EvolutionSampler(seed=1), trials=9)
    half.sampler = EvolutionSampler(seed=1)
    for _ in range(6):
        trial = half.ask(SPACE)
        half.tell(trial, answer(trial.params))
    assert [t.params for t in whole.trials] == [t.params for t in half.trials]


def test_reseeding_makes_it_another_one() -> None:
    study = search(EvolutionSampler(seed=1), trials=10)
    study.sampler.reseed_rng()
    renewed = study.ask(SPACE).params
    assert renewed != search(EvolutionSampler(seed=1), trials=11).trials[10].params


def test_one_sampler_keeps_two_studies_apart() -> None:
    shared = EvolutionSampler(seed=1)
    first = search(shared, trials=10)
    second = search(shared, trials=10, sweep=(0.1, 0.4))
    alone = search(EvolutionSampler(seed=1), trials=10, sweep=(0.1, 0.4))
    assert [t.params for t in second.trials] == [t.params for t in alone.trials]
    trial = first.ask(SPACE)
    assert trial.params == search(EvolutionSampler(seed=1), trials=11).trials[10].params


def test_workers_that_run_at_once_propose_different_things() -> None:
    study = search(EvolutionSampler(seed=1), trials=10)
    running = [study.ask(SPACE).params for _ in range(4)]
    assert len({str(params) for params in running}) == 4
    study.tell(study.ask(SPACE), state=TrialState.FAIL)
    assert len(study.ask(SPACE).params) == len(SPACE)


def test_it_starts_at_random_unless_something_was_enqueued() -> None:
    unknown = search(EvolutionSampler(seed=5, n_startup=6), trials=6, sweep=())
    spread = [np.std([trial.params[name] for name in RATIOS]) for trial in unknown.trials]
    assert min(spread) > 0.2  # as of uniform numbers
    known = search(EvolutionSampler(seed=5, n_startup=6), trials=6)
    at_once = search(EvolutionSampler(seed=5, n_startup=1), trials=6)
    assert [t.params for t in known.trials] == [t.params for t in at_once.trials]


def test_nothing_is_proposed_twice_while_there_is_something_new() -> None:
    space: dict[str, BaseDistribution] = {"n": IntDistribution(0, 5), "c": CategoricalDistribution(("a", "b", "c"))}
    study = optuna.create_study(sampler=EvolutionSampler(seed=0, n_startup=2))
    for _ in range(15):
        trial = study.ask(space)
        study.tell(trial, abs(trial.params["n"] - 2) + (trial.params["c"] == "b"))
    assert len({(t.params["n"], t.params["c"]) for t in study.trials}) >= 14


def test_infinite_losses_are_the_worst() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=EvolutionSampler(seed=0, n_startup=3))
    for number in range(30):
        trial = study.ask({"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)})
        x = trial.params["x"]
        study.tell(trial, (float("inf") if x > 0.5 else x, float("-inf") if number == 4 else trial.params["y"]))
    assert np.mean([trial.params["x"] <= 0.5 for trial in study.trials[10:]]) > 0.8


def test_parameters_of_some_trials_are_inherited_too() -> None:
    study = optuna.create_study(sampler=EvolutionSampler(seed=0))
    for _ in range(60):
        trial = study.ask()
        kind = trial.suggest_categorical("kind", ["a", "b"])
        study.tell(trial, abs(trial.suggest_float(f"{kind}/x", 0, 1) - 0.9) + (kind == "a"))
    late = [t.params.get("b/x") for t in study.trials[30:] if "b/x" in t.params]
    assert len(late) > 15
    assert np.median(np.abs(np.array(late) - 0.9)) < 0.15


def pool(front: np.ndarray, rng: np.random.Generator) -> variation.ParentPool:
    """A front of uniform ratios."""
    coordinates = Coordinates(space=SPACE, allocation_prefixes=("ratio/",))
    losses = np.stack([front[:, 0], 1.0 - front[:, 0]], axis=1)
    model = fit(coordinates.context_features(front), coordinates.allocation_features(front), losses)
    gaps = evolution._crowding_distances(losses)
    return variation.ParentPool(
        coordinates=coordinates, vectors=front, losses=losses, gaps=gaps, model=model, step=0.1, rng=rng
    )


def sweep_of(places: Sequence[float]) -> np.ndarray:
    return np.array([[*[place] * GROUPS, 1.0] for place in places])


def children(move: Callable[[variation.ParentPool], np.ndarray], places: Sequence[float]) -> np.ndarray:
    made = pool(sweep_of(places), np.random.default_rng(0))
    return np.stack([move(made) for _ in range(200)])


def test_a_mutation_moves_one_to_all_and_redraws_choices() -> None:
    moved = (children(variation.mutate, [0.5])[:, :GROUPS] != 0.5).sum(axis=1)
    assert moved.min() <= 2 and moved.max() > GROUPS / 2
    assert np.mean(moved <= 5) > 0.3
    assert set(children(variation.mutate, [0.5])[:, GROUPS]) == {0.0, 1.0}


def test_an_exchange_keeps_the_budget() -> None:
    made = children(variation.exchange, [0.5])[:, :GROUPS]
    assert made.mean(axis=1) == pytest.approx(0.5)
    assert ((made != 0.5).sum(axis=1) >= 2).all()
    assert (made.max(axis=1) > 0.5).all() and (made.min(axis=1) < 0.5).all()


def test_an_interpolation_lies_between_neighbours() -> None:
    made = children(variation.interpolate, [0.2, 0.4, 0.8])[:, :GROUPS]
    exact = np.ptp(made, axis=1) < 1e-12
    assert 0.3 < exact.mean() < 0.7
    middles = made[exact].mean(axis=1)
    assert middles.min() > 0.2 and middles.max() < 0.8 and (middles > 0.4).any() and (middles < 0.4).any()


def test_what_was_found_at_one_place_is_carried_to_others() -> None:
    front = sweep_of([0.2, 0.4, 0.8])
    shape = np.linspace(-0.1, 0.1, GROUPS)
    front[1, :GROUPS] += shape
    made = pool(front, np.random.default_rng(0))
    found = np.stack([variation.transplant_allocation(made)[:GROUPS] for _ in range(300)])
    deviations = found - found.mean(axis=1, keepdims=True)
    alike = deviations @ shape > 0.9 * np.linalg.norm(deviations, axis=1) * np.linalg.norm(shape)
    alike &= np.ptp(found, axis=1) > 0
    assert alike.mean() > 0.15
    assert np.ptp(found[alike].mean(axis=1)) > 0.3


def test_parents_beside_gaps_are_preferred() -> None:
    made = pool(sweep_of([0.1, 0.12, 0.14, 0.16, 0.9]), np.random.default_rng(0))
    chosen = np.bincount([made.parent() for _ in range(500)], minlength=5) / 500
    assert chosen[4] > 0.3
    assert chosen[1] < 0.2


def test_the_leading_are_the_feasible_front_else_those_that_violate_least() -> None:
    losses = np.array([[0.0, 3.0], [1.0, 1.0], [3.0, 0.0], [2.0, 2.0], [-1.0, -1.0]])
    violations = np.array([0.0, 0.0, 0.0, 0.0, 0.5])
    assert set(evolution._best_trials(losses, violations, 1)) == {0, 1, 2}
    assert set(evolution._best_trials(losses, violations, 4)) == {0, 1, 2, 3}
    assert evolution._best_trials(losses, np.array([5.0, 4, 3, 2, 6]), 2).tolist() == [3, 2]


def test_steps_grow_with_success() -> None:
    good = np.array([[float(n), float(-n)] for n in range(30)])
    bad = np.array([[float(n), float(n)] for n in range(30)])
    none = np.zeros(30)
    assert evolution._step_size(good, none) > evolution._STEP > evolution._step_size(bad, none)


def test_many_trials_are_thinned_to_the_front_and_the_latest() -> None:
    kept = evolution._fitted_trials(1000, np.arange(0, 50))
    assert len(kept) == evolution._MAX_FITTED
    assert set(range(50)) <= set(kept) and set(range(900, 1000)) <= set(kept)


def test_every_move_has_a_share() -> None:
    assert sum(share for _, share in VARIATIONS.values()) == pytest.approx(1.0)


def test_wrong_settings_say_what_is_right() -> None:
    with pytest.raises(ConfigurationError, match="n_startup must be an integer >= 1, but got 0"):
        EvolutionSampler(n_startup=0)
    with pytest.raises(UnknownNameError, match=r"the sampler must be one of .*nsga3.*, but got 'nsga4'"):
        sampler("nsga4", 0)
    with pytest.raises(ConfigurationError, match="the sampler must be an Optuna sampler or one of"):
        sampler(3, 0)  # type: ignore[arg-type]


def test_a_sampler_object_is_taken_as_it_is() -> None:
    own = RandomSampler(seed=1)
    assert sampler(own, 5) is own
    assert build_sampler(own, 5, 3) is own


def test_the_default_follows_from_the_scan_and_the_number_of_groups() -> None:
    assert [default_sampler(groups, scanned=True) for groups in (1, 99, 100)] == ["tpe", "tpe", "evolution"]
    assert default_sampler(5, scanned=False) == "evolution"
