"""Widths for any budget and cost from a run folder, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import autoprune
from autoprune.codec import to_plain_object
from autoprune.errors import ConfigurationError, NotFoundError, UnknownNameError
from autoprune.front.run import Run
from autoprune.records.run_folder import RunFolder
from autoprune.search.allocation.latency_model import latency_model_of
from autoprune.search.solve import SolvedAllocation, solve_stored
from autoprune.structure.cost import STRUCTURE_COSTS
from autoprune.study.study import Study
from autoprune.trial.context import TrialContext
from tests.device_profiles import half_for_nothing, profile_of
from tests.tasks import SEEN, Counting, image_task, trained_resnet
from tests.unit.study.small import settings, space


def run(out: Path, trials: int = 1, **changes: object) -> Study:
    """A study that has been run, opened again as the command line does: without the model."""
    chosen = settings(trials=trials, **changes)
    task = image_task(model=Counting(trained_resnet()).eval())
    autoprune.Study.create(task, chosen, out=out).run()
    return autoprune.Study.open(out)


def solved(study: Study, budget: float, cost: str | None = None) -> SolvedAllocation:
    return solve_stored(study.stored, study.settings, budget, cost)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return run(tmp_path_factory.mktemp("solving") / "run")


@pytest.mark.parametrize("cost", STRUCTURE_COSTS)
def test_any_cost_without_running_anything(study: Study, cost: str) -> None:
    SEEN.clear()
    found = solved(study, 0.3, cost)
    assert not SEEN
    topology = TrialContext.of(image_task(model=Counting(trained_resnet()).eval())).topology
    assert found.channels == topology.widths
    assert list(found.allocation.widths) == list(topology.widths)
    real, dense = topology.cost(found.allocation.widths), topology.cost({})
    assert {axis: getattr(real, axis) / getattr(dense, axis) for axis in STRUCTURE_COSTS} == pytest.approx(
        dict(found.shares)
    )
    assert found.allocation.exact
    assert found.shares[cost] == pytest.approx(0.3, rel=0.01)
    assert found.cost == cost
    assert not found.notes


def test_the_cost_of_the_study_is_the_usual_one(study: Study) -> None:
    assert solved(study, 0.4) == solved(study, 0.4, "multiply_adds")


def test_a_budget_out_of_reach_gives_the_nearest_and_says_so(study: Study) -> None:
    found = solved(study, 0.0001)
    assert not found.allocation.exact
    assert found.allocation.share > 0.0001
    assert "this is the nearest" in " ".join(found.notes)


def test_what_can_not_be_asked(study: Study, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="--cost must be one of latency_ms, multiply_adds"):
        solved(study, 0.3, "speed")
    with pytest.raises(ConfigurationError, match="a budget must lie in"):
        solved(study, 3.0)
    with pytest.raises(ConfigurationError, match=r"latency_ms must have 8 different measured models, but got 0"):
        solved(study, 0.3, "latency_ms")
    stored = to_plain_object(study.folder.read_study())
    del stored["costs"], stored["version"]
    RunFolder(tmp_path).write_study(stored)
    with pytest.raises(NotFoundError, match=r"hold the costs of the model.*earlier version"):
        solve_stored(Run.open(tmp_path), study.settings, 0.3)


def test_tied_groups_and_no_scan(tmp_path: Path) -> None:
    found = solved(run(tmp_path / "tied", space=space(tie="stage", scan=False, max_ratio=0.9)), 0.4)
    assert len(set(found.allocation.widths.values())) <= 3
    assert any("no scan" in note for note in found.notes)
    shares = [width / found.channels[name] for name, width in found.allocation.widths.items()]
    assert max(shares) - min(shares) < 0.3


def test_a_device_profile_is_enough_for_a_budget_of_latency(tmp_path: Path) -> None:
    """No candidate but the dense model is there; widths are multiples of the grain that the profile says."""
    task = image_task(model=Counting(trained_resnet()).eval())
    begun = autoprune.Study.create(task, settings(trials=1, space=space(round_to="device", scan=False)), out=tmp_path)
    assert begun.context is not None
    topology = begun.context.topology
    clock = half_for_nothing(topology)
    profile = profile_of(topology, clock, grain=4)
    begun.folder.write_device_profile(profile)
    begun.run()
    timed = autoprune.Study.open(tmp_path)
    found = solved(timed, 0.75, "latency_ms")
    assert clock(found.allocation.widths, ()) == pytest.approx(0.75, rel=0.03)
    assert all(width % 4 == 0 or width == topology.widths[name] for name, width in found.allocation.widths.items())
    assert found.shares["latency_ms"] == pytest.approx(0.75, rel=0.02)
    # Below one grain the price of work alone is too low: what is told is what is predicted.
    narrow, fit = solved(timed, 0.55, "latency_ms"), latency_model_of(profile)
    assert min(narrow.allocation.widths.values()) < 4
    assert narrow.shares["latency_ms"] == pytest.approx(fit.ratio(narrow.allocation.widths) / fit.ratio({}))
    assert any("30 timed models" in note for note in found.notes)


def test_latency_and_what_the_trials_say(tmp_path: Path) -> None:
    """Candidates of many widths, none of them trained: enough to learn the clock from."""
    chosen = space(steps=0, recalibration=(50,), reconstruction=(0,))
    objectives = ("quality", "latency_ms")
    timed = run(
        tmp_path / "timed",
        11,
        space=chosen,
        latency_rounds=1,
        latency_backend="eager",
        objectives=objectives,
        sampler="random",
        polish=0.0,
    )
    found = solved(timed, 0.9, "latency_ms")
    assert found.shares["latency_ms"] == found.allocation.share
    assert set(found.shares) == {*STRUCTURE_COSTS, "latency_ms"}
    assert any("in the median" in note and "timed models" in note for note in found.notes)
