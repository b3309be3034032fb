"""Faults of accessibility that axe-core finds in a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page


def serious_faults(page: Page, *, colours_alone: bool = False) -> list[tuple[str, list[str]]]:
    """Rule and first elements of each serious fault.

    colours_alone: of a page that was looked at in other colours already.
    """
    from axe_playwright_python.sync_playwright import Axe

    options: dict[str, object] = {"resultTypes": ["violations"]}
    if colours_alone:
        options["runOnly"] = ["color-contrast", "link-in-text-block"]
    found = Axe().run(page, options=options).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    return [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in serious]
