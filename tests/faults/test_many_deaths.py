"""Two hundred trials on four workers, one of which is killed every second: all finish, each once."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import autoprune
from autoprune.front.front import Front
from tests.faults.ray_cluster import ray_cluster
from tests.processes import children_of, command_line
from tests.tasks import flat_task
from tests.unit.study.small import journal_trials, settings, space

#: Run by `make test-workers`.
pytestmark = pytest.mark.slow

TRIALS = 200
#: Trials between two deaths: on a busy machine one takes longer than a second, and would be given up.
FEWEST = 5


def own_workers() -> list[int]:
    """Worker processes of this one: those that its nursery has forked."""
    nurseries = [one for one in children_of(os.getpid()) if b"autoprune.study.executors.worker" in command_line(one)]
    return [worker for nursery in nurseries for worker in children_of(nursery)]


@contextmanager
def one_dies_every_second(workers: Callable[[], Sequence[int]], candidates: Path) -> Iterator[list[int]]:
    """Kill a random worker every second, or later where fewer than FEWEST trials have finished; yields the killed."""
    killed: list[int] = []
    ended, choice, finished = threading.Event(), random.Random(0), 0

    def kill() -> None:
        nonlocal finished
        while not ended.wait(1.0):
            alive, now = workers(), len(list(candidates.glob("[0-9]*")))
            if alive and now >= finished + FEWEST:
                finished = now
                killed.append(choice.choice(alive))
                try:
                    os.kill(killed[-1], signal.SIGKILL)
                except ProcessLookupError:
                    killed.pop()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


def study(out: Path) -> autoprune.Study:
    """A study whose trials train nothing."""
    brief = settings(trials=TRIALS, solved_points=0, uniform_points=0, space=space(steps=0, scan=False))
    return autoprune.Study.create(flat_task(test=None), brief.changed({"search.sampler": "random"}), out=out)


def check(found: autoprune.Study, front: Front) -> None:
    numbers = [record.number for record in autoprune.Run.open(found.folder.path).records]
    assert len(numbers) == len(set(numbers)) == TRIALS
    told = [trial.number for trial in journal_trials(found.folder.path) if trial.state.name == "COMPLETE"]
    assert set(numbers) <= set(told)
    again = autoprune.Run.open(found.folder.path).front()
    assert [record.number for record in front.members] == [record.number for record in again.members]
    assert not (found.folder.path / "results").exists()


def test_processes(tmp_path: Path) -> None:
    found = study(tmp_path / "run")
    with one_dies_every_second(own_workers, tmp_path / "run" / "candidates") as killed:
        front = found.run(workers=4)
    assert killed
    check(found, front)


def test_ray(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    found = study(tmp_path / "run")
    with ray_cluster(cpus=4) as cluster:
        found.settings = found.settings.changed({"workers.ray_address": cluster.address})
        with one_dies_every_second(cluster.workers, tmp_path / "run" / "candidates") as killed:
            front = found.run()
    assert killed
    check(found, front)
