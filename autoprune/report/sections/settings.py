"""Settings of the study, and layers that are left alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from autoprune.front.front import Front
from autoprune.front.run import Run
from autoprune.records.left_alone import causes
from autoprune.report.section import Section, Table


def settings_section(run: Run, _: Front) -> Section | None:
    """List the settings of the study.

    Args:
        run: The run, for its stored settings.
        _: Its front.

    Returns:
        A table; None where none are stored.
    """
    rows = tuple((name, json.dumps(value)) for name, value in _flat(run.manifest.settings))
    if not rows:
        return None
    return Section(
        anchor="settings",
        title="Settings",
        lead="Settings that the study was created with; docs/settings.md says what they do.",
        table=Table(head=("setting", "value"), rows=rows, names=2),
    )


def left_alone_section(run: Run, _: Front) -> Section | None:
    """List the layers that are left alone, by reason, like `explain`, with remedies.

    Args:
        run: The run, for the description of its model.
        _: Its front.

    Returns:
        A table; None where nothing is left alone.
    """
    head = ("layers (channels that stay)", "why", "where", "what to do", "multiply-adds that stay")
    rows = tuple(
        (
            ", ".join(f"{row.module} ({row.channels})" for row in place.layers),
            place.detail or cause.why,
            place.where,
            cause.remedy,
            f"{place.multiply_adds:.1%}" if cause.remedy else "",
        )
        for cause in causes(run.manifest.unprunable)
        for place in cause.places
    )
    if not rows:
        return None
    return Section(
        anchor="left-alone",
        title="Left alone",
        lead="Layers whose channels no candidate can lose, and what to do about it.",
        table=Table(head=head, rows=rows, names=4),
    )


def _flat(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Name every setting by its path."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None or not prefix.startswith("limits."):  # an earlier version stored limits that are not set
            yield f"{prefix}{name}", value
