"""Workers and the process of the study die in every phase: nothing finished is lost, and nothing comes twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

import autoprune
from autoprune.errors import StorageError
from autoprune.records.candidate import CandidateRecord
from autoprune.records.results import RESULT, Results
from autoprune.records.run_folder import RunFolder
from tests.end_to_end.script import Outcome, command, environment, write
from tests.faults.worker_victims import kill_once
from tests.folders import files
from tests.processes import is_killed, is_running
from tests.unit.study.small import journal_trials

#: Trials that the script asks for.
TRIALS = 8


def script(folder: Path, *victims: str) -> Path:
    """A study script, whose workers meet what `worker_victims.arm` prepares."""
    calls = "; ".join(f"worker_victims.arm(arguments, {victim!r}, {str(folder)!r})" for victim in victims)
    change = f"from tests.faults import worker_victims; {calls}" if victims else "pass"
    return write(folder, change=change)


def run(script: Path, *options: object, workers: int = 2) -> Outcome:
    return command("run", script, "--out", script.parent / "run", "--workers", workers, *options)


def whole(folder: Path, *, failed: int = 0) -> autoprune.Run:
    """Check a run that came to its end: the requested candidates, each once, readable, and told as it is stored."""
    found = autoprune.Run.open(folder / "run")
    numbers = [record.number for record in found.records]
    assert len(numbers) == len(set(numbers)) == TRIALS
    told = {trial.number: trial.values for trial in journal_trials(folder / "run") if trial.state.name == "COMPLETE"}
    stored = {one.number: [one.search.quality, one.search.multiply_adds] for one in found.records}
    assert {number: values for number, values in told.items() if number in stored} == stored
    assert len(found.failures) == failed
    for record in found.records:
        if not record.removed:
            assert load_file(found.folder.weights(record.number))
            assert found.folder.weights_file(record.number).has_right_digest()
    assert not (folder / "run" / "results").exists()
    assert not (folder / "run" / "workers.json").exists()
    assert not list((folder / "run").rglob(".*.tmp"))
    return found


#: Others of their kind run on each commit; all of them by `make test-workers`.
slow = pytest.mark.slow


@pytest.mark.parametrize(
    "phase", ["train", "stored", *(pytest.param(one, marks=slow) for one in ("cut", "measure", "store", "named"))]
)
def test_a_worker_dies_in_a_phase_and_its_trial_is_tried_again(phase: str, tmp_path: Path) -> None:
    answer = run(script(tmp_path, phase))
    assert answer.code == 0, answer.text
    assert (tmp_path / f"died-{phase}").exists()
    whole(tmp_path)


@slow
def test_a_plan_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    answer = run(script(tmp_path, "poison 3"))
    assert answer.code == 0, answer.text
    (failure,) = whole(tmp_path, failed=1).failures
    assert failure.number == 3
    assert "its worker died 3 times; it is given up" in failure.text
    assert "was ended by SIGKILL" in failure.text
    assert journal_trials(tmp_path / "run")[3].state.name == "FAIL"


@slow
def test_a_trial_beyond_its_time_is_ended(tmp_path: Path) -> None:
    answer = run(script(tmp_path, "stop 2"), "--trial-timeout", 4)
    assert answer.code == 0, answer.text
    texts = {failure.number: failure.text for failure in autoprune.Run.open(tmp_path / "run").failures}
    assert "it took more than 4 s (workers.trial_timeout), and was ended" in texts[2]
    whole(tmp_path, failed=len(texts))  # on a busy machine others may have taken as long


def test_running_out_of_memory_is_told_with_the_size_and_learned(tmp_path: Path) -> None:
    answer = run(script(tmp_path, "memory 4"))
    assert answer.code == 0, answer.text
    (failure,) = whole(tmp_path, failed=1).failures
    assert "Tried to allocate 2.00 GiB" in failure.text
    trial = journal_trials(tmp_path / "run")[4]
    assert trial.user_attrs["error"].startswith("out of memory with ")
    assert " parameters and " in trial.user_attrs["error"]
    assert trial.constraints["out_of_memory"] > 0


@slow
def test_the_process_of_the_study_dies_before_it_adopts_a_result(tmp_path: Path) -> None:
    study = script(tmp_path, "note 3")

    def dies() -> None:
        adopt = Results.adopt

        def deadly(self: Results, record: CandidateRecord) -> None:
            if record.number == 3:
                kill_once(tmp_path / "died")
            adopt(self, record)

        Results.adopt = deadly  # type: ignore[method-assign]
        run(study, workers=1)

    assert is_killed(dies)
    result = tmp_path / "run" / "results" / "00003"
    assert (result / RESULT).is_file()
    weights = (result / "weights.safetensors").read_bytes()
    assert len(autoprune.Run.open(tmp_path / "run").records) == 3
    answer = run(study)
    assert answer.code == 0, answer.text
    whole(tmp_path)
    assert (tmp_path / "trained").read_text() == "3 ", "it is not trained a second time"
    kept = tmp_path / "run" / "candidates" / "00003" / "weights.safetensors"
    assert not kept.exists() or kept.read_bytes() == weights


@slow
def test_a_disk_that_is_full_while_a_result_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, write_candidate = script(tmp_path, "note 2"), RunFolder.write_candidate

    def full(self: RunFolder, record: CandidateRecord, weights: object) -> None:
        if record.number == 2:
            raise StorageError("the disk is full")
        write_candidate(self, record, weights)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_candidate", full)
        answer = run(study)
    assert answer.code == 2
    assert "the disk is full" in answer.text
    assert 2 not in [record.number for record in autoprune.Run.open(tmp_path / "run").records]
    assert run(study).code == 0
    whole(tmp_path)
    assert (tmp_path / "trained").read_text() == "2 ", "it is not trained a second time"


@slow
def test_damaged_weights_end_the_run_until_the_doctor_has_seen_them(tmp_path: Path) -> None:
    study = script(tmp_path)
    assert run(study).code == 0
    for weights in (tmp_path / "run" / "candidates").glob("0000[1-7]/weights.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-8])
    answer = run(study, "--trials", 2 * TRIALS)
    assert answer.code == 2
    assert "autoprune doctor" in answer.sentence
    assert command("doctor", tmp_path / "run").code == 0
    assert run(study, "--trials", 2 * TRIALS).code == 0
    assert len(autoprune.Run.open(tmp_path / "run").records) == 2 * TRIALS


def background(study: Path, *options: str) -> subprocess.Popen[str]:
    """The command in a process of its own, whose steps take so long that it is caught in the middle of trials."""
    arguments = ["run", str(study), "--out", str(study.parent / "run"), "--workers", "2", *options]
    return subprocess.Popen(
        [sys.executable, "-m", "autoprune", *arguments],
        env=environment(SECONDS_A_STEP="0.1"),
        stderr=subprocess.PIPE,
        text=True,
        # What a script starts in the background ignores Ctrl-C, and what is started there inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def wait_for(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not holds():
        assert process.poll() is None
        time.sleep(0.01)


def candidates(folder: Path) -> set[str]:
    root = folder / "run" / "candidates"
    return {path.name for path in root.iterdir() if not path.name.startswith(".")} if root.is_dir() else set()


def at_work(folder: Path) -> list[str]:
    """The trials that workers have begun and not ended."""
    root = folder / "run" / "results"
    return [path.stem for path in root.glob("*.begun") if not (root / path.stem).exists()] if root.is_dir() else []


@slow
def test_the_process_of_the_study_is_killed_and_its_workers_end(tmp_path: Path) -> None:
    study = script(tmp_path)
    driver = background(study)
    wait_for(lambda: len(candidates(tmp_path)) >= 3 and len(at_work(tmp_path)) == 2, driver)
    processes = [
        int((tmp_path / "run" / "results" / f"{one}.begun").read_text().split(":")[1]) for one in at_work(tmp_path)
    ]
    driver.kill()
    driver.communicate()
    before = files(tmp_path / "run" / "candidates")
    deadline = time.monotonic() + 60
    while any(map(is_running, processes)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_running, processes))
    assert run(study).code == 0
    whole(tmp_path)
    after = files(tmp_path / "run" / "candidates")
    changed = [name for name, data in before.items() if not name.startswith(".") and after.get(name, data) != data]
    assert not changed


@slow
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_once_lets_trials_finish_and_twice_ends_them(times: int, tmp_path: Path) -> None:
    study = script(tmp_path)
    driver = background(study, "--trials", "30")
    wait_for(lambda: len(candidates(tmp_path)) >= 2 and len(at_work(tmp_path)) == 2, driver)
    begun = set(at_work(tmp_path))
    driver.send_signal(signal.SIGINT)
    assert driver.stderr is not None
    line = ""
    while "Press Ctrl-C again" not in line:
        line = driver.stderr.readline()
        assert line or driver.poll() is None
    assert "no new trial begins, and the 2 running ones finish" in line
    if times == 2:
        driver.send_signal(signal.SIGINT)
    _, said = driver.communicate(timeout=300)
    assert driver.returncode == 130, said
    assert "Finished trials are kept; the same command continues from here" in said
    done = candidates(tmp_path)
    assert len(done) < 30
    if times == 1:
        assert begun <= done, "what was running has finished"
    assert run(study).code == 0
    assert len(autoprune.Run.open(tmp_path / "run").records) >= TRIALS


@slow
def test_a_task_that_is_made_differently_in_each_process_is_refused(tmp_path: Path) -> None:
    study = write(tmp_path, change="arguments['model'][0].weight.data += os.getpid() / 1e9")
    answer = run(study)
    assert answer.code == 2
    assert "the dense model that a worker makes must have the weights of the study's, but got others" in answer.sentence
    assert "Seed the training in task()" in answer.sentence


@slow
def test_a_script_that_fails_in_workers_alone_says_so(tmp_path: Path) -> None:
    study = write(tmp_path, change="assert os.getpid() == int(os.environ['THE_DRIVER']), 'not in a worker'")
    os.environ["THE_DRIVER"] = str(os.getpid())
    try:
        answer = run(study)
    finally:
        del os.environ["THE_DRIVER"]
    assert answer.code == 2
    assert "A worker cannot make the task" in answer.sentence
    assert "not in a worker" in answer.sentence


@slow
def test_a_worker_that_waits_for_ever_in_the_task_ends_the_run_with_a_message(tmp_path: Path) -> None:
    answer = run(script(tmp_path, "wait"), "--set", "workers.task_timeout=5")
    assert answer.code == 2, answer.text
    assert "A worker cannot make the task: it must be made within 5 s (workers.task_timeout)" in answer.sentence
    while is_running(int((tmp_path / "waits").read_text())):  # killed, and perhaps not yet gone
        time.sleep(0.01)
