"""The chain that a study begins with: its order, its length, and what stands in for it."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch

import autoprune
from autoprune.errors import StudyConflictError
from autoprune.plan.widths import planned_widths
from autoprune.proof.discover import discover_structure
from autoprune.records.sensitivity import Sensitivity
from autoprune.search.settings import StudySettings
from autoprune.search.sources.warm_starts import WarmStart, warm_starts
from autoprune.search.space.space import Space, budgets, build_space
from autoprune.sensitivity.scan import KEEP_SHARES
from autoprune.structure.topology import Topology
from tests.settings import flat, space_of, study_of
from tests.tasks import flat_task
from tests.unit.study.small import journal_trials, settings
from tests.unit.study.small import space as small_space
from tests.zoo.convolutional import ResNet


@functools.cache
def topology() -> Topology:
    return discover_structure(ResNet(widths=(8, 12, 16), depth=1).eval(), torch.randn(2, 1, 8, 8))


def scanned() -> Sensitivity:
    losses = {name: tuple(0.1 * (place + 1) for place in range(len(KEEP_SHARES))) for name in topology().widths}
    return Sensitivity(keep_shares=KEEP_SHARES, added_loss=losses, criterion="l2", samples_forward=0, samples_trained=0)


def built(chosen: StudySettings) -> Space:
    return build_space(chosen, topology(), scanned() if chosen.scanned else None)


def listed(chosen: StudySettings, keys: tuple[str, ...] = (), planned: int = 0) -> list[WarmStart]:
    return warm_starts(built(chosen), chosen, topology(), (keys, planned or chosen.trials))


def costs(chosen: StudySettings, found: list[WarmStart]) -> list[float]:
    plans = [built(chosen).decode(one.parameters, seed=0) for one in found]
    return [topology().share(planned_widths(plan, topology())) for plan in plans]


def test_by_default_a_chain_of_solved_points_comes_first_and_no_sweep() -> None:
    found = listed(StudySettings())
    assert [one.origin for one in found] == ["dense"] + ["solved"] * 8
    assert len({one.key for one in found}) == 9
    shares = costs(StudySettings(), found)
    assert shares == sorted(shares, reverse=True), "from wide to narrow"
    asked = budgets(StudySettings(), topology(), 8)
    assert shares[1:] == pytest.approx(asked, abs=0.03)


@pytest.mark.parametrize("trials", [40, 100])
def test_the_readmes_settings_have_the_same_chain(trials: int) -> None:
    chosen = study_of(trials=trials, space=space_of(steps=100))
    assert listed(chosen) == listed(StudySettings())


@pytest.mark.parametrize("trials", [1, 2, 3, 6, 9, 10])
def test_a_study_of_few_trials_has_a_shorter_chain_over_the_same_range(trials: int) -> None:
    chosen = study_of(trials=trials)
    found = listed(chosen)
    points = min(trials - 1, 8)
    assert [one.origin for one in found] == ["dense"] + ["solved"] * points
    shares = costs(chosen, found)
    if points == 1:
        assert 0.03 < shares[1] < 0.3, "not all the way down in one step"
    elif points > 1:
        whole = costs(StudySettings(), listed(StudySettings()))
        assert (shares[1], shares[-1]) == (whole[1], whole[-1])


def test_a_uniform_sweep_follows_the_chain_where_it_is_asked_for() -> None:
    assert [one.origin for one in listed(study_of(uniform_points=3))] == ["dense"] + ["solved"] * 8 + ["uniform"] * 3
    few = listed(study_of(uniform_points=3, trials=11))
    assert [one.origin for one in few] == ["dense"] + ["solved"] * 8 + ["uniform"] * 2


@pytest.mark.parametrize(
    "space",
    [{"space": "direct"}, {"scan": False}, {"space": "reduced", "scan": False}],
    ids=["direct", "no scan", "reduced"],
)
def test_without_a_scan_the_chain_is_uniform(space: dict[str, object]) -> None:
    chosen = study_of(space=space_of(**space))  # type: ignore[arg-type]
    found = listed(chosen)
    assert [one.origin for one in found] == ["dense"] + ["uniform"] * 8
    shares = costs(chosen, found)
    assert shares == sorted(shares, reverse=True)
    assert len({*shares}) == 9
    # Asked for by name, it is as long as asked for, and there once.
    assert len(listed(study_of(space=chosen, uniform_points=3))) == 4


def test_of_masks_alone_the_chain_grows_sparse() -> None:
    chosen = study_of(space=space_of(kinds=("weights",), patterns=("unstructured",)))
    masked = topology().only(("weights",))
    space = build_space(chosen, masked, None)
    plans = [space.decode(one.parameters, seed=0) for one in warm_starts(space, chosen, masked, ((), 40))]
    shares = [plan.weights.target for plan in plans[1:] if plan.weights is not None]
    assert len(shares) == 8
    assert shares == sorted(shares)
    assert shares[0] < 0.35
    assert shares[-1] == 0.95


@pytest.mark.parametrize("amount", ["ranking", "threshold"])
def test_amounts_that_follow_from_scores_have_a_chain_too(amount: str) -> None:
    chosen = study_of(space=space_of(modes=(amount,)))
    space = built(chosen)
    ranked = [space.decode(one.parameters, seed=0).ranking for one in listed(chosen)[1:]]
    said = [one.threshold if amount == "threshold" else -(one.budget or 0.0) for one in ranked if one is not None]
    assert len({*said}) == 8
    assert said == sorted(said), "each keeps less than the one before"  # type: ignore[type-var]


def test_a_chain_that_was_begun_keeps_its_length() -> None:
    """Trials of a later run do not make another chain, and those of an earlier one are not asked for again."""
    few = listed(study_of(trials=4))
    more = listed(study_of(trials=40), tuple(one.key for one in few), planned=40)
    assert more == few
    # A first run of fewer trials than planned does the first of them.
    assert listed(study_of(trials=4), (), planned=40) == listed(study_of(trials=40))[:4]


def test_a_study_from_before_has_the_warm_starts_that_it_had() -> None:
    """Its keys say no number of points: it has as many as its settings say."""
    chosen = study_of(uniform_points=4, solved_points=3)
    keys = ("dense", "uniform 0", "uniform 1", "uniform 2", "uniform 3", "solved 0", "solved 20 0")
    names = [one.key for one in listed(chosen, keys)]
    assert names == ["dense", "solved 0", "solved 1", "solved 2", *keys[1:5]]


def test_the_chain_of_a_study_is_one_line_and_none_of_it_is_stopped(tmp_path: Path) -> None:
    chosen = settings(trials=6, solved_points=4, uniform_points=0, space=small_space(criteria=("l2",)))
    study = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run")
    study.run()
    chain = study.records[:5]
    assert [record.origin for record in chain] == ["dense"] + ["solved"] * 4
    assert [record.parent for record in chain] == [None, 0, 1, 2, 3]
    assert not any(record.stopped for record in chain)
    keys = [trial.user_attrs.get("warm_start") for trial in journal_trials(tmp_path / "run")]
    assert keys == ["dense", *(f"solved {number} of 4" for number in range(4)), None]
    study.run(trials=7)
    assert [record.origin for record in study.records[5:]] == ["sampled"] * 2


OLD = {
    "min_budget": 0.05,
    "scan_samples": None,
    "steps": 40,
    "learning_rate": [0.01, 0.1],
    "optimizers": ["sgd"],
    "distillation": [0.5],
}


def test_a_folder_with_the_old_defaults_keeps_them(tmp_path: Path) -> None:
    out, task = tmp_path / "run", flat_task()
    now = study_of(trials=2, latency_rounds=0, objectives=("quality", "multiply_adds"))
    autoprune.Study.create(task, now, out=out)
    path = out / "study.json"
    stored = json.loads(path.read_text())
    stored["settings"] = flat(stored["settings"]) | {"uniform_points": 8, "solved_points": 3}
    stored["settings"]["space"] |= OLD
    # Of the time before there were these; none of them was done then.
    for name in ("length_exponent", "averaging", "reconstruction", "schedulers"):
        del stored["settings"]["space"][name]
    path.write_text(json.dumps(stored))
    kept = autoprune.Study.open(out, task).settings
    assert (kept.search.uniform_points, kept.search.solved_points) == (8, 3)
    assert (kept.recovery.steps, kept.recovery.learning_rate, kept.recovery.optimizers) == (40, (0.01, 0.1), ("sgd",))
    assert (kept.recovery.length_exponent, kept.recovery.averaging, kept.recovery.reconstruction) == (0.0, (0.0,), (0,))
    assert kept.recovery.schedulers == ("one_cycle",)
    with pytest.raises(StudyConflictError) as caught:
        autoprune.Study.create(task, now, out=out)
    message = str(caught.value)
    assert "recovery.averaging" in message
    assert "--set search.solved_points=3, --set search.uniform_points=8" in message
    autoprune.Study.create(task, kept, out=out)  # given what it has, it goes on
