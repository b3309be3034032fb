"""One browser and one server for all tests of the dashboard."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from tests.browser.chromium import CHROMIUM, launch, serving
from tests.browser.recorded import recorded_run

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page


@pytest.fixture(scope="session")
def context() -> Iterator[BrowserContext]:
    """One profile for all pages, so that scripts are compiled once."""
    if CHROMIUM is None and not os.environ.get("AUTOPRUNE_REQUIRE_BROWSER"):
        pytest.skip("no Chromium on this machine")
    assert CHROMIUM is not None, "AUTOPRUNE_REQUIRE_BROWSER is set: install Chromium"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Pages are put together by the processor, which takes less of it than a graphics card that it simulates.
        browser = launch(playwright, "--disable-gpu")
        yield browser.new_context(reduced_motion="reduce", accept_downloads=True)
        browser.close()


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study of 40 candidates."""
    folder = tmp_path_factory.mktemp("recorded") / "digits"
    recorded_run(folder)
    return folder


@pytest.fixture(scope="session")
def address(recorded: Path) -> Iterator[str]:
    with serving(recorded) as url:
        yield url


@pytest.fixture(scope="session")
def page_and_errors(context: BrowserContext) -> tuple[Page, list[str]]:
    """One page for all tests, whose process has compiled the scripts, and the errors of its scripts."""
    errors: list[str] = []
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: errors.append(str(error)))
    return page, errors


Opened = Callable[..., "Page"]


@pytest.fixture
def opened(page_and_errors: tuple[Page, list[str]]) -> Iterator[Opened]:
    """Function that opens an address and waits until the chart is drawn; errors of the page fail the test."""
    page, errors = page_and_errors

    def open_page(
        url: str, width: int = 1440, scheme: Literal["light", "dark"] = "light", *, waits: bool = True
    ) -> Page:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        page.goto(url)
        if waits:
            page.wait_for_selector("#plot-front[data-drawn]")
        return page

    yield open_page
    page.evaluate("localStorage.clear()")
    page.goto("about:blank")
    found = errors.copy()
    errors.clear()
    assert not found, found
