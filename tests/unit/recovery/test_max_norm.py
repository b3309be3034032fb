"""Norms that are limited: by hand, inside the fine-tune, and as a choice of the study."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import autoprune
from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import MaxNormPlan, RecoveryPlan
from autoprune.recovery.fine_tune import fine_tune
from autoprune.recovery.max_norm import limit_norms
from autoprune.search.space.space import build_space
from tests.tasks import image_task, trained_resnet
from tests.unit.study.small import settings, space


def linear(rows: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
        layer.bias.fill_(100.0)
    return layer


def test_one_filter_of_norm_root_55_comes_back_to_3() -> None:
    layer = linear([[1, 2, 3, 4, 5]])
    assert limit_norms(layer, 3.0) == 1
    expected = torch.tensor([[1.0, 2, 3, 4, 5]]) * 3 / math.sqrt(55)
    torch.testing.assert_close(layer.weight, expected)
    torch.testing.assert_close(layer.weight.norm(), torch.tensor(3.0))
    assert layer.bias.tolist() == [100.0]


def test_each_filter_by_itself_or_the_layer_as_a_whole() -> None:
    rows = [[3.0, 4.0], [0.6, 0.8], [0.0, 0.0]]
    layer = linear(rows)
    assert limit_norms(layer, 2.0) == 1
    torch.testing.assert_close(layer.weight, torch.tensor([[1.2, 1.6], [0.6, 0.8], [0.0, 0.0]]))
    layer = linear(rows)
    assert limit_norms(layer, 2.0, per="layer") == 1
    torch.testing.assert_close(layer.weight, torch.tensor(rows) * 2 / math.sqrt(26))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("per", ["channel", "layer"])
@pytest.mark.parametrize("limit", [0.7, 1.0, 3.0])
def test_the_limit_holds_in_any_type_and_a_second_call_changes_nothing(
    dtype: torch.dtype, per: str, limit: float
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(40, 30, 3), nn.Linear(700, 50)).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(40)
    assert limit_norms(model, limit, per=per) > 1
    for weight in (model[0].weight, model[1].weight):
        rows = weight.detach().double().flatten(1) if per == "channel" else weight.detach().double().flatten()
        norms = rows.norm(dim=-1)
        assert float(norms.max()) <= limit
        assert float(norms.min()) >= limit * (1 - torch.finfo(dtype).eps - 1e-13)
    before = copy.deepcopy(model.state_dict())
    assert limit_norms(model, limit, per=per) == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_norm_beyond_half_precision_is_limited() -> None:
    layer = nn.Linear(64, 1, bias=False).half()
    with torch.no_grad():
        layer.weight.fill_(60000.0)
    assert limit_norms(layer, 8.0) == 1
    assert layer.weight.detach().float().norm() == pytest.approx(8.0, rel=1e-3)


def test_within_the_limit_nothing_changes() -> None:
    layer = linear([[3.0, 4.0]])
    assert limit_norms(layer, 5.0) == 0
    assert layer.weight.tolist() == [[3.0, 4.0]]


def test_filters_of_a_transposed_convolution_lie_on_its_second_axis() -> None:
    layer = nn.ConvTranspose2d(2, 3, 2)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.weight[:, 1] = 0.1
    assert limit_norms(layer, 2.0) == 2
    torch.testing.assert_close(layer.weight[:, 0].norm(), torch.tensor(2.0))
    assert (layer.weight[:, 1] == 0.1).all()


def test_frozen_weights_and_norms_stay() -> None:
    model = nn.Sequential(linear([[3.0, 4.0]]), nn.BatchNorm1d(1))
    model[0].weight.requires_grad_(False)
    with torch.no_grad():
        model[1].weight.fill_(9.0)
    assert limit_norms(model, 1.0) == 0


@pytest.mark.parametrize("steps", [0, 5])
def test_a_fine_tune_keeps_to_the_limit(steps: int) -> None:
    model = copy.deepcopy(trained_resnet())
    task = image_task()
    plan = RecoveryPlan(steps=steps, learning_rate=0.5, max_norm=MaxNormPlan(limit=0.7))
    fine_tune(model, task, plan, seed=0)
    norms = torch.cat([p.detach().flatten(1).norm(dim=1) for p in model.parameters() if p.ndim > 1])
    assert float(norms.max()) <= 0.7 * (1 + 1e-5)
    free = copy.deepcopy(trained_resnet())
    fine_tune(free, task, replace(plan, max_norm=MaxNormPlan(limit=0.0)), seed=0)
    assert max(float(p.detach().flatten(1).norm(dim=1).max()) for p in free.parameters() if p.ndim > 1) > 0.7


def test_a_study_samples_it(tmp_path: Path) -> None:
    only = {"trials": 6, "uniform_points": 0, "solved_points": 0}
    chosen = settings(**only, sampler="random", space=space(scan=False, max_norm=(0.0, 0.5, 2.0)))
    study = autoprune.Study.create(image_task(), chosen, out=tmp_path / "run")
    study.run()
    assert len({record.plan.recovery.max_norm.limit for record in study.records}) > 1
    topology = study.context.topology if study.context is not None else None
    assert topology is not None
    plan = PruningPlan(groups={}, recovery=RecoveryPlan(max_norm=MaxNormPlan(limit=2.0)))
    assert build_space(chosen, topology, None).encode(plan)["max_norm"] == 2.0


def test_wrong_limits_and_scopes() -> None:
    with pytest.raises(ConfigurationError, match="the limit of a norm must be > 0, but got 0"):
        limit_norms(nn.Linear(2, 2), 0.0)
    with pytest.raises(UnknownNameError, match="channel, layer"):
        limit_norms(nn.Linear(2, 2), 1.0, per="model")
    with pytest.raises(ConfigurationError, match=r"max_norm\.limit must be >= 0"):
        MaxNormPlan(limit=-1.0)
    with pytest.raises(ConfigurationError, match=r"max_norm\.per must be one of"):
        MaxNormPlan(per="model")
    with pytest.raises(ConfigurationError, match=r"max_norm must be a tuple.* each must be >= 0"):
        space(max_norm=(-1.0,))
    with pytest.raises(UnknownNameError, match="channel, layer"):
        space(max_norm_per="model")
