"""A journal that is torn, garbled, foreign or gone is repaired from the stored candidates; no number is given twice."""

from __future__ import annotations

import dataclasses
import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

import autoprune
from autoprune.errors import StorageError
from autoprune.records.run_folder import RunFolder
from autoprune.search.storage import JOURNAL, open_journal
from tests.tasks import flat_task
from tests.unit.study.small import comparable, journal_trials, settings

Open = Callable[[], autoprune.Study]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> autoprune.Study:
    """Eight candidates."""
    study = autoprune.Study.create(flat_task(), settings(), out=tmp_path_factory.mktemp("finished") / "run")
    study.run()
    return study


@pytest.fixture
def run(finished: autoprune.Study, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.folder.path, tmp_path / "run"))


@pytest.fixture
def opened(finished: autoprune.Study, run: Path) -> Open:
    """Opens the run with its task, which is traced and proved once."""
    return lambda: dataclasses.replace(autoprune.Study.open(run), context=finished.context)


def lines(run: Path) -> list[bytes]:
    return (run / JOURNAL).read_bytes().splitlines(keepends=True)


def torn_before(code: int, which: int = -1) -> Callable[[Path], None]:
    """Half of a line, and right behind it the line of an operation, of those the first or the last."""

    def tear(run: Path) -> None:
        found = lines(run)
        place = [at for at, line in enumerate(found) if json.loads(line)["op_code"] == code][which]
        found.insert(place, found[place][: len(found[place]) // 2])
        (run / JOURNAL).write_bytes(b"".join(found))

    return tear


def lost(code: int, which: int = -1) -> Callable[[Path], None]:
    """The line of an operation is garbage."""

    def lose(run: Path) -> None:
        found = lines(run)
        found[[at for at, line in enumerate(found) if json.loads(line)["op_code"] == code][which]] = b"\x00\xff\n"
        (run / JOURNAL).write_bytes(b"".join(found))

    return lose


def holding(data: bytes) -> Callable[[Path], None]:
    return lambda run: (run / JOURNAL).write_bytes(data) and None


def foreign(run: Path) -> None:
    """The journal of another study."""
    (run / JOURNAL).unlink()
    other = optuna.create_study(storage=open_journal(run), study_name="autoprune", directions=["maximize", "minimize"])
    for _ in range(9):
        other.add_trial(optuna.trial.create_trial(values=[0.5, 1.0]))


HARM = {
    "torn in the middle": torn_before(6),
    "torn at the start": torn_before(0, 0),
    "a trial is torn": torn_before(4, 2),
    "a result is lost": lost(6),
    "a parameter is lost": lost(5),
    "a trial is lost": lost(4, 1),
    "the study is lost": lost(0, 0),
    "empty": holding(b""),
    "garbage": holding(bytes(range(256)) * 20),
    "half an object": holding(b'{"op_code": 0, "wor'),
    "other objects": holding(b'{"a": 1}\n[1]\n3\nnull\n'),
    "operations of no sense": holding(b'{"op_code": 4}\n{"op_code": "x", "worker_id": 3}\n'),
    "deep": holding(b"[" * 200_000 + b"\n"),
    "gone": lambda run: (run / JOURNAL).unlink(),
    "foreign": foreign,
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_a_run_goes_on_with_what_is_stored(harm: Callable[[Path], None], run: Path, opened: Open) -> None:
    before = comparable(autoprune.Study.open(run).records)
    harm(run)
    harmed = (run / JOURNAL).read_bytes() if (run / JOURNAL).exists() else None
    assert comparable(autoprune.Study.open(run).records) == before  # looking needs no journal
    study = opened()
    study.run()
    assert comparable(study.records) == before
    told = [trial for trial in journal_trials(run) if trial.state == TrialState.COMPLETE]
    assert [trial.number for trial in told][: len(before)] == [row["number"] for row in before]
    kept = [path.read_bytes() for path in run.glob("journal.broken*")]
    assert not harmed or b"\n" not in harmed or any(harmed.startswith(data) for data in kept)
    assert not [*run.glob(".*.tmp")]


@pytest.mark.parametrize("name", ["torn in the middle", "a trial is lost", "gone", "foreign"])
def test_a_repaired_run_finds_more_under_new_numbers(name: str, run: Path, opened: Open) -> None:
    before = comparable(autoprune.Study.open(run).records)
    HARM[name](run)
    study = opened()
    study.run(trials=9)
    assert comparable(study.records)[:8] == before
    assert [record.number for record in study.records[8:]] == [8]


def test_a_journal_made_anew_says_what_the_lost_one_did(run: Path, opened: Open) -> None:
    def told() -> list[tuple[object, ...]]:
        found = journal_trials(run)
        origins = ("origin", "warm_start", "fidelity")
        return [
            (t.number, t.state, t.values, t.params, t.constraints, {n: t.user_attrs.get(n) for n in origins})
            for t in found
        ]

    before = told()
    (run / JOURNAL).unlink()
    opened().run()
    assert told() == before


def test_records_that_do_not_say_their_parameters_get_the_nearest(run: Path, opened: Open) -> None:
    for path in run.glob("candidates/*/candidate.json"):
        data = json.loads(path.read_text())
        del data["parameters"], data["warm_start"]
        path.write_text(json.dumps(data))
    before = journal_trials(run)
    (run / JOURNAL).unlink()
    opened().run()
    after = journal_trials(run)

    def keys(found: list[optuna.trial.FrozenTrial]) -> list[str]:
        """Without the number of points, which records from before parameters were stored did not have."""
        return [str(trial.user_attrs.get("warm_start")).partition(" of ")[0] for trial in found]

    assert keys(after) == keys(before)
    assert all(t.params.keys() == before[t.number].params.keys() for t in after)


def test_a_number_that_a_failure_took_is_not_given_again(run: Path, opened: Open) -> None:
    RunFolder(run).write_failure(11, "it crashed")
    (run / JOURNAL).unlink()
    study = opened()
    study.run(trials=9)
    assert study.records[-1].number == 12


def test_a_sound_journal_is_left_alone(run: Path, opened: Open) -> None:
    before = (run / JOURNAL).read_bytes()
    opened().run()
    assert (run / JOURNAL).read_bytes().startswith(before)
    assert not [*run.glob("journal.broken*")]


def test_a_journal_that_is_no_file(run: Path, opened: Open) -> None:
    (run / JOURNAL).unlink()
    (run / JOURNAL).mkdir()
    with pytest.raises(StorageError, match=r"journal\.log cannot be written"):
        opened().run()
    assert len(autoprune.Study.open(run).front().members) > 0


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_importances_need_no_journal(harm: Callable[[Path], None], run: Path) -> None:
    before = autoprune.Study.open(run).importances()
    harm(run)
    assert autoprune.Study.open(run).importances() == before


def test_what_does_not_fit_on_the_disk_is_cut_back(tmp_path: Path) -> None:
    """A limit on the length of files stands for a full disk: a write stops in mid-line."""
    study = optuna.create_study(storage=open_journal(tmp_path), study_name="autoprune")
    trial = study.ask()
    before = (tmp_path / JOURNAL).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 30, hard))
    try:
        with pytest.raises(StorageError, match=r"journal\.log cannot be written.*What is finished is kept"):
            trial.set_user_attr("a", "b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / JOURNAL).read_bytes() == before
    trial.set_user_attr("a", "c")
    found = optuna.load_study(study_name="autoprune", storage=open_journal(tmp_path))
    assert found.trials[0].user_attrs == {"a": "c"}


def test_a_disk_that_is_full_ends_the_run_and_loses_nothing(run: Path, opened: Open) -> None:
    before = comparable(autoprune.Study.open(run).records)
    study = opened()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(path.stat().st_size for path in run.rglob("*") if path.is_file())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 2, hard))
    try:
        with pytest.raises(StorageError, match="cannot be written"):
            study.run(trials=9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert comparable(autoprune.Study.open(run).records) == before
    assert not [*run.rglob("*.tmp")]
    again = opened()
    again.run(trials=9)
    assert [record.number for record in again.records] == [*range(8), 8]


def test_how_much_optuna_says_stays_as_its_user_chose(tmp_path: Path) -> None:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    try:
        open_journal(tmp_path)
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.set_verbosity(before)
