"""The same study with several seeds: folders, numbers, their spread, and going on."""

from __future__ import annotations

from pathlib import Path

import pytest

import autoprune
from autoprune.errors import ConfigurationError, NotFoundError
from autoprune.front.repeats import Repeats, median_interval
from autoprune.records.candidate import work_of
from autoprune.report.repeats import write_repeats_report
from autoprune.study.repeat import repeat
from tests.settings import space_of
from tests.tasks import flat_task
from tests.unit.study.small import comparable, settings


def test_each_seed_is_a_study_of_its_own_and_the_numbers_are_theirs(tmp_path: Path) -> None:
    chosen = settings(trials=4, uniform_points=1, seed=3, space=space_of(steps=2, recalibration=(64,), space="direct"))
    followed: list[int] = []

    def follow(number: int, study: autoprune.Study) -> object:
        followed.append(study.settings.seed)
        return lambda _: None

    found = repeat(flat_task(), chosen, 3, out=tmp_path / "all", follow=follow)  # type: ignore[arg-type]
    assert followed == [3, 4, 5]
    assert [run.folder.path.name for run in found.runs] == ["seed-3", "seed-4", "seed-5"]
    alone = autoprune.Study.open(tmp_path / "all" / "seed-4")
    assert comparable(found.fronts[1].records) == comparable(alone.records)
    table, summary = found.table(), found.summary()
    assert list(table["samples"]) == [work_of(front.records).total for front in found.fronts]
    assert len(set(table["hypervolume"])) > 1, "seeds that change nothing are no repeats"
    assert summary.loc["hypervolume", "low"] == table["hypervolume"].min()
    assert summary.loc["hypervolume", "high"] == table["hypervolume"].max()
    assert summary.loc["hypervolume", "median"] == table["hypervolume"].median()

    again = repeat(flat_task(), chosen, 3, out=tmp_path / "all")
    assert [len(front.records) for front in again.fronts] == [4, 4, 4], "nothing is run twice"
    page = write_repeats_report(Repeats.open(tmp_path / "all"), tmp_path / "report.html").read_text()
    assert "3 seeds" in page
    assert "seed-5" in page


def test_what_is_no_number_of_seeds_and_no_folder_of_repeats(tmp_path: Path) -> None:
    for seeds in (0, -1, 1.5, True):
        with pytest.raises(ConfigurationError, match="seeds must be an integer >= 1"):
            repeat(flat_task(), settings(), seeds, out=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="seed-0"):
        Repeats.open(tmp_path)


@pytest.mark.parametrize(("count", "places"), [(1, (0, 0)), (3, (0, 2)), (5, (0, 4)), (6, (0, 5)), (20, (5, 14))])
def test_which_of_the_sorted_values_are_the_interval_of_the_median(count: int, places: tuple[int, int]) -> None:
    # From tables of the binomial: the 6th and 15th of 20 hold the median with 95.9 %.
    assert median_interval(count) == places
