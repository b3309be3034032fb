"""Plans that run out of memory, from which the sampler learns, and proposals whose worker died."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from autoprune.front.run import Run
from autoprune.records.origins import Origin
from autoprune.records.problem import Problem
from autoprune.search.attempts import MAX_ATTEMPTS
from autoprune.search.backend import SearchBackend
from autoprune.search.doctor import examine
from autoprune.search.interrupted import settle_interrupted
from autoprune.search.ledger import OUT_OF_MEMORY
from autoprune.search.optuna_export import export_to_optuna
from autoprune.search.search import Search
from autoprune.search.state import Model
from tests.slow import slow
from tests.unit.search import synthetic
from tests.unit.search.synthetic import PROBLEM, asked, model, run, run_trial, settings
from tests.unit.search.test_backend import finish, quality, structure
from tests.unit.search.test_backend import settings as backend_settings


def test_a_plan_without_memory_is_told_its_costs_the_worst_quality_and_a_violated_constraint() -> None:
    search = Search(model(), settings())
    run(search, 8)
    records, front = list(search.records), search.front()
    proposal = asked(search)
    search.fail(proposal.number, "CUDA out of memory", infeasible=True)
    trial = search.state.ledger.trials()[proposal.number]
    costs = search.state.model.expected_costs(proposal.plan)
    assert trial.state is TrialState.COMPLETE
    assert trial.values == [min(record.search.quality for record in records), costs.multiply_adds]
    assert trial.constraints == {OUT_OF_MEMORY: 1.0}
    assert trial.user_attrs["error"] == "CUDA out of memory"
    assert list(search.records) == records
    assert search.front().members == front.members
    assert not search.pending
    assert settle_interrupted(search.state.ledger, records, PROBLEM) == []
    assert asked(search).number == proposal.number + 1


@pytest.mark.parametrize("sampler", ["tpe", slow("evolution")])
def test_the_sampler_proposes_fewer_plans_without_memory(sampler: str) -> None:
    def proposed(infeasible: bool, seed: int) -> int:
        chosen = settings(sampler=sampler, trials=100, polish=0.0, early_stopping="none", seed=seed)
        search, without = Search(model(), chosen), 0
        for number in range(100):
            proposal = asked(search)
            large = search.state.model.topology.share(proposal.plan.widths) > 0.3
            if proposal.origin is Origin.SAMPLED and large:
                without += number >= 40
                search.fail(proposal.number, "out of memory", infeasible=infeasible)
            else:
                search.tell(proposal, run_trial(search, proposal))
        return without

    seeds = (1, 2)  # how many a single study proposes is much luck
    assert sum(proposed(True, seed) for seed in seeds) < 0.6 * sum(proposed(False, seed) for seed in seeds)


@pytest.mark.parametrize("sampler", ["nsga2", "nsga3"])
def test_generations_descend_from_no_plan_without_memory(sampler: str) -> None:
    """The cheapest plans have none: by their costs alone they would be on every front."""
    search = Search(model(), settings(sampler=sampler, trials=70, polish=0.0, solved_points=0, early_stopping="none"))
    for _ in range(70):
        proposal = asked(search)
        cheap = search.state.model.topology.share(proposal.plan.widths) < 0.4
        if proposal.origin is Origin.SAMPLED and cheap:
            search.fail(proposal.number, "out of memory", infeasible=True)
        else:
            search.tell(proposal, run_trial(search, proposal))
    ledger = search.state.ledger
    without = {trial._trial_id for trial in ledger.trials() if OUT_OF_MEMORY in trial.constraints}
    attributes = ledger.storage.get_study_system_attrs(ledger.study._study_id)
    generations = [set(parents) for key, parents in attributes.items() if ":parent:" in key]
    assert len(without) > 5
    assert len(generations) > 3
    assert not any(parents & without for parents in generations[-2:])


def test_nothing_is_made_up_for_the_dense_model_or_where_a_cost_is_unknown() -> None:
    search = Search(model(), settings())
    dense = asked(search)
    search.fail(dense.number, "out of memory", infeasible=True)
    again = asked(search)
    assert again.number == dense.number, "the dense model is tried again"
    search.tell(again, run_trial(search, again))
    problem = Problem(objectives=("quality", "peak_memory_bytes"), metric="accuracy", higher_is_better=True)
    unknown = Search(
        Model(topology=synthetic.topology(), problem=problem), settings(objectives=problem.objectives, solved_points=0)
    )
    first = asked(unknown)
    with pytest.warns(UserWarning, match="nan"):  # its peak memory was not measured
        unknown.tell(first, run_trial(unknown, first))
    proposal = asked(unknown)
    unknown.fail(proposal.number, "out of memory", infeasible=True)
    assert unknown.state.ledger.trials()[proposal.number].state is TrialState.FAIL


def test_a_folder_with_a_plan_without_memory_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with SearchBackend(structure(), backend_settings(), out) as backend:
        finish(backend, most=6)
        failed = backend.ask()
        assert failed is not None
    with SearchBackend(structure(), backend_settings(), out) as backend:  # told in a later process
        backend.tell_failed(failed, "Traceback:\nOutOfMemoryError: 3 GiB", infeasible=True)
        (told,) = (t for t in backend._search.state.ledger.trials() if OUT_OF_MEMORY in t.constraints)
        assert (told.number, told.state) == (failed.number, TrialState.COMPLETE)
        assert told.user_attrs["error"] == "OutOfMemoryError: 3 GiB"
    assert examine(out) == []
    with SearchBackend(structure(), backend_settings(), out) as backend:
        finish(backend, most=2)
        assert failed.number not in [record.number for record in backend.run.records]
        assert len(backend.run.records) == 8
    assert not [*out.glob("journal.broken*")], "its journal is right"
    export_to_optuna(Run.open(out), str(tmp_path / "copy.log"))
    copied = JournalStorage(JournalFileBackend(str(tmp_path / "copy.log")))
    trial = copied.get_all_trials(copied.get_study_id_from_name("run"))[failed.number]
    assert (trial.state, trial.user_attrs["error"]) == (TrialState.FAIL, "OutOfMemoryError: 3 GiB")
    (out / "journal.log").unlink()  # made anew from the candidates, without what this one told
    with SearchBackend(structure(), backend_settings(), out) as backend:
        again = backend.ask()
        assert again is not None
        assert again.number > max(failed.number, *(record.number for record in backend.run.records))
        backend.tell(again, quality=quality(again))


def test_a_proposal_whose_worker_dies_is_tried_as_often_as_one_whose_process_dies() -> None:
    search = Search(model(), settings())
    run(search, 3)
    first, second = asked(search), asked(search)
    tried = 1
    while search.retry(first.number):
        tried += 1
    assert tried == MAX_ATTEMPTS
    assert not search.retry(first.number)
    assert [proposal.number for proposal in search.pending] == [first.number, second.number]
    assert search.retry(second.number), "each has its own attempts"
    search.fail(first.number, "its worker died each time")
    search.tell(second, run_trial(search, second))
    assert not search.pending


def test_attempts_that_workers_had_count_after_a_resume() -> None:
    search = Search(model(), settings())
    run(search, 3)
    proposal = asked(search)
    assert search.retry(proposal.number)
    ledger, records = search.state.ledger, list(search.records)
    assert settle_interrupted(ledger, records, PROBLEM) == []
    again = Search(model(), settings(), ledger=ledger, records=records)
    assert asked(again).number == proposal.number
    assert not again.retry(proposal.number)


@pytest.mark.parametrize("count", [40, 200])
def test_many_are_out_and_told_in_any_order(count: int) -> None:
    search = Search(model(), settings(sampler="random", trials=2 * count))
    proposals = run(search, count + 20, out=count)
    assert len(proposals) == len({proposal.number for proposal in proposals}) == count + 20
    assert [record.number for record in search.records] == sorted(record.number for record in search.records)
    assert len(search.records) == count + 20
    assert not search.pending
