"""A quiet host: who measures waits for the trials that run, and no other one begins meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from autoprune.measure.latency import host
from autoprune.measure.latency.quiet import busy_host, quiet_host
from tests.processes import start


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.tempfile, "gettempdir", lambda: str(tmp_path))


@contextmanager
def child(work: Callable[[], object]) -> Iterator[int]:
    process = start(work)
    try:
        yield process
    finally:
        os.waitpid(process, 0)


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.002)


def waits(process: int) -> bool:
    """Whether a process waits for a lock, in the kernel."""
    return f": -> FLOCK  ADVISORY  WRITE {process} " in Path("/proc/locks").read_text() or (
        f": -> FLOCK  ADVISORY  READ  {process} " in Path("/proc/locks").read_text()
    )


def test_trials_run_side_by_side_and_who_measures_waits_for_them(tmp_path: Path) -> None:
    def trial(name: str) -> None:
        with busy_host():
            (tmp_path / f"{name} runs").touch()
            wait_for(tmp_path / f"end {name}")

    def measure() -> None:
        with quiet_host():
            (tmp_path / "quiet").touch()
            wait_for(tmp_path / "end measuring")

    with child(lambda: trial("a")), child(lambda: trial("b")):
        wait_for(tmp_path / "a runs")
        wait_for(tmp_path / "b runs")
        with child(measure) as measuring:
            while not waits(measuring):
                time.sleep(0.002)
            with child(lambda: trial("c")) as later:
                while not waits(later):  # it begins no more, as someone wants quiet
                    time.sleep(0.002)
                (tmp_path / "end a").touch()
                (tmp_path / "end b").touch()
                wait_for(tmp_path / "quiet")
                assert not (tmp_path / "c runs").exists()
                (tmp_path / "end c").touch()
                (tmp_path / "end measuring").touch()
    assert (tmp_path / "c runs").exists()


def test_two_trials_that_want_to_measure_do_not_wait_for_each_other(tmp_path: Path) -> None:
    def trial(name: str, other: str) -> None:
        with busy_host():
            (tmp_path / f"{name} runs").touch()
            wait_for(tmp_path / f"{other} runs")
            with quiet_host():
                (tmp_path / f"{name} measures").touch()
                (tmp_path / f"{name} measures").unlink()
                assert not (tmp_path / f"{other} measures").exists()

    with child(lambda: trial("a", "b")), child(lambda: trial("b", "a")):
        pass
    with quiet_host():
        pass  # and both have left
