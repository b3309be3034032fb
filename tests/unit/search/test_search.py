"""The whole search policy on numbers alone: proposals, outcomes, failures, workers, and processes that die."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from autoprune.errors import AutopruneError
from autoprune.plan.allocation import GroupPlan
from autoprune.plan.plan import PruningPlan
from autoprune.records.origins import Origin
from autoprune.records.problem import Problem
from autoprune.search.interrupted import settle_interrupted
from autoprune.search.ledger import Ledger
from autoprune.search.proposal import Failure, Proposal, Result
from autoprune.search.search import ResolveError, Search
from autoprune.search.state import Model
from tests.settings import space_of
from tests.slow import slow
from tests.unit.search import synthetic
from tests.unit.search.synthetic import PROBLEM, asked, model, run, run_trial, settings


def ledger() -> Ledger:
    return Ledger.of(InMemoryStorage(), PROBLEM)


def told(proposal: Proposal) -> tuple[object, ...]:
    return proposal.number, proposal.origin, proposal.plan.asked, proposal.start_from, proposal.rungs


@pytest.mark.parametrize(("sampler", "count"), [("tpe", 90), ("evolution", 90), slow("tpe", 300)])
def test_many_proposals_with_eight_out_noise_and_failures(sampler: str, count: int) -> None:
    search = Search(model(), settings(sampler=sampler, trials=count))
    asked = run(search, count, out=8, failing=0.1)
    assert len({proposal.number for proposal in asked}) == len(asked) == count
    states = Counter(trial.state for trial in search.state.ledger.trials())
    assert states[TrialState.RUNNING] == 0
    failed = sum(isinstance(run_trial(search, proposal, 0.1), Failure) for proposal in asked)
    assert 0.05 < failed / count < 0.15
    assert len(search.records) == count - failed
    assert not search.pending
    origins = Counter(proposal.origin for proposal in asked)
    assert origins[Origin.DENSE] == 1
    assert origins[Origin.SOLVED] >= 4
    assert origins[Origin.SAMPLED] > 0.25 * count
    assert origins[Origin.POLISHED] > 0.1 * count
    assert any(record.stopped for record in search.records)
    known = {record.number: record for record in search.records}
    for record in search.records:
        if record.parent is not None:
            parent = known[record.parent]
            assert not parent.stopped
            assert all(parent.widths[name] >= width for name, width in record.widths.items())
    # It has found more than the warm starts: at a quarter of the cost, less harm than the uniform ratio does.
    dense = search.dense
    assert dense is not None
    quarter = [r for r in search.front().members if r.search.multiply_adds <= 0.25 * dense.search.multiply_adds]
    uniform = synthetic.measured(PruningPlan(), {str(n): width // 2 for n, width in enumerate(synthetic.WIDTHS)}, 0)
    assert max(record.search.quality for record in quarter) > uniform.quality


@pytest.mark.parametrize("count", [24, slow(60)])
@pytest.mark.parametrize("sampler", ["tpe", "evolution", "qmc", "random"])
def test_killed_after_every_ask_and_every_tell_it_proposes_the_same(sampler: str, count: int) -> None:
    chosen = settings(sampler=sampler, trials=count)
    unbroken = run(Search(model(), chosen), count, failing=0.1)
    trials, records = ledger(), []
    found = []
    while len(found) < count:
        for _ in range(2):  # the process dies after the first ask, and after the tell below
            assert not settle_interrupted(trials, records, PROBLEM)
            search = Search(model(), chosen, ledger=trials, records=records)
            proposal = asked(search)
        search.tell(proposal, run_trial(search, proposal, 0.1))
        found.append(proposal)
    assert [told(proposal) for proposal in found] == [told(proposal) for proposal in unbroken]


def test_a_result_that_was_stored_and_not_told_is_told() -> None:
    chosen, trials, records = settings(trials=9), ledger(), []
    search = Search(model(), chosen, ledger=trials, records=records)
    run(search, 3)
    proposal = asked(search)

    class KilledError(Exception):
        """The process is gone."""

    stored = list(records)

    def dying(record: object) -> None:
        stored.append(record)
        raise KilledError

    with pytest.raises(KilledError):
        search.tell(proposal, run_trial(search, proposal), dying)
    assert settle_interrupted(trials, stored, PROBLEM) == []
    assert trials.trials()[proposal.number].state == TrialState.COMPLETE
    again = Search(model(), chosen, ledger=trials, records=stored).ask()
    assert again is not None
    assert again.number == proposal.number + 1


def test_what_another_worker_runs_is_left_alone() -> None:
    chosen, trials, records = settings(), ledger(), []
    search = Search(model(), chosen, ledger=trials, records=records)
    run(search, 5)
    out = [search.ask() for _ in range(3)]
    numbers = [proposal.number for proposal in out if proposal is not None]
    settle_interrupted(trials, records, PROBLEM, alive=numbers[:2])
    states = [trials.trials()[number].state for number in numbers]
    assert states == [TrialState.RUNNING, TrialState.RUNNING, TrialState.WAITING]


def test_nothing_is_proposed_before_the_dense_model_is_measured() -> None:
    search = Search(model(), settings())
    first = asked(search)
    assert first.origin is Origin.DENSE
    assert search.ask() is None
    assert Search(model(), settings(), ledger=search.state.ledger).ask() is None, "not in another process either"
    search.tell(first, Failure("no memory"))
    again = asked(search)
    assert again.number == first.number, "it is tried again"
    search.tell(again, run_trial(search, again))
    assert search.ask() is not None


def test_what_is_out_is_not_proposed_twice() -> None:
    search = Search(model(), settings(solved_points=0, trials=50))
    run(search, 1)
    plan = PruningPlan(groups={"2": GroupPlan(ratio=0.5)})
    for _ in range(2):
        search.enqueue(plan)
    first, second = search.ask(), search.ask()
    assert first is not None
    assert second is not None
    assert first.plan.asked == plan
    assert second.plan.asked != plan
    (repeated,) = [t for t in search.state.ledger.trials() if "duplicate_of" in t.user_attrs]
    assert repeated.user_attrs["duplicate_of"] == first.number


def test_a_plan_that_cannot_be_resolved_is_one_failure() -> None:
    def resolve(plan: PruningPlan) -> object:
        if plan.groups.get("2") == GroupPlan(ratio=0.5):
            raise ValueError("the loss is broken")
        return plain.resolved(plan)

    plain = model()
    broken = Model(
        topology=plain.topology,
        problem=PROBLEM,
        sensitivity=plain.sensitivity,
        resolve=resolve,  # type: ignore[arg-type]
    )
    search = Search(broken, settings())
    run(search, 1)
    for _ in range(4):
        search.ask()
    search.enqueue(PruningPlan(groups={"2": GroupPlan(ratio=0.5)}))
    with pytest.raises(ResolveError, match="the loss is broken") as error:
        search.ask()
    search.fail(error.value.number, str(error.value))
    assert search.state.ledger.trials()[error.value.number].state == TrialState.FAIL
    assert search.ask() is not None


def test_a_space_that_is_used_up_is_said_to_be() -> None:
    protected = model().topology.protected([str(number) for number in range(5)])
    small = Model(topology=protected, problem=PROBLEM)
    small_space = space_of(kinds=("channels",), criteria=("l2",), steps=0, scan=False, distillation=(0.0,))
    chosen = settings(space=small_space)
    search = Search(small, chosen)
    asked = run(search, 300)
    assert search.exhausted
    assert search.ask() is None
    assert len(asked) < 60
    widths = {record.widths["5"] for record in search.records}
    assert len(widths) >= 6, "most of the eight widths were tried"
    search.state.ledger.forgive_exhaustion()
    assert not search.exhausted, "another sampler may go on"


def test_rungs_are_passed_by_what_may_learn_from_them_and_only_proposals_of_the_sampler_are_stopped() -> None:
    always = settings(early_stopping="pareto_rank", trials=80)
    search = Search(model(), always)
    asked = run(search, 60)
    for proposal in asked:
        expected = () if proposal.origin in (Origin.DENSE, Origin.POLISHED) else always.search.rungs
        assert proposal.rungs == expected, proposal.origin
    by_number = {proposal.number: proposal for proposal in asked}
    stopped = {by_number[record.number].origin for record in search.records if record.stopped}
    assert stopped == {Origin.SAMPLED}
    for origin in Origin:
        other = next((proposal for proposal in asked if proposal.origin is origin), None)
        if other is not None and origin is not Origin.SAMPLED:
            assert not search.should_stop(other, 0.5, -9.0)
    assert run(Search(model(), settings(early_stopping="none")), 6)[-1].rungs == ()
    assert run(Search(model(), settings(trials=3)), 3)[-1].rungs == (), "all are warm starts"


def test_nothing_is_stopped_that_may_be_good_at_a_further_metric() -> None:
    rows = ("quality", "recall", "multiply_adds")
    problem = Problem(objectives=rows, metric="accuracy", higher_is_better=True, metrics={"recall": True})
    further = replace(model(), problem=problem)
    for rule, rungs in (("front", ()), ("audit", settings().search.rungs)):
        search = Search(further, settings(early_stopping=rule, objectives=rows))
        first = asked(search)
        known = run_trial(search, first)
        assert isinstance(known, Result)
        search.tell(first, replace(known, measurement=replace(known.measurement, metrics={"recall": 0.5})))
        following = asked(search)
        assert following.rungs == rungs


def test_a_dense_model_that_kills_its_process_stops_the_run() -> None:
    chosen, trials = settings(), ledger()
    for _ in range(3):
        settle_interrupted(trials, [], PROBLEM)
        Search(model(), chosen, ledger=trials).ask()
    with pytest.raises(AutopruneError, match="dense model's own trial failed 3 times"):
        settle_interrupted(trials, [], PROBLEM)
