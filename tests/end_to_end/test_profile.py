"""autoprune profile: a table of which widths are fast, a file, and a run that uses it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import autoprune
from autoprune.measure.latency.backends import backend_of
from autoprune.profiling.device import this_device
from autoprune.profiling.make import OnTimed, ProfileRequest
from autoprune.records.device_profile import DeviceProfile
from autoprune.records.user_cache import CACHE_VARIABLE
from autoprune.study import device
from tests.device_profiles import half_for_nothing, profile_of
from tests.end_to_end.script import command, write

MADE: list[str] = []


def made(request: ProfileRequest, on_timed: OnTimed) -> DeviceProfile:
    """In place of measuring."""
    MADE.append(request.profile.name)
    for done in (1, 2, 3):
        on_timed(done, 3, None if done == 1 else 60.0 * (3 - done))
    found = profile_of(request.topology, half_for_nothing(request.topology), grain=4)
    found = replace(found, doubts=("The machine was busy.",), latency_profile=request.profile)
    return replace(found, device=this_device(backend_of(request.profile)))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(device, "make_profile", made)
    MADE.clear()


def test_a_profile_is_printed_kept_and_used(tmp_path: Path) -> None:
    script = write(tmp_path)
    first = command("profile", script)
    assert first.code == 0
    assert "device profile 1/3\n" in first.err
    assert "device profile 3/3" in first.err
    assert "grain" in first.out
    assert "The latency model is off by 1.0% in the median on models that it has not seen" in first.sentence
    assert "The machine was busy." in first.out
    kept = Path(first.out.splitlines()[-1])
    assert kept.parent.parent == tmp_path / "cache"
    assert command("profile", script).out == first.out, "this machine has been measured"
    assert MADE == ["default"]
    command("profile", script, "--anew")
    command("profile", script, "--latency-profile", "b2=eager,batch=2")
    assert MADE == ["default", "default", "b2"]
    file = tmp_path / "elsewhere.json"
    assert command("profile", script, "--out", file).out.splitlines()[-1] == str(file)
    # As from another machine: nothing is in the cache, and nothing is measured.
    for one in (tmp_path / "cache").rglob("*.json"):
        one.unlink()
    MADE.clear()
    sets = ("--set", "search.cost=latency_ms", "--set", "structure.round_to=device", "--set", "search.scan=false")
    ran = command("run", script, "--out", tmp_path / "run", "--trials", 2, "--device-profile", file, *sets)
    assert ran.code == 0
    assert MADE == []
    stored = autoprune.Study.open(tmp_path / "run")
    assert stored.folder.read_device_profile() == DeviceProfile.read(file)
    solved = command("solve", tmp_path / "run", "--budget", 0.75, "--cost", "latency_ms")
    assert "latency 75" in solved.sentence
    assert "Latency by a model of 30 timed models" in solved.sentence
    refused = command("run", write(tmp_path / "other"), "--device-profile", tmp_path / "nowhere.json")
    assert refused.code == 2
    assert "nowhere.json" in refused.err
