"""Trials as vectors and back."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autoprune.search.samplers.vectors import Coordinates

SPACE: dict[str, BaseDistribution] = {
    "budget": FloatDistribution(0.01, 1.0, log=True),
    "ratio/b": FloatDistribution(0.0, 0.5),
    "criterion": CategoricalDistribution(("l1", None, True, 2)),
    "ratio/a": FloatDistribution(-1.0, 3.0),
    "step": FloatDistribution(0.0, 1.0, step=0.25),
    "count": IntDistribution(2, 12, step=5),
    "power": IntDistribution(1, 1000, log=True),
}
PLACES = Coordinates(space=SPACE, allocation_prefixes=("ratio/",))


def trial(**params: object) -> optuna.trial.FrozenTrial:
    return optuna.trial.create_trial(params=params, distributions=dict(SPACE), value=0.0)


MIDDLE = {
    "budget": 0.1,
    "ratio/b": 0.125,
    "criterion": None,
    "ratio/a": 2.0,
    "step": 0.75,
    "count": 7,
    "power": 1000,
}


def test_places_lie_between_the_bounds_on_the_scale_of_the_distribution() -> None:
    assert PLACES.encode([trial(**MIDDLE)])[0] == pytest.approx([0.5, 0.25, 1, 0.75, 0.75, 0.5, 1.0])


def test_decoding_undoes_encoding() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        study.tell(study.ask(SPACE), 0.0)
    for one, vector in zip(study.trials, PLACES.encode(study.trials), strict=True):
        back = PLACES.decode(vector)
        assert [type(value) for value in back.values()] == [type(value) for value in one.params.values()]
        for name, value in one.params.items():
            assert back[name] == (pytest.approx(value) if isinstance(value, float) else value)


def test_what_lies_outside_is_reflected_and_put_onto_steps() -> None:
    moved = PLACES.reflected(np.array([-0.3, 1.2, 2.0, 0.3, 0.6, 0.2, 7.0]))
    assert moved[:6] == pytest.approx([0.3, 0.8, 2.0, 0.3, 0.5, 0.0])
    assert 0.0 <= moved[6] <= 1.0
    assert (PLACES.reflected(moved) == moved).all()
    many = np.stack([moved, np.array([-0.3, 1.2, 2.0, 0.3, 0.6, 0.2, 7.0]), np.zeros(7)])
    assert (PLACES.reflected(many) == np.stack([PLACES.reflected(vector) for vector in many])).all()
    assert (PLACES.reflected(many)[:2] == moved).all()
    assert PLACES.decode(np.array([-3.0, 1.5, 9.0, 0.3, 0.6, 0.2, 0.5])) == {
        "budget": pytest.approx(0.01),
        "ratio/b": 0.5,
        "criterion": 2,
        "ratio/a": pytest.approx(0.2),
        "step": 0.5,
        "count": 2,
        "power": 32,
    }


def test_the_family_is_told_by_its_prefix_in_the_order_of_the_space() -> None:
    assert PLACES.allocation_block.tolist() == [1, 3]
    assert PLACES.other_numbers.tolist() == [0, 4, 5, 6]
    vectors = PLACES.encode([trial(**MIDDLE)])
    assert PLACES.allocation_features(vectors)[0] == pytest.approx([-0.25, 0.25])
    assert PLACES.context_features(vectors)[0] == pytest.approx([0.5, 0.75, 0.5, 1.0, 0.5, 0, 0.5, 0, 0])


def test_one_member_is_no_family() -> None:
    alone = Coordinates(space={"ratio/a": SPACE["ratio/a"], "budget": SPACE["budget"]}, allocation_prefixes=("ratio/",))
    assert alone.allocation_block.tolist() == []
    assert alone.context_features(np.array([[0.1, 0.2]])).tolist() == [[0.1, 0.2]]
    assert alone.allocation_features(np.array([[0.1, 0.2]])).shape == (1, 0)


def test_random_vectors_reach_every_choice_and_both_ends() -> None:
    rng = np.random.default_rng(0)
    vectors = np.stack([PLACES.random(rng) for _ in range(300)])
    assert set(vectors[:, 2]) == {0, 1, 2, 3}
    assert vectors[:, PLACES.numbers].min() < 0.01 and vectors[:, PLACES.numbers].max() > 0.99
