from __future__ import annotations

import dataclasses

import pytest

from autoprune.front.findings import findings
from autoprune.front.limit_check import NO_DENSE
from autoprune.plan.weights import WeightPlan
from autoprune.records.candidate import CandidateRecord
from tests.unit.report.noisy import dense, front_of, latency, measurement, record


def sentences(records: list[CandidateRecord], higher_is_better: bool = True) -> list[tuple[str, bool]]:
    return findings(front_of(records, higher_is_better=higher_is_better))


def the_one_about(words: str, records: list[CandidateRecord], higher_is_better: bool = True) -> tuple[str, bool]:
    found = [line for line in sentences(records, higher_is_better) if words in line[0]]
    assert len(found) == 1, found
    return found[0]


def none_about(words: str, records: list[CandidateRecord]) -> bool:
    return not any(words in line for line, _ in sentences(records))


def uniform(number: int, quality: float, multiply_adds: int) -> CandidateRecord:
    return record(number, measurement(quality, multiply_adds), origin="uniform")


def test_without_a_dense_model_nothing_can_be_said() -> None:
    assert sentences([]) == [(NO_DENSE, True)]


def test_dense_alone() -> None:
    lines = sentences([dense(0.9, 1000)])
    assert lines == [
        ("Dense: accuracy 0.9000 ± 0.0100 on the search split; 100 parameters, 1,000 multiply-adds.", False),
    ]


def test_dense_with_its_test_number() -> None:
    tested = record(0, measurement(0.9), origin="dense", test=measurement(0.88, split="test", error=0.02))
    assert ", 0.8800 ± 0.0200 on the test split;" in the_one_about("Dense", [tested])[0]


@pytest.mark.parametrize(
    ("rival", "higher_is_better", "counts", "warning"),
    [
        (0.80, True, "clearly better at 1, clearly worse at 0; median difference +0.1000", False),
        (0.60, True, "clearly better at 0, clearly worse at 1; median difference -0.1000", True),
        (0.71, True, "clearly better at 0, clearly worse at 0; median difference +0.0100", True),
        (0.60, False, "clearly better at 1, clearly worse at 0; median difference +0.1000", False),
        (0.80, False, "clearly better at 0, clearly worse at 1; median difference -0.1000", True),
    ],
    ids=["better", "worse", "noise", "lower error", "higher error"],
)
def test_the_search_is_compared_with_the_uniform_sweep(
    rival: float, higher_is_better: bool, counts: str, warning: bool
) -> None:
    records = [dense(0.9, 1000), uniform(1, 0.7, 500), record(2, measurement(rival, 500))]
    line, warned = the_one_about("uniform sweep's 1 points", records, higher_is_better)
    assert counts in line
    assert warned == warning, "a search that is nowhere clearly better than the sweep is a warning"
    assert ("rest is within the noise" in line) == ("better at 0, clearly worse at 0" in counts)


def test_no_sentence_ends_in_a_blank() -> None:
    records = [dense(0.9, 1000), uniform(1, 0.7, 500), record(2, measurement(0.8, 500))]
    assert all(line == line.strip() for line, _ in sentences(records))


def test_a_rival_must_not_cost_more_than_the_uniform_point() -> None:
    records = [dense(0.9, 1000), uniform(1, 0.7, 500), record(2, measurement(0.95, 501))]
    assert none_about("uniform sweep", records)


def test_the_median_of_two_differences_is_their_middle() -> None:
    records = [
        dense(0.9, 1000),
        uniform(1, 0.8, 600),
        uniform(2, 0.5, 200),
        record(3, measurement(0.78, 600)),
        record(4, measurement(0.60, 200)),
    ]
    assert "median difference +0.0400" in the_one_about("uniform sweep's 2 points", records)[0]


def test_what_is_quicker_is_counted_and_the_quickest_named() -> None:
    records = [
        dense(0.9, 1000, took=latency(1.0)),
        record(1, measurement(0.8, 500, took=latency(0.99))),
        record(2, measurement(0.7, 300, took=latency(0.6))),
        record(3, measurement(0.6, 200, took=latency(0.5))),
    ]
    line, warning = the_one_about("quicker", records)
    assert line.startswith("2 of 3 members are measurably quicker than dense")
    assert "candidate 3, takes 0.50 (0.48 to 0.52) of its time" in line
    assert not warning


def test_a_latency_interval_that_reaches_dense_is_no_gain() -> None:
    records = [
        dense(0.9, 1000, took=latency(1.0)),
        record(1, measurement(0.8, 100, took=latency(0.97, half_width=0.04))),
    ]
    assert the_one_about("quicker", records) == (
        "No member of the front is measurably quicker than dense on this machine.",
        True,
    )


def test_pruned_models_that_are_slower_than_dense_are_a_warning() -> None:
    records = [
        dense(0.9, 1000, took=latency(1.0)),
        record(1, measurement(0.8, 700, took=latency(1.5))),
        record(2, measurement(0.7, 300, took=latency(1.06))),
        record(3, measurement(0.6, 200, took=latency(0.5))),
        record(4, measurement(0.6, 1000, took=latency(1.5))),
    ]
    line, warning = the_one_about("slower than dense", records)
    assert warning
    assert line.startswith("1 of 3 pruned models is slower than dense, at 1.50 times its latency")
    assert "structure.round_to=device" in line
    records.append(record(5, measurement(0.5, 100, took=latency(0.3, doubts=("the machine was busy",)))))
    line, _ = the_one_about("slower than dense", records)
    assert line.startswith("1 of 4 pruned models is slower than dense, at 1.50 times its latency (1 more is in doubt):")
    records[1] = record(1, measurement(0.8, 700, took=latency(1.5, doubts=("the machine was busy",))))
    assert none_about("slower than dense", records)


def test_without_latencies_nothing_is_said_of_them() -> None:
    assert none_about("quicker", [dense(), record(1, measurement(0.8, 500))])


@pytest.mark.parametrize(("failed", "words"), [(1, "1 candidate diverged"), (2, "2 candidates diverged")])
def test_candidates_that_diverged_are_a_warning(failed: int, words: str) -> None:
    records = [dense(), *(record(n, measurement(0.5, 500 - n), note="loss is nan") for n in range(1, failed + 1))]
    line, warning = the_one_about("diverged", records)
    assert warning
    assert line.startswith(words)


def test_a_dense_model_that_was_trained_on_search_is_told() -> None:
    seen = record(0, measurement(1.0, 1000), origin="dense", kept={}, test=measurement(0.8, 1000, split="test"))
    assert any("trained on the search split" in line and warning for line, warning in findings(front_of([seen])))
    fair = record(0, measurement(0.9, 1000), origin="dense", kept={}, test=measurement(0.9, 1000, split="test"))
    assert not any("trained on the search split" in line for line, _ in findings(front_of([fair])))


# ---- masks

SPARSE = WeightPlan(sparsity=0.6)


def masked(number: int, ratio: float | None, quality: float = 0.8, size_bytes: int = 1500) -> CandidateRecord:
    """A candidate with masks that take `ratio` of the time that the same model takes without; None: not timed."""
    took = None if ratio is None else latency(ratio)
    search = measurement(quality, 990 - number, parameters=100, zeros=60, size_bytes=size_bytes, masked=took)
    return record(number, search, weights=SPARSE)


def test_without_masks_nothing_is_said_of_them() -> None:
    plain = record(1, measurement(0.8, 500))
    whole = record(2, measurement(0.7, 400), weights=WeightPlan(sparsity=0.0))
    assert none_about("ask", [dense(), plain, whole])


def test_what_masks_brought_in_bytes() -> None:
    records = [dense(0.9, 1000), masked(1, None), masked(2, None, 0.7, 1200), record(3, measurement(0.5, 500))]
    line, warning = the_one_about("Masks:", records)
    assert line == (
        "Masks: 2 of 3 members have them, 2 of all candidates. The smallest, candidate 2, has 40 of 100 parameters "
        "other than zero and a file of 1,200 bytes, 30.0% of dense."
    )
    assert not warning
    assert none_about("faster", records)


def test_masks_off_the_front_are_told_too() -> None:
    worse = masked(1, None, quality=0.4)
    line, _ = the_one_about("Masks:", [dense(0.9, 1000), record(2, measurement(0.5, 500)), worse])
    assert line.startswith("Masks: 0 of 1 members have them, 1 of all candidates. The smallest, candidate 1, has 40 of")


def test_groups_and_own_sparsities_are_masks() -> None:
    for plan in (WeightPlan(pattern="2:4"), WeightPlan(sparsity=0.0, layers={"w": 0.5})):
        records = [dense(0.9, 1000), record(1, measurement(0.8, 500, zeros=10), weights=plan)]
        assert the_one_about("Masks:", records)[0].startswith("Masks: 1 of 1 members")


def test_masks_that_made_nothing_faster_are_a_warning() -> None:
    assert the_one_about("faster", [dense(), masked(1, 1.0)]) == (
        "Masks did not make the one masked candidate measurably faster than the same model without masks "
        "(ratio 1.00); "
        "they save bytes only.",
        True,
    )
    line, warning = the_one_about("faster", [dense(), masked(1, 0.99), masked(2, 1.2), masked(3, None)])
    assert line.startswith("Masks made none of 2 masked candidates measurably faster")
    assert "(ratio 0.99 to 1.20)" in line
    assert warning


def test_masks_that_made_something_faster() -> None:
    line, warning = the_one_about("faster", [dense(), masked(1, 0.5), masked(2, 0.7), masked(3, 1.0)])
    assert line == (
        "Masks made 2 of 3 masked candidates measurably faster than the same model without masks (ratio 0.50 to 1.00)."
    )
    assert not warning
    line, warning = the_one_about("faster", [dense(), masked(1, 0.5)])
    assert line.startswith("Masks made the one masked candidate measurably faster")
    assert not warning


def test_one_of_many_is_what_chance_makes_faster() -> None:
    """Of ten intervals that hold with 95 % one lies below what it is about in 1 - 0.975^10 = 22 % of all studies."""
    records = [dense(), masked(1, 0.97), *(masked(number, 1.0) for number in range(2, 11))]
    line, warning = the_one_about("faster", records)
    assert line.startswith("Masks made 1 of 10 masked candidates measurably faster")
    assert line.endswith(", no more than chance does; they save bytes only.")
    assert warning
    records[2:4] = [masked(2, 0.97), masked(3, 0.97)]
    line, warning = the_one_about("faster", records)
    assert line.startswith("Masks made 3 of 10")
    assert not warning


def on_its_way(number: int, early: float, late: float, fidelity: float = 1.0) -> CandidateRecord:
    made = record(number, measurement(late, 100 + number))
    return dataclasses.replace(made, rungs=((0.5, early),), fidelity=fidelity)


def test_what_early_stopping_saved() -> None:
    """Sixteen candidates of forty steps, dense among them; three did half of them."""
    records = [on_its_way(n, n / 100, n / 100, 0.5 if n > 12 else 1.0) for n in range(1, 16)]
    line, warning = the_one_about("Early stopping", [dense(), *records])
    assert line == "Early stopping ended 3 of 16 candidates, which left out 9% of the training."
    assert not warning
    assert none_about("better in the end", [dense(), *records])


def test_rungs_that_tell_nothing_are_warned_of() -> None:
    records = [on_its_way(n, (7 * n) % 5, n / 100) for n in range(1, 16)]
    line, warning = the_one_about("better in the end", [dense(), *records])
    assert line.startswith(
        "A rung does not show which candidate is better in the end: at 50% of the training (the order there"
    )
    assert warning


def test_without_rungs_nothing_is_said_of_early_stopping() -> None:
    assert none_about("Early stopping", [dense(), record(1, measurement(0.8, 500))])
