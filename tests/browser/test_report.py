"""The report in a real browser: every figure is drawn, and nothing is fetched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import autoprune
from autoprune.report.html import write_report
from tests.tasks import flat_task

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=20000",
    "--window-size=1440,20000",  # figures are drawn when they come into view
]


def dom_of(page: Path, profile: Path) -> str:
    """The page as the browser holds it once its scripts have run."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("AUTOPRUNE_REQUIRE_BROWSER"), reason="no Chromium on this machine"
)
def test_every_figure_of_the_report_is_drawn(tmp_path: Path) -> None:
    assert CHROMIUM is not None, "AUTOPRUNE_REQUIRE_BROWSER is set: install Chromium"
    settings = autoprune.StudySettings(
        trials=5,
        recovery=autoprune.RecoverySettings(steps=3),
        search=autoprune.SearchSettings(uniform_points=3, solved_points=1),
        measure=autoprune.MeasureSettings(latency_rounds=5, latency_backend="eager"),
    )
    study = autoprune.Study.create(flat_task(), settings, out=tmp_path / "run")
    study.run()
    dom = dom_of(write_report(study.stored), tmp_path / "profile")
    body = dom[dom.index("<body") :]
    drawn = body.count('class="plot-container plotly"')
    asked = len(re.findall(r'data-figure="', body))
    assert asked == 11, "three costs, all quantities, 3-D, layers twice, sensitivity, hypervolume twice, lineages"
    assert drawn == asked
    for record in study.front().members:
        assert f"candidate {record.number}" in body, "the per-layer view names every member"
