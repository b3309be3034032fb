from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

from autoprune.errors import NotFoundError
from autoprune.front.run import Run
from autoprune.plan.weights import WeightPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.run_folder import RunFolder
from autoprune.records.sensitivity import BlockSensitivity, Sensitivity
from autoprune.report.html import write_report
from tests.unit.report.noisy import dense, latency, measurement, record, run_of

SCAN = Sensitivity(
    keep_shares=(0.5, 0.25), added_loss={"a": (0.1, 0.2)}, criterion="l2", samples_forward=1, samples_trained=0
)
SPARSE = WeightPlan(sparsity=0.6)
EVIL = "</script><script src='https://evil.example/x.js'></script><b onclick=x>&"


class Page(HTMLParser):
    """Tags with their attributes, headings, rows of the tables and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.rows: list[list[str]] = []
        self.items: list[tuple[str, str | None]] = []
        self.title = ""
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag in ("h1", "h2"):
            self.headings.append("")
        if tag == "p":
            self.items.append(("", dict(attrs).get("class")))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("td", "th") and self.rows:
            self.rows[-1][-1] += data
        if self._inside in ("h1", "h2"):
            self.headings[-1] += data
        if self._inside == "title":
            self.title += data
        if self._inside == "p":
            self.items[-1] = (self.items[-1][0] + data, self.items[-1][1])

    @property
    def figures(self) -> int:
        return sum("data-figure" in attributes for _, attributes in self.tags)


def timed() -> list[CandidateRecord]:
    return [
        dense(0.90, 1000, took=latency(1.0)),
        record(1, measurement(0.85, 300, took=latency(0.5)), test=measurement(0.84, 300, split="test", error=0.02)),
        record(2, measurement(0.60, 100, took=latency(0.3)), samples_trained=1234),
        record(3, measurement(0.80, 400, took=latency(0.6)), origin="uniform"),
    ]


def untimed() -> list[CandidateRecord]:
    return [dense(0.90, 1000), record(1, measurement(0.85, 300))]


def text_of(path: Path, records: list[CandidateRecord], scan: Sensitivity | None = None, name: str = "digits") -> str:
    folder = RunFolder(path)
    folder.write_study(
        {
            "name": name,
            "quality": "accuracy",
            "higher_is_better": True,
            "settings": {},
            "groups": [{"name": "a" if name == "digits" else name, "channels": 4}],
            "unprunable": [{"module": name, "reason": f"it is {name}", "channels": 7}],
        }
    )
    if scan is not None:
        folder.write_sensitivity(scan)
    return write_report(run_of(path, records)).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> str:
    return text_of(tmp_path_factory.mktemp("full"), timed(), SCAN)


def test_nothing_is_fetched(full: str) -> None:
    """No tag and no style refers to anything outside the page."""
    loading = {"src", "srcset", "data", "poster", "action", "background"}
    for tag, attributes in Page(full).tags:
        assert not loading & attributes.keys(), (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#")
        assert tag not in {"link", "iframe", "img", "object", "embed", "base"}
    for style in re.findall(r"<style>(.*?)</style>", full, re.DOTALL):
        assert "url(" not in style
        assert "@import" not in style


def test_plotly_is_in_the_page_once_and_the_rest_is_small(full: str) -> None:
    assert full.count("plotly.js v") == 1
    assert full.startswith("<!doctype html>")
    assert '<meta charset="utf-8">' in full[:200]
    assert len(full.encode()) - len(get_plotlyjs().encode()) < 200_000


def test_every_figure_is_there(full: str) -> None:
    page = Page(full)
    assert page.figures == 10
    assert page.headings[0] == "digits"
    assert page.headings[2:] == [
        "The front",
        "Trade-offs",
        "All quantities",
        "Layers",
        "Sensitivity",
        "Which parameters mattered",
        "Progress",
        "Early stopping",
        "Left alone",
        "Settings",
    ]
    assert page.title == "digits: autoprune"


def test_every_figure_has_a_text_and_every_section_a_title_and_a_link(full: str) -> None:
    page = Page(full)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    described = [attributes.get("aria-labelledby") for tag, attributes in page.tags if tag in ("figure", "section")]
    assert described
    assert set(described) <= set(ids)
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert {str(link)[1:] for link in links} <= set(ids)
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert {f"#{name}" for name in sections} <= set(links)
    landmarks = {tag for tag, _ in page.tags}
    assert {"header", "nav", "main"} <= landmarks
    for table in (attributes for _, attributes in page.tags if attributes.get("class") == "table"):
        assert table["tabindex"] == "0"
        assert table["aria-label"]


def test_the_table_has_a_row_for_each_member(full: str) -> None:
    rows = Page(full).rows
    start = next(place for place, row in enumerate(rows) if row[0] == "candidate")
    assert rows[start][2:4] == ["accuracy (search)", "accuracy (test)"]
    assert rows[start + 1][:3] == ["0", "dense", "0.9000 ± 0.0100"]
    assert rows[start + 2] == [
        "1",
        "sampled",
        "0.8500 ± 0.0100",
        "0.8400 ± 0.0200",
        "30",
        "1,200",
        "300",
        "30.0%",
        "5.000",
        "0.50 (0.48 to 0.52)",
    ]
    assert [row[0] for row in rows[start + 1 : start + 4]] == ["0", "1", "2"], "candidate 3 is dominated"
    head = ["layers (channels that stay)", "why", "where", "what to do", "multiply-adds that stay"]
    alone = rows.index(head)
    assert rows[alone + 1] == ["digits (7)", "it is digits", "", "", ""], "of a run of an earlier version"


def test_the_words_are_there_and_warnings_are_marked(full: str) -> None:
    page = Page(full)
    assert "trained on 1,234 samples together" in full
    assert any(line.startswith("Dense: accuracy 0.9000") and kind is None for line, kind in page.items)
    assert any("uniform sweep" in line for line, _ in page.items)


def test_a_warning_is_marked(tmp_path: Path) -> None:
    spoiled = [*untimed(), record(2, measurement(0.5, 50), note="loss is nan")]
    assert any("diverged" in line and kind == "warning" for line, kind in Page(text_of(tmp_path, spoiled)).items)


def test_dense_is_in_the_table_even_when_it_is_beaten(tmp_path: Path) -> None:
    rows = Page(text_of(tmp_path, [dense(0.8, 1000), record(1, measurement(0.9, 500))])).rows
    start = next(place for place, row in enumerate(rows) if row[0] == "candidate")
    assert [row[0] for row in rows[start + 1 : start + 3]] == ["0", "1"]


@pytest.mark.parametrize(
    ("records", "scan", "drawn"),
    [(untimed(), SCAN, 8), (untimed(), None, 7), (timed(), None, 9), ([dense()], None, 5), ([], None, 0)],
    ids=["no latency", "no latency, no scan", "no scan", "front of one", "nothing yet"],
)
def test_what_was_not_measured_is_left_out(
    tmp_path: Path, records: list[CandidateRecord], scan: Sensitivity | None, drawn: int
) -> None:
    text = text_of(tmp_path, records, scan)
    page = Page(text)
    assert page.figures == drawn
    assert ("Sensitivity" in page.headings) == (scan is not None)
    assert ("accuracy and latency (ms)" in text) == any(r.search.latencies for r in records)
    cells = [cell for row in page.rows for cell in row]
    assert not any(re.search(r"\bnan\b|None", cell) for cell in cells)


def test_names_are_escaped(tmp_path: Path) -> None:
    evil = record(1, measurement(0.8, 500), kept={EVIL: (0,)}, note=EVIL)
    scan = Sensitivity(
        keep_shares=(0.5,), added_loss={EVIL: (0.1,)}, criterion="l2", samples_forward=1, samples_trained=0
    )
    page = Page(text_of(tmp_path, [dense(), evil], scan, name=EVIL))
    assert page.headings[0] == EVIL
    assert [f"{EVIL} (7)", f"it is {EVIL}", "", "", ""] in page.rows
    assert ["1", "finished", EVIL] in page.rows, "among the failures"
    assert page.title == f"{EVIL}: autoprune"
    assert not any("evil" in str(attributes) or "onclick" in attributes for _, attributes in page.tags)
    assert page.figures == 8


def test_the_report_goes_where_it_is_asked_to(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    described = {"name": "digits", "quality": "accuracy", "higher_is_better": True, "settings": {}}
    folder.write_study({**described, "groups": [], "unprunable": []})
    assert write_report(run_of(folder.path, [dense()])) == tmp_path / "run" / "report.html"
    asked = tmp_path / "elsewhere" / "page.html"
    assert write_report(run_of(folder.path, [dense()]), asked) == asked
    assert "Left alone" not in Page(asked.read_text(encoding="utf-8")).headings


def test_a_folder_without_a_study_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"must hold study\.json"):
        Run.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_masks_have_columns_where_there_are_some(tmp_path: Path) -> None:
    records = [
        dense(0.9, 1000, took=latency(1.0)),
        record(1, measurement(0.8, 900, zeros=60, took=latency(1.0), masked=latency(1.01)), weights=SPARSE),
        record(2, measurement(0.7, 300, took=latency(0.5))),
    ]
    page = Page(text_of(tmp_path, records))
    start = next(place for place, row in enumerate(page.rows) if row[0] == "candidate")
    head, *rows = page.rows[start : start + 4]
    assert head[3:6] == ["parameters", "not zero", "size on disk (bytes)"]
    assert head[-1] == "ratio to itself without masks (95 %)"
    assert [row[3:5] for row in rows] == [["100", "100"], ["90", "30"], ["30", "30"]]
    assert [row[-1] for row in rows] == ["", "1.01 (0.99 to 1.03)", ""]
    assert any("Masks did not make" in line and kind == "warning" for line, kind in page.items)


def test_zeros_that_were_not_timed(tmp_path: Path) -> None:
    records = [dense(0.9, 1000), record(1, measurement(0.8, 900, zeros=60), weights=SPARSE)]
    (head,) = [row for row in Page(text_of(tmp_path, records)).rows if row[0] == "candidate"]
    assert "not zero" in head
    assert not any("without masks" in name for name in head)


def looked_at(count: int) -> list[CandidateRecord]:
    """The order at 25 % is that of the end, the one at 0 is not; the last one was stopped at 25 %."""
    found = [
        dataclasses.replace(
            record(n, measurement(0.5 + n / 100, 100 + n)), rungs=((0.0, 0.3 + 7 * n % 5), (0.25, 0.4 + n / 100))
        )
        for n in range(1, count + 1)
    ]
    return [dense(), *found[:-1], dataclasses.replace(found[-1], fidelity=0.25)]


def test_the_audit_of_the_rungs_has_a_row_for_each(tmp_path: Path) -> None:
    page = Page(text_of(tmp_path, looked_at(15), None))
    start = next(n for n, row in enumerate(page.rows) if row[0] == "training done")
    before, quarter = page.rows[start + 1 : start + 3]
    assert before[0] == "0%"
    assert "the interval holds 0" in before[1]
    assert quarter == ["25%", "", "14", "1.00 (1.00 to 1.00)", "1"]


def test_without_rungs_the_report_says_so(tmp_path: Path) -> None:
    assert "No candidate was evaluated at a rung." in text_of(tmp_path, [dense()], None)


def test_blocks_that_a_scan_left_out_have_bars_and_a_table(tmp_path: Path) -> None:
    """Also where there are no groups at all."""
    left = (
        BlockSensitivity(name="layers.0", added_loss=0.25, parameters=0.4, multiply_adds=0.123),
        BlockSensitivity(name=EVIL, added_loss=-0.5, parameters=0.1, multiply_adds=0.2),
    )
    folder, scan = RunFolder(tmp_path), dataclasses.replace(SCAN, added_loss={}, dropped=left)
    rows = [{"name": name} for name in ("layers.0", EVIL)]
    described = {"name": "depth", "quality": "accuracy", "higher_is_better": True, "settings": {}}
    folder.write_study({**described, "groups": [], "blocks": rows})
    folder.write_sensitivity(scan)
    page = Page(write_report(run_of(tmp_path, untimed())).read_text(encoding="utf-8"))
    assert "Sensitivity" not in page.headings
    assert "Sensitivity of blocks and layers" in page.headings
    place = page.rows.index(["block or layer", "loss added without it", "parameters saved", "multiply-adds saved"])
    assert page.rows[place + 1 : place + 3] == [
        ["layers.0", "0.25", "40.0%", "12.3%"],
        [EVIL, "-0.5", "10.0%", "20.0%"],
    ]
    assert page.figures == 6, "the bars among them"
    assert not any("evil" in str(attributes) for _, attributes in page.tags)
