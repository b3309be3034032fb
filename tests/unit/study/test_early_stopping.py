"""Early stopping: the rules by hand, and what a study does with a candidate that was stopped."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch
from optuna.trial import TrialState

import autoprune
from autoprune.measure.quality import evaluate
from autoprune.plan.plan import PruningPlan
from autoprune.plan.resolved import ResolvedPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.run_folder import RunFolder
from autoprune.search import early_stopping, lineage
from autoprune.search.early_stopping import FinishedTrial, RungContext, StoppingRule, front, pareto_rank, should_stop
from autoprune.search.ledger import STOPPED
from autoprune.study import rungs
from autoprune.task.data import IterableSplit
from tests.slow import slow
from tests.tasks import blobs, flat_task, image_task
from tests.unit.front.builders import dense, front_of, latency, measurement, problem_of, record
from tests.unit.study.small import comparable, journal_trials, quality_by_size, settings, space

# ---- the rules by hand


def past(gains: list[float], cost: float = 1.0) -> list[FinishedTrial]:
    """Each at 0.5 at the rung and better by a gain in the end."""
    return [FinishedTrial(rungs={0.5: -0.5}, loss=-0.5 - gain, costs=(cost,)) for gain in gains]


def at(quality: float, before: list[FinishedTrial], cost: float = 1.0) -> RungContext:
    return RungContext(share=0.5, loss=-quality, costs=(cost,), past=before)


def alike(gain: float, count: int = 12) -> list[FinishedTrial]:
    """At all qualities and costs the same gain: the end is foretold exactly."""
    return [
        FinishedTrial(rungs={0.5: -0.25 - step / 40}, loss=-0.25 - step / 40 - gain, costs=(1.0 + step % 5,))
        for step in range(count)
    ]


def test_front_foretells_the_end() -> None:
    """The best ends at 0.525 + 0.125 = 0.65, at a cost of 2; what is hoped for at 0.5 is 0.625."""
    before = alike(0.125)
    assert max(-p.loss for p in before) == pytest.approx(0.65)
    assert front(at(0.5, before, cost=5.0))
    assert not front(at(0.55, before, cost=5.0))
    # Cheaper than the best one: 0.5 at a cost of 1 ends above the best that costs no more, 0.25 + 10 / 40 + 0.125.
    assert front(at(0.475, before))
    assert not front(at(0.53, before))


def test_front_hopes_for_more_the_less_it_can_foretell() -> None:
    """The same gains in the mean, and once all over the place."""
    steady = past([0.125] * 20)
    wild = past([0.0, 0.25] * 10)
    best = FinishedTrial(rungs={0.5: -0.75}, loss=-0.875, costs=(1.0,))
    assert front(at(0.5625, [*steady, best]))
    assert not front(at(0.8125, [*wild, best]))
    assert front(at(0.5625, [*wild, *[best] * 2])), "0.25 better than what is there would still not do"


def test_front_knows_that_the_small_gain_more() -> None:
    """What costs 1 gains 0.25, what costs 100 nothing: 0.25 behind is hopeless for one of them."""
    small = [FinishedTrial(rungs={0.5: -0.4 - n / 100}, loss=-0.65 - n / 100, costs=(1.0,)) for n in range(8)]
    large = [FinishedTrial(rungs={0.5: -0.6 - n / 100}, loss=-0.6 - n / 100, costs=(100.0,)) for n in range(8)]
    for before in ([*small, *large], [*large, *small]):
        assert not front(at(0.5, before, cost=1.0))
        assert front(at(0.5, before, cost=100.0))


def test_front_looks_at_candidates_that_cost_no_more_on_every_axis() -> None:
    cheap = [FinishedTrial(rungs={0.5: -0.5}, loss=-0.5625, costs=(1.0, 4.0)) for _ in range(8)]
    for costs, expected in (((1.0, 4.0), True), ((2.0, 4.0), True), ((0.5, 9.0), False), ((9.0, 3.0), False)):
        assert front(RungContext(share=0.5, loss=-0.25, costs=costs, past=cheap)) == expected, costs


def test_front_learns_nothing_from_what_was_stopped() -> None:
    stopped = [FinishedTrial(rungs={0.5: -0.5}, loss=-0.5, costs=(1.0,), stopped=True)] * 20
    assert not front(at(0.0, stopped))
    assert not front(at(0.0, [*stopped, *past([0.0] * 7)]))
    assert front(at(0.0, [*stopped, *past([0.0] * 8)]))


def test_pareto_rank_stops_in_the_worse_half_of_the_layers() -> None:
    """Eight at one cost, from 0.1 to 0.8 at the rung: eight layers."""
    before = [FinishedTrial(rungs={0.5: -step / 10}, loss=0.0, costs=(1.0,)) for step in range(1, 9)]
    assert not pareto_rank(at(0.55, before))
    assert pareto_rank(at(0.35, before))
    # A cheaper one is in the first layer, however bad.
    assert not pareto_rank(at(0.0, before, cost=0.5))


def test_pareto_rank_compares_with_what_was_stopped_too() -> None:
    stopped = [FinishedTrial(rungs={0.5: -step / 10}, loss=0.0, costs=(1.0,), stopped=True) for step in range(1, 9)]
    assert pareto_rank(at(0.05, stopped))


# ---- what a rule is told


def proposed(multiply_adds: int, ratio: float) -> CandidateRecord:
    costs = measurement(float("nan"), multiply_adds, took=latency(ratio))
    return CandidateRecord.proposed(costs, {"q": (0,)})


def test_a_rule_sees_the_costs_that_the_front_compares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency rounded to the noise, and of equal widths the median of all that were measured."""
    records = [
        dense(took=latency(1.0)),
        record(1, measurement(0.8, 500, took=latency(0.51))),
        record(2, measurement(0.7, 400, took=latency(0.33)), kept={"q": (4,)}),
    ]
    told: list[RungContext] = []
    monkeypatch.setattr(early_stopping, "RULES", {"watch": lambda now: told.append(now) or True})
    problem = problem_of(("quality", "multiply_adds", "latency_ms"))
    assert should_stop("watch", (0.25, 0.5), proposed(500, 0.495), records, problem)
    assert told[-1].costs == told[-1].past[1].costs, "the clock cannot tell them apart"
    assert (told[-1].share, told[-1].loss) == (0.25, -0.5)
    # The very widths of candidate 2: one network, one latency. 400 and 40 are what `measurement` gives it.
    should_stop("watch", (0.25, 0.5), proposed(400, 0.43), records, problem)
    assert told[-1].costs[1] == told[-1].past[2].costs[1] == pytest.approx(0.38)
    other = problem_of(("size_bytes", "quality"), higher_is_better=False)
    should_stop("watch", (0.25, 0.5), proposed(400, 0.43), records, other)
    assert told[-1].costs == (1600.0,)
    assert told[-1].loss == 0.5


def test_the_part_of_the_search_split_is_the_same_each_time() -> None:
    images, targets = blobs(300)
    order = targets.argsort()
    sorted_by_class = image_task(search=(images[order], targets[order]))
    part = rungs.rung_split(sorted_by_class, 100)
    again = rungs.rung_split(sorted_by_class, 100)
    assert part.samples == again.samples == 100
    seen = [torch.cat([batch.targets for batch in split.ordered()]) for split in (part, again)]  # type: ignore[misc]
    assert torch.equal(*seen)
    assert len(seen[0].unique()) == 4, "not the first ones, which are of one class or two"


@pytest.mark.parametrize("samples", [90, 91, 1000])
def test_all_of_a_search_split_that_has_no_more(samples: int) -> None:
    task = flat_task()
    assert task.search_split.samples == 90
    assert rungs.rung_split(task, samples) is task.search_split


def test_the_part_of_a_list_of_batches() -> None:
    batches = [(blobs(30, seed=seed)[0], blobs(30, seed=seed)[1]) for seed in range(5)]
    part = rungs.rung_split(image_task(search=batches), 70)
    assert isinstance(part, IterableSplit)
    assert [batch.size for batch in part.ordered()] == [30, 30, 10]


# ---- in a study


@functools.cache
def task() -> autoprune.PreparedTask:
    return flat_task()


def odd_ones(now: RungContext) -> bool:
    """Stops every other one of what is looked at at the second rung, whatever the numbers."""
    return now.share == 0.25 and len(now.past) % 2 == 1


def with_rule(rule: StoppingRule, patch: pytest.MonkeyPatch) -> None:
    """Under the name "front", since only names of the registry get past the settings."""
    patch.setattr(early_stopping, "RULES", {**early_stopping.RULES, "front": rule})


def searched(**changes: object) -> autoprune.StudySettings:
    """Fourteen trials: five warm starts, and nine of which two are polished."""
    steps = space(steps=4, criteria=("l2",))
    usual = {"trials": 14, "polish": 0.25, "sampler": "random", "rungs": (0.0, 0.25, 0.5), "space": steps}
    return settings(**{**usual, **changes})


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> autoprune.Study:
    """Everything that may be stopped is, at the second rung."""
    found = autoprune.Study.create(task(), searched(), out=tmp_path_factory.mktemp("stopping") / "run")
    with pytest.MonkeyPatch.context() as patch:
        with_rule(odd_ones, patch)
        found.run()
    return found


def stopped(study: autoprune.Study) -> list[CandidateRecord]:
    return [record for record in study.records if record.stopped]


def test_some_are_stopped_and_count_as_trials(study: autoprune.Study) -> None:
    assert len(study.records) == 14
    found = stopped(study)
    assert 2 <= len(found) <= 7
    assert {record.origin for record in found} == {"sampled"}
    for candidate in found:
        assert candidate.fidelity == 0.25
        assert candidate.samples_trained == 50, "one step of four"
        assert [share for share, _ in candidate.rungs] == [0.0, 0.25]
    for candidate in study.records:
        if candidate.origin in ("uniform", "solved", "sampled") and not candidate.stopped:
            assert [share for share, _ in candidate.rungs] == [0.0, 0.25, 0.5]
        if candidate.origin in ("dense", "polished"):
            assert candidate.rungs == ()
            assert candidate.fidelity == 1.0


def test_they_are_no_member_no_parent_and_not_polished(study: autoprune.Study) -> None:
    numbers = {record.number for record in stopped(study)}
    assert not numbers & {record.number for record in study.front().members}
    assert not numbers & {record.parent for record in study.records}
    polished = [trial.user_attrs["of"] for trial in journal_trials(study.folder.path) if "of" in trial.user_attrs]
    assert polished
    assert not numbers & set(polished)


def test_optuna_learns_of_them(study: autoprune.Study) -> None:
    found = {trial.number: trial for trial in journal_trials(study.folder.path)}
    for candidate in study.records:
        trial = found[candidate.number]
        assert trial.state == TrialState.COMPLETE
        assert trial.values == [candidate.search.quality, candidate.search.multiply_adds]
        assert trial.constraints == ({STOPPED: 0.75} if candidate.stopped else {})
        assert trial.user_attrs.get("fidelity") == (0.25 if candidate.stopped else None)


def test_they_are_measured_on_the_whole_search_split(study: autoprune.Study, tmp_path: Path) -> None:
    """By the record of one whose weights are kept, rebuilt."""
    chosen = searched(collect_garbage=False, trials=9, polish=0.0, rung_samples=20)
    kept = autoprune.Study.create(task(), chosen, out=tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        with_rule(odd_ones, patch)
        kept.run()
    assert stopped(kept)
    for candidate in stopped(kept):
        again = evaluate(task(), kept.rebuild(candidate.number), task().search_split)
        assert again.value == candidate.search.quality
        assert again.samples == 90


def test_none_and_no_rungs_look_at_nothing_and_cost_nothing(tmp_path: Path) -> None:
    plain = autoprune.Study.create(task(), settings(trials=6, early_stopping="none"), out=tmp_path / "none")
    plain.run()
    bare = autoprune.Study.create(task(), settings(trials=6, rungs=()), out=tmp_path / "bare")
    bare.run()
    looked = autoprune.Study.create(task(), settings(trials=6, early_stopping="audit"), out=tmp_path / "audit")
    looked.run()
    assert all(record.rungs == () for record in (*plain.records, *bare.records))
    assert comparable(plain.records) == comparable(bare.records)
    # "audit" is the same study, but for what it looked at.
    spent = sum(len(record.rungs) for record in looked.records)
    assert spent == 5 * 2, "all but dense, at two rungs"
    assert looked.samples().forward == plain.samples().forward + 90 * spent
    for one, other in zip(looked.records, plain.records, strict=True):
        assert one.search == other.search
        assert one.samples_trained == other.samples_trained


def test_a_duplicate_of_a_stopped_one_is_answered_and_marked(tmp_path: Path) -> None:
    """One group of eight channels: its widths soon come again."""
    only = space(protect=("stem*", "blocks.1*"), steps=4, scan=False, criteria=("l2",), learning_rate=0.05)
    chosen = searched(space=only, uniform_points=0, solved_points=0, trials=6, polish=0.0)
    again = autoprune.Study.create(image_task(), chosen, out=tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        with_rule(lambda now: now.share == 0.25, patch)
        again.run()
    by_number = {record.number: record for record in again.records}
    answered = [t for t in journal_trials(again.folder.path) if "duplicate_of" in t.user_attrs]
    marked = [t for t in answered if by_number[t.user_attrs["duplicate_of"]].stopped]
    assert marked
    for trial in answered:
        twin = by_number[trial.user_attrs["duplicate_of"]]
        assert trial.constraints == ({STOPPED: 0.75} if twin.stopped else {})
    # The user's own plan is trained all the same.
    of = next(record for record in again.records if record.stopped)
    again.enqueue(of.plan)
    again.run(trials=len(again.records) + 1)
    assert (again.records[-1].origin, again.records[-1].stopped) == ("enqueued", False)
    assert again.records[-1].widths == of.widths


@pytest.mark.parametrize("stop", [slow(6), 9])
def test_stopped_and_resumed_is_the_same_study(stop: int, study: autoprune.Study, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        with_rule(odd_ones, patch)
        autoprune.Study.create(task(), searched(), out=tmp_path / "run").run(trials=stop)
        resumed = autoprune.Study.open(tmp_path / "run", task())
        resumed.run(trials=14)
    found, expected = comparable(resumed.records), comparable(study.records)
    for row in (*found, *expected):
        del row["test"]
    assert found == expected


class Killed(KeyboardInterrupt):
    """Stands for a kill, which no trial survives."""


def test_killed_between_storing_and_telling_it_is_marked_on_resume(study: autoprune.Study, tmp_path: Path) -> None:
    number = stopped(study)[0].number
    write = RunFolder.write_candidate

    def dying(folder: RunFolder, record: CandidateRecord, weights: bytes) -> None:
        write(folder, record, weights)
        if record.number == number:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        with_rule(odd_ones, patch)
        patch.setattr(RunFolder, "write_candidate", dying)
        with pytest.raises(Killed):
            autoprune.Study.create(task(), searched(), out=tmp_path / "run").run()
    with pytest.MonkeyPatch.context() as patch:
        with_rule(odd_ones, patch)
        resumed = autoprune.Study.open(tmp_path / "run", task())
        assert resumed.records[-1].number == number
        resumed.run()
    found = journal_trials(tmp_path / "run")
    assert found[number].constraints == {STOPPED: 0.75}
    assert found[number].state == TrialState.COMPLETE
    assert [t.constraints for t in found] == [t.constraints for t in journal_trials(study.folder.path)]


def test_no_lineage_through_a_stopped_one() -> None:
    whole = record(1, measurement(0.8, 500), kept={"a": (0, 1, 2)})
    half = CandidateRecord.from_json(json.dumps({**json.loads(whole.to_json()), "number": 2, "fidelity": 0.5}))
    assert half.stopped
    plan = ResolvedPlan(asked=PruningPlan(), plan=PruningPlan(), widths={"a": 2}, gone=frozenset())
    chosen = lineage.choose_parent([whole, half], plan)
    assert chosen is not None
    assert chosen.number == 1


def test_a_stopped_one_is_neither_on_the_front_nor_chosen() -> None:
    good = record(2, measurement(0.99, 10))
    half = CandidateRecord.from_json(json.dumps({**json.loads(good.to_json()), "fidelity": 0.5}))
    found = front_of([dense(), half, record(1, measurement(0.8, 500))])
    assert [r.number for r in found.members] == [0, 1]
    assert len(found.records) == 3
    assert found.choose(autoprune.Limits(max_size_bytes=3000)).number == 1
    assert found.hypervolume() == front_of([dense(), record(1, measurement(0.8, 500))]).hypervolume()
    assert found.get(2).stopped, "it can still be looked at by its number"


@pytest.mark.slow
def test_the_rule_front_stops_what_a_study_can_do_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """End to end with the real rule, where each end is 0.01 above its rungs: it foretells all of them."""
    quality_by_size(monkeypatch)
    found = autoprune.Study.create(task(), searched(trials=30, polish=0.0), out=tmp_path / "run")
    found.run()
    assert stopped(found)
    for place, one in enumerate(found.records):
        complete = [r for r in found.records[:place] if not r.stopped and r.rungs]
        cheaper = [r.search.quality for r in complete if r.search.multiply_adds <= one.search.multiply_adds]
        ahead = max(cheaper, default=0.0) - one.search.quality
        if one.stopped:
            assert ahead > -0.02, "what was not stopped dominates it"
        if one.origin == "sampled" and len(complete) >= early_stopping.MIN_TRIALS_FOR_STOPPING and ahead > 0.02:
            assert one.stopped
