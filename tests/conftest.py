"""Shape types are checked in every test; torch runs on one thread, which is quicker for small models."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from jaxtyping import install_import_hook

# Before anything of autoprune is imported: jaxtyping checks the annotated shapes through beartype.
_hook = install_import_hook("autoprune.criteria", "beartype.beartype")

import pytest  # noqa: E402

from tests.schedule import ByModule  # noqa: E402

#: Temporary folders lie in memory where there is room: a run folder waits for the disk after each file.
MEMORY = Path("/dev/shm")
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 2**31:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# The cache of whoever runs the tests is neither read nor written.
os.environ["AUTOPRUNE_CACHE_DIR"] = ""

# Collections are rare: with torch in memory, those of Python's default take a tenth of the time.
gc.set_threshold(50_000, 20, 50)

#: Folders of long tests, which start first: a worker that is done early has short ones left to take.
FIRST = ("browser", "faults", "end_to_end", "conformance", "unit/study", "unit/recovery", "architecture", "unit")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByModule:
    """The tests of a group run in one worker: xdist writes its own groups where pytest 9.2 does not read them."""
    return ByModule(config, log)  # type: ignore[arg-type]  # its class is none of xdist's public names


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the folders of long tests to the front."""
    here = Path(__file__).parent
    names = {item: item.path.relative_to(here).as_posix() for item in items}
    items.sort(key=lambda item: next((place for place, one in enumerate(FIRST) if names[item].startswith(one)), 99))


def pytest_collection_finish() -> None:
    """Leave everything that stays for the whole run, such as torch, out of garbage collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _discoveries() -> Iterator[None]:
    from tests.discoveries import kept_for_the_run

    with kept_for_the_run():
        yield


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed() -> None:
    import torch  # here, since the process that hands out the tests needs none

    torch.set_num_threads(1)
    torch.default_generator.manual_seed(0)  # that of the CPU: torch.manual_seed takes longer than many a test
