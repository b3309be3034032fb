"""Where no candidate keeps the limits, a run names choices that give one up."""

from __future__ import annotations

from autoprune.front.advice import other_choices
from autoprune.records.limits import Limits

from .builders import dense, front_of, latency, measurement, record

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
    assert cheap.sentence == "The best within the limits of cost, candidate 1: accuracy 0.5, latency_ms 3."
    assert good.options == "--limit max_drop=0.02"


def test_a_limit_of_quality_alone_is_not_given_up_for_the_dense_model() -> None:
    front = front_of([DENSE, SMALL], ("quality", "latency_ms"))
    assert not list(other_choices(front, Limits(min_quality=0.95)))
    assert [one.number for one in other_choices(front, LIMITS)] == [1], "the dense model is no answer"
