"""The dashboard in a real browser, on a recorded study."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import plotly.graph_objects as go
import pytest
from safetensors.numpy import load_file

from autoprune.front.run import Run
from autoprune.plan.plan import PruningPlan
from autoprune.records.limits import Limits
from autoprune.report.hover import hover_lines
from tests.browser.accessibility import serious_faults
from tests.browser.conftest import Opened

if TYPE_CHECKING:
    from playwright.sync_api import Page

#: Place of a candidate's point on the screen.
POINT = """key => {
  const gd = document.getElementById("plot-front");
  const { xaxis, yaxis } = gd._fullLayout;
  for (const trace of gd.data) {
    const at = trace.customdata ? trace.customdata.indexOf(key) : -1;
    if (at < 0) continue;
    const box = gd.getBoundingClientRect();
    return [box.left + xaxis._offset + xaxis.d2p(trace.x[at]), box.top + yaxis._offset + yaxis.d2p(trace.y[at])];
  }
}"""
#: Keys of the candidates that the chart does not fade.
EMPHASISED = "() => window.board.bold"
#: How much of a candidate's point is painted, from 0 to 255.
OPACITY = """([x, y]) => {
  const canvas = document.querySelector("#plot-front .painted");
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  return canvas.getContext("2d").getImageData((x - box.left) * scale, (y - box.top) * scale, 1, 1).data[3];
}"""


def knee(recorded: Path) -> int:
    return Run.open(recorded).front().knee().number


def title(page: Page) -> str:
    return page.locator("#answer h2").inner_text()


def test_a_point_says_what_there_is_to_say_and_a_click_opens_it(opened: Opened, address: str, recorded: Path) -> None:
    page, number = opened(address), knee(recorded)
    front = Run.open(recorded).front()
    record, point = front.get(number), page.evaluate(POINT, f"0.{number}")
    page.mouse.move(*point)
    page.wait_for_selector("#tip.shown")
    assert page.locator("#tip").inner_text().splitlines() == hover_lines(front, record)
    page.mouse.move(5, 5)
    page.wait_for_selector("#tip:not(.shown)", state="attached")
    page.mouse.click(*point)
    page.wait_for_selector(f"#details h2:has-text('Candidate {number}')")
    assert f"open=0.{number}" in page.url
    assert f"{record.search.multiply_adds:,}" in page.locator("#details").inner_text()


def test_a_limit_gives_the_candidate_that_choose_gives(opened: Opened, address: str, recorded: Path) -> None:
    page, front = opened(address), Run.open(recorded).front()
    page.get_by_label("latency (ms), at most", exact=True).fill("2")
    chosen = front.choose(Limits(max_latency_ms=2.0))
    page.wait_for_selector(f"#answer h2:has-text('Candidate {chosen.number}')")
    inside = {f"0.{record.number}" for record in front.within(Limits(max_latency_ms=2.0))}
    page.wait_for_function("inside => board.bold.every((key) => inside.includes(key))", arg=sorted(inside))
    assert page.evaluate(EMPHASISED)
    strong, faded = (page.evaluate(OPACITY, page.evaluate(POINT, key)) for key in (f"0.{chosen.number}", "0.1"))
    assert strong > 200
    assert 0 < faded < 100
    below = [[x, y + 20] for x, y in (page.evaluate(POINT, key) for key in (f"0.{chosen.number}", "0.0"))]
    strong, faded = ([page.evaluate(OPACITY, [x + step, y]) for step in (-1, 0, 1)] for x, y in below)
    assert max(strong) > 100, "its interval"
    assert 0 < max(faded) < 100, "the interval of the dense model"
    assert "limit=max_latency_ms:2" in page.url
    page.get_by_label("latency (ms), at most", exact=True).fill("0.0001")
    page.wait_for_selector("#answer h2:has-text('No candidate')")


def test_a_page_asks_once_for_what_it_shows_and_again_where_an_answer_came_too_late(
    opened: Opened, address: str, recorded: Path
) -> None:
    page = opened("about:blank", waits=False)
    asked: list[str] = []
    note = lambda request: asked.append(request.post_data_json["output"]) if request.method == "POST" else None  # noqa: E731
    page.on("request", note)
    opened(f"{address}?limit=max_latency_ms:2")
    chosen = Run.open(recorded).front().choose(Limits(max_latency_ms=2.0)).number
    page.wait_for_selector(f"#answer h2:has-text('Candidate {chosen}')")
    assert sum("choice.data" in output for output in asked) == 1
    assert sum("front-figure.data" in output for output in asked) == 1
    asked.clear()
    page.evaluate("dash_clientside.set_props('choice', { data: { ...board.choice, chosen: '0.1', turn: -1 } })")
    with page.expect_request(lambda request: "choice.data" in (request.post_data or "")):
        page.evaluate("dash_clientside.set_props('choice', { data: { ...board.choice, chosen: '0.2', turn: -2 } })")
    page.wait_for_function("board.choice.turn >= 0")
    assert page.evaluate("board.choice.chosen") == f"0.{chosen}"
    page.remove_listener("request", note)


def test_the_legend_hides_an_origin_and_the_slider_of_a_limit_moves_its_field(
    opened: Opened, address: str, recorded: Path
) -> None:
    page = opened(address)
    hidden = {f"0.{one.number}" for one in Run.open(recorded).records if one.origin == "sampled" and not one.stopped}
    assert hidden <= set(page.evaluate(EMPHASISED))
    page.locator("#plot-front .legendtoggle").nth(
        page.locator("#plot-front .legendtext").all_text_contents().index("sampled")
    ).click()
    page.wait_for_function("hidden => !board.bold.some((key) => hidden.includes(key))", arg=sorted(hidden))
    assert page.evaluate(EMPHASISED)
    page.get_by_label("multiply-adds, at most, slider").press("ArrowLeft")
    assert float(page.get_by_label("multiply-adds, at most", exact=True).input_value()) > 0
    page.wait_for_function("location.search.includes('max_multiply_adds')")


def test_the_picture_of_the_chart_has_what_is_painted(opened: Opened, address: str) -> None:
    page = opened(f"{address}?limit=max_latency_ms:2&pin=0.7")
    page.wait_for_function("board.bold.length < 40")
    figure = go.Figure(page.evaluate("board.wholeFigure()"))
    bold = [trace.customdata[at] for trace in figure.data if trace.customdata for at in trace.selectedpoints]
    assert sorted(bold) == sorted(page.evaluate(EMPHASISED))
    assert sum(len(trace.customdata) for trace in figure.data if trace.customdata) == 40
    assert any(shape.fillcolor and shape.type == "rect" for shape in figure.layout.shapes)
    with page.expect_download() as picture:
        page.evaluate("board.savePicture()")
    assert Path(picture.value.path()).read_bytes().startswith(b"\x89PNG")


def test_a_link_restores_the_view(opened: Opened, address: str) -> None:
    query = (
        "?x=multiply_adds&y=recall&xs=linear&limit=max_drop:0.02&pin=0.7&open=0.9&theme=dark&rows=front&sort=-quality"
    )
    page = opened(address + query)
    page.wait_for_selector("#details h2:has-text('Candidate 9')")
    figure = page.evaluate(
        "(({x, y}) => [x.title.text, x.type, y.title.text])"
        "((({xaxis: x, yaxis: y}) => ({x, y}))(document.getElementById('plot-front').layout))"
    )
    assert figure == ["multiply-adds", "linear", "recall (search split)"]
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.get_by_label("Across").input_value() == "multiply_adds"
    assert page.get_by_label("loss of accuracy against dense, at most", exact=True).input_value() == "0.02"
    assert page.locator("#count-compare").inner_text() == "1"
    assert page.locator("[role=columnheader][aria-sort=descending]").inner_text().startswith("accuracy (search)")
    page.get_by_role("tab", name="Understand").click()
    assert "tab=understand" in page.url and "limit=max_drop:0.02" in page.url


def test_the_keyboard_alone_reaches_everything(opened: Opened, address: str) -> None:
    page = opened(address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    table = page.locator("[role=grid]")
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "grid":
            break
    assert table.evaluate("one => one === document.activeElement")
    for key in ("ArrowDown", "ArrowDown", "End", "Home", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector("#details h2:has-text('Candidate 1')")
    table.focus()
    page.keyboard.press(" ")
    assert page.locator("#count-compare").inner_text() == "1"
    page.get_by_role("tab", name="Choose").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="Compare").get_attribute("aria-selected") == "true"
    page.wait_for_selector("#panel-compare:not([hidden])")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(opened: Opened, address: str, scheme: str) -> None:
    page = opened(f"{address}?pin=0.7,0.10&open=0.7", scheme=scheme)
    for tab in ("Choose", "Compare", "Understand"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_selector(f"#panel-{tab.lower()}:not([hidden]) :is(.card, .grid)")
        said = serious_faults(page, colours_alone=scheme == "dark")
        assert not said, f"{tab}: {said}"


def test_a_box_in_the_chart_selects_in_the_lines_and_a_brush_there_in_every_view(
    opened: Opened, address: str, recorded: Path
) -> None:
    page = opened(address)
    box = page.locator("#plot-front .nsewdrag").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.1 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.6 * box["height"], steps=4)
    page.mouse.up()
    page.wait_for_function("location.search.includes('brush=latency_ms')")
    page.wait_for_function("location.search.includes('brush=quality')")
    page.get_by_role("button", name="Clear selection").click()
    page.wait_for_function("!location.search.includes('brush=')")
    # In one step: the chart may be drawn anew between two.
    grip = page.wait_for_function("""() => {
      const one = document.querySelector("#plot-parallel .grip");
      if (!one) return null;
      one.scrollIntoView({ block: "center" });
      const { x, y, width, height } = one.getBoundingClientRect();
      return height > 0 && { x: x + width / 2, y, height };
    }""").json_value()
    x = grip["x"]
    page.mouse.move(x, grip["y"] + 0.05 * grip["height"])
    page.mouse.down()
    page.mouse.move(x, grip["y"] + 0.5 * grip["height"], steps=4)
    page.mouse.up()
    page.wait_for_function("location.search.includes('brush=quality')")
    low, high = map(float, re.search(r"brush=quality:([\d.]+)~([\d.]+)", page.url).groups())  # type: ignore[union-attr]
    records = [one for one in Run.open(recorded).records if low <= one.search.quality <= high]
    assert 0 < len(records) < 40
    wanted = sorted(f"0.{one.number}" for one in records)  # the chart is drawn in a frame after the address
    page.wait_for_function(f"wanted => JSON.stringify(({EMPHASISED})().sort()) === JSON.stringify(wanted)", arg=wanted)
    page.get_by_role("button", name="Within limits").click()
    assert page.locator("#candidates-count").inner_text() == f"{len(records)} of 40"
    page.get_by_role("button", name="Clear selection").click()
    assert page.locator("#candidates-count").inner_text() == "40 of 40"


#: Heights of the chart, and of its place.
HEIGHTS = """() => {
  const gd = document.getElementById("plot-front");
  return [gd._fullLayout.height, gd.clientHeight];
}"""


def test_a_chart_in_space_says_what_there_is_to_say_of_a_point_and_a_click_opens_it(
    opened: Opened, address: str, recorded: Path
) -> None:
    page, number = opened(f"{address}?view=3d"), knee(recorded)
    front = Run.open(recorded).front()
    page.wait_for_function("Object.keys(board.spotsInSpace()).length === 40")
    box = page.locator("#plot-front").bounding_box()
    assert box is not None
    x, y, _ = page.evaluate("key => board.spotsInSpace()[key]", f"0.{number}")
    page.mouse.move(box["x"] + x, box["y"] + y)
    page.wait_for_selector("#tip.shown")
    assert page.locator("#tip").inner_text().splitlines() == hover_lines(front, front.get(number))
    page.mouse.click(box["x"] + x, box["y"] + y)
    page.wait_for_selector(f"#details h2:has-text('Candidate {number}')")
    page.mouse.move(box["x"] + 200, box["y"] + 300)
    page.mouse.down()
    page.mouse.move(box["x"] + 320, box["y"] + 330, steps=4)
    page.mouse.up()
    page.wait_for_function("([key, x]) => Math.abs(board.spotsInSpace()[key][0] - x) > 2", arg=[f"0.{number}", x])
    assert f"open=0.{number}" in page.url, "turning opens nothing"


def test_a_selection_in_space_is_painted_and_plotly_draws_nothing_anew(
    opened: Opened, address: str, recorded: Path
) -> None:
    page = opened(f"{address}?view=3d", width=420)
    drawn, place = page.evaluate(HEIGHTS)
    assert drawn == place
    page.wait_for_function("board.bold.length === 40")
    page.evaluate("""() => {
      window.drawnAnew = 0;
      for (const name of ["react", "restyle", "update", "newPlot"]) {
        const own = Plotly[name];
        Plotly[name] = (...given) => { drawnAnew += 1; return own(...given); };
      }
    }""")
    page.evaluate("board.set({ brush: { quality: [0.95, 1] }, pins: ['0.7'] })")
    wanted = sorted(f"0.{one.number}" for one in Run.open(recorded).records if 0.95 <= one.search.quality <= 1)
    page.wait_for_function("wanted => JSON.stringify([...board.bold].sort()) === JSON.stringify(wanted)", arg=wanted)
    assert page.evaluate("drawnAnew") == 0
    whole = go.Figure(page.evaluate("board.wholeFigure()"))
    large = [
        key
        for trace in whole.data
        if trace.customdata
        for key, size in zip(trace.customdata, trace.marker.size, strict=True)
        if size >= 3
    ]
    assert sorted(large) == wanted


@pytest.mark.parametrize("width", [420, 1024])
def test_a_narrow_page_does_not_scroll_sideways_and_its_chart_is_as_high_as_its_place(
    opened: Opened, address: str, width: int
) -> None:
    page = opened(f"{address}?pin=0.7,0.10&open=0.7", width=width)
    drawn, place = page.evaluate(HEIGHTS)
    assert drawn == place
    for tab in ("Choose", "Compare", "Understand"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_selector(f"#panel-{tab.lower()}:not([hidden]) .card")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_candidate_is_downloaded_and_two_that_are_pinned_are_compared(
    opened: Opened, address: str, recorded: Path, tmp_path: Path
) -> None:
    page = opened(f"{address}?open=0.7")
    record = Run.open(recorded).front().get(7)
    with page.expect_download() as plan:
        page.locator("#details").get_by_text("Plan (JSON)").click()
    assert PruningPlan.from_json(Path(plan.value.path()).read_text()) == record.plan
    with page.expect_download() as weights:
        page.locator("#details").get_by_text("Weights (safetensors)").click()
    file = tmp_path / "weights.safetensors"
    weights.value.save_as(file)
    assert {name: len(array) for name, array in load_file(file).items()} == record.widths
    with page.expect_download() as table:
        page.get_by_text("Download CSV").click()
    assert len(Path(table.value.path()).read_text().splitlines()) > 10
    assert json.loads(Path(plan.value.path()).read_text())
    page.get_by_role("button", name="Pin for comparison").click()
    page.locator("[data-at]").nth(10).click()
    page.wait_for_selector("#details h2:has-text('Candidate 10')")
    page.get_by_role("button", name="Pin for comparison").click()
    page.get_by_role("tab", name="Compare").click()
    text = page.locator("#comparison").inner_text()
    assert "dense" in text
    for name in ("7", "10", "stages.1.conv1"):
        assert name in text
    assert "pin=0.7,0.10" in page.url
