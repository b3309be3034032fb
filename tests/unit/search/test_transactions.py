"""The journal after a process that died in the middle of an ask: it proposes the same again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from autoprune.errors import AutopruneError, StorageError
from autoprune.records.candidate import CandidateRecord
from autoprune.search import journal_file
from autoprune.search.interrupted import settle_interrupted
from autoprune.search.journal_lines import fold
from autoprune.search.ledger import Ledger
from autoprune.search.search import Search
from autoprune.search.settings import StudySettings
from autoprune.search.state import Model
from autoprune.search.storage import JOURNAL, open_journal
from tests.slow import slow
from tests.unit.search.synthetic import PROBLEM, asked, model, run, run_trial, settings
from tests.unit.search.test_search import told

SAMPLERS = ("tpe", "qmc", *(slow(name) for name in ("evolution", "nsga2", "nsga3", "random")))


def misled() -> Model:
    """The scan knows nothing of how much groups differ, which the search corrects after 20 candidates."""
    scan = model().sensitivity
    assert scan is not None
    same = dict.fromkeys(scan.added_loss, scan.added_loss["0"])
    return replace(model(), sensitivity=replace(scan, added_loss=same))


def opened(folder: Path, chosen: StudySettings, records: list[CandidateRecord]) -> Search:
    """The search of a process that starts."""
    ledger = Ledger.of(open_journal(folder), PROBLEM)
    assert settle_interrupted(ledger, records, PROBLEM) == []
    return Search(misled(), chosen, ledger=ledger, records=records)


def ends(before: bytes, after: bytes) -> Iterator[int]:
    """Where a process may have died: after each line that an ask wrote, and in the middle of the first and the last."""
    assert after.startswith(before)
    found = [place + 1 for place in range(len(before), len(after)) if after[place : place + 1] == b"\n"]
    yield from sorted({*found, found[0] - 100, found[-1] - 3})


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_process_that_dies_between_two_lines_of_an_ask_asks_the_same_again(sampler: str, tmp_path: Path) -> None:
    chosen, records = settings(sampler=sampler, trials=60), []
    (tmp_path / "run").mkdir()
    search = opened(tmp_path / "run", chosen, records)
    journal, cuts = tmp_path / "run" / JOURNAL, 0
    for number in range(32):
        before = journal.read_bytes()
        proposal = asked(search)
        for place in ends(before, journal.read_bytes()) if number in (0, 1, 9, 14, 20, 31) else ():
            cut = tmp_path / f"{number}-{place}"
            cut.mkdir()
            (cut / JOURNAL).write_bytes(journal.read_bytes()[:place])
            again = opened(cut, chosen, list(records))
            found = asked(again)
            assert told(found) == told(proposal), (number, place)
            # It goes on the same, too: the result is told, and the next one asked for.
            again.tell(found, run_trial(again, found))
            following = asked(again)
            cuts += 1
            whole = tmp_path / f"{number}-whole"
            if not whole.exists():
                whole.mkdir()
                (whole / JOURNAL).write_bytes(journal.read_bytes())
                unbroken = opened(whole, chosen, list(records))
                same = asked(unbroken)
                unbroken.tell(same, run_trial(unbroken, same))
                expected = asked(unbroken)
            assert told(following) == told(expected), (number, place)
        search.tell(proposal, run_trial(search, proposal))
    assert cuts > 40
    assert any(record.origin == "polished" for record in records)


def test_what_sources_queue_is_queued_with_the_trial_that_takes_it(tmp_path: Path) -> None:
    chosen, records = settings(trials=60), []
    search = opened(tmp_path, chosen, records)
    queued = 0
    while len(records) < 24:
        before = (tmp_path / JOURNAL).read_bytes()
        proposal = asked(search)
        fresh = [json.loads(line) for line in (tmp_path / JOURNAL).read_bytes()[len(before) :].splitlines()]
        created = [line for line in fresh if line["op_code"] == 4]
        if len(created) > 1:  # solved allocations of the corrected scan
            queued += 1
            assert [line.get("more", 0) for line in fresh[: fresh.index(created[-1])]] == [
                fresh[0]["more"] - place for place in range(fresh.index(created[-1]))
            ]
        search.tell(proposal, run_trial(search, proposal))
    assert queued == 1


def test_lines_are_those_of_optuna(tmp_path: Path) -> None:
    chosen, records = settings(trials=20), []
    search = opened(tmp_path, chosen, records)
    assert len(run(search, 12)) == 12
    search.ask()
    theirs = JournalStorage(JournalFileBackend(str(tmp_path / JOURNAL)))
    study = optuna.load_study(study_name="autoprune", storage=theirs)
    assert study.trials == search.state.ledger.study.get_trials()
    assert open_journal(tmp_path).get_all_trials(0) == theirs.get_all_trials(0)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_an_ask_writes_each_trial_in_one_line(sampler: str, tmp_path: Path) -> None:
    chosen, records = settings(trials=60, sampler=sampler), []
    search = opened(tmp_path, chosen, records)
    kinds = set()
    for _ in range(36):
        before = (tmp_path / JOURNAL).read_bytes()
        proposal = asked(search)
        fresh = [json.loads(line) for line in (tmp_path / JOURNAL).read_bytes()[len(before) :].splitlines()]
        trial = search.state.ledger.found(proposal.number)
        lines = [line for line in fresh if line["op_code"] == 4 and line["params"].keys() == trial.params.keys()]
        if proposal.origin.value in ("sampled", "polished"):
            kinds.add(proposal.origin)
            assert lines
            assert not any(line["op_code"] == 5 for line in fresh), "no line for each parameter"
            assert "plan" not in lines[-1].get("user_attrs", {})
            extra = lines[-1].get("system_attrs", {})
            assert not extra.get("fixed_params"), "the parameters are there once"
            assert not any("relative" in name for name in extra)
        search.tell(proposal, run_trial(search, proposal))
    assert len(kinds) == 2
    again = open_journal(tmp_path).get_all_trials(0)
    assert again == search.state.ledger.study.get_trials(), "also in a process that reads the file"


def test_lines_behind_another_state_stay_where_they_are() -> None:
    create = {"op_code": 4, "worker_id": "w", "study_id": 0, "datetime_start": None, "state": 4, "user_attrs": {"a": 1}}
    begun = {"op_code": 6, "worker_id": "w", "trial_id": 7, "state": 0, "values": None, "datetime_start": "then"}
    ended = {**begun, "state": 3, "datetime_complete": "now"}
    attribute = {"op_code": 8, "worker_id": "w", "trial_id": 7, "user_attr": {"b": 2}}
    other = {**attribute, "trial_id": 3}
    found = fold([other, create, begun, create, attribute, ended, attribute], 9)
    both = {**create, "state": 0, "datetime_start": "then", "user_attrs": {"a": 1, "b": 2}}
    assert found == [other, both, create, ended, attribute]
    assert create["user_attrs"] == {"a": 1}


class _BrokenSampler(BaseSampler):
    def infer_relative_search_space(self, *_: object) -> dict[str, object]:  # type: ignore[override]
        return {}

    def sample_relative(self, *_: object) -> dict[str, object]:
        return {}

    def sample_independent(self, *arguments: object) -> object:
        if str(arguments[2]).startswith("residual"):
            raise ZeroDivisionError
        return arguments[3].low  # type: ignore[attr-defined]


def test_an_ask_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    chosen, records = settings(trials=20), []
    search = opened(tmp_path, chosen, records)
    assert len(run(search, 5)) == 5
    before, trials = (tmp_path / JOURNAL).read_bytes(), search.state.ledger.trials()
    search._chosen = _BrokenSampler()
    with pytest.raises(AutopruneError, match="proposed no trial: ZeroDivisionError"):
        search.ask()
    assert (tmp_path / JOURNAL).read_bytes() == before
    assert search.state.ledger.trials() == trials
    search._chosen = None
    found = asked(search)
    assert found.number == len(trials)


def test_a_full_disk_in_the_middle_of_an_ask_and_of_a_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, records = settings(trials=20, sampler="qmc"), []
    search = opened(tmp_path, chosen, records)
    assert len(run(search, 6)) == 6
    before = (tmp_path / JOURNAL).read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journal_file, "_write", full)
        with pytest.raises(StorageError, match="No space left"):
            search.ask()
    assert (tmp_path / JOURNAL).read_bytes() == before
    proposal = asked(search)  # free again, and the same process goes on
    written = (tmp_path / JOURNAL).read_bytes()
    outcome = run_trial(search, proposal)
    with monkeypatch.context() as patch:
        patch.setattr(journal_file, "_write", full)
        with pytest.raises(StorageError, match="No space left"):
            search.tell(proposal, outcome)
    assert (tmp_path / JOURNAL).read_bytes() == written
    assert search.state.ledger.trials()[proposal.number].state is TrialState.RUNNING
    search.tell(proposal, outcome)
    found = asked(search)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / JOURNAL).write_bytes(written)
    again = opened(fresh, chosen, [one for one in records if one.number != proposal.number])
    same = asked(again)
    assert told(same) == told(proposal)
    again.tell(same, outcome)
    following = asked(again)
    assert told(following) == told(found)


def test_lines_of_another_process_are_read_and_a_transaction_that_they_interrupt_is_none(tmp_path: Path) -> None:
    one, other = open_journal(tmp_path), open_journal(tmp_path)
    study = optuna.create_study(storage=one, study_name="a")
    theirs = optuna.load_study(study_name="a", storage=other)
    assert theirs.ask().number == 0
    assert study.ask().number == 1
    assert [trial.number for trial in theirs.get_trials()] == [0, 1]

    def ask_while_the_other_writes() -> None:
        with one.transaction():
            assert study.ask().number == 2
            theirs.set_user_attr("x", 1)

    with pytest.raises(StorageError, match="by one process"):
        ask_while_the_other_writes()
    assert len(study.trials) == len(theirs.trials) == 2
    assert study.user_attrs == {"x": 1}


def test_an_older_journal_has_no_transactions(tmp_path: Path) -> None:
    lines = [b'{"op_code":9}\n', b'{"op_code":9,"more":2}\n', b'{"op_code":9,"more":1}\n', b'{"op_code":9}\n']
    whole = b"".join(lines)
    for count in (1, 4):
        data = b"".join(lines[:count])
        assert journal_file.finished_length(data) == len(data)
        assert journal_file.finished_length(data + b'{"op_co') == len(data)
    for count in (2, 3):
        assert journal_file.finished_length(b"".join(lines[:count])) == len(lines[0])
    assert journal_file.finished_length(whole + lines[1] + lines[2][:9]) == len(whole)
    assert journal_file.finished_length(lines[2]) == 0
    assert journal_file.finished_length(b"") == 0


def test_parameters_of_every_kind_are_read_as_they_were_written(tmp_path: Path) -> None:
    study = optuna.create_study(
        storage=open_journal(tmp_path), study_name="a", sampler=optuna.samplers.RandomSampler(0)
    )
    distributions = {
        "plain": optuna.distributions.FloatDistribution(0.0, 1.0),
        "log": optuna.distributions.FloatDistribution(1e-4, 1.0, log=True),
        "stepped": optuna.distributions.FloatDistribution(0.0, 1.0, step=0.25),
        "count": optuna.distributions.IntDistribution(1, 9),
        "even": optuna.distributions.IntDistribution(2, 8, step=2),
        "doubling": optuna.distributions.IntDistribution(1, 64, log=True),
        "choice": optuna.distributions.CategoricalDistribution(("a", "b", None, 2)),
    }
    study.ask(distributions)
    for storage in (open_journal(tmp_path), JournalStorage(JournalFileBackend(str(tmp_path / JOURNAL)))):
        (trial,) = optuna.load_study(study_name="a", storage=storage).trials
        assert trial.distributions == distributions
        assert trial == study.trials[0]


def test_trials_share_the_names_and_distributions_of_their_parameters(tmp_path: Path) -> None:
    search = Search(model(), settings(), ledger=Ledger.of(open_journal(tmp_path), PROBLEM))
    run(search, 6, out=2)
    copy = shutil.copy(tmp_path / JOURNAL, tmp_path / "copy")  # the other one is locked
    as_optuna = Ledger.of(JournalStorage(JournalFileBackend(str(copy))), PROBLEM).trials()
    for ledger in (search.state.ledger, Ledger.of(open_journal(tmp_path), PROBLEM)):
        trials = ledger.trials()
        assert trials == as_optuna
        first, second = [trial for trial in trials if trial.state is TrialState.COMPLETE][:2]
        assert [*map(id, first.params)] == [*map(id, second.params)]
        assert [*map(id, first.distributions)] == [*map(id, second.distributions)]
        assert [*map(id, first.distributions.values())] == [*map(id, second.distributions.values())]
