"""Chromium of this machine, and dashboards that it opens: for the tests, the benchmarks and the pictures."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: WebGL without a graphics card, which the chart of many points and the lines need.
_ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage"]


def launch(playwright: Playwright, *further: str) -> Browser:
    """Start Chromium with further arguments."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=[*_ARGUMENTS, *further])


@contextmanager
def serving(*folders: Path, read_only: bool = False) -> Iterator[str]:
    """A dashboard of these folders; its address."""
    from autoprune.dashboard.serve import Dashboard

    served = Dashboard(folders, port=0, read_only=read_only)
    thread = threading.Thread(target=served.serve)
    thread.start()
    try:
        yield served.url
    finally:
        served.close()
        thread.join()
