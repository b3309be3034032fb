"""The sensitivity scan, with what trials said of it."""

from __future__ import annotations

from autoprune.front.front import Front
from autoprune.front.run import Run
from autoprune.records.sensitivity import Sensitivity
from autoprune.report.figures.sensitivity import dropped_block_bars, heat_map
from autoprune.report.section import Picture, Section, Table
from autoprune.search.allocation.correction import correct_scan, observe


def sensitivity_section(run: Run, front: Front) -> Section | None:
    """Show the loss that each group adds alone.

    Args:
        run: The run, for its scan.
        front: Its front.

    Returns:
        A heat map and a table; None without a scan of groups.
    """
    scan = run.sensitivity()
    if scan is None or not scan.added_loss:
        return None
    dense = {row.name: row.channels for row in run.manifest.groups}
    found = correct_scan(scan, observe(front.records, dense, front.problem.quality))
    trained = f" and trained on {scan.samples_trained:,}" if scan.samples_trained else ""
    notes = [
        f"The scan saw {scan.samples_forward:,} samples{trained}, in {scan.seconds:,.0f} s.",
        f"Short of samples: {scan.note}." if scan.note else "",
        f"In trials: how much more, or less, a group hurt than in the scan, from {found.observations} candidates."
        if any(factor != 1.0 for factor in found.factors.values())
        else "",
    ]
    worst = max(scan.added_loss, key=lambda name: scan.added_loss[name][-1])
    text = (
        f"Loss that each of {len(scan.added_loss)} groups adds alone; the most sensitive is {worst}, with "
        f"{scan.added_loss[worst][-1]:.3g} where {scan.keep_shares[-1]:.0%} of its channels stay."
    )
    return Section(
        anchor="sensitivity",
        title="Sensitivity",
        lead=f"Loss added by each group alone, its channels ranked by {scan.criterion}, after recalibration.",
        pictures=(Picture(figure=heat_map(scan.added_loss, scan.keep_shares, found.factors), text=text),),
        notes=tuple(line for line in notes if line),
        table=_table(scan),
    )


def dropped_section(run: Run, _: Front) -> Section | None:
    """Show added loss and costs of each block or layer left out alone.

    Args:
        run: The run, for its scan.
        _: Its front.

    Returns:
        Bars and a table; None where the scan left out none.
    """
    scan = run.sensitivity()
    if scan is None or not scan.dropped:
        return None
    head = ("block or layer", "loss added without it", "parameters saved", "multiply-adds saved")
    rows = tuple(
        (one.name, f"{one.added_loss:.3g}", f"{one.parameters:.1%}", f"{one.multiply_adds:.1%}") for one in scan.dropped
    )
    least = min(scan.dropped, key=lambda one: one.added_loss)
    text = f"Loss added without each of {len(scan.dropped)} blocks and layers; "
    text += f"the least without {least.name}: {least.added_loss:.3g}."
    return Section(
        anchor="sensitivity-blocks",
        title="Sensitivity of blocks and layers",
        lead="Loss added without one block or layer, after recalibration; below 0 the loss falls.",
        pictures=(Picture(figure=dropped_block_bars(scan.dropped), text=text),),
        table=Table(head=head, rows=rows),
    )


def _table(scan: Sensitivity) -> Table:
    head = ("group", *(f"keep {share:.0%}" for share in scan.keep_shares))
    rows = tuple((name, *(f"{loss:.3g}" for loss in losses)) for name, losses in scan.added_loss.items())
    return Table(head=head, rows=rows)
