"""Files that the page loads by name, and those that a person downloads."""

from __future__ import annotations

import json
from collections.abc import Callable

import plotly
from dash import Dash
from flask import Response

from autoprune.dashboard.downloads import Download, candidate_file, table_file
from autoprune.dashboard.live import LiveRuns
from autoprune.display import printable_line, shorten
from autoprune.errors import AutopruneError, NotFoundError, error_message
from autoprune.front.run import Run
from autoprune.report.hover import hover_lines
from autoprune.report.page import plotly_script
from autoprune.report.theme import static_text, stylesheet

#: Seconds for which a browser may keep a script whose address changes with its content.
_YEAR = 31_536_000
#: Address of plotly.js.
PLOTLY = f"plotly-{plotly.__version__}.js"


def serve_files(app: Dash, runs: LiveRuns) -> None:
    """Serve the theme, plotly.js, and the downloads.

    Args:
        app: Application that serves them.
        runs: Runs whose files can be downloaded.
    """
    _serve_texts(app)

    def of_point(run: int, number: int) -> Response:
        return _told(runs, run, number)

    def of_candidate(run: int, kind: str, number: int) -> Response:
        return _sent(lambda: candidate_file(_run(runs, run), kind, number))

    def of_run(run: int) -> Response:
        return _sent(lambda: table_file(_run(runs, run)))

    app.server.add_url_rule("/hover/<int:run>/<int:number>", view_func=of_point)
    app.server.add_url_rule("/download/<int:run>/<kind>/<int:number>", view_func=of_candidate)
    app.server.add_url_rule("/download/<int:run>/candidates.csv", view_func=of_run)


def _run(runs: LiveRuns, place: int) -> Run:
    """Look up a run by its position; a file of another run would be taken for one of the run that was asked for."""
    if place >= len(runs.runs):
        raise NotFoundError(
            error_message("a run", f"be one of the {len(runs.runs)} that are shown", shorten(str(place)))
        )
    return runs.runs[place].now.run


def _told(runs: LiveRuns, run: int, number: int) -> Response:
    """Send the lines that the chart shows beside a candidate."""
    front = runs.runs[run].now.front if run < len(runs.runs) else None
    records = () if front is None else front.records
    place = next((place for place, record in enumerate(records) if record.number == number), None)
    if front is None or place is None:
        return Response("There is no such candidate.", status=404, mimetype="text/plain")
    lines = [printable_line(line, 200) for line in hover_lines(front, records[place], place)]
    response = Response(json.dumps(lines), mimetype="application/json")
    response.cache_control.no_store = True
    return response


def _sent(make: Callable[[], Download]) -> Response:
    """Send a download; a fault is a sentence."""
    try:
        found = make()
    except AutopruneError as error:
        return Response(printable_line(error, 400), status=404, mimetype="text/plain")
    response = Response(found.parts, content_type=found.kind)
    response.content_length = found.length
    response.headers["Content-Disposition"] = f'attachment; filename="{found.name}"'
    response.cache_control.no_store = True
    return response


def _serve_texts(app: Dash) -> None:
    for name, kind, text in (
        ("theme.css", "text/css", stylesheet()),
        ("theme.js", "text/javascript", static_text("theme.js")),
        (PLOTLY, "text/javascript", plotly_script()),
    ):

        def view(name: str = name, kind: str = kind, text: str = text) -> Response:
            found = Response(text, mimetype=kind)
            if name == PLOTLY:
                found.cache_control.max_age = _YEAR
            else:
                found.cache_control.no_cache = True
            return found

        app.server.add_url_rule(f"/{name}", endpoint=name, view_func=view)
