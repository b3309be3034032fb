"""Weights that nothing needs any more: which, and what becomes of the study without them."""

from __future__ import annotations

from pathlib import Path

import pytest

import autoprune
from autoprune.errors import NotFoundError
from autoprune.study.garbage import removable
from tests.tasks import image_task
from tests.unit.front.builders import front_of, measurement, record
from tests.unit.study.small import comparable, settings


def numbers(*records: object) -> set[int]:
    return {useless.number for useless in removable(front_of(list(records)))}  # type: ignore[arg-type]


def test_dominated_childless_candidates_that_are_no_baseline() -> None:
    dense = record(0, measurement(0.9, 1000), origin="dense")
    uniform = record(1, measurement(0.5, 900), origin="uniform")
    best, beaten = record(2, measurement(0.85, 500)), record(3, measurement(0.8, 600))
    assert numbers(dense, uniform, best, beaten) == {3}
    heir = record(4, measurement(0.7, 400), parent=3)
    assert numbers(dense, uniform, best, beaten, heir) == set(), "an ancestor stays"
    lost = record(5, measurement(0.6, 450), parent=3)
    assert numbers(dense, uniform, best, beaten, heir, lost) == {5}


def test_a_study_keeps_its_front_its_ancestors_and_its_baselines(tmp_path: Path) -> None:
    study = autoprune.Study.create(image_task(), settings(trials=16, collect_garbage=True), out=tmp_path / "run")
    front = study.run()
    useless = {found.number for found in removable(front)}
    assert useless, "a study without any garbage shows nothing"
    for found in study.records:
        assert study.folder.has_weights(found.number) == (found.number not in useless), found.number
        if found.number in useless:
            with pytest.raises(NotFoundError, match="collect_garbage is False"):
                study.rebuild(found.number)
        else:
            study.rebuild(found.number)
    reopened = autoprune.Study.open(tmp_path / "run", image_task())
    assert len(reopened.records) == 16, "what is known of them stays"


def test_it_goes_on_after_an_interruption_as_if_there_was_none(tmp_path: Path) -> None:
    chosen = settings(trials=14, collect_garbage=True)
    whole = autoprune.Study.create(image_task(), chosen, out=tmp_path / "whole")
    whole.run()
    parts = autoprune.Study.create(image_task(), chosen, out=tmp_path / "parts")
    for until in (6, 11, 14):
        parts = autoprune.Study.open(tmp_path / "parts", image_task())
        parts.run(trials=until)
    assert comparable(parts.records) == comparable(whole.records)
