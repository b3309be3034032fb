"""The report: one HTML file with everything in it, plotly included; it opens without a network."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from autoprune.front.front import Front
from autoprune.front.record import CandidateRecord
from autoprune.measure.measurement import Latency
from autoprune.report import figures
from autoprune.report.findings import findings
from autoprune.study.folder import RunFolder
from autoprune.study.importance import Importances, read_importances
from autoprune.task.checkpoint import write_atomically

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}
h1{font-size:1.6em}h2{font-size:1.2em;margin-top:2.2em;border-bottom:1px solid #ddd}
table{border-collapse:collapse;font-size:13px;width:100%}
th,td{padding:.3em .6em;text-align:right;border-bottom:1px solid #eee}
th{background:#f6f6f6;position:sticky;top:0}td:nth-child(2),th:nth-child(2){text-align:left}
.note{color:#555}.warn{color:#a33}code{background:#f4f4f4;padding:.1em .3em}
"""


def write_report(folder: RunFolder, front: Front, to: Path | None = None) -> Path:
    """Write the report of a run; gives its path (report.html in the run folder unless `to` says otherwise)."""
    stored = folder.read_study()
    scan = folder.read_sensitivity()
    timed = any(record.search.latency for record in front.everything)
    costs = ("multiply_adds", "size_bytes", *(("latency_ms",) if timed else ()))
    sections = [_head(stored, front), _table(front)]
    sections += [_figure(f"Quality and {figures.TITLES[cost]}", figures.pareto(front, cost)) for cost in costs]
    if timed:
        sections.append(_figure("Quality, size and latency", figures.pareto_3d(front)))
    groups = stored["groups"]
    assert isinstance(groups, list)
    sections.append(_figure("Layers of a candidate", figures.layers(front, groups)))
    if scan is not None:
        sections.append(_figure("Sensitivity", figures.sensitivity(scan.added_loss, scan.keep_shares)))
    sections.append(_figure("Progress", figures.progress(front)))
    sections.append(_importances(folder))
    sections.append(_left_alone(stored))
    page = (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{_text(stored['name'])}: autoprune</title>"
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body>{''.join(sections)}</body></html>"
    )
    path = to if to is not None else folder.report
    write_atomically(path, page.encode())
    return path


def _head(stored: Mapping[str, object], front: Front) -> str:
    trained = sum(record.samples_trained for record in front.everything)
    lines = "".join(f"<li{' class=warn' if warning else ''}>{_text(line)}</li>" for line, warning in findings(front))
    return (
        f"<h1>{_text(stored['name'])}</h1><p>{len(front.everything)} candidates, {len(front.records)} of them on "
        f"the front over {_text(', '.join(front.objectives))}; {trained:,} samples trained with. The search split "
        "decides; the test split is shown for the final front and decides nothing. Latencies are ratios to the dense "
        f"model, measured in turn, times its own median.</p><ul>{lines}</ul>"
    )


def _table(front: Front) -> str:
    dense = front.dense
    records = [*([dense] if dense is not None and dense not in front.records else []), *front.records]
    sparse = any(record.search.nonzero_parameters < record.search.parameters for record in records)
    masked = any(record.search.masked is not None for record in records)
    head = [
        "candidate",
        "origin",
        f"{front.quality_name}, search",
        f"{front.quality_name}, test",
        "parameters",
        *(["not zero"] if sparse else []),
        "bytes",
        "multiply-adds",
        "of dense",
        "latency ms",
        "ratio to dense (95 %)",
        *(["ratio to itself without masks (95 %)"] if masked else []),
    ]
    rows = "".join(
        f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in _cells(front, record, sparse, masked))}</tr>"
        for record in records
    )
    return f"<h2>The front</h2><table><tr>{''.join(f'<th>{_text(name)}</th>' for name in head)}</tr>{rows}</table>"


def _cells(front: Front, record: CandidateRecord, sparse: bool, masked: bool) -> Sequence[str]:
    search, test, latency = record.search, record.test, record.search.latency
    share = search.multiply_adds / max((front.dense or record).search.multiply_adds, 1)
    return (
        str(record.number),
        record.origin,
        f"{search.quality:.4f} ± {search.quality_error:.4f}",
        "" if test is None else f"{test.quality:.4f} ± {test.quality_error:.4f}",
        f"{search.parameters:,}",
        *([f"{search.nonzero_parameters:,}"] if sparse else []),
        f"{search.size_bytes:,}",
        f"{search.multiply_adds:,}",
        f"{share:.1%}",
        "" if latency is None else f"{front.cost(record, 'latency_ms'):.3g}",
        _ratio(latency),
        *([_ratio(search.masked)] if masked else []),
    )


def _ratio(latency: Latency | None) -> str:
    return "" if latency is None else f"{latency.ratio:.2f} ({latency.ratio_low:.2f} to {latency.ratio_high:.2f})"


def _importances(folder: RunFolder) -> str:
    """Figure and table of what mattered; a sentence where there is too little to tell, nothing without trials."""
    found = read_importances(folder)
    if found is None:
        return ""
    notes = "".join(f"<p class=note>{_text(note)}</p>" for note in found.notes)
    title = "Which knobs mattered"
    if not found.knobs:
        return f"<h2>{title}</h2>{notes}"
    left = "; ".join(f"{name}: {why}" for name, why in found.left_out.items())
    return (
        f"{_figure(title, figures.importance(found))}<p class=note>Share of the variance that each explains alone, "
        f"over the {found.trials} trials that the sampler chose, and its 68 % interval. Pale, and in brackets: no more "
        f"than chance gives. The budget decides most of the quality, so look at {_text(found.targets[-1])}: the "
        f"quality less what trials of about the same cost have.</p>{notes}{_importance_table(found)}"
        f"{f'<p class=note>Left out: {_text(left)}.</p>' if left else ''}"
    )


def _importance_table(found: Importances) -> str:
    lines = [["knob", *found.targets]]
    lines += [
        [row.name, *(str(row.targets[target]) for target in found.targets)] for row in (*found.knobs, *found.members)
    ]
    rows = (f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in line)}</tr>" for line in lines)
    return f"<table>{''.join(rows)}</table>"


def _left_alone(stored: Mapping[str, object]) -> str:
    rows = stored["unprunable"]
    assert isinstance(rows, list)
    if not rows:
        return ""
    lines = "".join(
        f"<tr><td>{_text(r['module'])}</td><td>{_text(r['reason'])}</td><td>{_text(r['channels'])}</td></tr>"
        for r in rows
    )
    return f"<h2>Left alone</h2><table><tr><th>module</th><th>why</th><th>channels</th></tr>{lines}</table>"


def _figure(title: str, figure: go.Figure) -> str:
    body = plotly.io.to_html(figure, include_plotlyjs=False, full_html=False)
    return f"<h2>{_text(title)}</h2>{body}"


def _text(value: object) -> str:
    return html.escape(str(value))
