"""Weights that nothing needs any more: which, and what becomes of the study without them."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

import autoprune
from autoprune.errors import NotFoundError
from autoprune.front.front import Front
from autoprune.records.annotations import ANNOTATIONS
from autoprune.records.candidate import CandidateRecord
from autoprune.records.problem import Problem
from autoprune.study.retention import removable_weights, remove_useless_weights
from tests.tasks import flat_task
from tests.unit.front.builders import front_of, latency, measurement, problem_of, record, run_of
from tests.unit.study.small import comparable, quality_by_size, settings


def numbers(*records: object) -> set[int]:
    return {useless.number for useless in removable_weights(front_of(list(records)))}  # type: ignore[arg-type]


def test_dominated_childless_candidates_that_are_no_baseline() -> None:
    dense = record(0, measurement(0.9, 1000), origin="dense")
    uniform = record(1, measurement(0.5, 900), origin="uniform")
    best, beaten = record(2, measurement(0.85, 500)), record(3, measurement(0.8, 600))
    assert numbers(dense, uniform, best, beaten) == {3}
    heir = record(4, measurement(0.7, 400), parent=3)
    assert numbers(dense, uniform, best, beaten, heir) == set(), "an ancestor stays"
    lost = record(5, measurement(0.6, 450), parent=3)
    assert numbers(dense, uniform, best, beaten, heir, lost) == {5}


def test_what_the_clock_may_bring_back_stays() -> None:
    dense = record(0, measurement(0.9, 1000, took=latency(1.0)), origin="dense")
    best = record(1, measurement(0.85, 500, took=latency(0.50)))
    near = record(2, measurement(0.8, 500, took=latency(0.52)))
    far = record(3, measurement(0.8, 500, took=latency(0.60)))
    unknown = record(4, measurement(0.8, 500))
    front = front_of([dense, best, near, far, unknown], objectives=("quality", "latency_ms"))
    assert {r.number for r in front.members} == {0, 1}, "all are off the front as it is"
    assert {r.number for r in removable_weights(front)} == {3, 4}
    # The same widths are the same network, whatever the clock said of each.
    twin = replace(near, number=5, kept=best.kept, dropped=best.dropped)
    front = front_of([dense, best, twin], objectives=("quality", "latency_ms"))
    assert {r.number for r in removable_weights(front)} == ({5} if twin.architecture == best.architecture else set())
    assert twin.architecture == best.architecture


def test_what_a_limit_on_another_cost_may_choose_stays() -> None:
    dense, best = record(0, measurement(0.9, 1000), origin="dense"), record(1, measurement(0.85, 500, size_bytes=3000))
    smaller = record(2, measurement(0.8, 600, size_bytes=1000))
    assert numbers(dense, best, smaller) == set()
    assert numbers(dense, best, replace(smaller, search=measurement(0.8, 600, size_bytes=3000, parameters=60))) == {2}


@pytest.mark.parametrize(
    "problem",
    [
        problem_of(("quality", "recall", "multiply_adds"), metrics={"recall": True}),
        problem_of(metrics={"recall": True}, limits=autoprune.Limits(min_recall=0.5)),
        problem_of(metrics={"recall": True}),
    ],
    ids=["objective", "limit", "neither"],
)
def test_what_a_further_metric_may_choose_stays(problem: Problem) -> None:
    def of(number: int, quality: float, recall: float) -> CandidateRecord:
        return record(number, replace(measurement(quality, 500 + number), metrics={"recall": recall}))

    dense = record(0, measurement(0.9, 1000), origin="dense")
    front = Front.of([dense, of(1, 0.8, 0.6), of(2, 0.7, 0.7), of(3, 0.7, 0.5)], problem)
    matters = "recall" in problem.objectives or bool(problem.limits.given)
    assert {one.number for one in removable_weights(front)} == ({3} if matters else {2, 3})


@pytest.mark.parametrize("seed", range(20))
def test_no_clock_brings_back_what_was_removed(seed: int) -> None:
    """Intervals that lie, so that what was slower beyond doubt is not any more."""
    rng = random.Random(seed)
    found = [record(0, measurement(0.9, 1000, took=latency(1.0)), origin="dense")]
    for number in range(1, 40):
        took = latency(rng.uniform(0.3, 0.5), half_width=rng.choice((0.001, 0.05)))
        # Every third has the widths of the one before, as what is trained further has.
        kept = found[-1].kept if number % 3 == 0 else None
        found.append(record(number, measurement(rng.uniform(0.5, 0.9), rng.choice((400, 500)), took=took), kept=kept))
        front = front_of(found, objectives=("quality", "multiply_adds", "latency_ms"))
        assert not any(member.removed for member in front.members)
        chosen = front.choose(autoprune.Limits(max_multiply_adds=rng.choice((500, 2000))), "latency_ms")
        assert not chosen.removed
        useless = {member.number for member in removable_weights(front)}
        assert not any(member.removed for member in found if member.number in useless)
        found = [replace(one, removed=one.removed or one.number in useless) for one in found]
    assert sum(one.removed for one in found) > 5


def test_a_study_keeps_its_front_its_ancestors_and_its_baselines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quality_by_size(monkeypatch)
    study = autoprune.Study.create(flat_task(), settings(trials=12, collect_garbage=True), out=tmp_path / "run")
    front = study.run()
    assert not removable_weights(front), "all that is garbage is gone"
    assert any(found.removed for found in study.records), "a study without any garbage shows nothing"
    for found in study.records:
        assert study.folder.has_weights(found.number) == (not found.removed), found.number
        if found.removed:
            with pytest.raises(NotFoundError, match="collect_garbage is False"):
                study.rebuild(found.number)
        else:
            study.rebuild(found.number)
    reopened = autoprune.Study.open(tmp_path / "run", flat_task())
    assert len(reopened.records) == 12, "what is known of them stays"


def test_the_chosen_candidate_keeps_its_weights(tmp_path: Path) -> None:
    """Also where nobody knows which one was chosen: a file that cannot be read may name any."""
    dense, best = record(0, measurement(0.9, 1000), origin="dense"), record(1, measurement(0.85, 500))
    records = [dense, best, record(2, measurement(0.8, 600)), record(3, measurement(0.7, 600))]
    run = run_of(tmp_path, records)
    for one in records:
        run.folder.write_candidate(one, b"weights")
    front = run.front()
    assert {one.number for one in removable_weights(front)} == {2, 3}
    run.mark(2)
    whole = (tmp_path / ANNOTATIONS).read_text()
    (tmp_path / ANNOTATIONS).write_text("{")
    remove_useless_weights(run.folder, records, front)
    assert not any(one.removed for one in records)
    (tmp_path / ANNOTATIONS).write_text(whole)
    remove_useless_weights(run.folder, records, front)
    assert [one.number for one in records if one.removed] == [3]
    assert [run.folder.has_weights(one.number) for one in records] == [True, True, True, False]


def test_it_goes_on_after_an_interruption_as_if_there_was_none(tmp_path: Path) -> None:
    chosen = settings(trials=10, collect_garbage=True)
    whole = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "whole")
    whole.run()
    assert any(record.removed for record in whole.records), "a study without any garbage shows nothing"
    parts = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "parts")
    for until in (4, 7, 10):
        parts = autoprune.Study.open(tmp_path / "parts", flat_task())
        parts.run(trials=until)
    found, expected = comparable(parts.records), comparable(whole.records)
    # Each end of a run measures its front on the test split: some that are beaten later have been measured there too.
    for row in (*found, *expected):
        del row["test"]
    assert found == expected
