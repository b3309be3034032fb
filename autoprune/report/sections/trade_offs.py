"""Quality over every cost, three quantities in space, and all of them as parallel coordinates."""

from __future__ import annotations

from autoprune.front.front import Front
from autoprune.front.quantities import Quantity, quantities
from autoprune.front.run import Run
from autoprune.records.objectives import QUALITY
from autoprune.report.figure import Figure
from autoprune.report.figures.cloud import cloud
from autoprune.report.figures.parallel import parallel, shown_quantities
from autoprune.report.figures.trade_off import TradeOff, trade_off
from autoprune.report.section import Picture, Section
from autoprune.report.sections.chart_text import trade_off_text

#: Costs that are always drawn.
_ALWAYS = ("multiply_adds", "size_bytes")
#: Sentences on how to read the charts.
_READ = (
    "Bars are 95 % intervals, drawn for the front and the baselines; ± in texts is one standard error. Pale points are "
    "beaten by others, crosses were stopped early. A point with a dot in it is beaten within the noise only. "
    "Colours are those of the chart of the result."
)

#: Costs that the first chart shows before others.
_FIRST = ("latency_ms", "multiply_adds")


def trade_offs_section(_: Run, front: Front) -> Section | None:
    """Draw the quality over each cost and metric that was measured, but for the chart of the summary.

    Args:
        _: The run.
        front: Its front.

    Returns:
        A chart for each cost and each further objective; None where there is no other one.
    """
    limits = front.problem.limits
    drawn = [one for one in drawn_quantities(front) if one.name != main_cost(front)]
    if not drawn:
        return None
    pictures = tuple(
        Picture(
            figure=_without_legend(trade_off(front, TradeOff(x=quantity.name, limits=limits))),
            text=trade_off_text(front, quantity.name),
            title=f"{front.metric} and {quantity.axis_title}",
        )
        for quantity in drawn
    )
    return Section(anchor="trade-offs", title="Trade-offs", lead=_READ, pictures=pictures)


def _without_legend(figure: Figure) -> Figure:
    return {**figure, "layout": {**figure["layout"], "showlegend": False}}


def all_quantities_section(_: Run, front: Front) -> Section | None:
    """Draw three quantities in space, and all of them as parallel coordinates.

    Args:
        _: The run.
        front: Its front.

    Returns:
        The section; None without a candidate.
    """
    if not front.records:
        return None
    known = quantities(front)
    shown = [quantity.axis_title for quantity in shown_quantities(front)]
    pictures = [
        Picture(
            figure=parallel(front),
            title="Everything at once",
            wide=True,
            text=f"One line for each candidate that was trained to the end, over {', '.join(shown)}; better "
            "is up. Drag along an axis to keep the lines that pass there.",
        )
    ]
    if "latency_ms" in known:
        pictures.append(
            Picture(
                figure=cloud(front),
                title="Quality, size and latency",
                wide=True,
                text=f"{front.metric}, size on disk and latency of {len(front.records)} candidates in space; the "
                f"{len(front.members)} of the front stand out.",
            )
        )
    return Section(anchor="all-quantities", title="All quantities", pictures=tuple(pictures))


def main_cost(front: Front) -> str:
    """Choose the cost of the chart that a report begins with.

    Args:
        front: Front of a study.

    Returns:
        Latency where it is an objective and was measured, as time is what people ask for; else multiply-adds, unless
        they are no objective and another cost is.
    """
    known = quantities(front)
    costs = [name for name in front.problem.objectives if name in front.problem.costs and name in known]
    return next((name for name in (*_FIRST, *costs) if name in costs), "multiply_adds")


def drawn_quantities(front: Front) -> list[Quantity]:
    """List what the report draws the quality over.

    Args:
        front: Front of a study.

    Returns:
        Multiply-adds and size, measured latencies, and the further objectives.
    """
    known = quantities(front)
    chosen = [
        name for name, one in known.items() if name in _ALWAYS or one.is_compared or name in front.problem.objectives
    ]
    return [known[name] for name in sorted(chosen, key=lambda name: name not in _ALWAYS) if name != QUALITY]
