"""Parts of the docs that are generated from the code. `python -m tests.architecture.pages` writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from autoprune.search.space.parameters import PARAMETERS

ROOT = Path(__file__).parents[2]


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    head, *body = [f"| {' | '.join(line)} |" for line in (header, *rows)]
    return "\n".join([head, f"|{'---|' * len(header)}", *body])


def parameters() -> str:
    """The parameters of a trial other than widths."""
    rows = [
        (f"`{row.name}`", f"`{row.setting}`", f"`{row.field}`" if row.field else "", row.when)
        for row in PARAMETERS.values()
    ]
    return table(("parameter", "choices in the settings", "field of the plan", "when it has an effect"), rows)


#: Page and name of the part -> what makes it.
PARTS: Mapping[tuple[str, str], Callable[[], str]] = {("search.md", "parameters"): parameters}


def generated(page: str, text: str) -> str:
    """The text of a page with all its generated parts made anew."""
    for (name, part), make in PARTS.items():
        if name == page:
            begin, end = f"<!-- {part}: generated, see CONTRIBUTING.md -->", f"<!-- end of {part} -->"
            assert begin in text, f"{page} has no place for {part}"
            before, _, rest = text.partition(begin)
            text = f"{before}{begin}\n\n{make()}\n\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    for page in {name for name, _ in PARTS}:
        path = ROOT / "docs" / page
        path.write_text(generated(page, path.read_text()))
