"""The report: one HTML file with everything in it, plotly included; it opens without a network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoprune.codec import plain_object
from autoprune.errors import StorageError
from autoprune.front.audit import audit
from autoprune.front.convergence import convergence
from autoprune.front.front import Front
from autoprune.front.record import CandidateRecord
from autoprune.measure.measurement import Latency
from autoprune.report import figures
from autoprune.report.findings import findings
from autoprune.report.growth import growth, tree
from autoprune.report.page import page, section, text
from autoprune.report.sensitivity import heat_map
from autoprune.sensitivity.refresh import observe, refreshed
from autoprune.sensitivity.scan import Sensitivity
from autoprune.study.folder import RunFolder
from autoprune.study.importance import Importances, read_importances
from autoprune.study.manifest import Manifest
from autoprune.task.checkpoint import write_atomically


def write_report(folder: RunFolder, front: Front, to: Path | None = None) -> Path:
    """Write the report of a run; gives its path (report.html in the run folder unless `to` says otherwise)."""
    stored = folder.read_study()
    scan = folder.read_sensitivity()
    timed = any(record.search.latency for record in front.everything)
    costs = ("multiply_adds", "size_bytes", *(("latency_ms",) if timed else ()))
    sections = [_head(stored, front), _table(front)]
    sections += [section(f"Quality and {figures.TITLES[cost]}", figures.pareto(front, cost)) for cost in costs]
    if timed:
        sections.append(section("Quality, size and latency", figures.pareto_3d(front)))
    groups = [plain_object(row) for row in stored.groups]
    sections.append(section("Layers of a candidate", figures.layers(front, groups)))
    if scan is not None:
        sections.append(_sensitivity(scan, front, groups))
    sections.append(section("Progress", figures.progress(front)))
    start = (0, 0.0) if scan is None else (scan.samples_forward + scan.samples_trained, scan.seconds)
    sections.append(section("Hypervolume", growth([convergence(front, start=start)])))
    sections.append(section("Who descends from whom", tree(front)))
    sections.append(_rungs(front))
    sections.append(_importances(folder))
    sections.append(_left_alone(stored))
    path = to if to is not None else folder.report
    write_atomically(path, page(stored.name, sections).encode())
    return path


def _head(stored: Manifest, front: Front) -> str:
    trained = sum(record.samples_trained for record in front.everything)
    lines = "".join(f"<li{' class=warn' if warning else ''}>{text(line)}</li>" for line, warning in findings(front))
    return (
        f"<h1>{text(stored.name)}</h1><p>{len(front.everything)} candidates, {len(front.records)} of them on "
        f"the front over {text(', '.join(front.objectives))}; {trained:,} samples trained with. The search split "
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
        f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in _cells(front, record, sparse, masked))}</tr>"
        for record in records
    )
    return f"<h2>The front</h2><table><tr>{''.join(f'<th>{text(name)}</th>' for name in head)}</tr>{rows}</table>"


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


def _sensitivity(scan: Sensitivity, front: Front, groups: Sequence[Mapping[str, object]]) -> str:
    """The scan as a heat map, what it took, and what the trials said of it."""
    dense = {str(row["name"]): int(str(row["channels"])) for row in groups}
    found = refreshed(scan, observe(front.everything, dense, front.higher_is_better))
    lines = [
        f"Loss added by each group alone, its channels ranked by {scan.criterion}, after recalibration. The scan saw "
        f"{scan.samples_forward:,} samples{f' and trained on {scan.samples_trained:,}' * (scan.samples_trained > 0)}.",
        f"Short of samples: {scan.note}." if scan.note else "",
        f"In trials: by how much more, or less, a group hurt than the scan says, by {found.observations} candidates."
        if any(factor != 1.0 for factor in found.factors.values())
        else "",
    ]
    notes = "".join(f"<p class=note>{text(line)}</p>" for line in lines if line)
    return f"{section('Sensitivity', heat_map(scan.added_loss, scan.keep_shares, found.factors))}{notes}"


def _rungs(front: Front) -> str:
    """Whether the quality on the way tells the quality in the end, rung by rung."""
    rows = [
        (
            f"{row.share:.0%}",
            row.remark,
            str(row.candidates),
            f"{row.correlation:.2f} ({row.low:.2f} to {row.high:.2f})" if math.isfinite(row.correlation) else "",
            str(row.stopped),
        )
        for row in audit(front.everything)
    ]
    title = "<h2>Early stopping</h2>"
    if not rows:
        return f"{title}<p class=note>No candidate was looked at on its way.</p>"
    head = ("training done", "remark", "candidates with an end", "rank correlation with the end (95 %)", "stopped here")
    table = "".join(f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f"{title}<p class=note>Spearman's correlation of the quality on part of the search split there with that "
        "in the end, over the candidates that were trained to the end.</p>"
        f"<table><tr>{''.join(f'<th>{text(name)}</th>' for name in head)}</tr>{table}</table>"
    )


def _importances(folder: RunFolder) -> str:
    """Figure and table of what mattered; a sentence where there is too little to tell, nothing without trials."""
    try:
        found = read_importances(folder)
    except StorageError as error:  # the rest of the report needs no journal
        found = Importances(trials=0, notes=(f"They cannot be told: {error}",))
    if found is None:
        return ""
    notes = "".join(f"<p class=note>{text(note)}</p>" for note in found.notes)
    title = "Which knobs mattered"
    if not found.knobs:
        return f"<h2>{title}</h2>{notes}"
    left = "; ".join(f"{name}: {why}" for name, why in found.left_out.items())
    return (
        f"{section(title, figures.importance(found))}<p class=note>Share of the variance of ranks that each explains "
        f"alone, over the {found.trials} trials that the sampler chose, and its 68 % interval. Pale, and in brackets: "
        f"no more than chance gives. The budget decides most of the quality, so look at {text(found.targets[-1])}: the "
        f"quality less what trials of about the same cost have.</p>{notes}{_importance_table(found)}"
        f"{f'<p class=note>Left out: {text(left)}.</p>' if left else ''}"
    )


def _importance_table(found: Importances) -> str:
    lines = [["knob", *found.targets]]
    lines += [
        [row.name, *(str(row.targets[target]) for target in found.targets)] for row in (*found.knobs, *found.members)
    ]
    rows = (f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in line)}</tr>" for line in lines)
    return f"<table>{''.join(rows)}</table>"


def _left_alone(stored: Manifest) -> str:
    if not stored.unprunable:
        return ""
    lines = "".join(
        f"<tr><td>{text(r.module)}</td><td>{text(r.reason)}</td><td>{text(r.channels)}</td></tr>"
        for r in stored.unprunable
    )
    return f"<h2>Left alone</h2><table><tr><th>module</th><th>why</th><th>channels</th></tr>{lines}</table>"
