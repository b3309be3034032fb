"""Pictures of the dashboard: every view at three widths, light and dark, to look at; and those of the README.

    python -m benchmarks.pictures [--to pictures] [--docs]

The run is the made-up one of the browser tests.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tests.browser.chromium import launch, serving
from tests.browser.recorded import recorded_run

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

#: View -> its address.
VIEWS = {
    "choose": "?limit=max_drop:0.02&limit=max_latency_ms:2.5&pin=0.7",
    "opened": "?open=0.22&view=3d",
    "space": "?view=3d&pin=0.7,0.20&limit=max_drop:0.02",
    "compare": "?tab=compare&pin=0.7,0.22,0.37",
    "understand": "?tab=understand",
}
WIDTHS = (1440, 1024, 420)
#: Pictures of the README: name -> (view, mode, height).
_DOCS: dict[str, tuple[str, Literal["light", "dark"], int]] = {
    "dashboard": ("choose", "light", 760),
    "dashboard-3d": ("space", "dark", 720),
    "dashboard-compare": ("compare", "dark", 760),
}
_IMAGES = Path(__file__).parents[1] / "docs" / "img"


def main(
    to: Annotated[Path, typer.Option(help="Folder to write.")] = Path("pictures"),
    docs: Annotated[bool, typer.Option("--docs", help="Write the pictures of the README instead.")] = False,
) -> None:
    """Write the pictures."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "digits"
        recorded_run(folder)
        with serving(folder) as url, launch(playwright) as browser:
            context = browser.new_context(reduced_motion="reduce")
            for name, (view, mode, height) in _DOCS.items() if docs else ():
                _take(context, url + VIEWS[view], 1400, height, mode, _IMAGES / f"{name}.png")
            for view in () if docs else VIEWS:
                for width in WIDTHS:
                    for mode in ("light", "dark"):
                        _take(context, url + VIEWS[view], width, 0, mode, to / f"{view}-{width}-{mode}.png")


def _take(  # a picture has as many sides
    context: BrowserContext, url: str, width: int, height: int, mode: Literal["light", "dark"], path: Path
) -> None:
    """Take a picture; of the whole page when the height is 0."""
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": height or 900})
    page.emulate_media(color_scheme=mode)
    page.goto(url)
    page.wait_for_selector("[role=tabpanel]:not([hidden]) :is(.main-plot[data-drawn], section h2)")
    if not height:
        page.set_viewport_size({"width": width, "height": page.evaluate("document.documentElement.scrollHeight")})
    page.wait_for_timeout(2000)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path)
    page.close()


if __name__ == "__main__":
    typer.run(main)
