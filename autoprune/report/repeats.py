"""The report of a study that was run with several seeds: one HTML file beside their run folders."""

from __future__ import annotations

from pathlib import Path

from autoprune.report.growth import growth
from autoprune.report.page import page, section, table
from autoprune.study.repeats import Repeats
from autoprune.task.checkpoint import write_atomically


def write_repeats_report(repeats: Repeats, to: Path) -> Path:
    """Write medians and ranges over the seeds, how the hypervolume grew, and each study's numbers; gives the path."""
    summary = repeats.summary().reset_index(names="number")
    sections = [
        f"<h1>{len(repeats.fronts)} seeds</h1><p>The same study, with another seed each time. Low and high: the 95 % "
        "interval of the median from six studies on, and the lowest and highest with fewer. Hypervolumes are those of "
        "the search split, over quality above the worst of all studies and multiply-adds as a share of dense.</p>",
        table("Over the seeds", summary),
        section("Hypervolume", growth(repeats.curves())),
        table("Each study", repeats.table()),
    ]
    write_atomically(to, page("autoprune, several seeds", sections).encode())
    return to
