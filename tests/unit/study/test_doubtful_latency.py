"""Latencies in doubt are measured again at the end of a run, and by the same command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import autoprune
from autoprune.records.measurement import Latency
from autoprune.study.finish import BUSY
from autoprune.trial import costs
from tests.tasks import image_task
from tests.unit.study.small import settings, space

TRIALS = 3


class _Host:
    """A machine that is busy for its first measurements."""

    def __init__(self, busy: float) -> None:
        self.busy, self.asked = busy, 0

    def comparer(self, *_: object, **__: object) -> _Host:
        return self

    def check(self) -> None:
        pass

    def refer_to(self, dense: Latency) -> None:
        pass

    def compare(self, model: object) -> Latency:
        self.asked += 1
        doubts = () if self.asked > self.busy else ("The machine was busy.",)
        numbers = {"latency_ms": 2.0, "low_ms": 1.9, "high_ms": 2.1, "ratio": 0.5, "ratio_low": 0.4, "ratio_high": 0.6}
        return Latency(**numbers, dense_ms=4.0, backend="eager", rounds=1, doubts=doubts)


@pytest.fixture
def run_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., autoprune.Study]:
    def run(host: _Host, **changes: object) -> autoprune.Study:
        monkeypatch.setattr(costs, "LatencyComparer", host.comparer)
        given = {"objectives": ("quality", "multiply_adds", "latency_ms"), **changes}
        chosen = settings(trials=TRIALS, latency_rounds=3, **given)
        study = autoprune.Study.create(image_task(), chosen, out=tmp_path / "run")
        study.run()
        return study

    return run


def _in_doubt(study: autoprune.Study) -> list[bool]:
    return [not latency.trusted for record in study.records for latency in record.search.latencies.values()]


def test_they_are_measured_again_once_the_machine_is_quiet(run_on: Callable[..., autoprune.Study]) -> None:
    host = _Host(busy=TRIALS)
    study = run_on(host)
    assert _in_doubt(study) == [False] * TRIALS
    assert host.asked == 2 * TRIALS
    stored = autoprune.Study.open(study.folder.path)
    assert [record.search.latency for record in stored.records] == [record.search.latency for record in study.records]
    assert all(record.test is None or record.test.latency == record.search.latency for record in stored.records)


def test_on_a_busy_machine_the_run_ends_and_the_same_command_goes_on(
    run_on: Callable[..., autoprune.Study],
) -> None:
    host = _Host(busy=float("inf"))
    study = run_on(host)
    assert _in_doubt(study) == [True] * TRIALS
    assert host.asked == TRIALS + min(BUSY, TRIALS)
    timeless = replace(study.problem, objectives=("quality", "multiply_adds"))
    assert study.front().members == autoprune.Front.of(study.records, timeless).members, "they decide nothing"
    assert _in_doubt(run_on(_Host(busy=0))) == [False] * TRIALS


def test_what_only_a_doubt_keeps_off_the_front_may_be_chosen_and_is_tested(
    run_on: Callable[..., autoprune.Study],
) -> None:
    untrained = {"objectives": ("quality", "latency_ms"), "space": space(steps=0, reconstruction=(0,))}
    front = run_on(_Host(busy=float("inf")), **untrained).front()
    assert front.undecided, "smaller and worse than the dense model, and quicker by a number in doubt"
    assert all(one.test is not None for one in (*front.members, *front.undecided))
    assert front.choose(autoprune.Limits()) in front.undecided
