from __future__ import annotations

import math

import pytest

from autoprune.errors import ConfigurationError, NotFoundError, SelectionError, UnknownNameError
from autoprune.front.findings import findings, limit_findings
from autoprune.front.front import Front
from autoprune.records.candidate import CandidateRecord
from autoprune.records.limits import Limits, limit_names
from autoprune.report.terminal import show_front
from tests.unit.front.builders import DENSE_MS, dense, front_of, latency, measurement, problem_of, record


def study() -> list[CandidateRecord]:
    """Dense, three good candidates with a falling cost, and one that candidate 2 beats everywhere."""
    return [
        dense(0.90, 1000, took=latency(1.0)),
        record(1, measurement(0.89, 600, took=latency(0.8))),
        record(2, measurement(0.85, 300, took=latency(0.5))),
        record(3, measurement(0.60, 100, took=latency(0.3))),
        record(4, measurement(0.80, 400, took=latency(0.6)), origin="uniform"),
    ]


def numbers(front: Front) -> list[int]:
    return [member.number for member in front.members]


def test_the_front_drops_what_is_beaten_and_starts_with_the_most_expensive() -> None:
    front = front_of(study()[::-1])
    assert numbers(front) == [0, 1, 2, 3]
    assert len(front.records) == 5
    assert front.dense is not None
    assert front.dense.number == 0


def test_a_lower_quality_is_better_for_an_error() -> None:
    records = [
        dense(0.10, 1000),
        record(1, measurement(0.09, 500)),
        record(2, measurement(0.30, 400)),
        record(3, measurement(0.40, 450)),
    ]
    front = front_of(records, higher_is_better=False)
    assert numbers(front) == [1, 2]
    assert front.gain(records[1]) == pytest.approx(0.01), "a smaller error is a gain"
    assert front.gain(records[2]) == pytest.approx(-0.20)
    assert front.choose(Limits(), by="quality").number == 1
    assert front.choose(Limits(max_drop=0.2)).number == 2
    assert front.choose(Limits(max_drop=0.1)).number == 1


def test_of_equal_candidates_the_first_stays() -> None:
    front = front_of([dense(), record(1, measurement(0.8, 500)), record(2, measurement(0.8, 500))])
    assert numbers(front) == [0, 1]


def test_candidates_the_clock_can_not_tell_apart_count_as_equally_quick() -> None:
    records = [
        dense(took=latency(1.0, 0.1)),
        record(1, measurement(0.8, took=latency(0.52, 0.1))),
        record(2, measurement(0.81, took=latency(0.48, 0.1))),
    ]
    assert numbers(front_of(records, ("quality", "latency_ms"))) == [0, 2]
    records[1] = record(1, measurement(0.8, took=latency(0.31, 0.1)))
    assert set(numbers(front_of(records, ("quality", "latency_ms")))) == {0, 1, 2}, "now it is clearly quicker"


def test_what_was_not_timed_is_on_no_front_that_looks_at_latency() -> None:
    records = [*study(), record(5, measurement(0.95, 10))]
    assert 5 not in numbers(front_of(records, ("quality", "latency_ms")))
    assert numbers(front_of(records)) == [5]


def test_a_quality_that_is_no_number_is_on_no_front() -> None:
    front = front_of([*study(), record(5, measurement(float("nan"), 1))])
    assert numbers(front) == [0, 1, 2, 3]


def test_an_empty_study_has_an_empty_front() -> None:
    front = front_of([])
    assert front.members == ()
    assert front.dense is None
    assert front.hypervolume() == 0.0
    assert len(front.table()) == 0
    for ask in (front.knee, lambda: front.choose(Limits(max_drop=0.1))):
        with pytest.raises(SelectionError, match="the front must hold a candidate, but got none"):
            ask()


# ---- hypervolume and knee


def test_hypervolume_in_shares_of_dense() -> None:
    front = front_of([dense(0.9, 1000), record(1, measurement(0.8, 250)), record(2, measurement(0.5, 600))])
    # Over quality 0.5 and cost share 1: dense adds (0.9 - 0.8) * 0, candidate 1 adds 0.3 * 0.75.
    assert front.hypervolume() == pytest.approx(0.225, abs=1e-6)
    assert front.hypervolume(worst_quality=0.0) == pytest.approx(0.6, abs=1e-6)
    assert front.hypervolume(worst_quality=0.85) == pytest.approx(0.0, abs=1e-6)
    assert front.hypervolume("size_bytes", 0.0) == pytest.approx(0.6, abs=1e-6)


def test_hypervolume_of_an_error() -> None:
    front = front_of(
        [dense(0.1, 1000), record(1, measurement(0.2, 250)), record(2, measurement(0.5, 900))], higher_is_better=False
    )
    assert front.hypervolume() == pytest.approx(0.3 * 0.75, abs=1e-6)
    assert front.hypervolume(worst_quality=1.0) == pytest.approx(0.8 * 0.75, abs=1e-6)


def test_hypervolume_over_latency_is_in_ratios_and_skips_what_was_not_timed() -> None:
    records = [
        dense(0.9, took=latency(1.0, 0)),
        record(1, measurement(0.8, took=latency(0.25, 0))),
        record(2, measurement(0.5, 10)),
    ]
    assert front_of(records).hypervolume("latency_ms", worst_quality=0.5) == pytest.approx(0.225, abs=1e-6)


def test_hypervolume_without_a_dense_model_is_unknown() -> None:
    assert math.isnan(front_of([record(1, measurement(0.8, 500))]).hypervolume())


def test_one_candidate_without_a_quality_does_not_wipe_out_the_hypervolume() -> None:
    records = [dense(0.9, 1000), record(1, measurement(0.8, 250)), record(2, measurement(0.5, 600))]
    spoiled = [*records, record(3, measurement(float("nan"), 100))]
    assert front_of(spoiled).hypervolume() == pytest.approx(front_of(records).hypervolume())


def test_the_knee_bends() -> None:
    # In log cost 1000 -> 10; candidate 1 loses little quality for half of that span, 2 loses much.
    records = [
        dense(0.90, 1000),
        record(1, measurement(0.88, 100)),
        record(2, measurement(0.50, 50)),
        record(3, measurement(0.40, 10)),
    ]
    assert front_of(records).knee().number == 1


def test_the_knee_looks_at_the_logarithm_of_the_cost() -> None:
    """Halving counts the same wherever it happens; in plain shares all below a tenth would look alike."""
    records = [
        dense(0.90, 1000),
        record(1, measurement(0.88, 100)),
        record(2, measurement(0.78, 30)),
        record(3, measurement(0.30, 3)),
    ]
    assert front_of(records).knee().number == 2


def test_the_knee_of_an_error_bends_the_other_way() -> None:
    records = [
        dense(0.10, 1000),
        record(1, measurement(0.12, 100)),
        record(2, measurement(0.50, 50)),
        record(3, measurement(0.60, 10)),
    ]
    assert front_of(records, higher_is_better=False).knee().number == 1


def test_the_knee_of_one_is_that_one() -> None:
    assert front_of([dense()]).knee().number == 0


# ---- choosing


@pytest.mark.parametrize(
    ("limits", "by", "chosen"),
    [
        (Limits(), "multiply_adds", 3),
        (Limits(), "quality", 0),
        (Limits(), "latency_ms", 3),
        (Limits(), "size_bytes", 3),
        (Limits(), "parameters", 3),
        (Limits(max_drop=0.0), "multiply_adds", 0),
        (Limits(max_drop=0.01), "multiply_adds", 1),
        (Limits(max_drop=0.05), "multiply_adds", 2),
        (Limits(max_drop=0.0499), "multiply_adds", 1),
        (Limits(max_latency_ms=0.52 * DENSE_MS), "quality", 2),
        (Limits(max_latency_ms=0.5 * DENSE_MS), "quality", 3),
        (Limits(max_size_bytes=4 * 600), "quality", 1),
        (Limits(max_size_bytes=4 * 600 - 1), "quality", 2),
        (Limits(max_parameters=30), "quality", 2),
        (Limits(max_parameters=29), "quality", 3),
        (Limits(max_multiply_adds=999), "quality", 1),
        (Limits(max_multiply_adds=300), "quality", 2),
        (Limits(max_drop=0.05, max_multiply_adds=700), "quality", 1),
        (Limits(max_drop=0.05, max_multiply_adds=700), "latency_ms", 2),
    ],
)
def test_choose_keeps_to_the_limits_and_is_best_by_what_is_asked(limits: Limits, by: str, chosen: int) -> None:
    assert front_of(study()).choose(limits, by=by).number == chosen


def test_none_within_the_limits_names_the_nearest() -> None:
    with pytest.raises(SelectionError) as error:
        front_of(study()).choose(Limits(max_drop=0.02, max_multiply_adds=500))
    message = str(error.value)
    assert message.startswith("a candidate must keep to max_drop 0.02, max_multiply_adds 500, but got none")
    assert "the nearest is candidate 2 with accuracy 0.85 (0.0500 below the dense model's)" in message
    assert "model's), multiply_adds 300. Loosen" in message
    assert "Loosen a limit" in message


def test_the_nearest_to_a_limit_that_none_reaches_is_the_cheapest() -> None:
    with pytest.raises(SelectionError, match="nearest is candidate 3"):
        front_of(study()).choose(Limits(max_size_bytes=10))


def test_an_unknown_axis_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match=r"--by must be one of accuracy, energy_mj, lat.*, but got 'speed'"):
        front_of(study()).choose(Limits(), by="speed")


def test_what_was_not_timed_keeps_to_no_latency_limit() -> None:
    records = [
        dense(0.9, 1000, took=latency(1.0)),
        record(1, measurement(0.8, 500, took=latency(0.5))),
        record(2, measurement(0.7, 100)),
    ]
    assert front_of(records).choose(Limits(max_latency_ms=6)).number == 1


def test_the_quickest_is_one_that_was_timed() -> None:
    records = [dense(0.9, 1000), record(1, measurement(0.8, 500, took=latency(0.5))), record(2, measurement(0.7, 100))]
    assert front_of(records).choose(Limits(), by="latency_ms").number == 1


def test_a_message_without_latencies_does_not_print_nan() -> None:
    with pytest.raises(SelectionError, match="nearest is candidate 1") as error:
        front_of([dense(), record(1, measurement(0.8, 500))]).choose(Limits(max_multiply_adds=10))
    assert "nan" not in str(error.value)


def test_latency_is_limited_by_the_ratio_not_by_a_slow_moment() -> None:
    records = [dense(0.9, took=latency(1.0)), record(1, measurement(0.8, 500, took=latency(0.5, drift=4.0)))]
    front = front_of(records)
    assert front.value(records[1], "latency_ms") == pytest.approx(0.5 * DENSE_MS)
    assert front.choose(Limits(max_latency_ms=6)).number == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_drop", -0.1),
        ("max_latency_ms", 0),
        ("max_size_bytes", -1),
        ("max_parameters", 0),
        ("max_multiply_adds", float("nan")),
    ],
)
def test_a_limit_that_nothing_can_keep_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be >=? ?0, but got"):
        Limits(**{name: value})


def test_an_integer_that_no_file_holds_is_no_limit() -> None:
    with pytest.raises(
        ConfigurationError, match=r"max_drop must be a number of at most 63 bits, .* integer of 1329 bits"
    ):
        Limits(max_drop=10**400)
    assert dict(Limits(max_drop=1e300, max_parameters=2**62).given) == {"max_drop": 1e300, "max_parameters": 2**62}


def test_every_bad_limit_is_in_one_error() -> None:
    with pytest.raises(ConfigurationError) as error:
        Limits(max_drop=-1, max_latency_ms=0, max_parameters=5)
    assert "max_drop" in str(error.value)
    assert "max_latency_ms" in str(error.value)
    assert "max_parameters" not in str(error.value)


def test_get_knows_every_finished_candidate_and_lists_the_front() -> None:
    front = front_of(study())
    assert front.get(4).number == 4, "a dominated one too"
    with pytest.raises(NotFoundError, match=r"front: 0, 1, 2, 3.*but got 9"):
        front.get(9)
    with pytest.raises(NotFoundError, match="none yet"):
        front_of([]).get(0)


# ---- the table


def test_the_table_shows_achieved_numbers_in_shares_of_dense() -> None:
    table = front_of(study()).table().set_index("candidate")
    assert table.index.tolist() == [0, 1, 2, 3]
    assert table["multiply_adds_share"].tolist() == [1.0, 0.6, 0.3, 0.1]
    assert table["search_accuracy"].tolist() == [0.90, 0.89, 0.85, 0.60]
    assert table.loc[2, "latency_ms"] == pytest.approx(5.0)
    assert table.loc[2, "latency_ratio"] == 0.5
    assert "test_accuracy" not in table


def test_the_table_has_test_numbers_where_they_were_taken() -> None:
    tested = record(1, measurement(0.8, 500), test=measurement(0.75, 500, split="test", error=0.02))
    table = front_of([dense(), tested]).table().set_index("candidate")
    assert table.loc[1, "test_accuracy"] == 0.75
    assert table.loc[1, "test_accuracy_error"] == 0.02
    assert table["test_accuracy"].isna().tolist() == [True, False]
    assert table["latency_ratio"].isna().all()


def test_the_test_split_decides_nothing() -> None:
    better_on_test = record(1, measurement(0.5, 500), test=measurement(1.0, 500, split="test"))
    rival = record(2, measurement(0.6, 400), test=measurement(0.0, 400, split="test"))
    assert numbers(front_of([dense(), better_on_test, rival])) == [0, 2]


# ---- masks


def masked_study() -> list[CandidateRecord]:
    """Dense, and two candidates of which one is masked."""
    return [
        dense(0.90, 1000, took=latency(1.0)),
        record(1, measurement(0.88, 1000, zeros=60, size_bytes=1500, took=latency(1.0), masked=latency(1.01))),
        record(2, measurement(0.85, 500, took=latency(0.5))),
    ]


def test_the_table_has_what_is_not_zero_and_what_masks_do_to_the_clock() -> None:
    table = front_of(masked_study(), ("quality", "nonzero_parameters")).table().set_index("candidate")
    assert table["parameters"].to_dict() == {0: 100, 1: 100}
    assert table["nonzero_parameters"].to_dict() == {0: 100, 1: 40}
    assert table.loc[1, ["masks_ratio", "masks_ratio_low", "masks_ratio_high"]].tolist() == [1.01, 0.99, 1.03]
    assert table.loc[[0], "masks_ratio"].isna().all()


def test_what_is_not_zero_can_be_an_objective_and_a_limit() -> None:
    assert numbers(front_of(masked_study())) == [0, 2]
    front = front_of(masked_study(), ("quality", "nonzero_parameters"))
    assert numbers(front) == [0, 1]
    assert front.choose(Limits(), by="nonzero_parameters").number == 1
    assert front.choose(Limits(max_nonzero_parameters=45), by="quality").number == 1
    with pytest.raises(SelectionError, match="keep to max_nonzero_parameters 10"):
        front.choose(Limits(max_nonzero_parameters=10))


@pytest.mark.parametrize("masked", [True, False])
def test_the_printed_table_has_the_column_where_something_is_zero(
    masked: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    front = front_of(masked_study() if masked else study(), ("quality", "nonzero_parameters"))
    show_front(front)
    printed = capsys.readouterr().out
    assert ("not zero" in printed) == masked
    if masked:
        row = next(line for line in printed.splitlines() if line.startswith("│ 1 "))
        assert [cell.strip() for cell in row.split("│")][4:7] == ["100", "40", "1,500"]


# ---- without the dense model's record, as in a folder whose dense trial failed


def orphans() -> Front:
    """Two candidates of a study that was to keep to a share of the dense model; nothing is known of that."""
    records = [record(1, measurement(0.70, 600, took=latency(0.8))), record(2, measurement(0.60, 300))]
    return Front.of(records, problem_of(limits=Limits(max_drop=0.0, max_size_share=0.5)))


@pytest.mark.parametrize("name", ["max_drop", "max_drop_share", "max_size_share", "max_latency_share"])
def test_without_dense_a_limit_relative_to_it_is_refused(name: str) -> None:
    front = orphans()
    with pytest.raises(SelectionError, match=rf"{name} cannot be decided. The dense model has not been measured"):
        front.choose(Limits(**{name: 0.0 if "drop" in name else 1.0}, max_size_bytes=1e9))
    assert front.within(Limits(**{name: 1.0})) == [], "of none is it known"
    assert front.choose(Limits(max_size_bytes=1300)).number == 2, "what needs no dense model is decided"


def test_without_dense_the_limits_of_the_search_are_refused_too() -> None:
    with pytest.raises(SelectionError, match="max_drop, max_size_share cannot be decided"):
        orphans().choose()


def test_without_dense_no_row_says_a_share_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    front = orphans()
    assert front.table()["multiply_adds_share"].isna().all()
    assert all(math.isnan(front.gain(one)) for one in front.members)
    show_front(front)
    printed = capsys.readouterr().out
    assert "100.0%" not in printed
    assert printed.count("unknown") >= 2
    said = [line for line, warning in findings(front) if warning]
    assert any("The dense model has not been measured" in line for line in said)
    assert [warning for _, warning in limit_findings(front)] == [True], "unknown, not 'none keeps to them'"
    assert "No candidate keeps" not in limit_findings(front)[0][0]


def test_a_share_of_a_latency_that_the_dense_model_lacks_is_kept_by_none() -> None:
    front = front_of([dense(), record(1, measurement(0.8, 500, took=latency(0.5)))])
    assert front.within(Limits(max_latency_share=0.9)) == []


# ---- infinity


@pytest.mark.parametrize("name", [name for name in limit_names(()) if name.startswith("max")])
def test_infinity_is_no_limit(name: str) -> None:
    unlimited = Limits(**{name: math.inf})
    assert unlimited == Limits()
    assert front_of(study()).choose(unlimited).number == 3
    assert orphans().choose(unlimited).number == 2, "nor does it need the dense model"


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("name", ["max_drop", "max_size_share"])
def test_what_is_no_number_is_no_limit_either(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Limits(**{name: value})


def test_an_error_that_was_infinite_when_dense_may_only_fall() -> None:
    front = front_of([dense(math.inf), record(1, measurement(0.4, 500))], higher_is_better=False)
    assert front.excess(front.records[1], Limits(max_drop=0.1))["drop"] == -math.inf
    assert [one.number for one in front.within(Limits(max_drop=0.1))] == [1]
