"""What is beaten only within noise stays on the front, marked; what is beaten beyond it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoprune.display import json_rows
from autoprune.front.front import Front
from autoprune.front.table import text_table
from autoprune.records.candidate import CandidateRecord
from autoprune.records.paired import difference_error, quantile
from autoprune.report.figures.trade_off import TradeOff, trade_off
from autoprune.report.hover import hover_texts
from autoprune.study.retention import removable_weights
from tests.unit.front.answers import answers, candidate
from tests.unit.front.builders import front_of, measurement, record

#: The dense model errs at 12 samples; a small candidate happens to err at 11 of the 400, most of them others.
DENSE = candidate(0, answers(range(12)), 1000, "dense")
LUCKY = candidate(1, answers(range(6, 17)), 100)
MIDDLE = candidate(2, answers(range(14)), 500)
WORSE = candidate(3, answers(range(40)), 600)


def numbers(front: Front) -> list[int]:
    return [member.number for member in front.members]


def test_a_lucky_candidate_does_not_empty_the_front() -> None:
    front = front_of([DENSE, LUCKY, MIDDLE, WORSE])
    assert numbers(front) == [0, 2, 1], "candidate 3 is beaten beyond noise"
    assert front.as_good_as == {0: 1, 2: 1}
    assert [member.number for member in front.strict] == [1]
    assert front.knee().number == 1


def test_without_known_errors_the_front_is_strict() -> None:
    bare = [
        replace(one, search=replace(one.search, quality_error=0.0, deviations=()))
        for one in (DENSE, LUCKY, MIDDLE, WORSE)
    ]
    front = front_of(bare)
    assert (numbers(front), front.as_good_as) == ([1], {})


def test_older_records_count_with_independent_errors() -> None:
    old = [replace(one, search=replace(one.search, deviations=())) for one in (DENSE, LUCKY, MIDDLE, WORSE)]
    assert numbers(front_of(old)) == [0, 2, 1]


def test_pairs_tell_more_than_independent_errors() -> None:
    """Six more errors on top of the same twelve are certain to be worse; six more among others are not."""
    cheap, nested = candidate(1, answers(range(12)), 100), candidate(2, answers(range(18)), 200)
    crossed = candidate(2, answers(range(50, 68)), 200)
    assert numbers(front_of([DENSE, cheap, nested])) == [0, 1]
    assert 2 in numbers(front_of([DENSE, cheap, crossed]))


def test_the_lower_of_a_metric_that_falls_is_better() -> None:
    def error(number: int, wrong: range, multiply_adds: int, origin: str = "sampled") -> CandidateRecord:
        return candidate(number, 1 - answers(wrong), multiply_adds, origin)

    records = [error(0, range(12), 1000, "dense"), error(1, range(6, 17), 100), error(2, range(40), 600)]
    front = front_of(records, higher_is_better=False)
    assert (numbers(front), front.as_good_as) == ([0, 1], {0: 1})


def test_candidates_that_are_equal_in_all_that_was_measured_count_once() -> None:
    twin = replace(MIDDLE, number=7)
    assert numbers(front_of([DENSE, MIDDLE, twin])) == [0, 2]


def test_a_quality_that_is_no_objective_has_no_noise() -> None:
    front = front_of([DENSE, LUCKY, MIDDLE], ("parameters", "multiply_adds"))
    assert (numbers(front), front.as_good_as) == ([1], {})


@pytest.mark.parametrize("seed", range(4))
def test_a_marked_member_is_beaten_by_no_single_one_beyond_noise(seed: int) -> None:
    """Against the definition, on random answers."""
    generator = np.random.default_rng(seed)
    records = [
        candidate(n, (generator.random(120) > 0.1 + 0.02 * (n % 4)).astype(float), 1000 - 40 * n) for n in range(20)
    ]
    front = front_of(records)
    assert front.as_good_as
    for one in records:
        rivals = [rival for rival in front.strict if rival is not one and dominates(rival, one)]
        beaten = any(
            rival.search.quality - one.search.quality >= quantile() * difference_error(rival.search, one.search)
            for rival in rivals
        )
        assert not (beaten and one.number in numbers(front))
        assert (one.number in front.as_good_as) <= bool(rivals)
        assert one in front.strict or rivals or one.number not in numbers(front)


def dominates(rival: CandidateRecord, one: CandidateRecord) -> bool:
    return rival.search.multiply_adds <= one.search.multiply_adds and rival.search.quality >= one.search.quality


def test_many_that_are_not_clearly_better_beat_together() -> None:
    """Alone, each of twelve cheaper candidates may be worse than the dense model; together they hardly are."""
    cheap = [candidate(n, answers(range(20 * n, 20 * n + 11)), 500 - n) for n in range(1, 13)]
    assert 0 in numbers(front_of([DENSE, cheap[0]]))
    assert 0 not in numbers(front_of([DENSE, *cheap]))
    # No single one is certainly better, so the weights stay.
    front = front_of([DENSE, *cheap, candidate(20, answers(range(13)), 900)])
    assert 20 not in numbers(front)
    assert removable_weights(front) == []


def test_a_front_of_many_candidates_is_not_all_of_them() -> None:
    generator = np.random.default_rng(0)
    records = [
        candidate(n, (generator.random(200) > 0.05 + 0.3 * (n / 300) ** 2).astype(float), 1000 - 3 * n)
        for n in range(300)
    ]
    front = front_of(records)
    assert len(front.strict) < len(front.members) < 100


def test_weights_of_what_is_beaten_within_noise_stay() -> None:
    front = front_of([DENSE, LUCKY, MIDDLE, WORSE, candidate(4, answers(range(20, 35)), 700)])
    assert [one.number for one in removable_weights(front)] == [3]


def test_a_member_that_is_no_longer_clearly_beaten_has_its_weights() -> None:
    """A rival that is better within noise is no reason to delete weights, though the record is off the strict front."""
    close = record(5, measurement(LUCKY.search.quality - 0.001, 900, error=0.02))
    assert [one.number for one in removable_weights(front_of([DENSE, LUCKY, close]))] == []


# ---- the mark


def test_the_mark_is_a_column_for_people_and_programs() -> None:
    front = front_of([DENSE, LUCKY, MIDDLE])
    headings, rows = text_table(front.problem, front.dense, front.members, front.as_good_as)
    assert [row[headings.index("as good as")] for row in rows] == ["1", "1", ""]
    table = front.table()
    assert table["as_good_as"].tolist() == [1, 1, None]
    csv = table.to_csv(index=False)
    assert csv.splitlines()[1].startswith("0,dense,1,")
    assert csv.splitlines()[3].startswith("1,sampled,,")
    assert '"as_good_as": 1,' in json_rows(front.rows())
    assert '"as_good_as": null,' in json_rows(front.rows())


def test_a_front_without_marks_has_no_column_of_them() -> None:
    front = front_of([DENSE, candidate(1, answers(range(40)), 100)])
    assert "as good as" not in text_table(front.problem, front.dense, front.members, front.as_good_as)[0]


def test_the_mark_is_in_the_charts() -> None:
    front = front_of([DENSE, LUCKY, MIDDLE, WORSE])
    hovers = hover_texts(front)
    assert "as good as candidate 1 within noise" in hovers[2]
    assert "as good as" not in hovers[1]
    traces = trade_off(front, TradeOff(), hovers)["data"]
    members = [trace["marker"]["symbol"] for trace in traces if isinstance(trace.get("marker"), dict)]
    assert [symbols for symbols in members if isinstance(symbols, list)] == [
        ["diamond"],
        ["circle", "circle-open-dot"],
    ], "the dense model is marked as what it is"
