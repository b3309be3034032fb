"""The index of a list of candidates that grows, and in which records are replaced."""

from __future__ import annotations

from dataclasses import replace

from autoprune.plan.resolved import ResolvedPlan
from autoprune.search import duplicates
from autoprune.search.known import Known
from autoprune.search.search import Search
from tests.unit.search.synthetic import PROBLEM, front_of, model, run, settings, topology


def test_it_follows_the_list() -> None:
    search = Search(model(), settings(early_stopping="none"))
    run(search, 30)
    every, records = list(search.records), []
    known = Known(records, topology(), PROBLEM)
    assert known.get(0) is None
    assert known.limits.dense is None
    for record in every:
        records.append(record)
        records.sort(key=lambda one: -one.number)  # in whatever order
        assert known.get(record.number) is record
        assert known.is_tried(duplicates.key_of(record, topology()))
    records.reverse()
    assert known.front() is known.front(), "worked out once"
    assert known.front().members == front_of(every).members
    assert known.limits.dense is every[0]
    last = records.pop()
    assert known.get(last.number) is None
    assert known.front().members == front_of(every[:-1]).members
    assert known.get(None) is None


def test_the_latest_twin_that_went_well_answers() -> None:
    search = Search(model(), settings(early_stopping="none"))
    run(search, 6)
    record = search.records[3]
    key = duplicates.key_of(record, topology())
    plan = ResolvedPlan.of(record.plan, topology())
    assert duplicates.key(plan, topology()) == key
    records = [record, replace(record, number=7), replace(record, number=8, fidelity=0.5)]
    known = Known(records, topology(), PROBLEM)
    assert known.twin(key, lambda _: True) is records[1]
    assert known.twin(key, lambda one: one.stopped) is records[2]
    assert known.twin(("another",), lambda _: True) is None
    records[1] = replace(records[1], note="diverged")
    assert known.twin(key, lambda _: True) is record
    records[:] = [replace(one, note="diverged") for one in records]
    assert not known.is_tried(key)
