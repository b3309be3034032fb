"""A study that stops and goes on is the study that never stopped; what crashes does not end it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState
from torch import nn

import autoprune
from autoprune.errors import AutopruneError, ConfigurationError, StudyConflictError
from autoprune.records.profile import LatencyProfile
from autoprune.search.storage import exclusive
from autoprune.structure.reasons import OUTPUT
from autoprune.study.trial_loop import FAILURES_IN_A_ROW
from tests.settings import flat
from tests.slow import slow
from tests.tasks import flat_task, image_task
from tests.unit.study.small import Switch, comparable, journal_trials, settings, space
from tests.zoo.convolutional import mlp

SAMPLERS = ("tpe", "evolution", "nsga2", "random", "qmc")


@functools.cache
def task() -> autoprune.PreparedTask:
    """One for all, since a task is never changed."""
    return flat_task()


def searched(sampler: str) -> autoprune.StudySettings:
    """Nine trials: five warm starts, and four that the sampler and polishing propose."""
    return settings(trials=9, sampler=sampler, polish=0.5)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], autoprune.Study]:
    """The study of a sampler that ran from start to end in one go."""

    @functools.cache
    def of(sampler: str) -> autoprune.Study:
        return run_at_once(tmp_path_factory.mktemp(sampler) / "run", searched(sampler))

    return of


def run_at_once(out: Path, chosen: autoprune.StudySettings) -> autoprune.Study:
    study = autoprune.Study.create(task(), chosen, out=out)
    study.run()
    return study


def test_the_same_seed_twice(uninterrupted: Callable[[str], autoprune.Study], tmp_path: Path) -> None:
    again = run_at_once(tmp_path / "run", searched("tpe"))
    assert comparable(again.records) == comparable(uninterrupted("tpe").records)


@pytest.mark.slow
def test_two_studies_in_one_process_share_nothing(
    uninterrupted: Callable[[str], autoprune.Study], tmp_path: Path
) -> None:
    """Trial by trial in turn with a study of another model, as if it were alone."""
    study = autoprune.Study.create(task(), searched("tpe"), out=tmp_path / "one")
    other = autoprune.Study.create(image_task(test=None), settings(trials=9, seed=3), out=tmp_path / "other")
    for done in range(1, 10):
        study.run(trials=done)
        other.run(trials=done)
    # Each end of a run measures its front on the test split, so that some are measured which are beaten later.
    apart = [{**row, "test": None} for row in comparable(study.records)]
    assert apart == [{**row, "test": None} for row in comparable(uninterrupted("tpe").records)]
    assert len(other.records) == 9


def test_another_seed_is_another_search(tmp_path: Path) -> None:
    few = {"trials": 3, "uniform_points": 0, "solved_points": 0, "space": space(scan=False)}
    first, second = (run_at_once(tmp_path / str(seed), settings(seed=seed, **few)) for seed in (0, 1))
    sampled = [[record.plan.groups for record in study.records[1:]] for study in (first, second)]
    assert sampled[0] != sampled[1]


@pytest.mark.parametrize(
    ("sampler", "stop"),
    [("tpe", 3), ("evolution", 6), *(slow(sampler, 6) for sampler in SAMPLERS if sampler != "evolution")],
    ids=str,
)
def test_stopped_and_resumed_equals_uninterrupted(
    sampler: str, stop: int, uninterrupted: Callable[[str], autoprune.Study], tmp_path: Path
) -> None:
    autoprune.Study.create(task(), searched(sampler), out=tmp_path / "run").run(trials=stop)
    resumed = autoprune.Study.open(tmp_path / "run", task())
    assert len(resumed.records) == stop
    resumed.run(trials=9)
    parts, expected = comparable(resumed.records), comparable(uninterrupted(sampler).records)
    # The front as it was at the stop has been measured on the test split as well.
    for row in (*parts, *expected):
        del row["test"]
    assert parts == expected


def test_work_that_is_shared_is_counted_alike_after_a_resume(tmp_path: Path) -> None:
    """A new process has to run the teacher over the train split again."""
    chosen = settings(trials=5, sampler="random", space=space(distillation=(0.5,)))
    autoprune.Study.create(task(), chosen, out=tmp_path / "run").run(trials=3)
    resumed = autoprune.Study.open(tmp_path / "run", task())
    resumed.run(trials=5)
    whole = run_at_once(tmp_path / "whole", chosen)
    work = [(record.samples_forward, record.samples_trained, record.samples_shared) for record in whole.records]
    assert [(r.samples_forward, r.samples_trained, r.samples_shared) for r in resumed.records] == work
    assert {shared for *_, shared in work[1:]} == {task().train_split.samples}
    assert resumed.samples() == whole.samples()


@pytest.mark.slow
def test_more_trials_for_an_evolution(tmp_path: Path) -> None:
    """A population that grew with the number of trials would make the second half another search."""
    chosen = settings(trials=20, sampler="nsga2", uniform_points=0, solved_points=0, space=space(scan=False, steps=0))
    whole = run_at_once(tmp_path / "whole", chosen)
    autoprune.Study.create(task(), chosen, out=tmp_path / "parts").run(trials=8)
    resumed = autoprune.Study.open(tmp_path / "parts", task())
    resumed.run(trials=20)
    assert [record.plan for record in resumed.records] == [record.plan for record in whole.records]


class Killed(KeyboardInterrupt):
    """Stands for a kill: nothing in the run may keep it, the trial is left running."""


@pytest.mark.parametrize(
    ("sampler", "done"),
    [("tpe", 2), slow("tpe", 7), ("evolution", 6), slow("nsga2", 6)],
    ids=str,
)
def test_a_trial_left_running_is_done_again(
    sampler: str, done: int, uninterrupted: Callable[[str], autoprune.Study], tmp_path: Path
) -> None:
    """As if the process had died in it: resumed, the candidates are those of a run that was never interrupted."""
    switch = Switch()
    study = autoprune.Study.create(flat_task(loss=switch), searched(sampler), out=tmp_path / "killed")

    def kill_in_the_next(progress: autoprune.Progress) -> None:
        if progress.done == done:
            switch.error = Killed()

    with pytest.raises(Killed):
        study.run(on_progress=kill_in_the_next)
    switch.error = None
    assert [trial.state for trial in journal_trials(tmp_path / "killed")].count(TrialState.RUNNING) == 1
    resumed = autoprune.Study.open(tmp_path / "killed", flat_task(loss=switch))
    assert len(resumed.records) == done, "nothing that was finished is lost"
    resumed.run()
    assert len(resumed.records) == 9
    assert comparable(resumed.records, renumber=True) == comparable(uninterrupted(sampler).records, renumber=True)
    assert not [trial for trial in journal_trials(tmp_path / "killed") if trial.state == TrialState.RUNNING]


def test_a_candidate_stored_but_not_told_is_told_on_resume(tmp_path: Path) -> None:
    """Killed between the two: the candidate counts, it is not done again, and Optuna learns of it."""
    import optuna

    study = autoprune.Study.create(task(), settings(), out=tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        tell = optuna.Study.tell

        def dying(self: optuna.Study, trial: optuna.Trial, *args: object, **kwargs: object) -> object:
            if trial.number == 5:
                raise Killed
            return tell(self, trial, *args, **kwargs)  # type: ignore[arg-type]

        patch.setattr(optuna.Study, "tell", dying)
        with pytest.raises(Killed):
            study.run()
    resumed = autoprune.Study.open(tmp_path / "run", task())
    assert len(resumed.records) == 6
    kept = resumed.records[5].to_json()
    resumed.run()
    whole = run_at_once(tmp_path / "whole", settings())
    assert resumed.records[5].to_json() == kept
    assert comparable(resumed.records) == comparable(whole.records)
    assert [trial.state for trial in journal_trials(tmp_path / "run")] == [TrialState.COMPLETE] * 8


def test_one_trial_that_crashes_does_not_end_the_study(tmp_path: Path) -> None:
    switch, messages = Switch(), []
    study = autoprune.Study.create(flat_task(loss=switch), settings(), out=tmp_path / "run")

    def crash_the_fourth(progress: autoprune.Progress) -> None:
        messages.append(progress.failed)
        broken = progress.done == 3 and not progress.failed
        switch.error = ValueError("a bad batch") if broken else None

    study.run(on_progress=crash_the_fourth)
    assert len(study.records) == 8, "the crashed one does not count"
    assert [message for message in messages if message] == ["ValueError: a bad batch"]
    states = [trial.state for trial in journal_trials(tmp_path / "run")]
    assert states.count(TrialState.FAIL) == 1
    assert states.count(TrialState.COMPLETE) == 8
    failed = next(trial for trial in journal_trials(tmp_path / "run") if trial.state == TrialState.FAIL)
    assert failed.number not in {record.number for record in study.records}
    assert failed.user_attrs["error"] == "ValueError: a bad batch"
    assert "Traceback" in (tmp_path / "run" / "failures" / f"{failed.number:05d}.txt").read_text()
    # A later run neither repeats it nor takes it for an interrupted one.
    study.run(trials=9)
    assert len(journal_trials(tmp_path / "run")) == 10


def test_crashes_in_a_row_end_the_run_and_nothing_is_lost(tmp_path: Path) -> None:
    switch = Switch()
    study = autoprune.Study.create(flat_task(loss=switch), settings(trials=12), out=tmp_path / "run")

    def always(progress: autoprune.Progress) -> None:
        if progress.done == 2:
            switch.error = ValueError("no more data")

    with pytest.raises(AutopruneError, match="5 trials crashed one after the other, the last with ValueError: no more"):
        study.run(on_progress=always)
    assert FAILURES_IN_A_ROW == 5
    assert [trial.state for trial in journal_trials(tmp_path / "run")].count(TrialState.FAIL) == 5
    assert len(autoprune.Study.open(tmp_path / "run").records) == 2
    switch.error = None
    study.run(trials=6)
    assert len(study.records) == 6


def test_crashes_with_a_success_between_them_are_no_row(tmp_path: Path) -> None:
    switch = Switch()
    study = autoprune.Study.create(flat_task(loss=switch), settings(trials=4), out=tmp_path / "run")
    crashed: list[int] = []

    def four_at_a_time(progress: autoprune.Progress) -> None:
        crashed.extend([progress.done] if progress.failed else [])
        again = progress.done in (1, 2) and crashed.count(progress.done) < 4
        switch.error = ValueError("now and then") if again else None

    study.run(on_progress=four_at_a_time)
    assert crashed == [1, 1, 1, 1, 2, 2, 2, 2]
    assert len(study.records) == 4


def test_a_fine_tune_that_diverges_is_a_candidate_with_a_note(tmp_path: Path) -> None:
    """Not a crash: the recalibrated weights from before it count, and nobody starts from them."""
    chosen = settings(trials=5, space=space(learning_rate=1e12, steps=6, criteria=("l2",)))
    study = autoprune.Study.create(task(), chosen, out=tmp_path / "run")
    study.run()
    noted = [record for record in study.records if record.note]
    assert noted
    assert all("diverged" in record.note for record in noted)
    assert not {record.parent for record in study.records} & {record.number for record in noted}


def test_a_torn_last_line_of_the_journal(tmp_path: Path) -> None:
    """Half a line of a write that was cut off: it is dropped, what stands before it counts."""
    run_at_once(tmp_path / "run", settings(trials=3))
    journal = tmp_path / "run" / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 6, "worker_id": "x", "trial_i')
    assert len(autoprune.Study.open(tmp_path / "run").front().records) == 3
    study = autoprune.Study.open(tmp_path / "run", task())
    study.run(trials=5)
    assert [record.number for record in study.records] == [0, 1, 2, 3, 4]
    assert journal.read_bytes().startswith(whole)
    assert all(json.loads(line) for line in journal.read_bytes().splitlines())
    assert not list((tmp_path / "run").glob("journal.broken*")), "it is cut off; nothing has to be repaired"


def test_what_an_interrupted_write_left_is_swept(tmp_path: Path) -> None:
    run_at_once(tmp_path / "run", settings(trials=2))
    torn = tmp_path / "run" / "candidates" / ".00002.4711.tmp"
    torn.mkdir()
    (torn / "weights.safetensors").write_bytes(b"half")
    assert len(autoprune.Study.open(tmp_path / "run").records) == 2
    autoprune.Study.open(tmp_path / "run", task()).run(trials=3)
    assert sorted(entry.name for entry in torn.parent.iterdir()) == ["00000", "00001", "00002"]


def test_the_same_folder_twice_at_a_time_is_refused(tmp_path: Path) -> None:
    study = autoprune.Study.create(task(), settings(trials=2), out=tmp_path / "run")
    with exclusive(tmp_path / "run"), pytest.raises(StudyConflictError, match="be run by one process at a time"):
        study.run()
    study.run()
    assert len(study.records) == 2


@pytest.mark.parametrize(
    ("changes", "chosen", "difference"),
    [
        ({}, {}, "structure"),
        ({"quality": "recall"}, {}, "quality"),
        ({"metrics": ("accuracy",)}, {}, "metrics"),
        ({}, {"seed": 1}, "seed"),
        ({}, {"space": space(steps=4)}, "(other recovery.steps)"),
        ({}, {"objectives": ("quality", "parameters")}, "objectives"),
        ({}, {"limits": autoprune.Limits(max_drop=0.5)}, "limits.max_drop"),
        ({}, {"limits": autoprune.Limits()}, "limits.min_recall"),
        ({"model": lambda: mlp(features=64, classes=4), "require_trained": False}, {}, "weights"),
    ],
    ids=["structure", "quality", "metrics", "seed", "space", "objectives", "limits", "no limits", "weights"],
)
def test_a_folder_with_another_study_is_refused(
    changes: dict[str, object], chosen: dict[str, object], difference: str, tmp_path: Path
) -> None:
    usual = {} if difference == "metrics" else {"limits": autoprune.Limits(min_recall=0.1)}
    autoprune.Study.create(task(), settings(**usual), out=tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    other = image_task() if difference == "structure" else flat_task(**changes)
    with pytest.raises(StudyConflictError) as caught:
        autoprune.Study.create(other, settings(**{**usual, **chosen}), out=tmp_path / "run")
    assert difference in str(caught.value)
    assert "Name another --out" in str(caught.value)
    assert "settings." not in str(caught.value), "names as --set takes them"
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_conflict_says_with_what_the_stored_study_goes_on(tmp_path: Path) -> None:
    profile = LatencyProfile(name="b2", backend="torch", batch_size=2)
    stored = settings(limits=autoprune.Limits(min_recall=0.1), profiles=(profile,))
    autoprune.Study.create(task(), stored, out=tmp_path / "run")
    asked = settings(limits=autoprune.Limits(max_drop=0.5), space=space(steps=4))
    with pytest.raises(StudyConflictError) as caught:
        autoprune.Study.create(task(), asked, out=tmp_path / "run")
    advice = str(caught.value).partition("To continue the stored study, start it with ")[2]
    stored_steps = stored.recovery.steps
    assert {*advice.removesuffix(".").split(", ")} == {
        f"--set recovery.steps={stored_steps}",
        "--limit min_recall=0.1",
        "no limit max_drop",
        "measure.profiles b2",
    }


def test_a_folder_from_before_a_setting_was_added_goes_on(tmp_path: Path) -> None:
    autoprune.Study.create(task(), settings(trials=2), out=tmp_path / "run").run()
    path = tmp_path / "run" / "study.json"
    stored = json.loads(path.read_text())
    stored["settings"] = flat(stored["settings"])
    del stored["settings"]["space"]["length_exponent"], stored["settings"]["rung_samples"]
    path.write_text(json.dumps(stored))
    again = autoprune.Study.open(tmp_path / "run", task())
    assert again.settings == settings(trials=2)
    again.run(trials=3)
    assert len(again.records) == 3
    with pytest.raises(StudyConflictError, match=r"\(other recovery.length_exponent\)"):
        autoprune.Study.create(task(), settings(space=space(length_exponent=0.5)), out=tmp_path / "run")


def test_more_trials_time_or_threads_are_the_same_study(tmp_path: Path) -> None:
    autoprune.Study.create(task(), settings(), out=tmp_path / "run")
    again = autoprune.Study.create(task(), settings(trials=11, seconds=60.0, threads=2), out=tmp_path / "run")
    assert again.settings.trials == 11


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StudyConflictError, match="be new, empty or hold this study"):
        autoprune.Study.create(task(), settings(), out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_nothing_to_prune(tmp_path: Path) -> None:
    """One layer from inputs to outputs: every channel is part of the answer."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    bare = image_task(model=model, require_trained=False)
    with pytest.raises(ConfigurationError, match="have something that can be pruned, but got none") as error:
        autoprune.Study.create(bare, settings(), out=tmp_path / "run")
    assert OUTPUT.remedy in str(error.value), "what to do"
    assert not (tmp_path / "run").exists()


def test_a_criterion_that_does_not_apply(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="criterion 'bn_scale' must be used on groups with a norm"):
        autoprune.Study.create(flat_task(), settings(space=space(criteria=("l2", "bn_scale"))), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
