"""The page: its frame, which the views fill. Controls name in `data-set` the part of the state that they change."""

from __future__ import annotations

import json
from collections.abc import Sequence

from dash import dcc, html
from dash.development.base_component import Component

from autoprune.dashboard.elements import tagged
from autoprune.dashboard.files import PLOTLY
from autoprune.dashboard.live import Snapshot
from autoprune.display import printable_line
from autoprune.report import theme

#: Seconds between two looks at the run folders.
INTERVAL = 2.0
#: Stores of the view's state that callbacks read; `assets/00-state.js` fills them from the address.
RESTORED = ("view", "pins", "open", "tab")
#: Stores of the parts of "view" that a person has changed since.
CHANGED = ("axes", "limits")
TABS = {"choose": "Choose", "compare": "Compare", "understand": "Understand"}

INDEX = """<!doctype html>
<html lang="en">
<head>
{%metas%}
<title>{%title%}</title>
{%favicon%}
{%css%}
<link rel="stylesheet" href="theme.css">
<script type="application/json" id="theme-templates">TEMPLATES</script>
<script src="theme.js"></script>
<link rel="preload" as="script" href="PLOTLY" id="plotly">
</head>
<body>
<a class="skip" href="#main">Skip to the candidates</a>
{%app_entry%}
<footer>{%config%}{%scripts%}{%renderer%}</footer>
</body>
</html>"""


def index_page() -> str:
    """Write the frame of the HTML page, with the templates of figures.

    Returns:
        Dash's index string.
    """
    text = json.dumps(theme.templates(), separators=(",", ":")).replace("<", "\\u003c")
    return INDEX.replace("TEMPLATES", text).replace("PLOTLY", PLOTLY)


def layout(snapshots: Sequence[Snapshot], read_only: bool) -> Component:
    """Build the page.

    Args:
        snapshots: The runs.
        read_only: Whether nothing can be written.

    Returns:
        The page's component.
    """
    return tagged(
        html.Div(
            [
                *(dcc.Store(id=f"store-{name}") for name in (*RESTORED, *CHANGED)),
                *(
                    dcc.Store(id=name)
                    for name in ("live", "data", "have", "shown", "front-figure", "choice", "act", "acted")
                ),
                dcc.Interval(id="tick", interval=INTERVAL * 1000),
                html.Div(id="said", role="status", className="toast"),
                _header(snapshots),
                html.Div(id="banner", role="alert"),
                html.Main(
                    [
                        _tabs(),
                        _panel("choose", [_choosing()]),
                        _panel("compare", [html.Div(id="comparison", className="sections")]),
                        _panel("understand", [html.Div(id="understanding", className="sections")]),
                    ],
                    id="main",
                    tabIndex="-1",
                ),
            ],
            className="board",
        ),
        {"data-read-only": "yes" if read_only else ""},
    )


def _header(snapshots: Sequence[Snapshot]) -> Component:
    names = [printable_line(one.run.name, 80) for one in snapshots]
    runs: Component = html.H1(names[0])
    if len(names) > 1:
        options = [html.Option(name, value=str(place)) for place, name in enumerate(names)]
        runs = html.H1(
            [
                html.Label("Run", htmlFor="run", className="hidden"),
                tagged(html.Select(options, id="run", className="field"), {"data-set": "run"}),
            ]
        )
    return html.Header(
        [
            html.Div([html.Span("autoprune", className="brand"), runs, html.Div(id="state", className="soft small")]),
            html.Div(
                [
                    tagged(html.Button("Copy link", type="button", className="button"), {"data-act": "link"}),
                    tagged(
                        html.Div(
                            [
                                tagged(html.Button(mode, type="button"), {"data-choose-theme": mode.lower()})
                                for mode in ("System", "Light", "Dark")
                            ],
                            className="choices",
                            role="group",
                        ),
                        {"aria-label": "Colours"},
                    ),
                ],
                className="row",
            ),
        ],
        className="top",
    )


def _tabs() -> Component:
    return tagged(
        html.Div(
            [
                tagged(
                    html.Button(
                        [title, html.Span(id=f"count-{name}", className="count")],
                        type="button",
                        id=f"tab-{name}",
                        role="tab",
                    ),
                    {"aria-controls": f"panel-{name}", "data-tab": name, "aria-selected": "false"},
                )
                for name, title in TABS.items()
            ],
            role="tablist",
            className="tabs",
        ),
        {"aria-label": "Views"},
    )


def _panel(name: str, children: list[Component]) -> Component:
    return tagged(
        html.Div(children, id=f"panel-{name}", role="tabpanel", hidden=name != "choose", className="panel"),
        {"aria-labelledby": f"tab-{name}"},
    )


def _choosing() -> Component:
    return html.Div(
        [
            tagged(
                html.Section(
                    [
                        tagged(html.Div(id="answer", className="answer", role="status"), {"aria-live": "polite"}),
                        html.Div(
                            [
                                html.H2("Choose by", className="small-title"),
                                _choices(
                                    "mode", "Choose by", {"limits": "Limits", "knee": "Knee", "weights": "Weights"}
                                ),
                            ],
                            className="row wrap",
                        ),
                        html.Div(id="limits", className="limits"),
                    ],
                    className="card side",
                ),
                {"aria-label": "Limits, and the best candidate within them"},
            ),
            tagged(html.Section([_chart_controls(), *_charts()], className="card charts"), {"aria-label": "The front"}),
            tagged(
                html.Section(
                    [html.Div(id="details", className="details")],
                    id="details-card",
                    className="card drawer",
                    hidden=True,
                    tabIndex="-1",
                ),
                {"aria-label": "The opened candidate"},
            ),
            tagged(
                html.Section(
                    [
                        html.Div(
                            [
                                html.H2("Candidates", className="small-title"),
                                html.Span(id="candidates-count", className="soft small"),
                                _choices(
                                    "rows",
                                    "Rows",
                                    {"all": "All", "front": "Front", "within": "Within limits", "pins": "Pinned"},
                                ),
                                html.A("Download CSV", id="csv", href="download/0/candidates.csv", className="button"),
                            ],
                            className="row wrap",
                        ),
                        html.Div(id="candidates"),
                    ],
                    className="card wide",
                ),
                {"aria-label": "Table of candidates"},
            ),
        ],
        className="choosing",
    )


def _chart_controls() -> Component:
    return html.Div(
        [
            _select("y", "Up"),
            _choices("ys", "Scale of the vertical axis", {"linear": "lin", "log": "log"}),
            _select("x", "Across"),
            _choices("xs", "Scale of the horizontal axis", {"linear": "lin", "log": "log"}),
            _choices("split", "Split", {"search": "search", "test": "test"}),
            _choices("view", "Chart", {"2d": "2-D", "3d": "3-D"}),
            _select("z", "Third axis"),
        ],
        className="row wrap controls",
    )


def _charts() -> list[Component]:
    return [
        tagged(
            html.Div(id="plot-front", className="plot main-plot", role="group"),
            {"aria-label": "The front. The table of candidates below holds the same points."},
        ),
        html.Div(
            [
                html.H2("All quantities", className="small-title"),
                html.Span("Drag along an axis to select; the selection holds in every view.", className="soft small"),
                tagged(
                    html.Button("Clear selection", type="button", className="button", id="clear"), {"data-act": "clear"}
                ),
            ],
            className="row wrap",
        ),
        tagged(
            html.Div(id="plot-parallel", className="plot", role="group"),
            {"aria-label": "Every candidate as a line over all quantities. The fields of limits select the same way."},
        ),
    ]


def _select(name: str, title: str) -> Component:
    return html.Div(
        [
            html.Label(title, htmlFor=f"set-{name}", className="soft small"),
            tagged(html.Select([], id=f"set-{name}", className="field"), {"data-set": name}),
        ],
        className="labelled",
    )


def _choices(name: str, title: str, options: dict[str, str]) -> Component:
    return tagged(
        html.Div(
            [
                tagged(
                    html.Button(text, type="button"), {"data-set": name, "data-value": value, "aria-pressed": "false"}
                )
                for value, text in options.items()
            ],
            className="choices",
            role="group",
        ),
        {"aria-label": title},
    )
