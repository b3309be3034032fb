"""Layers: what the front keeps of each group, and what the suggested candidate keeps."""

from __future__ import annotations

from autoprune.front.front import Front
from autoprune.front.run import Run
from autoprune.front.suggestion import suggest
from autoprune.report.figures.layers import kept_shares, layer_bars, shown_members
from autoprune.report.section import Picture, Section, Table

#: Largest number of groups of which two figures fit beside each other.
_MANY = 12


def layers_section(run: Run, front: Front) -> Section | None:
    """Show the channels kept in each group across the front.

    Args:
        run: The run, for the widths of the dense model.
        front: Its front.

    Returns:
        A heat map, and bars of the suggested candidate; None where there are no groups, or no smaller candidate.
    """
    widths = {row.name: row.channels for row in run.manifest.groups}
    members, found = shown_members(front), suggest(front)
    if not widths or not members:
        return None
    wide = len(widths) > _MANY
    pictures = [
        Picture(
            figure=kept_shares(front, widths),
            title="Channels kept across the front",
            wide=wide,
            text=f"Share of channels that {len(members)} members of the front keep of {len(widths)} groups, the most "
            "expensive on top; in brackets the share of multiply-adds.",
        )
    ]
    table = None
    if found is not None:
        kept = found.record.widths
        number = found.record.number
        rows = tuple(
            (name, f"{whole}", f"{kept.get(name, whole)}", f"{kept.get(name, whole) / whole:.0%}")
            for name, whole in widths.items()
        )
        table = Table(head=("group", "dense channels", f"candidate {number}", "kept"), rows=rows)
        least = min(widths, key=lambda name: kept.get(name, widths[name]) / widths[name])
        pictures.append(
            Picture(
                figure=layer_bars(found.record, widths),
                title=f"Channels of candidate {number}",
                wide=wide,
                text=f"Channels that candidate {number} keeps beside those of the dense model; the least in {least}: "
                f"{kept.get(least, widths[least])} of {widths[least]}.",
            )
        )
    count = len(front.members) - (front.dense in front.members)
    notes = (f"{len(members)} of {count} members are drawn, evenly over the front.",) if len(members) < count else ()
    return Section(anchor="layers", title="Layers", pictures=tuple(pictures), notes=notes, table=table)
