"""Answers of the dashboard to requests that its own page would not send."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from autoprune.dashboard.answer import candidate_facts
from autoprune.dashboard.app import make_app
from autoprune.dashboard.files import serve_files
from autoprune.dashboard.guard import Access
from autoprune.dashboard.live import LiveRuns
from autoprune.dashboard.serve import Dashboard
from autoprune.errors import ConfigurationError
from autoprune.front.front import Front
from autoprune.report.hover import hover_lines, hover_texts
from tests.browser.recorded import recorded_run
from tests.unit.front.builders import dense, front_of, measurement, record


@pytest.fixture
def runs(tmp_path: Path) -> LiveRuns:
    recorded_run(tmp_path / "run", 6)
    return LiveRuns([tmp_path / "run"])


@pytest.fixture
def client(runs: LiveRuns) -> FlaskClient:
    app = make_app(runs, Access.of("127.0.0.1"))
    serve_files(app, runs)
    return app.server.test_client()  # type: ignore[no-any-return]


def act(client: FlaskClient, **wanted: str) -> str:
    change = {"id": "act", "property": "data", "value": wanted}
    outputs = {"id": "acted", "property": "data"}
    request = {"output": "acted.data", "outputs": outputs, "inputs": [change], "changedPropIds": ["act.data"]}
    found = client.post("/_dash-update-component", json=request).get_json()
    return str(found["response"]["acted"]["data"]["said"])


def test_an_unknown_act_changes_nothing(client: FlaskClient, runs: LiveRuns) -> None:
    assert "is marked" in act(client, key="0.2", name="mark")
    for odd in ({"key": "0.2"}, {"key": "0.2", "name": "remove"}):
        assert "must be one of mark, note, unmark" in act(client, **odd)
    assert runs.runs[0].now.run.annotations.chosen == 2
    assert "No candidate" in act(client, key="0.2", name="unmark")
    assert runs.runs[0].now.run.annotations.chosen is None


def test_a_file_of_an_unknown_run_is_not_that_of_another(client: FlaskClient) -> None:
    assert client.get("/download/0/plan/2").status_code == 200
    for path in ("/download/1/plan/2", "/download/7/candidates.csv", f"/download/{10**30}/plan/2"):
        found = client.get(path)
        assert (found.status_code, "a run must be one of the 1" in found.text) == (404, True)


@pytest.mark.parametrize("host", ["unix://{file}", "no such host", "{taken}"])
def test_an_address_that_cannot_be_bound_is_a_sentence(host: str, runs: LiveRuns, tmp_path: Path) -> None:
    file, folder = tmp_path / "file", runs.runs[0].now.run.folder.path
    file.write_text("kept")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match="be free to listen to"):
            Dashboard([folder], host=host.format(file=file, taken="127.0.0.1"), port=port)
    with pytest.raises(ConfigurationError, match="a port outside"):
        Dashboard([folder], port=-5)
    assert file.read_text() == "kept"


def test_where_lower_is_better_a_rise_is_shown_as_a_rise() -> None:
    front = front_of([dense(), record(1, measurement(0.99, 500))])
    front = Front.of(front.records, replace(front.problem, metric="loss", higher_is_better=False, metrics={}))
    worse = front.records[1]
    rise = worse.search.quality - front.records[0].search.quality
    assert rise > 0
    assert candidate_facts(front, worse)[0][0] == f"{rise:+.4f}"
    assert f"{rise:+.4f} against dense" in hover_texts(front)[1]


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "x",
        {},
        {"output": "acted.data"},
        {"output": ["acted.data"], "inputs": []},
        {"output": "no.such", "inputs": [], "outputs": []},
        {"output": "acted.data", "outputs": {"id": "acted", "property": "data"}, "inputs": [None]},
        {"output": "acted.data", "outputs": None, "inputs": [{"id": "act", "property": "data"}]},
        {"output": "data.data", "outputs": [], "inputs": [{"id": "live", "property": "data"}], "state": [3]},
        {
            "output": "acted.data",
            "outputs": {"id": "acted", "property": "data"},
            "inputs": [{"id": "act", "property": "data"}],
            "changedPropIds": 3,
        },
    ],
)
def test_a_body_that_the_page_does_not_send_is_one_sentence(client: FlaskClient, body: object) -> None:
    client.get("/_dash-layout")
    found = client.post("/_dash-update-component", json=body)
    assert (found.status_code, found.text.startswith("This is no request of this page.")) == (400, True)


def test_the_chart_asks_what_there_is_to_say_of_a_candidate(client: FlaskClient, runs: LiveRuns) -> None:
    front = runs.runs[0].now.front
    lines = client.get("/hover/0/3").get_json()
    assert lines == hover_lines(front, front.records[3])
    assert lines[0].startswith("candidate 3: ")
    for path in ("/hover/0/99", "/hover/1/0"):
        assert client.get(path).status_code == 404
