"""The result on one screen: a sentence, the chart, the suggested candidate, and how far to trust it."""

from __future__ import annotations

import math

from autoprune.display import signed_text
from autoprune.front.doubts import MEASURE_AGAIN
from autoprune.front.findings import limit_findings
from autoprune.front.front import Front
from autoprune.front.limit_check import NO_DENSE
from autoprune.front.run import Run
from autoprune.front.suggestion import Suggestion, suggest
from autoprune.front.table import share_of
from autoprune.records.candidate import CandidateRecord
from autoprune.records.limits import Limits
from autoprune.records.measurement import Measurement
from autoprune.records.objectives import COSTS, QUALITY, Objective
from autoprune.report.figures.trade_off import TradeOff, trade_off
from autoprune.report.hover import hover_texts
from autoprune.report.section import Fact, Picture, Summary, Table
from autoprune.report.sections.chart_text import trade_off_text
from autoprune.report.sections.trade_offs import main_cost

#: Largest number of candidates of which the chart tells everything; of more, the beaten ones tell where they are.
_ALL_TOLD = 500
#: Costs that are always told.
_ALWAYS = ("multiply_adds", "size_bytes")
#: Sentence where there is nothing to suggest.
_NOTHING = "No smaller candidate is finished yet."


def summary(run: Run, front: Front) -> Summary:
    """Say what came out of a study.

    Args:
        run: The run.
        front: Its front.

    Returns:
        The result in one sentence, with chart, suggested candidate, and why.
    """
    found = suggest(front)
    ending = run.ending
    warnings = [ending.sentence] if ending is not None and ending.early else []
    warnings += [line for line, is_warning in limit_findings(front) if is_warning]
    if found is None:
        headline = NO_DENSE if front.dense is None and front.records else _NOTHING
        return Summary(
            headline=headline,
            is_warning=True,
            warnings=tuple(warnings),
            picture=_chart(front, None) if front.records else None,
        )
    return Summary(
        headline=headline_of(front, found),
        is_warning=not found.keeps or found.is_worse_on_test,
        candidate=found.record.number,
        standing=standing_of(found),
        facts=tuple(_facts(front, found)),
        why=(reason_of(front, found), *(() if found.choice is None else found.choice.slower)),
        trust=tuple(_luck(front, found)),
        warnings=tuple(warnings),
        table=side_by_side(front, found.dense, found.record),
        picture=_chart(front, found),
    )


def headline_of(front: Front, found: Suggestion) -> str:
    """Write the result in one sentence; a difference within the noise is called one.

    Args:
        front: Front of a study.
        found: The suggestion.

    Returns:
        The sentence.
    """
    cut = f"{_share(found, 'multiply_adds'):.0%} of its multiply-adds{_speed(found, front)}"
    metric = front.metric
    if found.keeps:
        return f"The model can be cut to {cut} {_quality_kept(front, found)}{_but_on_test(found)}."
    asked = "the limits" if front.problem.limits.given else f"its {metric} for certain"
    noise = "more than" if abs(found.gain) > found.noise else "within"
    change = signed_text(front.problem.quality.change(found.gain))
    if found.doubts:
        return (
            f"It cannot be said whether a smaller model keeps the limits: candidate {found.record.number} with {cut} "
            f"does by its measured {' and '.join(found.doubts)}, which is in doubt; its {metric} differs from dense by "
            f"{change}, {noise} the noise of {found.noise:.4f}{_but_on_test(found)}."
        )
    return (
        f"No smaller model keeps {asked}: the nearest, candidate {found.record.number} with {cut}, differs from dense "
        f"by {change}, {noise} the noise of {found.noise:.4f}{_but_on_test(found)}."
    )


def side_by_side(front: Front, dense: CandidateRecord, record: CandidateRecord) -> Table:
    """Compare a candidate with the dense model on both splits, and by costs.

    Args:
        front: Front of a study.
        dense: Record of the dense model.
        record: Candidate.

    Returns:
        A row for the quality and each metric on each split, and one for each cost.
    """
    rows: list[tuple[str, ...]] = []
    for split, whole, own in (("search", dense.search, record.search), ("test", dense.test, record.test)):
        if whole is None or own is None:
            continue
        gain = own.quality - whole.quality
        rows.append((f"{front.metric}, {split} split", _with_noise(whole), _with_noise(own), signed_text(gain)))
        for name in front.problem.further_metrics:
            first, second = whole.metrics.get(name, math.nan), own.metrics.get(name, math.nan)
            if math.isfinite(first) and math.isfinite(second):
                rows.append((f"{name}, {split} split", f"{first:.4f}", f"{second:.4f}", signed_text(second - first)))
    rows += [row for cost in front.problem.costs.values() if (row := _cost_row(cost, dense, record)) is not None]
    return Table(head=("", "dense model", f"candidate {record.number}", "change"), rows=tuple(rows), sortable=False)


def _with_noise(one: Measurement) -> str:
    noise = f" ± {one.quality_error:.4f}" if one.quality_error > 0 else ""
    return f"{one.quality:.4f}{noise}"


def _cost_row(cost: Objective, dense: CandidateRecord, record: CandidateRecord) -> tuple[str, ...] | None:
    if cost.redundant is not None and cost.redundant(dense.search) and cost.redundant(record.search):
        return None
    whole, own = (cost.shown(one.search, dense.search) for one in (dense, record))
    if not (math.isfinite(whole) and math.isfinite(own)):
        return None
    compared = cost.against_dense(record)
    change = f"{own / whole:.1%} of dense" if whole else ""
    if compared is not None:
        change = f"{compared.ratio:.1%} of dense{compared.remark}"
    return cost.axis_title, f"{whole:{cost.form}}", f"{own:{cost.form}}", change


def _chart(front: Front, found: Suggestion | None) -> Picture:
    """Draw quality over the main cost."""
    over = main_cost(front)
    view = TradeOff(x=over, limits=front.problem.limits)
    marked = () if found is None else (found.record.number,)
    shown = {one.number for one in front.members} | {one.number for one in front.records if one.origin.is_baseline}
    hovers = hover_texts(front, shown if len(front.records) > _ALL_TOLD else None)
    return Picture(figure=trade_off(front, view, hovers, marked), text=trade_off_text(front, over))


def _share(found: Suggestion, cost: str) -> float:
    return share_of(COSTS[cost], found.record, found.dense)


def _speed(found: Suggestion, front: Front) -> str:
    """Say how fast the candidate is, where the clock can tell."""
    compared = front.problem.costs["latency_ms"].against_dense(found.record)
    if compared is None or not compared.trusted or compared.ratio <= 0:
        return ""
    kind = " by prediction" if compared.predicted else ""
    if compared.high < 1.0:
        return f" ({1 / compared.ratio:.1f} times as fast{kind})"
    slower = "slower" if compared.low > 1.0 else "not measurably faster"
    return f" ({slower}{kind})"


def _quality_kept(front: Front, found: Suggestion) -> str:
    metric, rises = front.metric, front.problem.quality.better == "higher"
    record, dense = found.record.search.quality, found.dense.search.quality
    numbers, beyond = f"{record:.4f} against {dense:.4f}", f"which is more than the noise of {found.noise:.4f}"
    if found.gain > found.noise:
        return f"and {'gains' if rises else 'lowers'} {metric}: {numbers}, {beyond}"
    if -found.gain > found.noise:
        return f"within the limits, for a {'loss' if rises else 'rise'} of {metric}: {numbers}, {beyond}"
    noise = f"; a difference up to {found.noise:.4f} is noise" if found.noise > 0 else ", with an unknown noise"
    return f"without a measurable change of {metric}: {numbers}{noise}"


def _but_on_test(found: Suggestion) -> str:
    if not found.is_worse_on_test:
        return ""
    return f"; but on the test split it loses {-found.test_gain:.4f}, more than the noise of {found.test_noise:.4f}"


def _facts(front: Front, found: Suggestion) -> list[Fact]:
    """List the main numbers of the suggested candidate against dense."""
    noise = f"noise: {found.noise:.4f}" if found.noise > 0 else "noise unknown"
    change = front.problem.quality.change
    facts = [Fact(value=signed_text(change(found.gain)), label=f"{front.metric} on the search split", note=noise)]
    if math.isfinite(found.test_gain):
        note = f"noise: {found.test_noise:.4f}"
        facts.append(
            Fact(value=signed_text(change(found.test_gain)), label=f"{front.metric} on the test split", note=note)
        )
    known, objectives = front.problem.known, [row for row in front.problem.rows if row.name != QUALITY]
    facts += [_metric_fact(one, found) for one in objectives if not one.is_cost]
    measured = [cost.name for cost in front.problem.costs.values() if cost.against_dense(found.record) is not None]
    costs = [*_ALWAYS, *measured, *(one.name for one in objectives if one.is_cost)]
    # What the study asked for comes first.
    costs.sort(key=lambda name: name not in front.problem.objectives)
    facts += [fact for name in dict.fromkeys(costs) if (fact := _cost_fact(known[name], found)) is not None]
    return facts


def _metric_fact(metric: Objective, found: Suggestion) -> Fact:
    own, whole = metric.value(found.record.search), metric.value(found.dense.search)
    return Fact(value=signed_text(own - whole), label=f"{metric.title} on the search split", note="")


def _cost_fact(cost: Objective, found: Suggestion) -> Fact | None:
    compared = cost.against_dense(found.record)
    if compared is not None:
        note = f"{compared.interval}{compared.remark}"
        return Fact(value=f"{compared.ratio:.2f}", label=f"of the {cost.title}", note=note)
    share = share_of(cost, found.record, found.dense)
    return Fact(value=f"{share:.0%}", label=f"of the {cost.title}") if math.isfinite(share) else None


def standing_of(found: Suggestion) -> str:
    """Name what the candidate is.

    Args:
        found: The suggestion.

    Returns:
        "Suggested"; where no candidate keeps the limits for certain, "In doubt" or "Nearest".
    """
    if found.doubts:
        return "In doubt"
    return "Suggested" if found.keeps else "Nearest"


def reason_of(front: Front, found: Suggestion) -> str:
    """Say why this candidate is suggested.

    Args:
        front: Front of the study.
        found: The suggestion.

    Returns:
        A sentence.
    """
    number, check = found.record.number, None if found.choice is None else found.choice.check
    if found.doubts:
        return (
            f"Candidate {number} has the fewest multiply-adds of those that keep the limits ({_written(found.limits)}) "
            f"by their measured numbers. It is not suggested, as its {' and '.join(found.doubts)} is in doubt. "
            f"{MEASURE_AGAIN} `autoprune choose` with --confidence 0.5 takes numbers as measured."
        )
    if check is None:
        return f"Candidate {number} comes nearest to the limits ({_written(found.limits)}) of those on the front."
    sure = f", with {check.confidence:.0%} confidence" if check.drop_margin(found.record) > 0 else ""
    if front.problem.limits.given:
        asked = f"keep the limits of the search ({_written(found.limits)}){sure}"
    else:
        share = found.limits.given["max_drop_share"]
        asked = f"lose at most {share:.0%} of the dense model's {front.metric}{sure}"
    return f"Candidate {number} has the fewest multiply-adds of those that {asked}."


def _written(limits: Limits) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in limits.given.items())


def _luck(front: Front, found: Suggestion) -> list[str]:
    """Say the winner's curse plainly, with both splits side by side."""
    optimism = front.optimism(found.limits) if found.choice is None else found.choice.optimism
    count, lines = len(front.complete), []
    if optimism is not None and optimism > 0 and count > 1:
        lines.append(
            f"The best of {count} noisy candidates looks better than it is: this one by about {optimism:.1g} on the "
            "search split. Expect it to be that much worse on new data."
        )
    if found.choice is not None and found.choice.lead is not None:
        lines.append(found.choice.lead.sentence)
    test, search = found.record.test, found.record.search
    if test is not None:
        lines.append(
            f"The test split, which chose nothing, says {test.quality:.4f}; the search split, which chose, says "
            f"{search.quality:.4f}."
        )
    else:
        lines.append("It was not measured on a test split, which would tell how much of this is luck.")
    return lines
