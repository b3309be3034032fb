"""Limits of the search: what is told to the sampler, and a budget of samples."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

import autoprune
from autoprune.cli.following import show_next
from autoprune.errors import AutopruneError, ConfigurationError, NotFoundError, SelectionError
from autoprune.front.findings import findings
from autoprune.front.importance import importances
from autoprune.search import search
from autoprune.search.samplers.registry import build_sampler
from autoprune.search.settings import StudySettings
from tests.tasks import flat_task, image_task
from tests.unit.study.small import journal_trials, quality_by_size, settings, space


def test_what_exceeds_a_limit_is_told_as_infeasible(tmp_path: Path) -> None:
    limits = autoprune.Limits(max_size_share=0.5, max_drop=0.2)
    study = autoprune.Study.create(flat_task(), settings(trials=7, limits=limits), out=tmp_path / "run")
    front = study.run()
    dense = front.dense
    assert dense is not None
    seen = set()
    for trial, record in zip(journal_trials(tmp_path / "run"), study.records, strict=True):
        size = record.search.size_bytes / dense.search.size_bytes
        assert trial.constraints["size_bytes"] == pytest.approx(size / 0.5 - 1)
        assert trial.constraints["drop"] == pytest.approx(dense.search.quality - record.search.quality - 0.2, abs=2e-6)
        seen.add(size > 0.5)
    assert seen == {True, False}


@pytest.mark.slow
def test_the_search_stays_inside_the_limits(tmp_path: Path) -> None:
    def share_inside(limits: autoprune.Limits, name: str) -> float:
        chosen = settings(trials=40, uniform_points=4, limits=limits)
        study = autoprune.Study.create(image_task(), chosen, out=tmp_path / name)
        study.run()
        dense = study.records[0].search.size_bytes
        proposed = [record for record in study.records if record.origin == "sampled"][-20:]
        return sum(record.search.size_bytes <= 0.3 * dense for record in proposed) / len(proposed)

    assert share_inside(autoprune.Limits(max_size_share=0.3), "within") >= 0.8
    assert share_inside(autoprune.Limits(), "anywhere") < 0.8, "else the limit was not what did it"


def test_a_study_with_limits_is_stored_and_goes_on(tmp_path: Path) -> None:
    chosen = settings(trials=2, limits=autoprune.Limits(max_drop_share=0.1))
    assert StudySettings.from_dict(chosen.to_dict()) == chosen
    autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run").run()
    assert autoprune.Study.open(tmp_path / "run").settings == chosen
    with pytest.raises(ConfigurationError, match=r"limits must be a Limits, but got 0\.1"):
        settings(limits=0.1)


def test_it_ends_when_the_samples_are_processed(tmp_path: Path) -> None:
    chosen = settings(trials=30, samples=6_000)
    study = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run")
    study.run()
    work = study.samples()
    last = study.records[-1]
    assert len(study.records) < 30
    assert work.total >= 6_000
    assert work.total - last.samples_forward - last.samples_trained < 6_000
    assert all(r.test is not None for r in study.front().members) or flat_task().test_split is None
    with pytest.raises(ConfigurationError, match="samples must be an integer >= 1"):
        settings(samples=0)


def test_any_sampler_object_proposes_in_place_of_the_settings(tmp_path: Path) -> None:
    class Counting(optuna.samplers.RandomSampler):
        asked = 0

        def sample_relative(self, *arguments: object) -> dict[str, object]:
            type(self).asked += 1
            return super().sample_relative(*arguments)  # type: ignore[arg-type]

    study = autoprune.Study.create(flat_task(), settings(trials=5, uniform_points=0), out=tmp_path / "run")
    study.run(sampler=Counting(seed=0))
    assert Counting.asked == 3, "what comes after the two warm starts"
    assert len(study.records) == 5


def test_importances_are_had_from_the_study(tmp_path: Path) -> None:
    study = autoprune.Study.create(flat_task(), settings(trials=6), out=tmp_path / "run")
    study.run()
    found = study.importances()
    assert found == importances(study.front())
    assert found.trials == sum(record.origin == "sampled" for record in study.records)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, "BoundedTPESampler"), ({"scan": False}, "EvolutionSampler"), ({"space": "direct"}, "EvolutionSampler")],
)
def test_the_sampler_that_suits_the_study_is_the_default(
    changes: dict[str, object], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []

    def noting(name: str, *arguments: object) -> optuna.samplers.BaseSampler:
        found = build_sampler(name, *arguments)  # type: ignore[arg-type]
        used.append(type(found).__name__)
        return found

    monkeypatch.setattr(search, "build_sampler", noting)
    chosen = settings(trials=3, uniform_points=0, solved_points=0, space=space(**changes))
    assert chosen.search.sampler == "auto"
    autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run").run()
    assert {*used} == {expected}


# ---- what a new user ran into


def test_the_limits_of_the_search_are_those_of_the_choice_and_are_spoken_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quality_by_size(monkeypatch, lambda size: size / 1e5)
    chosen = settings(trials=6, limits=autoprune.Limits(max_multiply_adds_share=0.3))
    study = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run")
    front = study.run()
    dense = front.dense
    assert dense is not None
    assert front.choose(by="quality").search.multiply_adds <= 0.3 * dense.search.multiply_adds
    assert front.choose(autoprune.Limits(), by="quality") == dense
    inside = len(front.within(front.problem.limits))
    assert 0 < inside < len(front.complete)
    sentence = f"{inside} of {len(front.complete)} candidates keep the limits of the search"
    assert any(sentence in line and not warning for line, warning in findings(front))
    show_next(front, tmp_path / "run", tmp_path / "report.html")
    shown = capsys.readouterr().out
    assert sentence in shown
    assert "--max-drop" not in shown


def test_limits_that_nothing_keeps_to_are_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = autoprune.Study.create(
        flat_task(), settings(trials=3, limits=autoprune.Limits(max_multiply_adds=1)), out=tmp_path / "run"
    )
    front = study.run()
    assert ("No candidate keeps the limits of the search (max_multiply_adds 1).", True) in findings(front)
    with pytest.raises(SelectionError, match="max_multiply_adds 1"):
        front.choose()
    show_next(front, tmp_path / "run", tmp_path / "report.html")
    shown = capsys.readouterr().out
    assert "No candidate keeps" in shown
    assert "Export" not in shown


def test_what_was_not_measured_can_not_be_chosen_by(tmp_path: Path) -> None:
    front = autoprune.Study.create(flat_task(), settings(trials=2), out=tmp_path / "run").run()
    for arguments in ((autoprune.Limits(), "latency_ms"), (autoprune.Limits(max_latency_ms=3.0), "quality")):
        with pytest.raises(SelectionError, match="latency_ms of the candidates must be measured"):
            front.choose(*arguments)


def test_a_small_budget_of_samples_measures_dense_and_bounds_the_scan(tmp_path: Path) -> None:
    chosen = settings(trials=8, samples=4_000)
    study = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run")
    study.run()
    scan = study.folder.read_sensitivity()
    assert scan is not None
    assert scan.samples_forward <= 1_000
    assert study.records[0].origin == "dense"
    with pytest.raises(ConfigurationError, match="scan_samples"):
        autoprune.Study.create(flat_task(), settings(samples=4), out=tmp_path / "tiny")
    brief = autoprune.Study.create(flat_task(), settings(trials=8, seconds=1e-6), out=tmp_path / "brief")
    brief.run()
    assert [record.origin for record in brief.records] == ["dense"]


class Failing(optuna.samplers.RandomSampler):
    """Fails where it is told to: while it proposes, or once a trial is told."""

    def __init__(self, where: str) -> None:
        super().__init__(seed=0)
        self.where = where

    def sample_independent(self, *arguments: object) -> object:  # type: ignore[override]
        if self.where == "ask":
            raise RuntimeError("no idea")
        return super().sample_independent(*arguments)  # type: ignore[arg-type]

    def after_trial(self, *arguments: object) -> None:  # type: ignore[override]
        if self.where == "tell":
            raise RuntimeError("no idea")


@pytest.mark.parametrize(
    ("where", "message"),
    [("ask", "Failing proposed no trial: RuntimeError: no idea"), ("tell", "Failing failed after")],
)
def test_a_sampler_that_fails_is_named_and_the_study_goes_on_without_it(
    where: str, message: str, tmp_path: Path
) -> None:
    chosen = settings(trials=3, uniform_points=0, solved_points=0)
    study = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run")
    with pytest.raises(AutopruneError, match=message):
        study.run(sampler=Failing(where))
    assert len(study.run().records) == 3


def test_a_polish_needs_weights(tmp_path: Path) -> None:
    chosen = settings(trials=3, uniform_points=1, polish=0.9, early_stopping="none")
    study = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run")
    study.run()
    lost = [record.number for record in study.records if record.origin != "dense"]
    for number in lost:
        study.folder.weights(number).unlink()
    with pytest.raises(NotFoundError, match="autoprune did not delete them"):
        study.rebuild(lost[0])
    study.run(trials=6)
    assert not list((tmp_path / "run" / "failures").glob("*"))
    assert all(record.parent not in lost for record in study.records[3:])
