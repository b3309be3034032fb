"""One HTML file with everything in it: style, plotly, figures, tables."""

from __future__ import annotations

import html
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}
h1{font-size:1.6em}h2{font-size:1.2em;margin-top:2.2em;border-bottom:1px solid #ddd}
table{border-collapse:collapse;font-size:13px;width:100%}
th,td{padding:.3em .6em;text-align:right;border-bottom:1px solid #eee}
th{background:#f6f6f6;position:sticky;top:0}td:nth-child(2),th:nth-child(2){text-align:left}
.note{color:#555}.warn{color:#a33}code{background:#f4f4f4;padding:.1em .3em}
"""


def page(title: str, sections: Sequence[str]) -> str:
    """The whole file."""
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{text(title)}: autoprune</title>"
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body>{''.join(sections)}</body></html>"
    )


def section(title: str, figure: go.Figure) -> str:
    """A figure under its title."""
    body = plotly.io.to_html(figure, include_plotlyjs=False, full_html=False)
    return f"<h2>{text(title)}</h2>{body}"


def table(title: str, rows: pd.DataFrame) -> str:
    """A table under its title; numbers with four digits that count."""
    head = "".join(f"<th>{text(name)}</th>" for name in rows.columns)
    lines = "".join(
        f"<tr>{''.join(f'<td>{text(_shown(value))}</td>' for value in row)}</tr>" for row in rows.to_numpy().tolist()
    )
    return f"<h2>{text(title)}</h2><table><tr>{head}</tr>{lines}</table>"


def text(value: object) -> str:
    """Anything as text that is safe inside HTML."""
    return html.escape(str(value))


def _shown(value: object) -> object:
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else value
