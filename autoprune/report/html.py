"""Report of a run: one HTML file with plotly inside, which opens without a network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoprune.codec import to_plain_object
from autoprune.front.convergence import convergence
from autoprune.front.findings import findings
from autoprune.front.front import Front
from autoprune.front.importance import importances
from autoprune.front.run import Run
from autoprune.front.rung_audit import audit_rungs
from autoprune.front.table import text_table
from autoprune.records.atomic import write_atomically
from autoprune.records.left_alone import causes
from autoprune.records.manifest import Manifest
from autoprune.records.sensitivity import Sensitivity
from autoprune.report import figures
from autoprune.report.history_figures import growth_figure, lineage_figure
from autoprune.report.page import Page, Section, Table, render
from autoprune.report.sensitivity import dropped_block_bars, heat_map
from autoprune.search.allocation.correction import correct_scan, observe


def write_report(run: Run, to: Path | None = None) -> Path:
    """Write the report of a run.

    Args:
        run: The run.
        to: File to write; report.html in the run folder when None.

    Returns:
        Path of the report.

    Raises:
        StorageError: When a file of the run cannot be read.
    """
    stored, front, scan = run.manifest, run.front(), run.sensitivity()
    groups = [to_plain_object(row) for row in stored.groups]
    drawn = figures.drawn_objectives(front)
    hovers = figures.hover_texts(front)
    sections = [Section(title="The front", table=_table(front))]
    sections += [
        Section(title=f"Quality and {objective.axis_title}", figure=figures.pareto(front, objective, hovers))
        for objective in drawn
    ]
    if any(objective.name == "latency_ms" for objective in drawn):
        sections.append(Section(title="Quality, size and latency", figure=figures.pareto_3d(front, hovers)))
    sections.append(Section(title="Layers of a candidate", figure=figures.layers(front, groups)))
    if scan is not None:
        sections += [*([_sensitivity(scan, front, groups)] if scan.added_loss else []), *_depth(scan)]
    start = (0, 0.0) if scan is None else (scan.work.total, scan.seconds)
    curve = convergence(front, start=start)
    sections += [
        Section(title="Progress", figure=figures.progress(front, curve)),
        Section(title="Hypervolume", figure=growth_figure([curve])),
        Section(title="Lineages", figure=lineage_figure(front)),
        _rungs(front),
        _importances(front),
        *_left_alone(stored),
    ]
    ending = run.ending
    said = [*([(ending.sentence, True)] if ending is not None and ending.early else []), *findings(front)]
    page = Page(title=stored.name, heading=stored.name, lead=_lead(front), findings=said, sections=sections)
    path = to if to is not None else run.folder.report
    write_atomically(path, render(page).encode())
    return path


def _lead(front: Front) -> str:
    trained = sum(record.samples_trained for record in front.records)
    objectives = ", ".join(front.problem.objectives)
    return (
        f"{len(front.records)} candidates, {len(front.members)} of them on the front over {objectives}; "
        f"{trained:,} samples trained with. The search split decides; the test split is shown for the final front and "
        "decides nothing. Latencies are ratios to the dense model, measured in turn, times its own median."
    )


def _table(front: Front) -> Table:
    dense = front.dense
    records = [*([dense] if dense is not None and dense not in front.members else []), *front.members]
    head, rows = text_table(front.problem, dense, records, front.as_good_as)
    return Table(head=head, rows=rows, numeric=True)


def _sensitivity(scan: Sensitivity, front: Front, groups: Sequence[Mapping[str, object]]) -> Section:
    """Show the scan as a heat map, with its cost and the corrections by trials."""
    dense = {str(row["name"]): int(str(row["channels"])) for row in groups}
    found = correct_scan(scan, observe(front.records, dense, front.problem.quality))
    lines = [
        f"Loss added by each group alone, its channels ranked by {scan.criterion}, after recalibration. The scan saw "
        f"{scan.samples_forward:,} samples{f' and trained on {scan.samples_trained:,}' * (scan.samples_trained > 0)}.",
        f"Short of samples: {scan.note}." if scan.note else "",
        f"In trials: how much more, or less, a group hurt than in the scan, from {found.observations} candidates."
        if any(factor != 1.0 for factor in found.factors.values())
        else "",
    ]
    return Section(
        title="Sensitivity",
        figure=heat_map(scan.added_loss, scan.keep_shares, found.factors),
        notes=tuple(line for line in lines if line),
    )


def _depth(scan: Sensitivity) -> list[Section]:
    """Show added loss and costs of each block or layer left out alone; nothing where the scan left out none."""
    if not scan.dropped:
        return []
    head = ("block or layer", "loss added without it", "parameters saved", "multiply-adds saved")
    rows = tuple(
        (one.name, f"{one.added_loss:.3g}", f"{one.parameters:.1%}", f"{one.multiply_adds:.1%}") for one in scan.dropped
    )
    return [
        Section(
            title="Sensitivity of blocks and layers",
            figure=dropped_block_bars(scan.dropped),
            notes=("Loss added without one block or layer, after recalibration; below 0 the loss falls.",),
            table=Table(head=head, rows=rows),
        )
    ]


def _rungs(front: Front) -> Section:
    """Show how well the quality at each rung predicts the order in the end."""
    title = "Early stopping"
    rows = tuple(
        (
            f"{row.share:.0%}",
            row.remark,
            str(row.candidates),
            f"{row.correlation:.2f} ({row.low:.2f} to {row.high:.2f})" if math.isfinite(row.correlation) else "",
            str(row.stopped),
        )
        for row in audit_rungs(front.records)
    )
    if not rows:
        return Section(title=title, notes=("No candidate was evaluated at a rung.",))
    head = ("training done", "remark", "candidates with an end", "rank correlation with the end (95 %)", "stopped here")
    note = (
        "Spearman's correlation of the quality at the rung, on part of the search split, with the final quality, over "
        "the candidates that were trained to the end."
    )
    return Section(title=title, notes=(note,), table=Table(head=head, rows=rows))


def _importances(front: Front) -> Section:
    """Show figure and table of the importances; a sentence where trials are too few."""
    found, title = importances(front), "Which parameters mattered"
    if not found.parameters:
        return Section(title=title, notes=found.notes)
    left = "; ".join(f"{name}: {why}" for name, why in found.left_out.items())
    notes = (
        f"Share of the variance of ranks that each parameter explains alone, over the {found.trials} trials that the "
        "sampler chose, with its 68 % interval. Pale, and in brackets: no more than chance gives. The budget decides "
        f"most of the quality, so look at {found.targets[-1]}: the quality less that of trials of about the same cost.",
        *found.notes,
        *([f"Left out: {left}."] if left else []),
    )
    rows = tuple(
        (row.name, *(str(row.targets[target]) for target in found.targets))
        for row in (*found.parameters, *found.members)
    )
    table = Table(head=("parameter", *found.targets), rows=rows)
    return Section(title=title, figure=figures.importance(found), notes=notes, table=table)


def _left_alone(stored: Manifest) -> list[Section]:
    """List what is left alone by reason, like `explain`, with remedies."""
    head = ("layers (channels that stay)", "why", "where", "what to do", "multiply-adds that stay")
    rows = tuple(
        (
            ", ".join(f"{row.module} ({row.channels})" for row in place.layers),
            place.detail or cause.why,
            place.where,
            cause.remedy,
            f"{place.multiply_adds:.1%}" if cause.remedy else "",
        )
        for cause in causes(stored.unprunable)
        for place in cause.places
    )
    return [Section(title="Left alone", table=Table(head=head, rows=rows))] if rows else []
