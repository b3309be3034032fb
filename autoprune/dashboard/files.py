"""Files that the page loads by name."""

from __future__ import annotations

from importlib import resources

import plotly
from dash import Dash
from flask import Response

from autoprune.report.theme import static_text, stylesheet

#: Seconds for which a browser may keep a script whose address changes with its content.
_YEAR = 31_536_000
#: Address of plotly.js.
PLOTLY = f"plotly-{plotly.__version__}.js"


def serve_files(app: Dash) -> None:
    """Serve the theme and plotly.js.

    Args:
        app: Application that serves them.
    """
    _serve_texts(app)


def _serve_texts(app: Dash) -> None:
    script = resources.files("plotly").joinpath("package_data", "plotly.min.js")
    for name, kind, text in (
        ("theme.css", "text/css", stylesheet()),
        ("theme.js", "text/javascript", static_text("theme.js")),
        (PLOTLY, "text/javascript", script.read_text(encoding="utf-8")),
    ):

        def view(name: str = name, kind: str = kind, text: str = text) -> Response:
            found = Response(text, mimetype=kind)
            if name == PLOTLY:
                found.cache_control.max_age = _YEAR
            else:
                found.cache_control.no_cache = True
            return found

        app.server.add_url_rule(f"/{name}", endpoint=name, view_func=view)
