"""Studies that take less than a second, and how their records are compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from torch import Tensor, nn

import autoprune
from autoprune.measure.quality import Quality, evaluate
from autoprune.records.candidate import CandidateRecord
from autoprune.task.data import Split
from tests.settings import space_of, study_of

# Fixtures of a module run before the one that sets this for each test.
torch.set_num_threads(1)


#: Brief, without a device profile, and with a rate to sample.
_SPACE: dict[str, object] = {
    "min_budget": 0.05,
    "round_to": 1,
    "criteria": ("l2", "l1", "taylor"),
    "steps": 3,
    "length_exponent": 0.0,
    "learning_rate": (0.01, 0.1),
    "schedulers": ("one_cycle",),
    "averaging": (0.0,),
    "recalibration": (100,),
    "distillation": (0.0,),
    "reconstruction": (50,),
}


def space(**changes: object) -> autoprune.SpaceSettings:
    """Brief fine-tunes."""
    return space_of(**{**_SPACE, **changes})  # type: ignore[arg-type]


def settings(**changes: object) -> autoprune.StudySettings:
    """Eight trials: dense, one solved, three uniform, three sampled. None depends on the clock, none is removed."""
    given: dict[str, object] = {
        "trials": 8,
        "uniform_points": 3,
        "solved_points": 1,
        "polish": 0.0,
        "collect_garbage": False,
        "latency_rounds": 0,
        "objectives": ("quality", "multiply_adds"),
        "space": space(),
    }
    return study_of(**{**given, **changes})  # type: ignore[arg-type]


def quality_by_size(patch: pytest.MonkeyPatch, of: Callable[[int], float] = lambda size: 0.5 + size % 7 / 20) -> None:
    """Qualities follow from the size alone: no processor's rounding decides who is stopped, beaten or on the front.

    Those at rungs are 0.01 below those in the end. of: number of parameters -> quality; larger is not always better
    unless it says so.
    """

    def quality(model: nn.Module) -> float:
        return of(sum(parameter.numel() for parameter in model.parameters()))

    def at_end(task: autoprune.PreparedTask, model: nn.Module, split: Split, _: object) -> Quality:
        return replace(evaluate(task, model, split), value=quality(model) + 0.01)

    patch.setattr("autoprune.trial.candidate.quality_alone", lambda task, model, split: (quality(model), split.samples))
    patch.setattr("autoprune.trial.candidate.evaluate", at_end)


def comparable(records: Sequence[CandidateRecord], *, renumber: bool = False) -> list[dict[str, object]]:
    """The records as data, without seconds.

    renumber: replace trial numbers by positions, for runs where an interrupted trial took a number of its own.
    """
    position = {record.number: place for place, record in enumerate(records)} if renumber else {}
    rows = []
    for record in records:
        row = json.loads(record.to_json())
        del row["seconds"]
        if renumber:
            row["number"] = position[record.number]
            row["parent"] = None if record.parent is None else position[record.parent]
        row["test"] = None if record.test is None else record.test.to_dict()
        rows.append(row)
    return rows


def journal_study(out: Path) -> optuna.Study:
    """The study as any other Optuna program reads it from the journal."""
    storage = JournalStorage(JournalFileBackend(str(out / "journal.log")))
    return optuna.load_study(study_name="autoprune", storage=storage)


def journal_trials(out: Path) -> list[optuna.trial.FrozenTrial]:
    """Its trials."""
    return journal_study(out).get_trials()


class Switch:
    """A cross entropy that raises while it trains, when told to; the scan and the checks call it without gradients."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(outputs, targets)
        if self.error is not None and loss.requires_grad:
            raise self.error
        return loss
