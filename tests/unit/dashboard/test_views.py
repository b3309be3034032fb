"""Views of the dashboard: columns, charts and answers over one run and over two."""

from __future__ import annotations

import builtins
import gzip
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dash import html
from typer.testing import CliRunner
from werkzeug.test import Client
from werkzeug.wrappers import Response

from autoprune.cli.app import app as command_line
from autoprune.dashboard.answer import answer, candidate_facts
from autoprune.dashboard.app import candidate, how_far
from autoprune.dashboard.charts import front_chart, parallel_axes
from autoprune.dashboard.columns import compact, table_data
from autoprune.dashboard.comparing import compare
from autoprune.dashboard.compression import Compressed, compressed_script
from autoprune.dashboard.details import details
from autoprune.dashboard.live import LiveRuns
from autoprune.dashboard.understanding import understand
from autoprune.front.front import Front
from autoprune.front.suggestion import suggest
from autoprune.records.limits import Limits
from autoprune.records.measurement import PREDICTION, Latency
from autoprune.records.run_folder import RunFolder
from autoprune.records.workers import WORKERS, Worker, write_workers
from autoprune.report.sections.summary import reason_of
from tests.browser.recorded import Recorded, recorded_run
from tests.processes import start
from tests.unit.front.builders import dense, front_of, latency, measurement, record


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> LiveRuns:
    root = tmp_path_factory.mktemp("runs")
    recorded_run(root / "a", 16)
    recorded_run(root / "b", 14, seed=1, name="other")
    return LiveRuns([root / "a", root / "b"])


def column(data: dict[str, object], name: str) -> list[float | None]:
    columns = data["columns"]
    assert isinstance(columns, list)
    return next(one["values"] for one in columns if one["name"] == name)


def test_a_candidate_that_only_a_number_in_doubt_puts_on_the_front_is_marked(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "busy")
    stored = {"objectives": ["quality", "latency_ms"]}
    folder.write_study({"name": "busy", "quality": "accuracy", "higher_is_better": True, "settings": stored})
    busy = latency(0.3, doubts=("The machine was busy.",))
    for one in (dense(took=latency(1.0)), record(1, measurement(0.8, 300, took=busy), kept={})):
        folder.write_candidate(one, b"")
    assert table_data(LiveRuns([folder.path]).snapshots(), "1")["state"] == ["dense", "in doubt"]


def test_columns_hold_the_candidates_of_every_run(runs: LiveRuns) -> None:
    data = table_data(runs.snapshots(), "1")
    assert data["key"] == [*(f"0.{number}" for number in range(16)), *(f"1.{number}" for number in range(14))]
    first, second = runs.snapshots()
    both = (*first.front.records, *second.front.records)
    assert column(data, "multiply_adds") == [record.search.multiply_adds for record in both]
    assert column(data, "quality") == pytest.approx([record.search.quality for record in both], rel=1e-5)
    tested = [value is not None for value in column(data, "quality@test")]
    assert tested == [record.test is not None for record in both]
    json.dumps(data, allow_nan=False)


def test_metrics_of_several_runs_share_a_column_that_names_both(runs: LiveRuns) -> None:
    first, second = runs.snapshots()
    other = Front.of(second.front.records, replace(second.front.problem, metric="f1", metrics={}))
    data = table_data([first, replace(second, front=other, found={})], "1")
    headings = [one["heading"] for one in data["columns"]]  # type: ignore[attr-defined]
    assert headings[0] == "accuracy (search) / f1 (search)"
    assert "parameters" in headings


def test_weights_that_are_missing_are_told_apart_from_deleted_ones(tmp_path: Path) -> None:
    recorded_run(tmp_path / "run", 6).folder.weights(3).unlink()
    one = LiveRuns([tmp_path / "run"]).runs[0].now
    assert "are not in the run folder" in str(details(one, 0, 3, read_only=False))


def test_the_chart_keys_its_points_by_run(runs: LiveRuns) -> None:
    figure = front_chart(runs.snapshots(), 0, {"x": "multiply_adds", "y": "recall", "xs": "linear"}, "1")
    assert isinstance(figure, dict)
    keys = [key for trace in figure["data"] for key in trace.get("customdata", ())]
    assert sorted(keys) == sorted(table_data(runs.snapshots(), "1")["key"])  # type: ignore[call-overload]
    assert (figure["axes"], figure["scales"]) == ({"x": "multiply_adds", "y": "recall"}, ["linear", "linear"])
    third = front_chart(runs.snapshots(), 1, {"view": "3d", "z": "no such quantity"}, "1")
    assert isinstance(third, dict)
    assert third["quantities"]["z"] == "size_bytes"
    assert third["axes"] == {"x": "latency_ms", "y": "size_bytes", "z": "quality"}
    keys = [key for trace in third["data"] for key in trace["customdata"]]
    assert sorted(keys) == sorted(table_data(runs.snapshots(), "1")["key"])  # type: ignore[call-overload]
    assert not any({"x", "y", "z", "text"} & trace.keys() for trace in third["data"]), "the page has the numbers"
    assert [trace["name"] for trace in third["data"] if trace.get("showlegend")] == ["digits"], "the other run, once"
    json.dumps([figure, third], allow_nan=False)


def test_before_anything_is_finished_there_is_a_chart_and_a_sentence(tmp_path: Path) -> None:
    waiting = LiveRuns([Recorded(tmp_path / "run").folder.path])
    figure = front_chart(waiting.snapshots(), 0, {"view": "3d"}, "1")
    assert (figure["data"], figure["axes"]) == ([], {"x": "quality", "y": "quality"})
    assert "Nothing to draw yet" in str(figure["layout"])
    marks, parts = answer(waiting.runs[0].now, 0, {"limits": {"max_drop": 0.1}})
    assert "chosen" not in marks
    assert "Nothing is finished yet" in str(parts)


@pytest.mark.parametrize("wanted", [{}, {"x": "<b>"}, {"x": None, "split": 3, "ys": ["log"], "view": "4d", "z": {}}])
def test_the_chart_of_any_wish_is_a_chart(runs: LiveRuns, wanted: dict[str, object]) -> None:
    figure = front_chart(runs.snapshots(), 0, wanted, "1")
    assert isinstance(figure, dict)
    assert figure["axes"] == {"x": "latency_ms", "y": "quality"}


def test_lines_are_keyed_and_their_axes_named(runs: LiveRuns) -> None:
    found = parallel_axes(runs.runs[1].now)
    assert isinstance(found, dict)
    assert found.keys() == {"search", "test"}
    named = {axis["name"]: axis["column"] for axis in found["test"]}
    assert named.keys() >= {"quality", "latency_ms", "size_bytes"}
    assert (named["quality"], named["size_bytes"]) == ("quality@test", "size_bytes")
    columns = {one["name"] for one in table_data(runs.snapshots(), "1")["columns"]}  # type: ignore[attr-defined]
    assert set(named.values()) <= columns


def test_the_answer_is_the_choice_of_the_front(runs: LiveRuns) -> None:
    one = runs.runs[0].now
    marks, _ = answer(one, 0, {"limits": {"max_drop": 0.02, "max_latency_ms": 3}, "by": "latency_ms"})
    limits = Limits(max_drop=0.02, max_latency_ms=3.0)
    assert marks["chosen"] == f"0.{one.front.choose(limits, 'latency_ms').number}"
    assert marks["inside"] == [f"0.{record.number}" for record in one.front.within(limits)]
    assert marks["bounds"]["latency_ms"] == {"max": 3.0}  # type: ignore[index]
    knee, _ = answer(one, 0, {"mode": "knee"})
    assert knee["chosen"] == f"0.{one.front.knee().number}"
    weights = {"quality": 1.0, "size_bytes": 2.0}
    weighted, _ = answer(one, 0, {"mode": "weights", "weights": weights})
    assert weighted["chosen"] == f"0.{one.front.weighted(weights, Limits()).choice.record.number}"


def test_without_limits_the_answer_is_the_reports(runs: LiveRuns) -> None:
    one = runs.runs[0].now
    found = suggest(one.front)
    assert found is not None
    marks, parts = answer(one, 0, {})
    assert marks["chosen"] == f"0.{found.record.number}"
    assert reason_of(one.front, found) in str(parts)


def test_where_no_limits_are_given_those_of_the_search_hold(runs: LiveRuns) -> None:
    one = runs.runs[0].now
    limits = Limits(max_latency_ms=3.0)
    searched = replace(one, front=Front.of(one.front.records, replace(one.front.problem, limits=limits)))
    given, _ = answer(searched, 0, {"limits": None})
    assert (given["limited"], given["chosen"]) == (True, f"0.{one.front.choose(limits).number}")
    assert not answer(searched, 0, {"limits": {}})[0]["limited"]


@pytest.mark.parametrize(
    "limits",
    [
        {"max_nothing": 1},
        {"max_latency_ms": 1e-9},
        {"max_quality": 0.5},
        {"max_drop": -1},
        {"max_drop": -(10**400)},
        {"max_multiply_adds": 1e-320},
    ],
)
def test_limits_that_nothing_keeps_are_a_sentence(runs: LiveRuns, limits: dict[str, float]) -> None:
    marks, parts = answer(runs.runs[0].now, 0, {"limits": limits})
    assert "chosen" not in marks
    assert isinstance(parts[0], html.H2)
    assert len(parts) > 1


def test_keys_of_clients_are_numbers_of_known_runs(runs: LiveRuns) -> None:
    assert candidate(runs, "1.7") == (1, 7)
    for key in ("2.0", "0.-1", "0.1.1", "../x", "0.1\n", "0.²", None, 3, ["0.1"]):
        assert candidate(runs, key) is None
    assert details(runs.runs[0].now, 0, 999, read_only=True)


def test_pinned_candidates_of_two_runs_and_unknown_ones(runs: LiveRuns) -> None:
    both = compare(runs.snapshots(), [(0, 3), (1, 4), (0, 999)])
    text = str(both)
    assert "candidate 3" in text
    assert "candidate 4" in text
    assert "999" not in text
    assert len(compare(runs.snapshots(), [])) == 1
    assert len(understand(runs.runs[0].now)) > 5


def test_understand_leaves_out_the_charts_of_choose(runs: LiveRuns) -> None:
    links = str(understand(runs.runs[0].now)[0])
    assert "#section-layers" in links
    assert "#section-trade-offs" not in links
    assert "#section-all-quantities" not in links


def test_a_script_is_kept_once_whatever_its_address() -> None:
    compressed_script.cache_clear()
    script = Response("x" * 5000, mimetype="text/javascript", headers={"Cache-Control": "max-age=9"})
    compressed = Compressed(script)
    client = Client(compressed)
    answers = {client.get(f"/?m={number}", headers={"Accept-Encoding": "gzip"}).data for number in range(200)}
    assert [gzip.decompress(one) for one in answers] == [b"x" * 5000]
    assert compressed_script.cache_info().currsize == 1


def test_responses_are_compressed_for_those_who_can_read_it() -> None:
    client = Client(Compressed(Response("x" * 5000, mimetype="application/json")))
    packed = client.get("/", headers={"Accept-Encoding": "gzip"})
    assert len(packed.data) < 200
    assert gzip.decompress(packed.data) == b"x" * 5000
    assert client.get("/").data == b"x" * 5000


def test_without_dash_the_command_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = builtins.__import__

    def missing(name: str, *rest: object) -> object:
        if name.startswith("autoprune.dashboard"):
            raise ModuleNotFoundError("No module named 'dash'", name="dash")
        return whole(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", missing)
    found = CliRunner().invoke(command_line, ["dashboard", str(tmp_path)])
    assert found.exit_code == 2
    assert "pip install 'autoprune[dashboard]'" in found.output


def test_no_difference_has_no_minus() -> None:
    same = record(1, measurement(0.9 - 1e-9, 500))
    assert candidate_facts(front_of([dense(), same]), same)[0][0] == "+0.0000"


@pytest.mark.parametrize(
    ("took", "remark"),
    [
        (latency(0.5), ""),
        (latency(0.5, doubts=("busy",)), ", in doubt"),
        (replace(latency(0.5), clock=PREDICTION), ", predicted"),
    ],
)
def test_a_predicted_latency_is_told_from_a_measured_one(took: Latency, remark: str) -> None:
    own = record(1, measurement(0.9, 500, took=took))
    (note,) = [note for _, meaning, note in candidate_facts(front_of([dense(), own]), own) if "latency" in meaning]
    assert note == f"{took.ratio_low:.2f} to {took.ratio_high:.2f}{remark}"


def test_numbers_are_sent_so_that_they_are_rounded_as_in_tables() -> None:
    measured = 0.961150050163269
    (sent,) = compact(np.array([measured]))
    assert f"{sent:.4f}" == f"{measured:.4f}" == "0.9612"


def test_workers_of_a_study_that_was_killed_are_shown_no_longer(tmp_path: Path) -> None:
    run = Recorded(tmp_path / "run")
    run.add(4)

    def work() -> None:
        write_workers(run.folder.path, [Worker(name="one-7", trial=4, since=0.0)])
        signal.pause()

    study = start(work)
    while not (run.folder.path / WORKERS).exists():
        time.sleep(0.01)
    runs = LiveRuns([run.folder.path])
    assert "running in 1 worker" in how_far(runs)
    os.kill(study, signal.SIGKILL)
    os.waitpid(study, 0)
    runs.refresh()
    assert "in 1 worker" not in how_far(runs)


def test_a_running_study_says_what_its_workers_do(tmp_path: Path) -> None:
    run = Recorded(tmp_path / "run")
    run.add(4)
    write_workers(
        run.folder.path, [Worker(name="one-7", trial=4, since=0.0), Worker(name="one-8", trial=5, since=1e99)]
    )
    runs = LiveRuns([run.folder.path])
    assert "running in 2 workers" in how_far(runs)
    text = str(understand(runs.runs[0].now))
    assert "trial 4, since 1970-01-01 00:00:00 UTC" in text
    assert "worker one-8" in text
    front = runs.runs[0].now.front
    write_workers(run.folder.path, [Worker(name="one-7", trial=4, since=0.0)])
    runs.refresh()
    assert "running in 1 worker," in f"{how_far(runs)},"
    assert runs.runs[0].now.front is front
    run.add()
    runs.refresh()
    assert len(runs.runs[0].now.front.records) == 5
