"""The report in Chromium, opened from disk with the network off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from autoprune.front.run import Run
from autoprune.report.html import write_report
from tests.browser.accessibility import serious_faults

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page


@pytest.fixture(scope="module")
def report(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(Run.open(recorded), tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def page(report: Path, context: BrowserContext) -> Iterator[Page]:
    """The page, opened once; no script of it may fail, and nothing may be fetched."""
    assert context.browser is not None
    own = context.browser.new_context(viewport={"width": 1280, "height": 900}, offline=True, color_scheme="light")
    opened = own.new_page()
    faults: list[str] = []
    asked: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(report.as_uri())
    yield opened
    assert not faults
    assert {url.partition("#")[0] for url in asked} == {report.as_uri()}
    own.close()


def test_keys_alone_reach_contents_and_sort_a_table(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    header = page.locator("#front th").filter(has_text="multiply-adds").first
    header.get_by_role("button").focus()
    column = header.evaluate("(cell) => cell.cellIndex")
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    cells = page.locator(f"#front tbody tr td:nth-child({column + 1})").all_inner_texts()
    numbers = [int(text.replace(",", "")) for text in cells]
    assert len(numbers) > 2
    assert numbers == sorted(numbers)
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"


def test_every_figure_is_drawn_when_it_comes_into_view(page: Page) -> None:
    figures = page.locator("[data-figure]")
    assert figures.count() > 10
    for place in range(figures.count()):
        figures.nth(place).scroll_into_view_if_needed()
        figures.nth(place).locator(".plot-container").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 1280, "nothing is wider than the page"


def test_the_page_is_light_or_dark_by_the_system_and_by_choice(page: Page) -> None:
    ink = "document.querySelector('#figure-result').layout.template.layout.font.color"
    background = "getComputedStyle(document.body).backgroundColor"
    page.locator("#figure-result .plot-container").first.wait_for()
    light = page.evaluate(f"[{ink}, {background}]")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{ink} !== {light[0]!r}")
    dark = page.evaluate(f"[{ink}, {background}]")
    assert dark[1] != light[1]
    page.get_by_role("button", name="Light").click()
    page.wait_for_function(f"{ink} === {light[0]!r}")
    assert page.evaluate(f"[{ink}, {background}]") == light
    assert page.get_by_role("button", name="Light").get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="System").click()


def test_no_serious_fault_of_accessibility(page: Page) -> None:
    page.emulate_media(color_scheme="light")
    assert not serious_faults(page)
    page.emulate_media(color_scheme="dark")
    assert not serious_faults(page, colours_alone=True)
