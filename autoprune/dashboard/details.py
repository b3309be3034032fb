"""Everything about the opened candidate, and what can be done with it."""

from __future__ import annotations

import shlex

from dash import html
from dash.development.base_component import Component

from autoprune.dashboard.answer import candidate_facts
from autoprune.dashboard.columns import key_of
from autoprune.dashboard.elements import button, facts, sentences, table_element, tagged
from autoprune.dashboard.live import Snapshot
from autoprune.display import printable_line
from autoprune.front.compared import ancestors
from autoprune.front.front import Front
from autoprune.front.table import text_table
from autoprune.records.candidate import CandidateRecord
from autoprune.report.section import Table


def details(one: Snapshot, run: int, number: int, *, read_only: bool) -> list[Component]:
    """Describe a candidate.

    Args:
        one: The run.
        run: Its position.
        number: Number of the candidate.
        read_only: Whether nothing can be written.

    Returns:
        The elements.
    """
    front = one.front
    record = next((record for record in front.records if record.number == number), None)
    if record is None:
        return [html.H2(f"There is no candidate {number}"), button("Close", "close")]
    key, annotations = key_of(run, number), one.annotations
    chosen, note = annotations.chosen == number, annotations.note_on(number)
    said = [
        *sentences([lineage(front, record)], "soft small"),
        *([] if record is front.dense else [facts(candidate_facts(front, record))]),
        html.Div([button("Pin for comparison", "pin", key), *_downloads(one, record, run)], className="row wrap"),
        *(sentences([note] if note else []) if read_only else _annotating(note, key, chosen=chosen)),
        *_commands(one, record),
    ]
    return [
        html.Div(
            [
                html.H2([f"Candidate {number}", *([html.Span("chosen", className="chip good")] if chosen else [])]),
                button("Close", "close"),
            ],
            className="row between",
        ),
        html.Div([html.Div(said), html.Div(_numbers(front, record))], className="two"),
    ]


def lineage(front: Front, record: CandidateRecord) -> str:
    """Write where a candidate comes from.

    Args:
        front: Front of the study.
        record: Candidate.

    Returns:
        Such as "sampled; from candidate 3, from candidate 0".
    """
    known = {one.number: one for one in front.records}
    dense = front.dense
    line = [
        "from the dense model" if known[number] is dense else f"from candidate {number}"
        for number in ancestors(record, known)
    ]
    state = f", stopped at {record.fidelity:.0%} of its training" if record.stopped else ""
    return "; ".join([f"{record.origin}{state}", ", ".join(line)] if line else [f"{record.origin}{state}"])


def _downloads(one: Snapshot, record: CandidateRecord, run: int) -> list[Component]:
    kinds = {"plan": "Plan (JSON)", "table": "Numbers (CSV)"}
    if one.run.folder.has_weights(record.number):
        kinds["weights"] = "Weights (safetensors)"
    return [
        html.A(text, href=f"download/{run}/{kind}/{record.number}", className="button") for kind, text in kinds.items()
    ]


def _annotating(note: str, key: str, *, chosen: bool) -> list[Component]:
    field = tagged(
        html.Textarea(note, id="note", key=f"{key} {note}", rows="3", className="field"), {"data-seen": note}
    )
    mark = (
        button("Take back the choice", "unmark", key) if chosen else button("Mark as chosen", "mark", key, primary=True)
    )
    return [
        html.Div([html.Label("Note", htmlFor="note", className="small"), field], className="noting"),
        html.Div([button("Save note", "note", key), mark], className="row wrap"),
    ]


def _numbers(front: Front, record: CandidateRecord) -> Component:
    head, rows = text_table(front.problem, front.dense, [record], front.as_good_as)
    pairs = tuple((name, cell) for name, cell in zip(head, rows[0], strict=True) if cell)
    return table_element(Table(head=("measured", "number"), rows=pairs), f"numbers of candidate {record.number}")


def _commands(one: Snapshot, record: CandidateRecord) -> list[Component]:
    """Say how to do what needs torch."""
    if not one.run.folder.has_weights(record.number):
        why = "are deleted, as another one is better" if record.removed else "are not in the run folder"
        return sentences([f"The weights of this candidate {why}."], "soft small")
    folder = shlex.quote(printable_line(one.run.folder.path, 400))
    base = f"autoprune export {folder} --candidate {record.number}"
    whole = f"{base} --format onnx --script STUDY.py --to candidate-{record.number}.onnx"
    return [
        *sentences(["As a whole model, with the study script, on the command line:"], "soft small"),
        html.Div([html.Code(whole), button("Copy", "copy", whole)], className="row wrap command"),
    ]
