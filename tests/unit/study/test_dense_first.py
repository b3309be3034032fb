"""The dense model's trial: tried again until it is there, and nothing is tried or said before."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torchmetrics
from optuna.trial import TrialState

import autoprune
from autoprune.errors import AutopruneError, SelectionError
from autoprune.search import attempts
from tests.tasks import flat_task
from tests.unit.study.small import comparable, journal_trials, settings, space

#: Four trials: dense, two uniform, one sampled.
FEW = {"trials": 4, "uniform_points": 2, "solved_points": 0, "space": space(scan=False)}
#: What the next calls of the metric raise.
RAISED: list[BaseException] = []


class Flaky(torchmetrics.classification.MulticlassAccuracy):
    """An accuracy that fails when told to."""

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        if RAISED:
            raise RAISED.pop()
        super().update(preds, target)


def passing(times: int) -> list[BaseException]:
    return [OSError("the disk went to sleep") for _ in range(times)]


@functools.cache
def task() -> autoprune.PreparedTask:
    return flat_task(metrics={"own": Flaky(num_classes=4, average="micro")}, quality="own", test=None)


@pytest.fixture(autouse=True)
def nothing_fails_at_first() -> None:
    RAISED.clear()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> autoprune.Study:
    """A study in which nothing failed."""
    study = autoprune.Study.create(task(), settings(**FEW), out=tmp_path_factory.mktemp("whole") / "run")
    study.run()
    return study


def test_a_passing_fault_of_the_dense_trial_changes_nothing(whole: autoprune.Study, tmp_path: Path) -> None:
    study, failed = autoprune.Study.create(task(), settings(**FEW), out=tmp_path / "run"), []
    RAISED.extend(passing(2))
    front = study.run(on_progress=lambda progress: failed.append(progress.failed))
    assert [message for message in failed if message] == ["OSError: the disk went to sleep"] * 2
    assert comparable(study.records) == comparable(whole.records), "tried again at once, under its number"
    assert front.dense is not None
    assert front.choose(autoprune.Limits(max_drop=0.0)).search.quality >= front.dense.search.quality
    assert (tmp_path / "run" / "failures" / "00000.txt").is_file()


def test_while_it_fails_the_run_stops_and_says_so(whole: autoprune.Study, tmp_path: Path) -> None:
    study = autoprune.Study.create(task(), settings(**FEW), out=tmp_path / "run")
    RAISED.extend(passing(attempts.MAX_ATTEMPTS))
    words = r"The dense model's own trial failed 3 times.*OSError: the disk went to sleep.*run the same command again"
    with pytest.raises(AutopruneError, match=words):
        study.run()
    assert study.records == (), "nothing is tried without it"
    ending = autoprune.Study.open(tmp_path / "run").ending
    assert ending is not None
    assert ending.reason == "error"
    assert "The dense model" in ending.sentence
    RAISED.extend(passing(2))  # on resume it has three attempts again
    again = autoprune.Study.open(tmp_path / "run", task())
    again.run()
    assert comparable(again.records) == comparable(whole.records)
    assert again.ending is not None
    assert not again.ending.early


def without_dense(study: autoprune.Study) -> autoprune.Study:
    """A folder as earlier versions left it: the dense trial failed, and the others have been told since."""
    journal, lines = study.folder.path / "journal.log", []
    for line in (study.folder.path / "journal.log").read_text().splitlines():
        entry = json.loads(line)
        if entry.get("trial_id") == 0 and entry.get("state") == TrialState.COMPLETE.value:
            entry |= {"state": TrialState.FAIL.value, "values": None}
        lines.append(json.dumps(entry))
    journal.write_text("\n".join(lines) + "\n")
    shutil.rmtree(study.folder.path / "candidates" / "00000")
    for path in (study.folder.path / "candidates").glob("*/candidate.json"):
        entry = json.loads(path.read_text())
        # Without its record candidates started from the dense model itself.
        path.write_text(json.dumps(entry | {"parent": entry["parent"] or None}))
    return autoprune.Study.open(study.folder.path, task())


def test_a_folder_without_dense_says_nothing_of_it_and_measures_it_when_run(tmp_path: Path) -> None:
    study = autoprune.Study.create(task(), settings(**FEW), out=tmp_path / "run")
    study.run()
    old = without_dense(study)
    assert [record.number for record in old.records] == [1, 2, 3]
    with pytest.raises(SelectionError, match="max_drop cannot be decided"):
        old.front().choose(autoprune.Limits(max_drop=0.0))
    assert old.front().table()["multiply_adds_share"].isna().all()
    # Its trials are reached, and still the dense model comes first, whatever is queued.
    old.enqueue(autoprune.PruningPlan.from_json(old.records[0].plan.to_json()))
    seen: list[Sequence[str]] = []
    front = old.run(on_progress=lambda p: seen.append([r.origin for r in p.front.records]))
    assert "dense" in seen[0]
    assert front.dense is not None
    assert front.choose(autoprune.Limits(max_drop=0.0)).search.quality >= front.dense.search.quality


def test_what_a_user_enqueues_first_is_tried_after_the_dense_model(tmp_path: Path) -> None:
    study = autoprune.Study.create(task(), settings(**FEW), out=tmp_path / "run")
    assert study.context is not None
    name = study.context.topology.groups[0].name
    study.enqueue(autoprune.PruningPlan(groups={name: autoprune.GroupPlan(ratio=0.5)}))
    seen: list[list[str]] = []
    study.run(trials=2, on_progress=lambda p: seen.append([r.origin for r in p.front.records]))
    assert ["dense"] in seen
    assert ["enqueued"] not in seen
    assert {record.origin for record in study.records} == {"dense", "enqueued"}


def test_time_that_is_up_does_not_leave_the_dense_model_out(tmp_path: Path) -> None:
    study = autoprune.Study.create(task(), settings(**FEW, seconds=1e-9), out=tmp_path / "run")
    front = study.run()
    assert [record.origin for record in study.records] == ["dense"]
    assert front.dense is not None


def test_attempts_are_forgotten_where_the_process_did_not_end_in_the_trial(tmp_path: Path) -> None:
    """An interrupted trial (control-C) is not one that kills its process."""
    study = autoprune.Study.create(task(), settings(**FEW), out=tmp_path / "run")
    for _ in range(attempts.MAX_ATTEMPTS + 1):
        RAISED.append(KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            study.run()
    study.run(trials=1)
    assert [record.origin for record in study.records] == ["dense"]
    assert [trial.state for trial in journal_trials(tmp_path / "run")].count(TrialState.FAIL) == 0
