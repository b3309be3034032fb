"""Training a member of the front further, in place of a new plan."""

from __future__ import annotations

from pathlib import Path

import pytest

import autoprune
from autoprune.errors import ConfigurationError
from autoprune.search.sources.polish import is_polish_due
from tests.tasks import flat_task
from tests.unit.study.small import journal_trials, settings


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9])
def test_the_share_of_trials_that_polish(share: float) -> None:
    assert sum(is_polish_due(number, share) for number in range(100)) == pytest.approx(100 * share, abs=1)


def test_a_polished_trial_goes_on_from_the_candidate_it_polishes(tmp_path: Path) -> None:
    study = autoprune.Study.create(flat_task(), settings(trials=11, polish=0.5), out=tmp_path / "run")
    study.run()
    polished = [record for record in study.records if record.origin == "polished"]
    assert len(polished) == 3, "half of the six trials after the five warm starts"
    by_number = {record.number: record for record in study.records}
    trials = {trial.number: trial for trial in journal_trials(study.folder.path)}
    for record in polished:
        assert record.parent is not None
        parent = by_number[record.parent]
        assert parent.widths == by_number[trials[record.number].user_attrs["of"]].widths
        assert record.kept == parent.kept, "no channel is lost on the way"
        assert record.plan.groups == parent.plan.groups
        assert record.plan.recovery == parent.plan.recovery
        assert record.plan.seed != parent.plan.seed, "other batches than the first time"
        assert record.lineage_trained == parent.lineage_trained + record.samples_trained


def test_without_lineage_nothing_is_polished(tmp_path: Path) -> None:
    chosen = settings(trials=5, uniform_points=1, polish=0.5, lineage=False)
    study = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run")
    study.run()
    assert "polished" not in {record.origin for record in study.records}


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_shares_that_make_no_sense(share: float) -> None:
    with pytest.raises(ConfigurationError, match=r"polish must lie in \[0, 1\)"):
        settings(polish=share)
