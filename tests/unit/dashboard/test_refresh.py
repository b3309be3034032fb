"""What a refresh takes over from the moment before is what it would work out anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoprune.dashboard.columns import compact, table_data
from autoprune.dashboard.live import LiveRuns
from autoprune.front.front import Front
from autoprune.front.quantities import SPLITS, quantities
from autoprune.front.suggestion import suggest
from autoprune.records.candidate import CandidateRecord
from autoprune.records.limits import Limits
from autoprune.records.problem import Problem
from autoprune.report.figures.parallel import axes_of
from autoprune.report.figures.trade_off import TradeOff, trade_off
from benchmarks.report import random_records
from tests.browser.recorded import Recorded

PROBLEM = Problem(
    objectives=("quality", "latency_ms"),
    metric="accuracy",
    higher_is_better=True,
    limits=Limits(max_drop=0.05),
)


def varied(record: CandidateRecord, random: np.random.Generator) -> CandidateRecord:
    """The candidate, perhaps with a latency in doubt, and with a test split."""
    doubts = ("the clock changed",) if random.random() < 0.2 else ()
    latencies = {name: replace(one, doubts=doubts) for name, one in record.search.latencies.items()}
    search = replace(record.search, latencies=latencies, quality_error=float(random.uniform(0.0, 0.02)))
    test = replace(search, split="test", quality=search.quality - 0.01) if random.random() < 0.5 else None
    return replace(record, search=search, test=test)


def moments(seed: int) -> Iterator[Sequence[CandidateRecord]]:
    """The records of a study while it grows, in any order; candidates change, vanish, and dense is measured again."""
    random = np.random.default_rng(seed)
    waiting = [varied(one, random) for one in random_records(40, groups=3, seed=seed)]
    random.shuffle(waiting)  # type: ignore[arg-type]
    known: dict[int, CandidateRecord] = {}
    while waiting:
        for one in waiting[:2]:
            known[one.number] = one
        del waiting[:2]
        number = int(random.choice([*known]))
        action = random.random()
        if action < 0.2:
            known[number] = varied(known[number], random)
        elif action < 0.3 and number:
            known.pop(number)
        elif action < 0.5 and 0 in known:
            known[0] = varied(known[0], random)
        yield [known[one] for one in sorted(known)]


def seen(front: Front) -> dict[str, object]:
    """Everything that a refresh shows."""
    values = {
        (name, split): compact(quantity.values(front, split))
        for name, quantity in quantities(front).items()
        for split in SPLITS
    }
    found = suggest(front)
    limits = [Limits(), Limits(max_drop=0.03), Limits(max_latency_ms=7.0)]
    return {
        "members": [record.number for record in front.members],
        "as good": dict(front.as_good_as),
        "values": values,
        "within": [[record.number for record in front.within(one)] for one in limits if _decides(front, one)],
        "optimism": [front.optimism(one) for one in limits if _decides(front, one)],
        "suggested": None if found is None else (found.record.number, found.choice and found.choice.remarks),
        "chart": trade_off(front, TradeOff(x="latency_ms")),
        "axes": [axes_of(front, split) for split in SPLITS],
    }


def _decides(front: Front, limits: Limits) -> bool:
    return front.dense is not None or not limits.relative


@pytest.mark.parametrize("seed", range(4))
def test_a_front_that_continues_from_the_one_before_is_a_fresh_one(seed: int) -> None:
    before = None
    for records in moments(seed):
        now = Front.of(records, PROBLEM, before)
        assert seen(now) == seen(Front.of(records, PROBLEM)), len(records)
        before = now


def test_columns_that_are_sent_follow_candidates_that_come_change_and_go(tmp_path: Path) -> None:
    run = Recorded(tmp_path / "run")
    run.add(6)
    live = LiveRuns([tmp_path / "run"])
    for number, quality in ((6, None), (2, 0.5), (7, None), (5, 0.4)):
        table_data(live.snapshots(), live.version)
        if quality is None:
            run.add()
        else:
            record = run.records[number]
            run.folder.write_candidate(replace(record, search=replace(record.search, quality=quality)), b"")
        live.refresh()
        sent = table_data(live.snapshots(), live.version)
        assert sent == table_data(LiveRuns([tmp_path / "run"]).snapshots(), live.version)


@pytest.mark.parametrize(
    ("problem", "expected"), [(PROBLEM, [19]), (replace(PROBLEM, higher_is_better=False), [*range(20)])]
)
def test_only_new_candidates_are_read_unless_the_problem_is_another_one(problem: Problem, expected: list[int]) -> None:
    records = random_records(20, groups=3)
    before, read = Front.of(records[:-1], PROBLEM), list[int]()

    def note(record: CandidateRecord) -> float:
        read.append(record.number)
        return float(record.number)

    before.numbers.column("number", note)
    now = Front.of(records, problem, before)
    read.clear()
    assert now.numbers.column("number", note).tolist() == [*range(20)]
    assert read == expected
