"""The dashboard while its folders change: a study that runs, notes, folders that vanish, hostile names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autoprune.cli.app import app
from autoprune.front.run import Run
from tests.browser.chromium import serving
from tests.browser.conftest import Opened
from tests.browser.recorded import Recorded, recorded_run

HOSTILE = "<img src=x onerror=\"document.title='hit'\">"


def test_a_running_study_is_followed(opened: Opened, tmp_path: Path) -> None:
    run = Recorded(tmp_path / "run")
    run.add(10)
    with serving(run.folder.path) as url:
        page = opened(url)
        page.wait_for_function("document.getElementById('candidates-count').textContent === '10 of 10'")
        run.add(2)
        page.wait_for_function("document.getElementById('candidates-count').textContent === '12 of 12'")
        page.wait_for_function(
            "document.getElementById('plot-front').data.flatMap(t => t.customdata || []).includes('0.11')"
        )
        # Half a file is no study: the page stays as it was, says so, and goes on.
        study = run.folder.path / "study.json"
        whole = study.read_text()
        study.write_text(whole[:100])
        page.wait_for_selector("#banner .warning:has-text('study.json')")
        assert page.locator("#candidates-count").inner_text() == "12 of 12"
        study.write_text(whole)
        run.add()
        page.wait_for_function("document.getElementById('candidates-count').textContent === '13 of 13'")
        assert page.locator("#banner .warning").count() == 0


def test_notes_and_the_choice_are_kept_in_the_run_folder(opened: Opened, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    recorded_run(folder, 15)
    with serving(folder) as url:
        page = opened(f"{url}?open=0.7")
        page.get_by_label("Note", exact=True).fill(f"on the phone {HOSTILE}")
        page.get_by_role("button", name="Save note").click()
        page.wait_for_selector("#said.shown:has-text('stored')")
        page.get_by_role("button", name="Mark as chosen").click()
        page.wait_for_selector("#details .chip:has-text('chosen')")
        page.reload()
        page.wait_for_selector("#details .chip:has-text('chosen')")
        assert page.get_by_label("Note", exact=True).input_value() == f"on the phone {HOSTILE}"
        assert page.title() != "hit"
    found = Run.open(folder).annotations
    assert found.chosen == 7
    assert found.notes[7] == f"on the phone {HOSTILE}"


def test_nothing_is_written_where_it_may_only_be_read(opened: Opened, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    recorded_run(folder, 15)
    with serving(folder, read_only=True) as url:
        page = opened(f"{url}?open=0.7")
        page.wait_for_selector("#details h2")
        assert page.get_by_role("button", name="Save note").count() == 0
        page.evaluate("window.board.act('mark', '0.7')")
        page.wait_for_timeout(300)
    assert not (folder / "annotations.json").exists()


def test_hostile_names_are_text(opened: Opened, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    recorded_run(folder, 12)
    for path in folder.rglob("*.json"):
        text = path.read_text()
        text = text.replace('"stem.0"', json.dumps(HOSTILE)).replace('"accuracy"', json.dumps(f"{HOSTILE}a"))
        path.write_text(text.replace('"digits"', json.dumps(f"</script>{HOSTILE}")))
    with serving(folder) as url:
        page = opened(f"{url}?pin=0.3,0.7&open=0.7&x={HOSTILE}&limit={HOSTILE}:1&brush={HOSTILE}:0~1&tab={HOSTILE}")
        for tab in ("Choose", "Compare", "Understand"):
            page.get_by_role("tab", name=tab).click()
            page.wait_for_timeout(300)
        assert page.locator("img").count() == 0
        assert page.title().startswith("</script><img")


@pytest.mark.parametrize("fault", ["missing", "empty", "newer", "half"])
def test_a_folder_that_cannot_be_shown_gives_one_message(tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "run"
    if fault != "missing":
        run = Recorded(folder)
        run.add(2)
        study = folder / "study.json"
        text = study.read_text()
        if fault == "empty":
            study.unlink()
        else:
            study.write_text(text.replace('"version": 1', '"version": 99', 1) if fault == "newer" else text[:50])
    found = CliRunner().invoke(app, ["dashboard", str(folder), "--port", "0"])
    assert found.exit_code == 2
    assert "Traceback" not in found.output
    assert str(folder) in found.output
