"""Why a run ends: said, stored, and not before the space is tried."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from optuna.samplers import RandomSampler
from torch import nn

import autoprune
from autoprune.errors import StorageError
from autoprune.records.ending import Ending
from autoprune.records.run_folder import RunFolder
from autoprune.search import duplicates, ledger
from autoprune.study import loop
from tests.tasks import blobs, flat_task, trained_mlp
from tests.unit.study.small import comparable, journal_trials, settings, space


@functools.cache
def task(hidden: int = 0) -> autoprune.PreparedTask:
    """Images flattened, on the trained perceptron, or on one of so many hidden features that is not trained."""
    images, targets = blobs()
    flat = images.flatten(1)
    torch.manual_seed(0)
    tiny = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 4)) if hidden else trained_mlp()
    given = {"model": tiny, "train": (flat, targets), "example_inputs": flat[:4], "test": None}
    return flat_task(**given, require_trained=not hidden)


def untrained(trials: int, **changes: object) -> autoprune.StudySettings:
    """Trials that train nothing and have one choice of everything but widths, so that proposals repeat."""
    narrow = space(steps=0, criteria=("l2",), scan=False, recalibration=(0,))
    return settings(**{"trials": trials, "uniform_points": 2, "solved_points": 0, "space": narrow, **changes})


class Stubborn(RandomSampler):
    """Proposes one point only, as a sampler that has converged does."""

    def sample_independent(self, study: object, trial: object, name: str, distribution: object) -> object:
        return distribution.high  # type: ignore[attr-defined]


def architectures(study: autoprune.Study) -> set[object]:
    assert study.context is not None
    topology = study.context.topology
    return {duplicates.key_of(record, topology) for record in study.records if not record.note}


def test_a_sampler_that_repeats_itself_does_not_end_a_space_that_is_mostly_untried(tmp_path: Path) -> None:
    study = autoprune.Study.create(task(), untrained(20), out=tmp_path / "run")
    study.run(sampler=Stubborn(seed=0))
    assert len(study.records) == 20
    assert len(architectures(study)) == 20, "each another model"
    assert study.ending is not None
    assert (study.ending.reason, study.ending.early, study.ending.sentence) == ("trials", False, "")


def test_what_is_found_in_place_of_repeats_is_the_same_after_a_resume(tmp_path: Path) -> None:
    """Interrupted in the middle of a row of repeats too."""
    whole = autoprune.Study.create(task(), untrained(9), out=tmp_path / "whole")
    whole.run(sampler=Stubborn(seed=0))
    parts = autoprune.Study.create(task(), untrained(9), out=tmp_path / "parts")

    class Interrupt(KeyboardInterrupt):
        pass

    told: list[int] = []

    def after_two_more(progress: autoprune.Progress) -> None:
        told.append(progress.done)
        if told.count(5) == 2:
            raise Interrupt

    with pytest.raises(Interrupt):
        parts.run(sampler=Stubborn(seed=0), on_progress=after_two_more)
    assert 5 <= len(parts.records) < 9
    again = autoprune.Study.open(tmp_path / "parts", task())
    again.run(sampler=Stubborn(seed=0))
    assert comparable(again.records, renumber=True) == comparable(whole.records, renumber=True)


def test_a_space_that_is_exhausted_ends_the_run_which_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four widths at most, of which the dense one is one."""
    for module in (ledger, loop):
        monkeypatch.setattr(module, "EXHAUSTED", 20)
    study = autoprune.Study.create(task(4), untrained(40), out=tmp_path / "run")
    seen: list[autoprune.Progress] = []
    study.run(on_progress=seen.append)
    assert len(study.records) == len(architectures(study)) <= 5
    widths = {tuple(record.widths.values()) for record in study.records}
    assert widths == {(width,) for width in range(1, 5)}, "not before all were tried"
    ending = study.ending
    assert ending is not None
    assert ending == seen[-1].ending
    assert (ending.reason, ending.done, ending.target) == ("exhausted", len(study.records), 40)
    words = f"The run ended with {ending.done} of 40 trials: the last 20 proposals were known already"
    assert ending.sentence.startswith(words)
    assert autoprune.Study.open(tmp_path / "run").ending == ending
    # Asked to go on, it looks once more.
    asked = len(journal_trials(tmp_path / "run"))
    study.run()
    assert len(journal_trials(tmp_path / "run")) == asked + 20


@pytest.mark.parametrize(
    ("limits", "reason", "words"),
    [
        ({"samples": 1}, "samples", "the limit of 1 samples is reached"),
        ({"seconds": 1e-9}, "seconds", "the time of 1e-09 s is used up. The same command goes on from here"),
    ],
)
def test_a_budget_that_is_used_up_is_said(limits: dict[str, float], reason: str, words: str, tmp_path: Path) -> None:
    study = autoprune.Study.create(task(), untrained(9, **limits), out=tmp_path / "run")
    study.run()
    ending = study.ending
    assert ending is not None
    assert ending.reason == reason
    assert f"The run ended with {len(study.records)} of 9 trials: {words}" in ending.sentence


def test_a_run_that_begins_forgets_how_the_last_one_ended(tmp_path: Path) -> None:
    study = autoprune.Study.create(task(), untrained(3), out=tmp_path / "run")
    assert study.ending is None
    study.run(trials=2)
    assert study.ending is not None
    during: list[object] = []
    study.run(on_progress=lambda progress: during.append(study.ending) if progress.stage == "trial" else None)
    assert set(during) == {None}


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", '{"version": 1, "reason": 3, "done": 1, "target": 2, "detail": ""}', '{"version": 2}', "\\ud800"],
)
def test_an_ending_that_cannot_be_read_is_one_error(text: str, tmp_path: Path) -> None:
    study = autoprune.Study.create(task(), untrained(1), out=tmp_path / "run")
    (tmp_path / "run" / "ending.json").write_text(text)
    with pytest.raises(StorageError, match=r"ending\.json"):
        _ = study.ending


def test_an_ending_is_read_as_it_was_written(tmp_path: Path) -> None:
    ending = Ending(reason="samples", done=3, target=9, detail="1,000")
    RunFolder(tmp_path).write_ending(ending)
    assert RunFolder(tmp_path).read_ending() == ending
