"""Files that the page loads by name, and those that a person downloads."""

from __future__ import annotations

import json
from collections.abc import Callable

import plotly
from dash import Dash
from flask import Response

from autoprune.dashboard.downloads import Download, candidate_file, table_file
from autoprune.dashboard.live import LiveRuns, Snapshot
from autoprune.display import printable_line, shorten
from autoprune.errors import AutopruneError, NotFoundError, error_message
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
        return _sent(lambda: candidate_file(_snapshot(runs, run).run, kind, number))

    def of_run(run: int) -> Response:
        return _sent(lambda: table_file(_snapshot(runs, run).run))

    app.server.add_url_rule("/hover/<int:run>/<int:number>", view_func=of_point)
    app.server.add_url_rule("/download/<int:run>/<kind>/<int:number>", view_func=of_candidate)
    app.server.add_url_rule("/download/<int:run>/candidates.csv", view_func=of_run)


def _snapshot(runs: LiveRuns, place: int) -> Snapshot:
    """Look up a run by its position; an answer for another run would be taken for one of the run that was asked for."""
    if place >= len(runs.runs):
        raise NotFoundError(
            error_message("a run", f"be one of the {len(runs.runs)} that are shown", shorten(str(place)))
        )
    return runs.runs[place].now


def _told(runs: LiveRuns, run: int, number: int) -> Response:
    """Send the lines that the chart shows beside a candidate."""
    try:
        front = _snapshot(runs, run).front
        found = hover_lines(front, front.get(number))
    except NotFoundError as error:
        return _refused(error)
    lines = [printable_line(line, 200) for line in found]
    response = Response(json.dumps(lines), mimetype="application/json")
    response.cache_control.no_store = True
    return response


def _sent(make: Callable[[], Download]) -> Response:
    """Send a download."""
    try:
        found = make()
    except AutopruneError as error:
        return _refused(error)
    response = Response(found.parts, content_type=found.kind)
    response.content_length = found.length
    response.headers["Content-Disposition"] = f'attachment; filename="{found.name}"'
    response.cache_control.no_store = True
    return response


def _refused(error: AutopruneError) -> Response:
    """Answer with a sentence in place of what was asked for."""
    return Response(printable_line(error, 400), status=404, mimetype="text/plain")


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
