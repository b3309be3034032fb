"""Hypervolume along samples and seconds, of one study and of several."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoprune.errors import UnknownNameError
from autoprune.front import dominance
from autoprune.front.convergence import convergence, hypervolume_band, worst_quality
from autoprune.front.members import volume_points
from autoprune.records.candidate import work_of
from benchmarks.report import random_records
from tests.unit.front.builders import dense, front_of, measurement, record


def test_every_candidate_adds_its_samples_and_what_it_dominates() -> None:
    first = record(1, measurement(0.5, 500), samples_trained=90)
    second = record(2, measurement(0.7, 250), samples_trained=190)
    curve = convergence(front_of([dense(0.9), first, second]), reference=0.1, start=(1000, 7.0))
    assert list(curve["candidates"]) == [1, 2, 3]
    assert list(curve["samples"]) == [1010, 1110, 1310], "ten forward samples each, after a scan of 1,000"
    assert list(curve["seconds"]) == [7.5, 8.0, 8.5]
    # Dense costs all: it dominates nothing but the tolerance. Half the cost for 0.4 over the reference, and so on.
    assert list(curve["hypervolume"]) == pytest.approx([0.0, 0.5 * 0.4, 0.75 * 0.6], abs=1e-6)


def test_work_that_candidates_share_counts_once() -> None:
    records = [dense(0.9), *(replace(record(n, measurement(0.5, 500)), samples_shared=700) for n in (1, 2, 3))]
    curve = convergence(front_of(records))
    assert list(curve["samples"]) == [10, 720, 730, 740]
    assert work_of(records).total == 740
    assert len(convergence(front_of([]))["samples"]) == work_of([]).total == 0


def test_the_worst_candidate_is_the_reference_unless_it_is_given() -> None:
    good = front_of([dense(0.9), record(1, measurement(0.8, 500))])
    bad = front_of([dense(0.9), record(1, measurement(0.3, 500))])
    assert worst_quality([good, bad]) == 0.3
    assert worst_quality([]) == 0.0
    assert convergence(bad)["hypervolume"][-1] == pytest.approx(0.0, abs=1e-6)


def test_several_studies_at_the_same_places() -> None:
    slow = {"samples": np.array([100, 300]), "hypervolume": np.array([0.2, 0.8])}
    quick = {"samples": np.array([50, 200]), "hypervolume": np.array([0.4, 0.6])}
    band = hypervolume_band([slow, quick], points=5)
    assert list(band["samples"]) == [0, 50, 100, 150, 200], "as far as the shortest"
    assert list(band["low"]) == [0.0, 0.0, 0.2, 0.2, 0.2]
    assert list(band["high"]) == [0.0, 0.4, 0.4, 0.4, 0.6]
    assert list(band["median"]) == pytest.approx([0.0, 0.2, 0.3, 0.3, 0.4])
    with pytest.raises(UnknownNameError, match="candidates, samples, seconds"):
        hypervolume_band([slow], by="trials")


@pytest.mark.parametrize("cost", ["multiply_adds", "size_bytes", "latency_ms"])
@pytest.mark.parametrize("seed", range(4))
def test_the_hypervolume_after_each_candidate_is_that_of_those_so_far(cost: str, seed: int) -> None:
    """Among them some that were stopped, removed, not timed, not a number, or worse than the reference."""
    known = random_records(60, groups=3, seed=seed)
    records = [*known[1:4], known[0], *known[4:]]
    front = front_of(records, ("quality", cost))
    found = front.hypervolumes(cost, 0.3)
    points, reference = volume_points(records, known[0], front.problem, cost, 0.3)
    for position in range(len(records)):
        part = front_of(records[: position + 1])
        expected = dominance.hypervolume(points[: position + 1], reference) if part.dense is not None else 0.0
        assert found[position] == pytest.approx(expected, rel=1e-12, abs=1e-15)
        if cost != "latency_ms" and part.dense is not None:  # whose rounding follows from all that was measured
            assert found[position] == pytest.approx(part.hypervolume(cost, 0.3), rel=1e-12, abs=1e-15)
    assert found[-1] == pytest.approx(front.hypervolume(cost, 0.3), rel=1e-12)
    assert list(convergence(front, cost=cost, reference=0.3)["hypervolume"]) == list(found)


def test_a_volume_is_worked_out_only_where_the_front_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And from its members alone, however many candidates there are."""
    taken: list[int] = []
    volume = dominance.hypervolume
    monkeypatch.setattr(
        dominance, "hypervolume", lambda points, edge: taken.append(len(points)) or volume(points, edge)
    )
    points = np.random.default_rng(0).random((2000, 2))
    curve = dominance.growing_hypervolume(points, (1.0, 1.0))
    assert len(taken) < 60, "about 2 ln(2000) points get onto the front, by how far they are from its corner"
    assert max(taken) < 20
    assert (np.diff(curve) >= 0).all()
