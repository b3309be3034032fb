"""What the workers of a run do, for those who look at it."""

from __future__ import annotations

import os
from pathlib import Path

from autoprune.records.workers import Worker, read_workers, write_workers
from tests.processes import is_killed

WORKER = Worker(name="one:7", trial=3, since=5.0)


def test_workers_of_a_process_that_was_killed_are_not_shown(tmp_path: Path) -> None:
    write_workers(tmp_path, [WORKER])
    assert read_workers(tmp_path) == (WORKER,)

    def dies() -> None:
        write_workers(tmp_path, [WORKER, WORKER])
        os.kill(os.getpid(), 9)

    assert is_killed(dies)
    assert read_workers(tmp_path) == ()
