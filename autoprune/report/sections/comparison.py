"""Pinned candidates side by side with the dense model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoprune.errors import ConfigurationError
from autoprune.front.compared import Compared, LayerNumbers, compare
from autoprune.front.front import Front
from autoprune.front.lead import Gap
from autoprune.front.run import Run
from autoprune.front.table import text_table
from autoprune.records.annotations import Annotations
from autoprune.records.candidate import CandidateRecord
from autoprune.records.confidence import CONFIDENCE
from autoprune.records.layer_table import LayerTable
from autoprune.report.figures.comparison import compared_curves, layer_bars, width_bars
from autoprune.report.section import Picture, Section, Table
from autoprune.search.allocation.latency_model import latency_model_of

#: Ancestors of a candidate that are named.
_NAMED = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerData:
    """Work and latency of the layers of a model, worked out once for a run.

    Attributes:
        table: Work of the layers; None in a run of a version that did not store it.
        latencies: Function that predicts the latency of each layer; None without a device profile.
    """

    table: LayerTable | None
    latencies: LayerNumbers | None


def layer_data(run: Run) -> LayerData:
    """Read the work of the layers of a model, and the model of their latency.

    Args:
        run: The run.

    Returns:
        Work and latency of the layers; None for an unknown one.
    """
    profile, table = run.folder.read_device_profile(), run.folder.read_layers()
    if profile is None:
        return LayerData(table=table, latencies=None)
    try:
        latencies = latency_model_of(profile).layers
    except ConfigurationError:  # no model was timed
        return LayerData(table=table or profile.layers, latencies=None)
    return LayerData(table=table or profile.layers, latencies=latencies)


def comparison_sections(
    run: Run, front: Front, numbers: Sequence[int], layers: LayerData, annotations: Annotations | None = None
) -> list[Section]:
    """Put candidates side by side with the dense model.

    Args:
        run: The run.
        front: Its front.
        numbers: Numbers of the candidates, one or more.
        layers: Result of `layer_data`.
        annotations: What a person wrote about the run; None for nothing.

    Returns:
        Numbers, widths, layers and training of the candidates; sections without content are left out.

    Raises:
        NotFoundError: There is no such candidate.
    """
    found = compare(front, numbers, run.manifest.groups, layers.table, layers.latencies)
    chosen = None if annotations is None else annotations.chosen
    titles = [_title(record, chosen) for record in found.records]
    return [
        _numbers(found, front, titles, annotations),
        *([_widths(found, titles)] if found.groups else []),
        *([_layers(found, titles)] if found.layers else []),
        *([_training(found, front, titles)] if any(found.curves) else []),
    ]


def _title(record: CandidateRecord, chosen: int | None) -> str:
    name = "dense" if record.origin == "dense" else f"candidate {record.number}"
    return f"{name} (chosen)" if record.number == chosen else name


def _numbers(found: Compared, front: Front, titles: Sequence[str], annotations: Annotations | None) -> Section:
    """Show a column for each candidate, and which differences are more than noise."""
    head, rows = text_table(front.problem, front.dense, found.records, front.as_good_as, annotations)
    # The number and the mark of the choice are in the titles.
    lines = [
        (name, *(row[place] for row in rows)) for place, name in enumerate(head) if name not in ("candidate", "chosen")
    ]
    lines += [("masks", *found.masks)] if any(found.masks) else []
    lines += [("dropped", *(", ".join(one.dropped) for one in found.records))] if _drops(found) else []
    lines.append(("trained from", *map(_lineage, found.lineages)))
    table = Table(head=("", *titles), rows=tuple(lines), names=1, sortable=False)
    return Section(
        anchor="comparison",
        title="Side by side",
        lead="Differences in quality are compared with the noise of the difference: both saw the same samples.",
        notes=tuple(_differences(found, titles)),
        table=table,
    )


def _drops(found: Compared) -> bool:
    return any(record.dropped for record in found.records)


def _lineage(ancestors: Sequence[int]) -> str:
    named = [str(number) for number in ancestors[:_NAMED]]
    more = f", and {len(ancestors) - _NAMED} more" if len(ancestors) > _NAMED else ""
    return f"{', '.join(named)}{more}"


def _differences(found: Compared, titles: Sequence[str]) -> list[str]:
    against = [
        f"{title[0].upper()}{title[1:]} against dense: {_said(gap)}."
        for title, gap in zip(titles, found.against_dense, strict=True)
        if gap is not None
    ]
    return against + [f"Candidate {one} against candidate {other}: {_said(gap)}." for one, other, gap in found.pairs]


def _said(gap: Gap) -> str:
    return gap.text(CONFIDENCE)


def _widths(found: Compared, titles: Sequence[str]) -> Section:
    narrow = min(
        ((group.widths[place] / group.channels, group.name, title)
         for group in found.groups for place, title in enumerate(titles)),
        key=lambda one: one[0],
    )  # fmt: skip
    rows = tuple(
        (group.name, *(_width(width, rule) for width, rule in zip(group.widths, group.criteria, strict=True)))
        for group in found.groups
    )
    text = (
        f"Share of channels that {_list(titles)} keep of {len(found.groups)} groups. The least is {narrow[0]:.0%} of "
        f"{narrow[1]} in {narrow[2]}."
    )
    return Section(
        anchor="comparison-widths",
        title="Widths",
        lead="Channels that stay in each group, and the criterion that ranked them.",
        pictures=(Picture(figure=width_bars(found, titles), text=text),),
        table=Table(head=("group", *titles), rows=rows),
    )


def _width(width: int, rule: str) -> str:
    return f"{width} ({rule})" if rule else str(width)


def _layers(found: Compared, titles: Sequence[str]) -> Section:
    totals = [sum(layer.multiply_adds[place] for layer in found.layers) for place in range(len(titles))]
    each = ", ".join(f"{title} {total:,.0f}" for title, total in zip(titles, totals, strict=True))
    pictures = [
        Picture(
            figure=layer_bars(found, titles),
            title="Multiply-adds of each layer",
            text=f"Multiply-adds of {len(found.layers)} layers. In all: {each}.",
        )
    ]
    head = ["layer", "kind", *(f"multiply-adds, {title}" for title in titles)]
    if found.predicts_latency:
        times = [sum(layer.latency_ms[place] for layer in found.layers) for place in range(len(titles))]
        pairs = zip(titles, times, strict=True)
        each = ", ".join(f"{title} {time:.3g} ms" for title, time in pairs if math.isfinite(time))
        text = f"Predicted latency of {len(found.layers)} layers. In all, without what all share: {each}."
        figure = layer_bars(found, titles, latency=True)
        pictures.append(Picture(figure=figure, title="Predicted latency of each layer", text=text))
        head += [f"ms, {title}" for title in titles]
    rows = tuple(
        (
            layer.name,
            layer.kind,
            *(f"{value:,.0f}" for value in layer.multiply_adds),
            *(("" if math.isnan(ms) else f"{ms:.4f}") for ms in layer.latency_ms if found.predicts_latency),
        )
        for layer in found.layers
    )
    lead = "What each layer costs. Layers have costs of their own; a group may change several."
    return Section(
        anchor="comparison-layers",
        title="Layers",
        lead=lead,
        pictures=tuple(pictures),
        notes=("Latencies are predicted by the device profile of the study.",) if found.predicts_latency else (),
        table=Table(head=tuple(head), rows=rows, names=2),
    )


def _training(found: Compared, front: Front, titles: Sequence[str]) -> Section:
    ends = ", ".join(
        f"{title} {curve[-1][1]:.4f} at {curve[-1][0]:.0%}"
        for title, curve in zip(titles, found.curves, strict=True)
        if curve
    )
    return Section(
        anchor="comparison-training",
        title="Training",
        lead="Quality at the rungs, on part of the search split, and at the end, on all of it.",
        pictures=(
            Picture(
                figure=compared_curves(found, titles, front.metric),
                text=f"Learning curves. At the end: {ends}.",
            ),
        ),
    )


def _list(titles: Sequence[str]) -> str:
    return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"
