"""Text of users in the report: it is seen, and is no part of the page, its scripts or its figures."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import pytest

from autoprune.errors import plain_text
from autoprune.front.repeats import Repeats
from autoprune.front.run import Run
from autoprune.records.run_folder import RunFolder
from autoprune.records.sensitivity import Sensitivity
from autoprune.report import html
from autoprune.report.labels import hover, label, labels
from autoprune.report.repeats import write_repeats_report
from autoprune.report.sections import importances as sections
from tests.unit.evil import EVIL, importances_of
from tests.unit.front.builders import dense, latency, measurement, record, run_of
from tests.unit.report.test_html import Page

NAMES = [*EVIL, "</script><script>alert(1)</script>", "<b onclick=x>&amp;", "<!--", "{{ 7 * 7 }}{% raw %}", "%{x}"]


def run_named(name: str, path: Path) -> Run:
    """Two members of which one is named by somebody who means ill, everywhere that a record has a name."""
    evil = record(1, measurement(0.8, 500, took=latency(0.5)), kept={name: (0,)}, note=name)
    known = [dense(took=latency(1.0)), evil]
    return run_of(path, known, quality=name)


def written(name: str, path: Path) -> str:
    folder = RunFolder(path / "run")
    groups = [{"name": name, "channels": 4}, {"name": f"{name}\x1b[0m", "channels": 4}]
    left = {"module": name, "reason": f"it is {name}", "channels": 7, "line": name, "remedy": name}
    described = {"name": name, "quality": name, "higher_is_better": True, "settings": {}}
    folder.write_study({**described, "groups": groups, "unprunable": [left]})
    added = {group["name"]: (0.1,) for group in groups}
    folder.write_sensitivity(
        Sensitivity(
            keep_shares=(0.5,), added_loss=added, criterion=name, samples_forward=1, samples_trained=0, note=name
        )
    )
    folder.write_failure(9, f"Traceback:\n  File 'x.py', line 1\nError: {name}")
    return html.write_report(run_named(name, folder.path)).read_text(encoding="utf-8")


def page_template() -> str:
    return resources.files("autoprune.report").joinpath("templates", "page.html").read_text(encoding="utf-8")


def texts(data: object) -> list[str]:
    """Every string in the data of a figure, keys left out."""
    if isinstance(data, str):
        return [data]
    if isinstance(data, dict):
        return [text for value in data.values() for text in texts(value)]
    return [text for value in data for text in texts(value)] if isinstance(data, list) else []


def figures(page: str) -> list[object]:
    """Traces and layout of each figure."""
    found = re.findall(r'<script type="application/json" id="[^"]*-data">(.*?)</script>', page, re.DOTALL)
    return [json.loads(text) for text in found]


@pytest.mark.parametrize("name", NAMES)
def test_a_report_shows_text_as_text(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "importances", lambda _: importances_of(name))
    text = written(name, tmp_path)
    page, seen = Page(text), plain_text(name)
    assert page.title == f"{seen}: autoprune"
    assert page.headings[0] == seen
    assert [f"{seen} (7)", f"it is {seen}", seen, seen, "0.0%"] in page.rows
    assert ["1", "finished", seen] in page.rows
    assert ["9", "crashed", f"Error: {seen}"] in page.rows
    assert [row for row in page.rows if row[:2] == ["parameter", seen]]
    assert any(line.startswith(f"Dense: {seen} 0.9") for line, _ in page.items)
    own = set(re.findall(r"<(\w+)", page_template()))
    assert {tag for tag, _ in page.tags} <= own | {"path"}
    body = text[text.index("<body>") : text.index("plotly.js v")]
    assert "\x1b" not in body


@pytest.mark.parametrize("name", NAMES)
def test_figures_have_no_tags_of_others(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "importances", lambda _: importances_of(name))
    page = written(name, tmp_path)
    drawn = figures(page)
    assert len(drawn) == 11
    found = texts(drawn)
    assert sum(label(name) in text for text in found) > 10
    for text in found:
        assert text.isprintable()
        assert not set(re.findall(r"<[^>]*>?", text)) - {"<br>", "<extra>", "</extra>"}, text


def test_names_that_look_alike_keep_places_of_their_own() -> None:
    long = "y" * 10_000
    assert labels(["a", "a\x1b[0m", "b", "1", long, long + "z"])[:4] == ["a", "a (2)", "b", "1"]
    assert len(set(labels([long, long + "z"]))) == 2
    assert max(map(len, labels([long, long + "z"]))) < 100
    assert hover(["<b>", 1]) == "&lt;b&gt;<br>1"


def test_the_report_of_repeats_shows_text_as_text(tmp_path: Path) -> None:
    name = "</script><b onclick=x>\x1b[2J"
    repeats = Repeats(runs=(run_named(name, tmp_path / "seed-0"),))
    page = Page(write_repeats_report(repeats, tmp_path / "all.html").read_text(encoding="utf-8"))
    assert [row for row in page.rows if row[0] == "best_</script><b onclick=x>"]
    assert "b" not in {tag for tag, _ in page.tags}
