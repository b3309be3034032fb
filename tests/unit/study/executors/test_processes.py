"""ProcessExecutor: a worker that dies fails its own call alone, and workers end with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoprune.study.executors.processes import ProcessExecutor, WorkerDiedError
from tests.end_to_end.script import environment
from tests.processes import is_running
from tests.unit.study.executors import calls


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[ProcessExecutor]:
    with ProcessExecutor(2, tmp_path / "logs") as found:
        yield found


def test_results_and_exceptions_come_back(executor: ProcessExecutor, tmp_path: Path) -> None:
    assert executor.submit(len, "four").result() == 4
    with pytest.raises(ZeroDivisionError):
        executor.submit(divmod, 1, 0).result()
    with pytest.raises(RuntimeError, match="UnpicklableError: no pickle of this"):
        executor.submit(calls.raise_what_cannot_be_pickled).result()
    with pytest.raises(TypeError, match="pickle"):
        executor.submit(len, (one for one in "abc")).result()
    with pytest.raises(TypeError, match="positional"):
        executor.submit(sorted, [1], reverse=True)
    executor.submit(calls.say, "printed by a worker").result()
    logs = "".join(path.read_text() for path in (tmp_path / "logs").glob("worker-*.log"))
    assert "printed by a worker" in logs


def test_the_death_of_one_worker_fails_its_own_call_alone(executor: ProcessExecutor, tmp_path: Path) -> None:
    other = executor.submit(calls.wait_for, str(tmp_path / "go"))
    with pytest.raises(
        WorkerDiedError, match=r"was ended by SIGKILL, as the system does when memory runs out; its log"
    ):
        executor.submit(calls.die, signal.SIGKILL).result()
    with pytest.raises(WorkerDiedError, match="ended with exit code 3"):
        executor.submit(os._exit, 3).result()
    assert executor.submit(len, "the next call has a new worker").result() == 30
    logs = "".join(path.read_text() for path in (tmp_path / "logs").glob("worker-*.log"))
    assert "was ended by SIGKILL, as the system does when memory runs out\n" in logs
    assert not other.done()
    (tmp_path / "go").touch()
    assert other.result() == "went"


def test_a_call_can_be_ended_even_where_its_worker_is_stopped(executor: ProcessExecutor, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    stopped = executor.submit(calls.stop_after_writing, str(begun))
    waiting = [executor.submit(calls.wait_for, str(tmp_path / "go")), executor.submit(len, "never begins")]
    while not begun.exists():
        time.sleep(0.01)
    executor.end(waiting[1])
    assert waiting[1].cancelled()
    executor.end(stopped)
    assert isinstance(stopped.exception(), WorkerDiedError)
    assert not waiting[0].done(), "other workers go on"
    (tmp_path / "go").touch()
    assert waiting[0].result() == "went"


def test_shutdown_ends_the_calls_or_waits_for_them(tmp_path: Path) -> None:
    executor = ProcessExecutor(1, tmp_path)
    done, last = executor.submit(len, "done"), executor.submit(len, "last")
    executor.shutdown()
    assert (done.result(), last.result()) == (4, 4)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(len, "late")
    executor = ProcessExecutor(1, tmp_path)
    running, queued = executor.submit(calls.write_process_and_wait, str(tmp_path)), executor.submit(len, "queued")
    while not (tmp_path / "worker").exists():
        time.sleep(0.01)
    executor.shutdown(wait=False, cancel_futures=True)
    assert isinstance(running.exception(), WorkerDiedError)
    assert queued.cancelled()


def test_processes_that_a_dead_worker_has_started_do_not_hide_its_death(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    dead = executor.submit(calls.leave_processes_and_die, str(tmp_path))
    assert isinstance(dead.exception(timeout=60), WorkerDiedError)
    (tmp_path / "go").touch()
    os.kill(int((tmp_path / "shell").read_text()), signal.SIGKILL)


def test_the_death_of_the_process_that_forks_is_no_death_of_workers(executor: ProcessExecutor, tmp_path: Path) -> None:
    first = executor.submit(calls.wait_for, str(tmp_path / "go"))
    nursery = executor.submit(os.getppid).result()
    os.kill(nursery, signal.SIGKILL)
    assert isinstance(executor.submit(os._exit, 3).exception(timeout=60), WorkerDiedError)
    assert executor.submit(os.getppid).result() != nursery, "another one has taken its place"
    assert not first.done()
    (tmp_path / "go").touch()
    assert first.result() == "went"
    executor.shutdown()
    assert "ChildProcessError" not in (tmp_path / "logs" / "workers.log").read_text()


def test_a_process_that_forks_and_does_not_answer_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoprune.study.executors.nursery.SLOWEST_END", 0.2)
    with ProcessExecutor(1, tmp_path) as executor:
        os.kill(executor.submit(os.getppid).result(), signal.SIGSTOP)
        assert isinstance(executor.submit(calls.die, signal.SIGKILL).exception(timeout=60), WorkerDiedError)
        assert executor.submit(len, "the next call has a new worker").result(timeout=60) == 30


def test_shutdown_does_not_wait_for_a_process_that_forks_and_does_not_answer(tmp_path: Path) -> None:
    executor = ProcessExecutor(2, tmp_path)
    nursery = executor.submit(os.getppid).result()
    os.kill(nursery, signal.SIGSTOP)
    calls_out = [executor.submit(calls.wait_for, str(tmp_path / "never")) for _ in range(2)]  # one needs a new worker
    ending = threading.Thread(target=lambda: executor.shutdown(wait=False), daemon=True)
    ending.start()
    ending.join(60)
    assert not ending.is_alive()
    assert all(one.cancelled() or isinstance(one.exception(), WorkerDiedError) for one in calls_out)


@pytest.mark.parametrize("call", ["write_process_and_wait", "stop_after_writing_process"])
def test_workers_end_with_the_process_that_started_them(call: str, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "tests.unit.study.executors.calls", str(tmp_path), call]
    driver = subprocess.Popen(arguments, cwd=Path.cwd(), env=environment())
    place = tmp_path / "worker"
    while not place.exists() or not place.read_text():
        assert driver.poll() is None
        time.sleep(0.02)
    worker = int(place.read_text())
    os.kill(worker, 0)
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 60
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(worker)
