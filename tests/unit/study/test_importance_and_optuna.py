"""Importances beside those of Optuna's own evaluator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from autoprune.front.importance import importances
from autoprune.records.candidate import CandidateRecord
from tests.unit.front.test_importance import Space, add, drawn, front


def optuna_study(trials: Sequence[CandidateRecord], space: Space) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"])
    known = {
        name: CategoricalDistribution(values) if isinstance(values, list) else FloatDistribution(*values)
        for name, values in space.items()
    }
    for trial in trials:
        values = [trial.search.quality, float(trial.search.size_bytes)]
        study.add_trial(create_trial(params=dict(trial.parameters), distributions=known, values=values))
    return study


def test_more_is_told_than_by_optunas_evaluator() -> None:
    """Thirty trials, thirty parameters, six of which move the quality: how often one of these is placed above one of
    the others."""
    space: Space = {
        f"kind{kind}/{number}": (0.1, 10.0) if kind else ["a", "b", "c"] for kind in range(2) for number in range(15)
    }
    real = [f"kind{kind}/{number}" for kind in range(2) for number in range(3)]
    ours, optunas = [], []
    for seed in range(6):
        random = np.random.default_rng(seed)
        study: list[CandidateRecord] = []
        for _ in range(40):
            params = drawn(random, space)
            quality = sum(params[name] == "a" for name in real[:3]) - sum(
                abs(np.log(float(params[name]))) for name in real[3:]
            )
            add(study, params, (quality + random.normal(), 1e5 * random.random()))
        mine = {row.name: row.targets["quality"].share for row in importances(front(study)).members}
        with pytest.warns(UserWarning, match="low `target` values"):
            theirs = get_param_importances(
                optuna_study(study, space),
                evaluator=PedAnovaImportanceEvaluator(target_quantile=0.5),
                target=lambda t: -t.values[0],
            )
        for found, scores in ((ours, mine), (optunas, theirs)):
            found += [scores[a] > scores[b] for a in real for b in space if b not in real]
    assert float(np.mean(ours)) > float(np.mean(optunas)) + 0.05
