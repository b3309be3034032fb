"""Every objective of the registry keeps to the same promises, and a new one is a measurer and a row."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn
from typer.testing import CliRunner

import autoprune
from autoprune.cli.main import app
from autoprune.errors import ConfigurationError, SelectionError, UnknownNameError
from autoprune.front.table import columns, text_table
from autoprune.measure.registry import MEASURERS
from autoprune.records.limits import Limits, parse_limit
from autoprune.records.measurement import Measurement
from autoprune.records.metric_objectives import metric_objective
from autoprune.records.objectives import (
    COSTS,
    OBJECTIVE_KINDS,
    QUALITY,
    Objective,
    further_cost,
)
from autoprune.records.problem import Problem
from autoprune.report.html import write_report
from autoprune.search.settings import StudySettings
from autoprune.structure.cost import STRUCTURE_COSTS
from tests.settings import study_of
from tests.tasks import flat_task, image_task
from tests.unit.front.builders import dense, energy, front_of, latency, measurement, problem_of, record
from tests.unit.study.small import settings, space

OBJECTIVES = {**COSTS, QUALITY: problem_of().quality, "recall": metric_objective("recall", "recall", True)}
ALL = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)


def measured(multiply_adds: int = 500, recall: float = 0.7) -> Measurement:
    """A measurement with a number for every objective."""
    usual = measurement(0.8, multiply_adds, took=latency(multiply_adds / 1000))
    further = dict.fromkeys(MEASURERS, float(multiply_adds))
    return replace(usual, metrics={"recall": recall}, costs=further, energy=energy(multiply_adds / 1000))


@ALL
def test_it_says_what_it_is(objective: Objective) -> None:
    assert objective.title
    assert objective.better in ("higher", "lower")
    assert objective.kind in OBJECTIVE_KINDS
    assert (objective.name.endswith(f"_{objective.unit.lower()}")) == bool(objective.unit)
    assert objective.axis_title.startswith(objective.title)


@ALL
def test_its_value_is_a_number_and_its_loss_is_smaller_where_it_is_better(objective: Objective) -> None:
    found = objective.value(measured())
    assert math.isfinite(found)
    better = found + 1 if objective.better == "higher" else found - 1
    assert objective.loss(better) < objective.loss(found)
    assert objective.gain(better, found) == pytest.approx(1.0)
    assert objective.best([better, found]) == better
    assert objective.worst([better, found]) == found


@ALL
def test_it_is_a_column_of_the_table(objective: Objective) -> None:
    problem = problem_of(metrics={"recall": True})
    name = {QUALITY: "search_accuracy", "recall": "search_recall"}.get(objective.name, objective.name)
    one = record(1, measured())
    data = {key: value for column in columns(problem) for key, value in column.data(one, None).items()}
    assert data[name] == objective.value(one.search)


@pytest.mark.parametrize("name", COSTS)
def test_a_cost_is_a_limit_and_a_share(name: str) -> None:
    whole, small = record(0, measured(1000), origin="dense"), record(1, measured())
    front = front_of([whole, small], ("quality", name))
    assert parse_limit(f"max_{name}").objective == name
    measured_as = Limits(**{f"max_{name}": front.value(small, name)})
    assert front.choose(measured_as, "quality", confidence=0.5).number == 1
    assert front.choose(Limits(**{f"max_{COSTS[name].derived('share')}": 0.6}), "quality").number == 1
    with pytest.raises(UnknownNameError, match="a limit must be one of"):
        Limits(**{f"min_{name}": 1.0})


def test_every_further_cost_has_its_measurer() -> None:
    untimed = {name for name, cost in COSTS.items() if not cost.is_compared}
    assert {name for name in untimed if not hasattr(Measurement, name)} == {*MEASURERS}


def test_the_structure_says_which_costs_follow_from_widths() -> None:
    assert {cost.name for cost in COSTS.values() if cost.kind == "structure"} == {*STRUCTURE_COSTS}


# ---- further metrics


RECALLS = {1: 0.9, 2: 0.75, 3: 0.6}


def recalling() -> autoprune.Front:
    records = [dense(0.9), *(record(number, measured(recall=of)) for number, of in RECALLS.items())]
    problem = problem_of(("quality", "recall", "multiply_adds"), metrics={"recall": True})
    return autoprune.Front.of(records, problem)


def test_a_metric_can_be_limited_and_chosen_by() -> None:
    front = recalling()
    assert front.choose(Limits(), "recall").number == 1
    assert front.choose(Limits(min_recall=0.9)).number == 1, "exactly the limit"
    assert [one.number for one in front.within(Limits(min_recall=0.7))] == [1, 2]
    assert front.excess(front.get(3), Limits(min_recall=0.7))["min_recall"] == pytest.approx(0.1, abs=1e-5)
    with pytest.raises(SelectionError, match=r"keep to min_recall 0\.95"):
        front.choose(Limits(min_recall=0.95))


def test_a_limit_allows_what_float32_makes_of_the_same_number() -> None:
    front = front_of([dense(float(np.float32(0.97))), record(1, measurement(float(np.float32(0.96)), 500))])
    assert front.choose(Limits(max_drop=0.01)).number == 1
    assert front.choose(Limits(min_quality=0.96)).number == 1


def test_limits_of_metrics_are_checked_against_the_task() -> None:
    front = recalling()
    with pytest.raises(UnknownNameError, match=r"min_recall.*Did you mean 'min_recall'"):
        front.choose(Limits(min_recal=0.5))
    with pytest.raises(ConfigurationError, match="must be min_recall, as higher is better, but got max_recall"):
        front.choose(Limits(max_recall=0.5))
    with pytest.raises(ConfigurationError, match="min_recall must be a number that some model can keep"):
        Limits(min_recall=math.nan)
    assert dict(Limits(min_recall=-math.inf, max_mse=math.inf).given) == {}
    with pytest.raises(ConfigurationError, match="objectives must name the quality and what it costs, but got none"):
        Problem(objectives=(), metric="accuracy", higher_is_better=True)
    with pytest.raises(ConfigurationError, match="objectives must name the quality as 'quality', but got accuracy"):
        problem_of(("quality", "accuracy", "parameters"))
    unknown = problem_of(metrics={"mine": None}, limits=Limits(max_mine=3.0))
    with pytest.raises(UnknownNameError, match="an objective"):
        unknown.objective("mine")


def test_a_study_with_recall_and_a_cost_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A toy cost, registered here, and a further metric go all the way from the settings to the report."""

    def layers(model: nn.Module, _: object) -> float:
        return float(sum(p.shape[0] for p in model.parameters() if p.ndim == 4))

    row = Objective(name="filters_count", title="filters", unit="count", value=further_cost("filters_count"))
    monkeypatch.setitem(COSTS, row.name, row)
    monkeypatch.setitem(MEASURERS, row.name, layers)
    limits = Limits(min_recall=0.2, max_filters_share=0.9, max_filters_count=1e6)
    chosen = settings(
        objectives=("quality", "recall", "filters_count"),
        limits=limits,
        trials=5,
        uniform_points=1,
        space=space(scan=False),
    )
    study = autoprune.Study.create(image_task(), chosen, out=tmp_path / "run")
    front = study.run()
    assert front.problem.objectives == ("quality", "recall", "filters_count")
    whole = front.get(0)
    assert whole.search.costs[row.name] == layers(study.rebuild(0), None)
    sampled = [one for one in front.records if one.origin == "sampled"]
    assert all(front.value(one, row.name) <= 0.9 * front.value(whole, row.name) for one in sampled), "repaired"
    assert all(not one.stopped for one in front.records)

    reopened = autoprune.Study.open(tmp_path / "run")
    assert reopened.settings.limits == limits
    assert reopened.problem == study.problem
    assert [one.number for one in reopened.front().members] == [one.number for one in front.members]
    assert np.isfinite(front.table()[["search_recall", "test_recall", row.name]]).all(axis=None)

    head, rows = text_table(front.problem, whole, front.members)
    assert {"recall (search)", "recall (test)", "filters (count)"} <= {*head}
    assert all(len(cells) == len(head) for cells in rows)
    run = CliRunner().invoke
    told = json.loads(run(app, ["front", str(tmp_path / "run"), "--json"]).output)
    assert [line[row.name] for line in told] == [one.search.costs[row.name] for one in front.members]
    header = run(app, ["front", str(tmp_path / "run"), "--csv"]).output.splitlines()[0].split(",")
    assert {"search_recall", row.name} <= {*header}
    page = write_report(study.stored).read_text(encoding="utf-8")
    assert " and filters (count), " in page
    assert " and recall</h3>" in page
    by = run(app, ["choose", str(tmp_path / "run"), "--by", row.name, "--limit", "min_recall=0.2"])
    assert int(by.stdout) == front.choose(Limits(min_recall=0.2), row.name).number


def test_an_objective_that_the_task_does_not_have_is_refused_before_any_work(tmp_path: Path) -> None:
    for changes, words in (
        ({"objectives": ("quality", "f1", "parameters")}, "an objective must be one of .*recall"),
        ({"objectives": ("quality", "recall")}, "objectives must name one or more costs"),
        ({"limits": Limits(min_f1=0.5)}, "a limit must be one of .*min_recall"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            autoprune.Study.create(flat_task(), settings(**changes), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_limits_of_settings_from_before_limits_were_data() -> None:
    """Every field was stored, most as null; infinity could be written."""
    stored = {"max_drop": 0.01, "max_latency_ms": None, "max_size_bytes": float("inf"), "max_size_share": 0.3}
    found = StudySettings.from_dict({**StudySettings().to_dict(), "limits": stored}).limits
    assert found == Limits(max_drop=0.01, max_size_share=0.3)
    assert StudySettings.from_dict(study_of(limits=found).to_dict()).limits == found
    with pytest.raises(ConfigurationError, match=r"limits.max_drop must be a finite number or null, but got 'much'"):
        StudySettings.from_dict({"limits": {"max_drop": "much"}})


def test_problems_compare_what_they_are() -> None:
    one, other = problem_of(metrics={"recall": True}), problem_of(metrics={"recall": True})
    assert one == other
    assert isinstance(one, Problem)
    assert one != problem_of(metrics={"recall": False})
