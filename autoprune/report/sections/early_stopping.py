"""Early stopping: learning curves, whether rungs can be trusted, and what stopping saved."""

from __future__ import annotations

import math

from autoprune.front.front import Front
from autoprune.front.run import Run
from autoprune.front.rung_audit import audit_rungs, training_saved
from autoprune.report.figures.rungs import learning_curves
from autoprune.report.section import Picture, Section, Table

#: Headings of the audit.
_HEAD = ("training done", "remark", "candidates with an end", "rank correlation with the end (95 %)", "stopped here")


def early_stopping_section(_: Run, front: Front) -> Section:
    """Show how well the quality at each rung predicts the order in the end, and what stopping saved.

    Args:
        _: The run.
        front: Its front.

    Returns:
        Learning curves and the audit of the rungs; a sentence where no candidate was evaluated at a rung.
    """
    rungs = audit_rungs(front.records)
    if not rungs:
        return Section(
            anchor="early-stopping", title="Early stopping", notes=("No candidate was evaluated at a rung.",)
        )
    rows = tuple(
        (
            f"{row.share:.0%}",
            row.remark,
            str(row.candidates),
            f"{row.correlation:.2f} ({row.low:.2f} to {row.high:.2f})" if math.isfinite(row.correlation) else "",
            str(row.stopped),
        )
        for row in rungs
    )
    looked = sum(bool(record.rungs) for record in front.records)
    stopped, saved = len(front.records) - len(front.complete), training_saved(front.records)
    lead = (
        f"{stopped} of {len(front.records)} candidates were stopped early, which left out {saved:.0%} of the training."
    )
    text = f"Quality of {looked} candidates at the rungs of their training and in the end; {stopped} end at a rung."
    note = (
        "Spearman's correlation of the quality at the rung, on part of the search split, with the final quality, over "
        "the candidates that were trained to the end."
    )
    return Section(
        anchor="early-stopping",
        title="Early stopping",
        lead=lead,
        pictures=(Picture(figure=learning_curves(front), title="Learning curves", text=text),),
        notes=(note,),
        table=Table(head=_HEAD, rows=rows, names=2),
    )
