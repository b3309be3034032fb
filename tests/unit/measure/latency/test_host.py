"""What the machine tells, and the lock of measurements."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoprune.measure.latency import host
from autoprune.measure.latency.host import Counters, Host, HostWatch, host_lock, lock_path, read_counters

HOLD = """
import sys
from autoprune.measure.latency.host import host_lock
with host_lock() as held:
    print(held, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.communicate()


def test_one_process_measures_at_a_time(
    holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lock_path().parent == tmp_path
    monkeypatch.setattr(host, "_PATIENCE", 0.0)
    with host_lock() as held:
        assert not held
    holder.communicate("done\n")
    with host_lock() as held:
        assert held


def test_the_lock_of_a_dead_process_is_free(holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_PATIENCE", 0.0)
    holder.kill()
    holder.wait()
    with host_lock() as held:
        assert held


def test_without_a_folder_for_the_lock_measuring_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(host, "lock_path", lambda: tmp_path / "file" / "lock")
    with host_lock() as held:
        assert not held


def test_counters_of_this_machine_only_grow() -> None:
    before = read_counters()
    time.sleep(0.001)
    after = read_counters()
    for name in ("switches", "stalled", "throttled"):
        assert 0 <= getattr(before, name) <= getattr(after, name)


@pytest.mark.skipif(not Path("/proc/loadavg").is_file(), reason="only Linux tells")
def test_this_task_runs() -> None:
    assert read_counters().running >= 1


def test_a_quiet_machine_makes_no_doubts() -> None:
    watch = HostWatch(Host(counters=Counters))
    with watch.burst():
        pass
    assert list(watch.doubts(0.01)) == list(watch.doubts(None)) == []
    assert watch.bursts == 1
