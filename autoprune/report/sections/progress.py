"""Progress: how far the run is, and how the hypervolume grew over work and time."""

from __future__ import annotations

from datetime import UTC, datetime

from autoprune.front.convergence import Curve, convergence, worst_quality
from autoprune.front.front import Front
from autoprune.front.run import Run
from autoprune.front.run_state import RunState, duration_text, state_of
from autoprune.records.origins import Origin
from autoprune.records.workers import Worker
from autoprune.report.figures.growth import ALONG, growth_figure
from autoprune.report.section import Picture, Section, Table


def progress_section(run: Run, front: Front) -> Section:
    """Show how far the run is, and the growth of the hypervolume beside the uniform sweep alone.

    Args:
        run: The run.
        front: Its front.

    Returns:
        Curves over samples and seconds, and the state as a table.
    """
    state = state_of(run)
    curve, sweep = growth(run, front), baseline_growth(front)
    pictures = tuple(
        Picture(
            figure=growth_figure([curve], by, sweep),
            title=f"Hypervolume over {'work' if by == 'samples' else 'time'}",
            text=_text(curve, sweep, by),
        )
        for by in ("samples", "seconds")
        if front.records
    )
    ending = state.ending
    return Section(
        anchor="progress",
        title="Progress",
        lead="The hypervolume is the area between the front and the worst quality at the cost of the dense model: it "
        "grows as candidates get better or cheaper.",
        pictures=pictures,
        warnings=(ending.sentence,) if ending is not None and ending.early else (),
        table=Table(head=("run", ""), rows=tuple(state_rows(state)), sortable=False),
    )


def growth(run: Run, front: Front) -> Curve:
    """Compute how the hypervolume grew, after the work of the scan.

    Args:
        run: The run.
        front: Its front.

    Returns:
        See `front.convergence.convergence`.
    """
    scan = run.sensitivity()
    return convergence(front, start=(0, 0.0) if scan is None else (scan.work.total, scan.seconds))


def baseline_growth(front: Front) -> Curve | None:
    """Compute how the hypervolume grows with the uniform sweep alone, which needs no scan.

    Args:
        front: Front of a study.

    Returns:
        The curve of the sweep after the dense model, up to the same reference; None without a sweep.
    """
    records = [record for record in front.records if record.origin.is_baseline]
    if not any(record.origin is Origin.UNIFORM for record in records) or front.dense is None:
        return None
    return convergence(Front.of(records, front.problem), reference=worst_quality([front]))


def state_rows(state: RunState) -> list[tuple[str, str]]:
    """Write how far a run is.

    Args:
        state: State of the run.

    Returns:
        (what, number) for people.
    """
    of = "" if state.target is None else f" of {state.target}"
    rows = [("finished candidates", f"{state.finished}{of}")]
    rows += [("of them stopped early", f"{state.stopped}")] if state.stopped else []
    rows += [("failed trials", f"{state.failed}")]
    if state.scan_seconds:
        rows.append(("time of the sensitivity scan", duration_text(state.scan_seconds)))
    rows.append(("time of the trials", duration_text(state.spent_seconds)))
    if state.trial_seconds is not None:
        rows.append(("mean time of a trial", f"{state.trial_seconds:.1f} s"))
    if state.remaining_seconds is not None:
        rows.append(("time left, by the trials so far", duration_text(state.remaining_seconds)))
    rows += [(f"worker {one.name}", f"trial {one.trial}{_since(one)}") for one in state.workers]
    if state.ending is None:
        rows.append(("state", "running, or interrupted"))
    elif state.ending.reason == "trials":
        rows.append(("state", "finished"))
    else:
        rows.append(("state", "ended early"))
    return rows


def _since(worker: Worker) -> str:
    """Say when a worker began; "" for a time that no clock shows."""
    try:
        return f", since {datetime.fromtimestamp(worker.since, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return ""


def _text(curve: Curve, sweep: Curve | None, by: str) -> str:
    volumes = curve["hypervolume"]
    text = f"The hypervolume grows to {volumes[-1]:.4g} after {curve[by][-1]:,.0f} {ALONG[by]}"
    if sweep is None:
        return f"{text}."
    return f"{text}; the uniform sweep alone reaches {sweep['hypervolume'][-1]:.4g} after {sweep[by][-1]:,.0f}."
