"""Theme of report and dashboard: colours of the page and of traces, and the templates of figures.

Every colour is written here once: `stylesheet` writes those of the page as custom properties in front of
`static/theme.css`, and `templates` those of figures. Traces have one colour for light and dark pages, so a figure needs
no change when the page changes; the client applies the template (`static/theme.js`).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

from autoprune.records.origins import Origin
from autoprune.report.figure import Properties

#: Mode -> custom property of the page -> colour.
TOKENS: Mapping[str, Mapping[str, str]] = {
    "light": {
        "page": "#f5f6f8",
        "surface": "#ffffff",
        "ink": "#1a2028",
        "soft": "#55606d",
        "line": "#dde1e6",
        "edge": "#838d9a",
        "accent": "#1d67b8",
        "accent-wash": "#e8f0fa",
        "on-accent": "#ffffff",
        "least": "#edf3fa",
        "most": "#0d4a8c",
        "warn": "#93380e",
        "warn-wash": "#fcefe6",
        "good": "#0a634a",
        "good-wash": "#e4f4ee",
    },
    "dark": {
        "page": "#0f1216",
        "surface": "#171b21",
        "ink": "#e7eaee",
        "soft": "#a5afbb",
        "line": "#2c333c",
        "edge": "#6f7a88",
        "accent": "#74b3f3",
        "accent-wash": "#16283b",
        "on-accent": "#0c1116",
        "least": "#1b2633",
        "most": "#9cccff",
        "warn": "#f2a873",
        "warn-wash": "#33221a",
        "good": "#62d0a8",
        "good-wash": "#142a22",
    },
}

#: Origin of a candidate -> colour of its points, which stands out from light and dark pages. Colours that some people
#: see alike have different symbols.
ORIGIN_COLOURS: Mapping[Origin, str] = {
    Origin.DENSE: "#7d8590",
    Origin.UNIFORM: "#c98500",
    Origin.SOLVED: "#12a17c",
    Origin.ENQUEUED: "#b85c9e",
    Origin.SAMPLED: "#3a86dd",
    Origin.POLISHED: "#7a5cd6",
}
#: Origin of a candidate -> symbol of its points.
ORIGIN_SYMBOLS: Mapping[Origin, str] = {
    Origin.DENSE: "diamond",
    Origin.UNIFORM: "square",
    Origin.SOLVED: "triangle-up",
    Origin.ENQUEUED: "star",
    Origin.SAMPLED: "circle",
    Origin.POLISHED: "cross",
}
#: Colours of lines and bars, in their order.
SERIES = ("#3a86dd", "#c98500", "#12a17c", "#b85c9e", "#7a5cd6", "#7d8590")
#: Colours for emphasis, for the background, and for bad outcomes.
ACCENT, FAINT, BAD = "#3a86dd", "#7d8590", "#d1492e"
#: Fills of regions, and of the noise of the dense model.
REGION, NOISE = "rgba(18,161,124,0.10)", "rgba(125,133,144,0.16)"
#: Opacity of beaten and of stopped candidates.
BEATEN, STOPPED = 0.38, 0.3
#: Scale of lines and bars from low to high. Heat maps have a scale of one colour from the template of the page.
SPAN = ((0.0, "#c98500"), (0.5, "#7d8590"), (1.0, "#3a86dd"))
#: From less to more than expected, over what the page shows behind.
DIVERGING = ((0.0, "#3a86dd"), (0.5, "rgba(125,133,144,0.12)"), (1.0, "#d1492e"))

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def stylesheet() -> str:
    """Write the style of a page.

    Returns:
        CSS: custom properties for light and dark, by the system's preference and by `data-theme` of <html>, and the
        rules of `static/theme.css`.
    """
    light, dark = (_properties(TOKENS[mode], mode) for mode in ("light", "dark"))
    return "\n".join(
        (
            f":root {{{light} --region: {REGION};}}",
            f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme='light']) {{{dark}}} }}",
            f":root[data-theme='dark'] {{{dark}}}",
            static_text("theme.css"),
        )
    )


def static_text(name: str) -> str:
    """Read a file of the theme.

    Args:
        name: Name of a file of `static/`.

    Returns:
        Its text.
    """
    return resources.files("autoprune.report").joinpath("static", name).read_text(encoding="utf-8")


def templates() -> dict[str, Properties]:
    """Write the templates of figures.

    Returns:
        Mode -> template in plotly's JSON format.
    """
    return {mode: _template(tokens) for mode, tokens in TOKENS.items()}


def _properties(tokens: Mapping[str, str], mode: str) -> str:
    return f"color-scheme: {mode}; " + " ".join(f"--{name}: {colour};" for name, colour in tokens.items())


def _template(tokens: Mapping[str, str]) -> Properties:
    ink, soft, line = tokens["ink"], tokens["soft"], tokens["line"]
    axis: Properties = {
        "gridcolor": line,
        "linecolor": line,
        "zerolinecolor": line,
        "tickcolor": line,
        "tickfont": {"color": soft, "size": 12},
        "title": {"font": {"color": soft, "size": 13}, "standoff": 12},
        "automargin": True,
        "zeroline": False,
    }
    scene = {"backgroundcolor": "rgba(0,0,0,0)", "gridcolor": tokens["edge"], "linecolor": line}
    scene |= {"zerolinecolor": tokens["edge"]}  # WebGL draws lines paler than they are
    bar: Properties = {"outlinewidth": 0, "thickness": 12, "tickfont": {"color": soft, "size": 12}}
    bar["title"] = {"font": {"color": soft, "size": 12}}
    layout: Properties = {
        "font": {"family": _FONT, "color": ink, "size": 13},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": list(SERIES),
        "margin": {"l": 8, "r": 8, "t": 12, "b": 8},
        "xaxis": axis,
        "yaxis": axis,
        "scene": {
            name: {**scene, "tickfont": {"color": soft, "size": 11}, "title": {"font": {"color": soft, "size": 12}}}
            for name in ("xaxis", "yaxis", "zaxis")
        },
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"color": soft, "size": 12},
            "bgcolor": "rgba(0,0,0,0)",
        },
        "hoverlabel": {
            "bgcolor": tokens["surface"],
            "bordercolor": tokens["edge"],
            "font": {"color": ink, "size": 13},
            "align": "left",
        },
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": tokens["edge"], "activecolor": tokens["accent"]},
        "annotationdefaults": {"font": {"color": soft, "size": 12}},
        "hovermode": "closest",
        "dragmode": "zoom",
    }
    scale = [[0.0, tokens["least"]], [1.0, tokens["most"]]]
    heat = {"colorbar": bar, "colorscale": scale, "xgap": 1, "ygap": 1}
    lines = {"labelfont": {"color": ink, "size": 12}, "tickfont": {"color": soft}, "rangefont": {"color": soft}}
    return {
        "layout": layout,
        "data": {"heatmap": [heat], "parcoords": [lines], "bar": [{"marker": {"line": {"width": 0}}}]},
    }
