"""The widths of all candidates as one array: it finds what a look at each candidate finds."""

from __future__ import annotations

import random
from dataclasses import replace

from autoprune.plan.resolved import ResolvedPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.columns import Columns
from autoprune.search.lineage import choose_parent, least_left, shrink_to_ancestor
from autoprune.search.search import Search
from autoprune.search.width_table import WidthTable
from tests.unit.search.synthetic import model, run, settings, topology


def test_it_finds_what_a_look_at_each_candidate_finds() -> None:
    search = Search(model(), settings(early_stopping="none"))
    run(search, 60, out=4)
    every, known, luck = list(search.records), WidthTable(topology(), Columns()), random.Random(0)
    growing: list[CandidateRecord] = []
    contained = fewer = shrunk = 0
    for record in sorted(every, key=lambda _: luck.random()):
        growing.append(record)
        growing.sort(key=lambda one: one.number)  # workers finish in any order
        if luck.random() < 0.2:
            growing[0] = replace(growing[0], note="diverged")
        if luck.random() < 0.2:
            growing.pop(luck.randrange(len(growing)))
        known.columns = Columns(growing, known.columns)
        for other in luck.sample(every, 5):
            plan = ResolvedPlan.of(other.plan, topology())
            expected = [one for one in growing if all(one.widths[name] >= plan.widths[name] for name in plan.widths)]
            assert known.containing(plan.widths) == expected
            assert choose_parent(expected, plan) == choose_parent(growing, plan)
            contained += bool(expected)
            least = least_left(plan, topology(), 0.3)
            near = known.leaving(plan.widths, plan.dropped, least)
            found = shrink_to_ancestor(growing, plan, topology(), least)
            assert shrink_to_ancestor(near, plan, topology(), least) == found
            fewer += len(near) < len(growing)
            shrunk += found is not plan
    assert contained > 50
    assert fewer > 20
    assert shrunk > 20
