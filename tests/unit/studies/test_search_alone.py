"""The studies of those who keep their own pruner, their own Optuna study, or their own device."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import torch
from torch import nn

import autoprune
from autoprune.errors import ConfigurationError
from autoprune.plan.resolved import ResolvedPlan
from studies.backend_torch_pruning import search as torch_pruning_study
from studies.digits.study import Block, DigitNet
from studies.own_optuna_study import search as own_study
from studies.remote_device import device
from studies.remote_device import study as remote_study
from tests.tasks import flat_task, trained_mlp


def test_torch_pruning_is_searched(tmp_path: Path) -> None:
    assert len(Path(torch_pruning_study.__file__).read_text().splitlines()) <= 60
    torch.manual_seed(0)
    model = DigitNet()
    model.stages, model.head = nn.Sequential(Block(10, 10, 1)), nn.Linear(10, 10)  # brief
    model.eval()
    front = torch_pruning_study.search(str(tmp_path / "run"), model, trials=3, steps=1)
    run = autoprune.Run.open(tmp_path / "run")
    assert len(run.records) == 3
    assert front.members
    whole = sum(parameter.numel() for parameter in model.parameters())
    assert run.records[0].search.parameters == whole
    inputs = torch.randn(2, 1, 8, 8)
    for record in run.records:
        smaller = torch_pruning_study.prune(model, inputs[:1], record.widths)
        assert smaller(inputs).shape == (2, 10)
        # What the table predicts is what Torch-Pruning's model has.
        assert sum(parameter.numel() for parameter in smaller.parameters()) == record.search.parameters
    assert run.records[-1].search.parameters < whole


def test_an_own_study_goes_on_in_its_storage(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'own.db'}"
    context = autoprune.TrialContext.of(flat_task())
    recovery = autoprune.RecoverySettings(steps=2, learning_rate=(0.01, 0.1))
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        own_study.search(context, storage, 2, recovery)
        study = own_study.search(context, storage, 1, recovery)
    finally:
        optuna.logging.set_verbosity(before)
    assert len(study.trials) == 3
    dense, *others = study.trials
    whole = context.topology.cost({}).multiply_adds
    assert dense.values[1] == whole
    plans = [autoprune.PruningPlan.from_json(trial.user_attrs["plan"]) for trial in study.trials]
    assert [plan.seed for plan in plans] == [0, 1, 2]
    assert any(trial.values[1] < whole for trial in others)
    again = autoprune.evaluate(plans[1], context).measurement
    assert [again.quality, again.multiply_adds] == others[0].values, "a plan replays its trial"


def test_a_plan_is_applied_without_data() -> None:
    model, inputs = trained_mlp(), torch.randn(3, 64)
    topology = autoprune.discover(model, inputs)
    space = autoprune.PruningSpace(topology.describe())
    trial = optuna.trial.FixedTrial({**space.parameters(space.dense()), "budget": 0.25})
    smaller = autoprune.apply(space.suggest(trial), model, inputs, topology=topology)
    assert smaller(inputs).shape == model(inputs).shape
    share = sum(p.numel() for p in smaller.parameters()) / sum(p.numel() for p in model.parameters())
    assert 0.1 < share < 0.4
    asked = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask(dict(space.distributions))
    assert space.suggest(asked) == space.plan(asked.params, seed=asked.number)
    groups = dict.fromkeys(topology.widths, autoprune.GroupPlan(ratio=0.5))
    ranked = autoprune.PruningPlan(ranking=autoprune.RankingPlan(budget=0.5))
    for plan in (autoprune.PruningPlan(groups=groups), ranked):
        cut = autoprune.apply(plan, model, inputs)
        assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in model.parameters())
    name = next(iter(groups))
    for wrong, message in (
        (autoprune.PruningPlan(weights=autoprune.WeightPlan(sparsity=0.5)), "lay no masks"),
        (autoprune.PruningPlan(groups={name: autoprune.GroupPlan(ratio=0.5, criterion="taylor")}), "weights alone"),
        (autoprune.PruningPlan(ranking=autoprune.RankingPlan(budget=0.5, criterion="taylor")), "weights alone"),
        (autoprune.PruningPlan(groups={"nowhere": autoprune.GroupPlan(ratio=0.5)}), "a group must be one of"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            autoprune.apply(wrong, model, inputs, topology=topology)
    resolved = ResolvedPlan.of(space.dense(), topology)
    with pytest.raises(ConfigurationError, match="a plan to apply must be a PruningPlan, but got ResolvedPlan"):
        autoprune.apply(resolved, model, inputs)  # type: ignore[arg-type]
    narrow = autoprune.apply(autoprune.PruningPlan(groups=groups), model, inputs)
    with pytest.raises(ConfigurationError, match="the topology must be that of the model"):
        autoprune.apply(space.dense(), narrow, inputs, topology=topology)


def test_parameters_that_are_none_of_the_space_are_told() -> None:
    groups = [autoprune.Group(name="a", channels=16)]
    space = autoprune.PruningSpace(autoprune.structure_of_layers(groups, [autoprune.Layer(name="a", groups=("a",))]))
    right = space.parameters(space.dense())
    assert space.plan({**right, "dropout": 0.1}) == space.plan(right)  # another parameter of the study
    for wrong, message in (
        ({}, "the parameter 'budget' must be a finite number, but got none"),
        ({**right, "budget": float("nan")}, "the parameter 'budget' must be a finite number, but got nan"),
        ({**right, "budget": "half"}, "the parameter 'budget' must be a finite number, but got 'half'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            space.plan(wrong)  # type: ignore[arg-type]


def test_a_device_elsewhere_times_the_candidates(tmp_path: Path) -> None:
    brief = {"trials": 2, "recovery.steps": 2, "search.scan": False, "search.solved_points": 1}
    quick = {"measure.latency_rounds": 1, "measure.latency_backend": "eager"}
    settings = remote_study.settings.changed({**brief, **quick})
    study = autoprune.Study.create(flat_task(), settings, out=tmp_path / "run")
    study.run()
    dense, smaller = study.records
    found = [record.search.latencies["board"] for record in (dense, smaller)]
    assert [latency.backend for latency in found] == ["remote", "remote"]
    assert found[1].ratio < 1
    assert device.CALL < found[1].latency_ms < found[0].latency_ms
    assert study.front().problem.rows[1].name == "latency_ms[board]"
