"""Numbers of a list of candidates that grows: those of a new list, each read once."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from autoprune.front.front import Front
from autoprune.records.candidate import CandidateRecord
from autoprune.records.columns import Columns
from autoprune.search.search import Search
from benchmarks.numbers_model import NumbersModel
from benchmarks.search_scale import Driver
from tests.unit.search.synthetic import PROBLEM, model, run, settings


def test_a_list_that_grows_has_the_numbers_of_a_new_one() -> None:
    search = Search(model(), settings(early_stopping="none"))
    run(search, 40, out=4)
    known, luck, reads, seldom = Columns(), random.Random(0), [], []

    def quality(record: CandidateRecord) -> float:
        reads.append(record.number)
        return record.search.quality

    def cost(record: CandidateRecord) -> float:
        seldom.append(record.number)
        return record.search.multiply_adds

    growing: list[CandidateRecord] = []
    for record in sorted(search.records, key=lambda _: luck.random()):
        growing.append(record)
        growing.sort(key=lambda one: one.number)
        known = Columns(growing, known)
        assert known.column("quality", quality).tolist() == [one.search.quality for one in growing]
        expected = {one.architecture for one in growing}
        assert len(set(known.architectures.tolist())) == len(expected)
        if len(growing) % 3 == 0:
            assert known.column("cost", cost).tolist() == [one.search.multiply_adds for one in growing]
    assert sorted(reads) == sorted(one.number for one in growing), "each is read once"
    assert len(seldom) == len(set(seldom)), "also where they are not asked for at every moment"
    growing[3] = replace(growing[3], removed=True)
    known = Columns(growing[1:], known)
    assert known.column("removed", lambda one: one.removed).nonzero()[0].tolist() == [2]
    assert known.column("both", lambda one: (one.number, 1.0), 2)[:, 0].tolist() == [one.number for one in growing[1:]]
    assert Front.of(known, PROBLEM).members == Front.of(growing[1:], PROBLEM).members


def test_timed_losses_of_a_list_that_grows() -> None:
    numbers = NumbersModel(8)
    driver = Driver(Search(numbers.model, numbers.settings("auto", 80)), numbers, 4)
    driver.run_to(60)
    records, known = list(driver.search.records), Columns()
    for count in range(1, len(records) + 1):
        known = Columns(records[:count], known)
        whole = numbers.problem.losses(records[:count])
        np.testing.assert_array_equal(numbers.problem.losses_of(known, np.arange(count)), whole)
    assert driver.search.front().members == Front.of(records, numbers.problem).members
