"""Where no candidate keeps the limits, a run names choices that give one up."""

from __future__ import annotations

from dataclasses import replace

from autoprune.front.advice import other_choices
from autoprune.front.front import Front
from autoprune.records.limits import Limits

from .builders import dense, front_of, latency, measurement, problem_of, record

#: No candidate is both small and good; candidate 2 would be by a number in doubt.
DENSE = dense(took=latency(1.0))
SMALL = record(1, measurement(0.5, 300, took=latency(0.3)), kept={})
GOOD = record(3, measurement(0.89, 800, took=latency(0.8)), kept={})
DOUBTFUL = record(2, measurement(0.89, 400, took=latency(0.2, doubts=("The machine was busy.",))))
LIMITS = Limits(max_latency_share=0.5, max_drop=0.02)


def test_each_limit_is_given_up_in_turn() -> None:
    front = front_of([DENSE, SMALL, GOOD, DOUBTFUL], ("quality", "latency_ms"))
    doubtful, cheap, good = other_choices(front, LIMITS)
    assert (doubtful.number, cheap.number, good.number) == (2, 1, 2)
    assert doubtful.options == "--limit max_latency_share=0.5 --limit max_drop=0.02 --confidence 0.5"
    assert cheap.options == "--limit max_latency_share=0.5 --by quality"
    assert cheap.sentence == "The best within the limits of cost, candidate 1: accuracy 0.5, latency_share 0.3."
    assert good.options == "--limit max_drop=0.02"


def test_where_all_is_in_doubt_the_measured_numbers_tell() -> None:
    front = front_of([DENSE, DOUBTFUL], ("quality", "latency_ms"))
    (found,) = other_choices(front, Limits(max_latency_share=0.5, max_drop=0.005))
    assert found.options == "--limit max_latency_share=0.5 --by quality --confidence 0.5"
    assert found.sentence.startswith("The best within the limits of cost, by the measured numbers, candidate 2: ")
    assert found.sentence.endswith("latency_share 0.2, in doubt.")


def test_the_name_of_a_profile_is_quoted_for_the_shell() -> None:
    took = {"b1": latency(0.3)}
    records = [dense(), record(1, measurement(0.5, 300))]
    timed = [replace(one, search=replace(one.search, latencies=took)) for one in records]
    front = Front.of(timed, problem_of(("quality", "latency_ms[b1]"), profiles=("b1",)))
    (found,) = other_choices(front, Limits(**{"max_latency_ms[b1]": 5.0, "max_drop": 0.0}))
    assert found.options == "--limit 'max_latency_ms[b1]'=5 --by quality"


def test_a_limit_of_quality_alone_is_not_given_up_for_the_dense_model() -> None:
    front = front_of([DENSE, SMALL], ("quality", "latency_ms"))
    assert not list(other_choices(front, Limits(min_quality=0.95)))
    assert [one.number for one in other_choices(front, LIMITS)] == [1], "the dense model is no answer"
