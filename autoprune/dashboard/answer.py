"""The best candidate within limits, in words and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dash import html
from dash.development.base_component import Component

from autoprune.dashboard.columns import key_of, limits_of, numbers_of
from autoprune.dashboard.elements import button, facts, sentences
from autoprune.dashboard.live import Snapshot
from autoprune.display import printable_line, signed_text
from autoprune.errors import AutopruneError, SelectionError
from autoprune.front.front import Front
from autoprune.front.quantities import allowed_range, quantities
from autoprune.front.suggestion import Suggestion, noise_of, suggest
from autoprune.front.table import share_of
from autoprune.records.candidate import CandidateRecord
from autoprune.records.confidence import CONFIDENCE
from autoprune.records.limits import Limits
from autoprune.report.figure import Properties
from autoprune.report.sections.summary import reason_of, standing_of

#: Cost that the best candidate has the least of, if a client names none.
BY = "multiply_adds"


def answer(one: Snapshot, run: int, wanted: Mapping[str, object]) -> tuple[Properties, list[Component]]:
    """Choose the best candidate as a client asks: within limits, at the knee, or by weights.

    Args:
        one: The run.
        run: Its position.
        wanted: The "mode", the "limits", None for those of the search, what to choose "by", and the "weights".

    Returns:
        What the page marks: the key "chosen", the keys "inside" the limits, the "bounds" of columns, whether anything
        is "limited", and "by"; and the elements of the answer.
    """
    front = one.front
    if not front.records:
        said = ["The dense model is measured first. Whatever is finished appears here by itself."]
        return {"by": BY}, [html.H2("Nothing is finished yet", className="answer-title"), *sentences(said, "small")]
    asked = str(wanted.get("by") or "")
    by = asked if asked in front.problem.known else BY
    marks: Properties = {"by": by, "limited": False, "bounds": {}, "inside": []}
    try:
        given = wanted.get("limits")
        limits = front.problem.limits if given is None else limits_of(given)
        front.problem.check_limits(limits)
        kept = front.within(limits) if limits.given else []
        if limits.given:
            inside = [key_of(run, record.number) for record in kept]
            marks |= {"limited": True, "bounds": _bounds(front, limits), "inside": inside}
        title, record, said = _chosen(front, limits, by, wanted, len(kept))
    except AutopruneError as error:
        return marks, [html.H2("No candidate", className="answer-title"), *sentences(str(error).splitlines(), "small")]
    return {**marks, "chosen": key_of(run, record.number)}, _candidate(front, record, run, title, said)


def _chosen(
    front: Front, limits: Limits, by: str, wanted: Mapping[str, object], inside: int
) -> tuple[str, CandidateRecord, list[str]]:
    """Choose a candidate; return a title, the candidate, and what there is to say of it."""
    if wanted.get("mode") == "knee":
        knee = front.knee_choice()
        return "At the knee of the front", knee.choice.record, knee.remarks
    weights = numbers_of(wanted.get("weights"))
    if wanted.get("mode") == "weights" and any(weights.values()):
        weighted = front.weighted(weights, limits)
        return "Best by your weights", weighted.choice.record, weighted.remarks
    if limits.given and wanted.get("mode") != "weights":
        choice = front.choice(limits, by, CONFIDENCE)
        kept = f"{inside} of {len(front.complete)} candidates keep the limits."
        return "Best within the limits", choice.record, [kept, *choice.remarks]
    found = suggest(front)
    if found is None:
        raise SelectionError("The front holds no candidate beside the dense model yet.")
    how = "Weigh what matters to choose by it." if wanted.get("mode") == "weights" else "Set limits to choose by them."
    return standing_of(found), found.record, [reason_of(front, found), *_remarks(found), how]


def _remarks(found: Suggestion) -> list[str]:
    return [] if found.choice is None else found.choice.remarks


def _bounds(front: Front, limits: Limits) -> dict[str, dict[str, float]]:
    found = {}
    for name, quantity in quantities(front).items():
        low, high = allowed_range(front, limits, quantity)
        ends = {side: end for side, end in (("min", low), ("max", high)) if math.isfinite(end)}
        if ends:
            found[name] = ends
    return found


def _candidate(front: Front, record: CandidateRecord, run: int, title: str, said: Sequence[str]) -> list[Component]:
    key = key_of(run, record.number)
    return [
        html.P(title, className="soft small over"),
        html.H2(f"Candidate {record.number}", className="answer-title"),
        facts(candidate_facts(front, record)),
        *sentences(said, "small"),
        html.Div(
            [button("Open", "open", key, primary=True), button("Pin", "pin", key)],
            className="row",
        ),
    ]


def candidate_facts(front: Front, record: CandidateRecord) -> list[tuple[str, str, str]]:
    """Write the numbers of a candidate against dense that matter most.

    Args:
        front: Front of a study.
        record: Candidate.

    Returns:
        (number, meaning, note) for each.
    """
    dense, problem = front.dense, front.problem
    found = []
    if dense is not None:
        gain = front.gain(record)
        margin = noise_of(record.search, dense.search)
        note = f"± {margin:.4f}" if margin > 0 else ""
        found.append(
            (signed_text(problem.quality.change(gain)), f"{printable_line(front.metric, 40)} against dense", note)
        )
    for cost in problem.costs.values():
        compared = cost.against_dense(record)
        if compared is not None:
            note = f"{compared.interval}{compared.remark}"
            found.append((f"{compared.ratio:.2f}×", f"{cost.title} of dense", note))
        elif cost.name in (BY, "size_bytes") and dense is not None:
            found.append((f"{share_of(cost, record, dense):.1%}", f"{cost.title} of dense", ""))
    return found
