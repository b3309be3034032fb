"""The dashboard beside optuna-dashboard, on the same study: time to open and to update, and bytes sent, in Chromium.

    python -m benchmarks.dashboard [--trials 300,3000] [--repeats 3]

The run folder is made up (`benchmarks.report`); the same trials fill an Optuna storage in SQLite. Each measurement
opens a page in one browser whose cache holds the scripts, but for the first, which is told apart. An update is one more
trial: from its look at the server until it is drawn, without the wait for the look. Moving a limit is measured from
the key until the new answer is drawn, and a selection until it is drawn in every view.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import typer
from werkzeug.serving import make_server

from autoprune.dashboard.serve import QuietHandler
from autoprune.records.candidate import CandidateRecord
from autoprune.records.run_folder import RunFolder
from benchmarks.report import random_records, write_run
from benchmarks.reporting import print_table, spread
from tests.browser.chromium import launch, serving

if TYPE_CHECKING:
    import optuna
    from playwright.sync_api import BrowserContext, Page

_GROUPS = 20


def main(trials: str = "300,3000", repeats: int = 3) -> None:
    """Print a table with a row for each dashboard and number of trials."""
    from playwright.sync_api import sync_playwright

    rows = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as place:
        for count in map(int, trials.split(",")):
            records = [*random_records(count, _GROUPS), *_drawn(count, repeats)]
            for measure, name in ((_ours, f"ours-{count}"), (_optuna, f"optuna-{count}.db")):
                with launch(playwright) as browser:
                    rows.append(measure(browser.new_context(), Path(place) / name, records, repeats))
                print(rows[-1], flush=True)
    print_table(
        "Dashboards",
        (
            "dashboard",
            "trials",
            "first open, s",
            "open, s",
            "of it processor time, s",
            "MB sent",
            "update, s",
            "limit, s",
            "selection, s",
        ),
        rows,
    )


def _ours(context: BrowserContext, path: Path, records: Sequence[CandidateRecord], repeats: int) -> list[str]:
    folder, count = RunFolder(path), len(records) - repeats
    with mock.patch.object(os, "fsync"):  # thousands of candidates at once
        write_run(folder, _GROUPS)
        for record in records[:count]:
            folder.write_candidate(record, b"")
        with serving(path) as url:
            ready = "document.querySelector('#plot-front[data-drawn]') && document.querySelector('[data-at]')"
            first, *opened = [_opened(context, url, ready) for _ in range(repeats + 1)]
            page = context.new_page()
            page.goto(url)
            page.wait_for_function(ready)
            updates = [_update(page, folder, records[count + place]) for place in range(repeats)]
            limits = [_limit(page, value) for value in np.linspace(0.02, 0.08, repeats).round(3).tolist()]
            selections = [_selection(page, 0.5 + 0.05 * place) for place in range(repeats)]
    return _row("autoprune", count, first, opened, *(spread(one, 2) for one in (updates, limits, selections)))


def _drawn(count: int, repeats: int) -> list[CandidateRecord]:
    """Further trials that the chart has a place for: those without a quality or a latency are in the table alone."""
    found = random_records(count + 10 * repeats + 20, _GROUPS)[count:]
    whole = [one for one in found if one.search.quality == one.search.quality and one.search.latencies]
    return [replace(one, number=count + place) for place, one in enumerate(whole[:repeats])]


def _update(page: Page, folder: RunFolder, record: CandidateRecord) -> float:
    """Seconds from the look of the page until one more candidate is drawn in every view, with the new answer."""
    folder.write_candidate(record, b"")
    return float(
        page.evaluate(
            """async (key) => {
              const from = performance.now();
              window.dash_clientside.set_props("tick", { n_intervals: -Math.round(1e6 * Math.random()) });
              const { board } = window;
              const before = board.choice;
              const drawn = () => board.places.has(key) && board.bold.includes(key) && board.choice !== before;
              while (!drawn()) await new Promise((done) => setTimeout(done, 4));
              await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
              return (performance.now() - from) / 1000;
            }""",
            f"0.{record.number}",
        )
    )


def _limit(page: Page, value: float) -> float:
    """Seconds from a limit in its field until the answer follows."""
    return float(
        page.evaluate(
            """async (value) => {
              const from = performance.now();
              const before = window.board.choice;
              const field = document.querySelector("#limits input[type=number]");
              field.value = String(value);
              field.dispatchEvent(new Event("input", { bubbles: true }));
              while (window.board.choice === before) await new Promise((done) => setTimeout(done, 4));
              await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
              return (performance.now() - from) / 1000;
            }""",
            value,
        )
    )


def _selection(page: Page, low: float) -> float:
    """Seconds from a selection along an axis until it is drawn."""
    return float(
        page.evaluate(
            """async (low) => {
              const from = performance.now();
              window.board.set({ brush: { quality: [low, 0.95] } });
              await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
              return (performance.now() - from) / 1000;
            }""",
            low,
        )
    )


def _optuna(context: BrowserContext, path: Path, records: Sequence[CandidateRecord], repeats: int) -> list[str]:
    import optuna
    from optuna_dashboard import wsgi

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    study = optuna.create_study(storage=storage, study_name="made up", directions=["maximize", "minimize", "minimize"])
    study.add_trials([_trial(record) for record in records[: len(records) - repeats]])
    server = make_server("127.0.0.1", 0, wsgi(storage), threaded=True, request_handler=QuietHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/dashboard/studies/1"
    ready = "document.querySelector('.js-plotly-plot .trace, .js-plotly-plot canvas')"
    first, *opened = [_opened(context, url, ready) for _ in range(repeats + 1)]
    server.shutdown()
    return _row("optuna-dashboard", len(records) - repeats, first, opened, "", "", "")


def _trial(record: CandidateRecord) -> optuna.trial.FrozenTrial:
    """The same trial for Optuna; one that was stopped is pruned, and one without numbers has failed."""
    import optuna

    budget = optuna.distributions.FloatDistribution(0.0, 2.0)
    criterion = optuna.distributions.CategoricalDistribution(["l1", "l2", "taylor"])
    distributions: dict[str, optuna.distributions.BaseDistribution] = {}
    distributions |= {name: budget if name == "budget" else criterion for name in record.parameters}
    latency = record.search.latency
    whole = record.search.quality == record.search.quality and not record.stopped
    state = optuna.trial.TrialState.COMPLETE if whole else optuna.trial.TrialState.FAIL
    values = [record.search.quality, record.search.size_bytes, latency.latency_ms if latency else 10.0]
    return optuna.trial.create_trial(
        state=state,
        params=dict(record.parameters),
        distributions=distributions,
        values=[float(value) for value in values] if whole else None,
    )


def _opened(context: BrowserContext, url: str, ready: str) -> tuple[float, float, float]:
    """Seconds until a page shows its points, megabytes that were sent for it, and processor time of its main thread."""
    page, sent = context.new_page(), [0.0]
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Performance.enable")
    session.on("Network.loadingFinished", lambda event: sent.append(float(event["encodedDataLength"])))
    started = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_function(ready, timeout=120_000, polling=10)
    taken = time.perf_counter() - started
    page.wait_for_timeout(1500)
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    page.close()
    return taken, sum(sent) / 1e6, float(metrics["ThreadTime"])


def _row(
    name: str, count: int, first: tuple[float, ...], opened: Sequence[tuple[float, float, float]], *rest: str
) -> list[str]:
    times, busy = (spread([one[place] for one in opened], 2) for place in (0, 2))
    return [name, f"{count:,}", f"{first[0]:.2f}", times, busy, f"{first[1]:.2f}, then {opened[-1][1]:.2f}", *rest]


if __name__ == "__main__":
    typer.run(main)
