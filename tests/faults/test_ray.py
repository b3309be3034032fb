"""Trials on Ray: workers, nodes, the head and the process of the study die, and the study comes to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import autoprune
from tests.end_to_end.script import environment
from tests.faults.ray_cluster import Cluster, ray_cluster  # it says how Ray is imported
from tests.faults.test_workers import TRIALS, candidates, script, wait_for, whole
from tests.processes import is_running

pytest.importorskip("ray")

#: Run by `make test-workers`.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster() as found:
        yield found


def command(study: Path, cluster: Cluster, *options: str, seconds: str = "0") -> subprocess.Popen[str]:
    """The command in a process of its own: Ray ends the process whose node dies."""
    out = str(study.parent / "run")
    arguments = ["run", str(study), "--out", out, "--ray", cluster.address, "--workers", "2", *options]
    return subprocess.Popen(
        [sys.executable, "-m", "autoprune", *arguments],
        env=environment(SECONDS_A_STEP=seconds, RAY_gcs_rpc_server_reconnect_timeout_s="5"),
        stderr=subprocess.PIPE,
        text=True,
    )


def ends_well(study: Path, cluster: Cluster) -> None:
    process = command(study, cluster)
    _, said = process.communicate()
    assert process.returncode == 0, said


@pytest.mark.parametrize("phase", ["train", "stored"])
def test_a_worker_dies_and_its_trial_is_tried_again(phase: str, cluster: Cluster, tmp_path: Path) -> None:
    ends_well(script(tmp_path, phase), cluster)
    assert (tmp_path / f"died-{phase}").exists()
    whole(tmp_path)


def test_a_plan_that_kills_its_workers_is_given_up(cluster: Cluster, tmp_path: Path) -> None:
    ends_well(script(tmp_path, "poison 3"), cluster)
    (failure,) = whole(tmp_path, failed=1).failures
    assert failure.number == 3
    assert "its worker died 3 times; it is given up" in failure.text


def test_a_worker_that_waits_for_ever_in_the_task_ends_the_run_with_a_message(cluster: Cluster, tmp_path: Path) -> None:
    process = command(script(tmp_path, "wait"), cluster, "--set", "workers.task_timeout=15")
    _, said = process.communicate()
    assert process.returncode == 2, said
    assert "A worker cannot make the task" in said
    while is_running(int((tmp_path / "waits").read_text())):
        time.sleep(0.01)


def test_the_process_of_the_study_dies_and_no_trial_is_done_twice(cluster: Cluster, tmp_path: Path) -> None:
    study = script(tmp_path, *(f"note {number}" for number in range(1, TRIALS)))
    driver = command(study, cluster, seconds="0.1")
    wait_for(lambda: len(candidates(tmp_path)) >= 3, driver)
    driver.kill()
    driver.communicate()
    finished = {int(name) for name in candidates(tmp_path)}
    begun_before = (tmp_path / "trained").read_text().split()
    ends_well(study, cluster)
    whole(tmp_path)
    begun_after = (tmp_path / "trained").read_text().split()[len(begun_before) :]
    assert not finished & set(map(int, begun_after))


@pytest.mark.parametrize("what", ["raylets", "heads"])
def test_a_part_of_the_cluster_dies(what: str, tmp_path: Path) -> None:
    study = script(tmp_path)
    with ray_cluster() as cluster:
        driver = command(study, cluster, seconds="0.1")
        wait_for(lambda: len(candidates(tmp_path)) >= 3, driver)
        for process in getattr(cluster, what)():
            os.kill(process, signal.SIGKILL)
        driver.communicate(timeout=600)
        assert driver.returncode != 0
    before = candidates(tmp_path)
    assert len(before) < TRIALS
    with ray_cluster() as cluster:
        ends_well(study, cluster)
    assert before <= candidates(tmp_path)
    found = autoprune.Run.open(tmp_path / "run")
    assert len(found.records) == TRIALS


def test_latency_is_measured_where_the_cluster_has_the_resource(tmp_path: Path) -> None:
    study = script(tmp_path)
    text = study.read_text().replace("objectives=('quality', 'multiply_adds')", "objectives=('quality', 'latency_ms')")
    study.write_text(text.replace("latency_rounds=0", "latency_rounds=2"))
    with ray_cluster(resources='{"bench": 1}') as cluster:
        process = command(study, cluster, "--set", "workers.latency=bench")
        _, said = process.communicate()
        assert process.returncode == 0, said
    found = autoprune.Run.open(tmp_path / "run")
    assert len(found.records) == TRIALS
    assert not any(record.search.predicted for record in found.front().members)
