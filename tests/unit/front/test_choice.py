"""A limit of the loss is kept with a confidence, and luck is said."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoprune.errors import ConfigurationError, SelectionError
from autoprune.front.choice import drop_text, optimism_text
from autoprune.front.findings import limit_findings
from autoprune.front.front import Front
from autoprune.front.lead import compare_leaders
from autoprune.front.limit_check import LimitCheck
from autoprune.records.candidate import CandidateRecord
from autoprune.records.limits import Limits
from autoprune.records.measurement import PREDICTION
from autoprune.records.paired import difference_error, difference_errors
from autoprune.records.precision import more_samples, needed_factor
from autoprune.report.sections.summary import summary
from tests.unit.front.answers import answers, candidate
from tests.unit.front.builders import dense, front_of, latency, measurement, problem_of, record, run_of

#: Against dense, candidate 1 loses 3 samples of 400 and wins 3; candidate 2 loses 8 and wins 5; candidate 3 loses 12.
DENSE = candidate(0, answers(range(12)), 1000, "dense")
SURE = candidate(1, answers(range(3, 15)), 700)
DOUBTFUL = candidate(2, answers(range(5, 20)), 400)
WORSE = candidate(3, answers(range(24)), 100)
RECORDS = [DENSE, SURE, DOUBTFUL, WORSE]


def test_the_drop_is_kept_with_confidence() -> None:
    """The margin is 1.28 times sqrt(discordant + 1) / 400: 0.0085 for candidate 1, 0.012 for candidate 2."""
    front = front_of(RECORDS)
    assert front.choose(Limits(max_drop=0.01), confidence=0.5).number == 2
    assert front.choose(Limits(max_drop=0.01)).number == 1
    assert front.choose(Limits(max_drop=0.01), confidence=0.99).number == 0
    assert front.choose(Limits(max_drop=0.02)).number == 2
    assert front.choose(Limits(max_drop_share=0.0103)).number == 1


def test_bounds_of_the_quality_are_kept_with_its_own_error() -> None:
    front = front_of(RECORDS)
    assert front.choose(Limits(min_quality=0.955), confidence=0.5).number == 2
    assert front.choose(Limits(min_quality=0.955)).number == 1
    with pytest.raises(SelectionError, match=r"keep to min_quality 0\.98 with 90% confidence, but got none"):
        front.choose(Limits(min_quality=0.98))


@pytest.mark.parametrize("confidence", [0.0, 1.0, 90])
def test_a_confidence_out_of_range_is_refused(confidence: float) -> None:
    with pytest.raises(ConfigurationError, match="confidence"):
        front_of(RECORDS).choose(Limits(max_drop=0.01), confidence=confidence)


def test_without_errors_the_measured_quality_decides() -> None:
    bare = [replace(one, search=replace(one.search, quality_error=0.0, deviations=())) for one in RECORDS]
    choice = front_of(bare).choice(Limits(max_drop=0.01))
    said = "multiply-adds 700 against 400; accuracy 0.9700 against 0.9625, with unknown noise."
    assert (choice.record.number, choice.optimism) == (2, None)
    assert choice.remarks == [f"The runner-up is candidate 1: {said}"]


def test_it_says_what_the_loss_may_be() -> None:
    choice = front_of(RECORDS).choice(Limits(max_drop=0.01))
    said = "On the search split the accuracy of candidate 1 is the same as the dense model's, "
    assert choice.remarks[0] == f"{said}and with 90% confidence at most 0.0085 below it."
    surest = front_of([DENSE, DOUBTFUL, WORSE]).choice(Limits(max_drop=0.01), confidence=0.999)
    assert any("max_drop 0.01 with 99.9% confidence" in line for line in surest.remarks)


@pytest.mark.parametrize(("higher", "words"), [(True, ("below", "above")), (False, ("above", "below"))])
def test_better_and_worse_are_above_and_below_as_the_metric_has_it(higher: bool, words: tuple[str, str]) -> None:
    gain = 0.1 if higher else -0.1
    problem = problem_of(higher_is_better=higher)
    whole, worse, better = (record(number, measurement(0.5 + number * gain)) for number in (0, -1, 1))
    check = LimitCheck(problem=problem, dense=whole, limits=Limits())
    found = [drop_text(one, check) for one in (worse, whole, better)]
    assert found == [
        f"0.1000 {words[0]} the dense model's",
        "the same as the dense model's",
        f"0.1000 {words[1]} the dense model's",
    ]


def test_where_none_but_the_dense_model_qualifies_the_nearest_is_named() -> None:
    choice = front_of([DENSE, DOUBTFUL, WORSE]).choice(Limits(max_drop=0.01))
    assert choice.record.number == 0
    assert choice.nearest is DOUBTFUL
    said = " ".join(choice.remarks)
    assert "No smaller candidate keeps max_drop 0.01 with 90% confidence: the choice is the dense model itself." in said
    assert (
        "The nearest is candidate 2: on the search split its accuracy is 0.0075 below the dense model's, and with 90%"
        in said
    )
    assert "confidence at most 0.0195 below it." in said
    assert "The search split tells differences of about 0.012; about 6 times as many samples would tell 0.01" in said


def test_where_none_qualifies_the_nearest_and_its_bound_are_named() -> None:
    wanted = r"max_drop 0\.01 with 90% confidence, max_multiply_adds 500, .* 2 .*\(0\.0075 below the dense"
    with pytest.raises(SelectionError, match=wanted):
        front_of(RECORDS).choose(Limits(max_drop=0.01, max_multiply_adds=500))


def test_of_equal_costs_the_better_quality_is_chosen() -> None:
    twin = candidate(4, answers(range(3, 16)), 700)
    assert front_of([DENSE, twin, SURE]).choose(Limits(max_drop=0.02)).number == 1


def test_limits_of_the_search_count_what_keeps_them_and_what_does_for_sure() -> None:
    front = Front.of(RECORDS, problem_of(limits=Limits(max_drop=0.01)))
    assert limit_findings(front) == [
        ("3 of 4 candidates keep the limits of the search (max_drop 0.01), 2 of them with 90% confidence.", False)
    ]


# ---- the runner-up


def test_the_lead_over_the_runner_up_is_compared_with_the_noise_of_the_difference() -> None:
    """Candidate 2 loses 3 samples to candidate 1 and wins 8: 1.28 * sqrt(11 + 1) / 400 = 0.011 is the noise."""
    front = front_of(RECORDS)
    lead = front.choice(Limits(max_drop=0.02), "quality").lead
    assert lead is not None
    assert (lead.over, lead.is_certain) == (SURE, False)
    assert (lead.by.gain, lead.by.noise) == (0.0, pytest.approx(1.2816 * np.sqrt(7) / 400, rel=1e-3))
    last = front.choice(Limits(max_multiply_adds=400), "quality").lead
    assert last is not None
    assert last.over is WORSE
    assert last.is_certain is (last.by.gain > last.by.noise)
    assert front.choice(Limits(max_multiply_adds=100), "quality").lead is None, "there is one candidate"


def test_the_lead_in_a_cost_is_exact_and_that_in_latency_is_not() -> None:
    def timed(number: int, ratio: float, multiply_adds: int) -> CandidateRecord:
        return record(number, measurement(0.8, multiply_adds, took=latency(ratio, half_width=0.02)))

    records = [dense(took=latency(1.0)), timed(1, 0.50, 500), timed(2, 0.51, 400), timed(3, 0.6, 600)]
    front = front_of(records, ("quality", "multiply_adds", "latency_ms"))
    by_cost, by_time = front.choice(Limits()).lead, front.choice(Limits(), "latency_ms").lead
    assert by_cost is not None
    assert by_time is not None
    assert (by_cost.over.number, by_cost.by.gain, by_cost.by.noise, by_cost.is_certain) == (1, 100, 0.0, True)
    assert (by_time.over.number, by_time.is_certain) == (1, False)
    assert by_time.by.gain == pytest.approx(-0.1), "candidate 1 is off the front, as the clock cannot tell them apart"
    assert by_time.by.noise == pytest.approx(5.1 * (2 * 0.04**2) ** 0.5 / 1.96 * 1.2816, rel=0.05)
    assert re.search(
        r"candidate 1: latency 5\.000 against 5\.100 ms, within the noise of 0\.1\d ms \(90% confidence\); accuracy "
        r"0\.8000 against 0\.8000, with unknown noise: either may be better\.",
        by_time.sentence,
    )


def test_a_choice_that_is_slower_than_dense_says_so_and_names_the_quickest() -> None:
    records = [
        dense(took=latency(1.0)),
        record(1, measurement(0.9, 500, took=latency(1.2))),
        record(2, measurement(0.9, 600, took=latency(0.5))),
        record(3, measurement(0.5, 700, took=latency(0.1))),
    ]
    front = front_of(records, ("quality", "multiply_adds", "latency_ms"))
    slower = "Candidate 1 is measurably slower than dense: it takes 1.20 (1.18 to 1.22) of its latency."
    (said,) = front.choice(Limits(max_drop=0.01)).slower
    assert said == f"{slower} The quickest that keeps the limits is candidate 2 with 0.50 of it: --by latency_ms."
    assert said in front.choice(Limits(max_drop=0.01)).remarks
    assert front.weighted({"multiply_adds": 1}, Limits(max_drop=0.01)).choice.slower == (slower,)
    assert not front.choice(Limits(max_drop=0.01), "latency_ms").slower
    none = f"{slower} None that keeps the limits is measurably quicker than dense."
    for limit in (600, 1000):
        assert front_of(records[:2]).choice(Limits(max_multiply_adds=limit)).slower == (none,)
    (predicted,) = front_of([records[0], _predicted(records[1])]).choice(Limits()).slower
    assert predicted.startswith("Candidate 1 is predicted to be slower than dense")


def _predicted(one: CandidateRecord) -> CandidateRecord:
    took = {name: replace(found, clock=PREDICTION) for name, found in one.search.latencies.items()}
    return replace(one, search=replace(one.search, latencies=took))


def test_a_choice_of_numbers_as_measured_did_not_ask_for_the_noise() -> None:
    lead = front_of(RECORDS).choice(Limits(max_drop=0.01), confidence=0.5).lead
    assert lead is not None
    assert lead.sentence.endswith("(90% confidence, which the choice did not ask for).")


def test_an_older_record_changes_no_error_but_its_own() -> None:
    """Errors are paired wherever both have deviations, whatever a third candidate has."""
    old = replace(WORSE, search=replace(WORSE.search, deviations=()))
    mixed = difference_errors(DENSE.search, [SURE.search, old.search])
    assert mixed[0] == difference_error(DENSE.search, SURE.search)
    assert mixed[1] == pytest.approx(np.hypot(DENSE.search.quality_error, WORSE.search.quality_error))


# ---- weights


def bent() -> list[CandidateRecord]:
    """Four candidates; a weighted sum never chooses number 2, which lies behind the line from 1 to 3."""
    return [
        dense(1.0, 1000),
        *(record(n, measurement(q, m)) for n, q, m in ((1, 0.98, 900), (2, 0.8, 700), (3, 0.7, 100))),
    ]


def test_weights_choose_from_one_end_of_the_front_to_the_other() -> None:
    front = front_of(bent())
    chosen = [
        front.weighted({"quality": w, "multiply_adds": 1 - w}).choice.record.number for w in (1, 0.9, 0.5, 0.1, 0)
    ]
    assert (chosen[0], chosen[-1]) == (0, 3)
    assert chosen == sorted(chosen)
    shares = front.weighted({"quality": 3, "multiply_adds": 1})
    assert (shares.objectives, shares.weights) == (("quality", "multiply_adds"), (0.75, 0.25))
    assert all(0 <= loss <= 1 for loss in shares.scaled)


def test_a_candidate_behind_the_bend_of_the_front_can_be_chosen() -> None:
    """That is why the score is the largest weighted loss and no weighted sum."""
    chosen = {
        front_of(bent()).weighted({"quality": w, "multiply_adds": 1 - w}).choice.record.number
        for w in np.linspace(0, 1, 201).tolist()
    }
    assert chosen == {0, 1, 2, 3}


def test_weights_say_how_often_the_samples_would_choose_so() -> None:
    found = front_of(RECORDS).weighted({"quality": 1})
    assert found.choice.lead is not None
    assert found.ahead == pytest.approx(0.5, abs=0.1), "dense and candidate 1 are equally good"
    assert found.remarks[0] == f"It comes before candidate 1 in {found.ahead:.0%} of draws of the search samples."
    assert found.choice.optimism is not None
    assert front_of(RECORDS).weighted({"multiply_adds": 1}).ahead == 1.0


def test_the_runner_up_of_a_choice_by_several_objectives_is_compared_in_each() -> None:
    found = front_of(bent()).weighted({"quality": 0.5, "multiply_adds": 0.5})
    lead = found.choice.lead
    assert lead is not None
    assert [gap.objective.name for gap in (lead.quality, *lead.also)] == ["quality", "multiply_adds"]
    other, own = lead.over.search.multiply_adds, found.choice.record.search.multiply_adds
    assert lead.sentence.endswith(f"; multiply-adds {other:,} against {own:,}.")


def test_weights_keep_limits() -> None:
    front = front_of(RECORDS)
    assert front.weighted({"multiply_adds": 1}, Limits(max_drop=0.01)).choice.record.number == 1
    with pytest.raises(SelectionError, match=r"keep to max_multiply_adds 1, and be measured in quality, but got none"):
        front.weighted({"quality": 1}, Limits(max_multiply_adds=1))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "weights must name an objective with a weight above 0"),
        ({"quality": 0.0}, "weights must name an objective with a weight above 0"),
        ({"quality": -1.0}, "the weight of quality must be a number >= 0, but got -1.0"),
        ({"quality": float("nan")}, "the weight of quality must be a number >= 0, but got nan"),
        ({"price": 1.0}, "an objective with a weight must be one of accuracy, "),
    ],
)
def test_weights_that_are_none(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        front_of(RECORDS).weighted(weights)


def test_the_knee_says_what_is_luck() -> None:
    found = front_of(RECORDS).knee_choice()
    assert found.choice.record is front_of(RECORDS).knee()
    assert found.choice.optimism is not None
    assert found.ahead is not None


def test_a_runner_up_that_is_surely_better_in_one_number_is_not_called_a_tie() -> None:
    """The knee may come before a candidate that is better in quality by more than the noise, but costs more."""
    check = LimitCheck(problem=problem_of(), dense=DENSE, limits=Limits())
    said = compare_leaders(WORSE, DENSE, check, "quality").sentence
    assert "more than the noise" in said
    assert "either" not in said


# ---- optimism


def lucky(count: int, seed: int, samples: int = 300) -> list[object]:
    """Candidates that are equally good, on independent samples, and a dense model."""
    generator = np.random.default_rng(seed)
    found = [candidate(0, (generator.random(samples) > 0.1).astype(float), 1000, "dense")]
    return found + [candidate(n, (generator.random(samples) > 0.1).astype(float), 500 - n) for n in range(1, count)]


def test_the_optimism_of_the_best_is_how_far_it_is_above_what_it_is() -> None:
    """All are right 9 times of 10; what the best shows above that is luck. Means over 30 studies."""
    shown, told = [], []
    for seed in range(20, 50):
        front = front_of(lucky(12, seed))
        choice = front.choice(Limits(), "quality")
        shown.append(choice.record.search.quality - 0.9)
        told.append(choice.optimism)
    assert np.mean(shown) > 0.015
    assert np.mean(told) == pytest.approx(np.mean(shown), rel=0.3)


def test_more_candidates_are_more_luck() -> None:
    few, many = (np.mean([front_of(lucky(n, seed)).optimism(by="quality") for seed in range(5)]) for n in (2, 30))
    assert many > 1.5 * few


def test_a_choice_by_cost_within_a_limit_is_lucky_too() -> None:
    assert front_of(lucky(12, 0)).optimism(Limits(max_drop=0.0)) > 0.003
    assert front_of(lucky(12, 0)).optimism(Limits()) == pytest.approx(0.0, abs=0.002), "the cheapest is no luck"


def test_a_lower_metric_is_lucky_downwards() -> None:
    records = [
        replace(one, search=replace(one.search, quality=1 - one.search.quality,
                                    deviations=tuple(-d for d in one.search.deviations)))
        for one in lucky(12, 0)
    ]  # fmt: skip
    plain = front_of(lucky(12, 0)).optimism(by="quality")
    assert front_of(records, higher_is_better=False).optimism(by="quality") == pytest.approx(plain, rel=0.1)


def test_older_records_are_drawn_independently() -> None:
    old = [replace(one, search=replace(one.search, deviations=())) for one in lucky(12, 0)]
    assert front_of(old).optimism(by="quality") == pytest.approx(front_of(lucky(12, 0)).optimism(by="quality"), rel=0.4)


def test_candidates_whose_weights_are_deleted_were_chosen_among() -> None:
    records = lucky(30, 0)
    removed = [one if one.number < 3 else replace(one, removed=True) for one in records]
    assert front_of(removed).optimism(by="quality") == pytest.approx(front_of(records).optimism(by="quality"))


def test_one_candidate_that_is_far_better_is_no_luck() -> None:
    records = [DENSE, candidate(1, answers(range(2)), 900), candidate(2, answers(range(100)), 500)]
    assert front_of(records).optimism(by="quality") == pytest.approx(0.0, abs=0.0015)


def test_the_sentence() -> None:
    assert (
        optimism_text(0.00612, 40)
        == "Chosen among 40 candidates, it looks about 0.006 better on the search split than it is."
    )
    assert [optimism_text(None, 40), optimism_text(0.0, 40), optimism_text(0.1, 1)] == ["", "", ""]
    choice = front_of(lucky(12, 0)).choice(Limits(), "quality")
    assert re.fullmatch(r"Chosen among 12 candidates, it looks about 0\.0\d+ better .*", choice.remarks[-1])


def test_the_report_says_it_where_it_names_a_candidate(tmp_path: Path) -> None:
    run = run_of(tmp_path, lucky(12, 0))
    said = " ".join(summary(run, run.front()).trust)
    assert re.search(r"The best of 12 noisy candidates looks better than it is: this one by about 0\.\d+ on the", said)


def test_unmeasured_candidates_have_no_part() -> None:
    records = [*lucky(5, 0), record(9, measurement(float("nan"), 1))]
    assert front_of(records).optimism(by="quality") is not None
    assert front_of([dense(0.9)]).optimism() is None


# ---- samples that a limit needs


def test_samples_that_a_limit_needs() -> None:
    """With a margin of half the limit, an equal candidate is accepted 9 times of 10."""
    assert needed_factor(0.005, 0.01) == pytest.approx(1.0)
    assert needed_factor(0.01, 0.01) == pytest.approx(4.0)
    assert more_samples(0.0117, 0.01) == "about 6 times as many samples"
    assert more_samples(0.01, 0.0) == "no number of samples"
