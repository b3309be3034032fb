"""Errors of the user's code outside of trials: one message that says whose they are, with what is finished kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import autoprune
from autoprune.errors import AutopruneWarning, TaskError, UserCodeError
from autoprune.plan.allocation import RankingPlan
from autoprune.plan.plan import PruningPlan
from autoprune.study import rungs
from autoprune.trial.candidate import resolve_plan
from autoprune.trial.context import TrialContext
from tests.end_to_end.script import command, write
from tests.tasks import blobs, flat_task
from tests.unit.study.small import settings, space

#: What the code of the user raises now, in the part of that name.
RAISED: dict[str, BaseException] = {}


def burn(part: str) -> None:
    if part in RAISED:
        raise RAISED[part]


@pytest.fixture(autouse=True)
def sound() -> Iterator[None]:
    RAISED.clear()
    yield
    RAISED.clear()


class Files(Dataset[tuple[Tensor, Tensor]]):
    """Samples that are read from files, as it were."""

    def __init__(self, part: str, samples: int) -> None:
        images, self.targets = blobs(samples, seed=len(part))
        self.part, self.images = part, images.flatten(1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        burn(self.part)
        return self.images[index], self.targets[index]


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    burn("loss")
    return nn.functional.cross_entropy(outputs, targets)


def task() -> autoprune.PreparedTask:
    return flat_task(
        loss=loss,
        search=DataLoader(Files("search", 120), batch_size=40),
        test=DataLoader(Files("test", 80), batch_size=40),
        require_trained=True,
    )


def test_a_sample_of_train_that_cannot_be_read_is_a_fault_of_the_task() -> None:
    """The second batch is read for the calibration alone."""

    class Second(Files):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            if index >= 60:
                raise FileNotFoundError(2, "No such file or directory", "60.png")
            return super().__getitem__(index)

    with pytest.raises(TaskError, match=r"^train must run, but got FileNotFoundError: .*'60.png'"):
        flat_task(train=DataLoader(Second("train", 120), batch_size=50), search=DataLoader(Files("search", 100)))


@pytest.fixture(scope="module")
def context() -> TrialContext:
    return TrialContext.of(task())


ERRORS = [
    FileNotFoundError(2, "No such file or directory", "[/x].png"),
    SystemExit(0),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_in_the_scan_names_the_users_code_and_loses_nothing(error: BaseException, tmp_path: Path) -> None:
    study = autoprune.Study.create(task(), settings(trials=1), out=tmp_path / "run")
    RAISED["loss"] = error
    with pytest.raises(UserCodeError) as caught:
        study.run()
    said = str(caught.value)
    assert said.startswith(f"The sensitivity scan stopped since your code raised {type(error).__name__}: ")
    assert f"(burn in {__file__}:" in said
    assert "Finished trials are kept" in said
    assert ("Lower batch_size" in said) == isinstance(error, torch.OutOfMemoryError)
    assert caught.value.__cause__ is error
    RAISED.clear()
    assert len(study.run().records) == 1


def test_an_interrupt_in_the_scan_stays_one(tmp_path: Path) -> None:
    study = autoprune.Study.create(task(), settings(trials=1), out=tmp_path / "run")
    RAISED["loss"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        study.run()


@pytest.mark.parametrize("error", ERRORS[:2], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("part", "stage"),
    [("loss", "The rehearsal of the criteria"), ("search", "The check that the model is trained")],
)
def test_an_error_before_work_is_told_and_nothing_is_written(
    part: str, stage: str, error: BaseException, tmp_path: Path
) -> None:
    ready = task()
    RAISED[part] = error
    with pytest.raises(UserCodeError, match=f"^{stage} stopped since your code raised {type(error).__name__}: "):
        autoprune.Study.create(ready, settings(space=space(criteria=("taylor",))), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_error_of_the_search_split_is_told_where_early_stopping_looks_at_part_of_it(context: TrialContext) -> None:
    RAISED["search"] = OSError("disk gone")
    with pytest.raises(UserCodeError, match=r"early stopping looks at stopped since your code raised OSError: disk"):
        rungs.rung_split(context.task, 50)


def test_an_error_while_a_ranking_is_worked_out_is_told(context: TrialContext) -> None:
    RAISED["loss"] = ZeroDivisionError("by zero")
    plan = PruningPlan(seed=0, groups={}, ranking=RankingPlan(ratio=0.5, criterion="taylor"))
    with pytest.raises(UserCodeError, match=r"Scoring the dense model stopped since your code raised ZeroDivision"):
        resolve_plan(context, plan)


#: Lines of task() that make the loss fail in a function of ours alone.
LATE = """
    import traceback

    def late(outputs, targets):
        if "FUNCTION" in [frame.name for frame in traceback.extract_stack()]:
            raise FileNotFoundError(2, "No such file or directory", "[/x]\\x1b[31m.png")
        return loss(outputs, targets)
    arguments["loss"] = late
"""


def test_the_command_line_takes_a_missing_file_of_the_users_for_theirs(tmp_path: Path) -> None:
    script = write(tmp_path, change=LATE.replace("FUNCTION", "scan"))
    answer = command("run", script, "--out", tmp_path / "run", "--trials", "1")
    assert answer.code == 1, answer.text
    assert "The sensitivity scan stopped since your code raised FileNotFoundError" in answer.sentence
    assert f"late in {script}:" in "".join(answer.err.split("\n"))
    assert "Name another path" not in answer.text
    assert "\x1b[31m.png" not in answer.err


@pytest.mark.parametrize("error", ERRORS[:2], ids=lambda error: type(error).__name__)
def test_an_error_in_the_test_stage_leaves_the_front_and_says_who_is_untested(
    error: BaseException, tmp_path: Path
) -> None:
    # Dense and uniform ones are measured whether they are on the front or not.
    study = autoprune.Study.create(task(), settings(trials=3, solved_points=0), out=tmp_path / "run")
    RAISED["test"] = error
    with pytest.warns(AutopruneWarning) as warned:
        front = study.run()
    said = str(warned[0].message)
    assert len(warned) == 1
    assert said.startswith("Test numbers are missing for candidate 0, 1, and others that were not tried any more; ")
    assert f"The measurement on the test split stopped since your code raised {type(error).__name__}: " in said
    assert said.count(type(error).__name__) == 1, "a reason that several share is said once"
    assert list(study.untested) == [0, 1]
    assert len(front.records) == 3
    assert all(record.test is None for record in front.records)
    RAISED.clear()
    again = autoprune.Study.open(tmp_path / "run", task())
    assert all(record.test is not None for record in again.run().members)
    assert not again.untested


def test_who_can_be_tested_is_where_another_cannot(tmp_path: Path) -> None:
    study = autoprune.Study.create(task(), settings(trials=4, solved_points=0), out=tmp_path / "run")
    study.run(trials=3, seconds=1e9)
    weights = next((tmp_path / "run" / "candidates").glob("*1/weights*"))
    content = weights.read_bytes()
    for found in (tmp_path / "run" / "candidates").rglob("test.json"):
        found.unlink()
    weights.write_bytes(b"torn")
    study = autoprune.Study.open(tmp_path / "run", task())
    with pytest.warns(AutopruneWarning, match="Test numbers are missing for candidate 1; "):
        study.run(trials=3)
    assert list(study.untested) == [1]
    weights.write_bytes(content)


def test_an_interrupt_in_the_test_stage_stays_one(tmp_path: Path) -> None:
    study = autoprune.Study.create(task(), settings(trials=1), out=tmp_path / "run")
    RAISED["test"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        study.run()
    assert len(study.records) == 1


def test_the_command_line_prints_the_front_without_test_numbers_and_fails(tmp_path: Path) -> None:
    change = """
    import traceback

    class Held(torch.utils.data.Dataset):
        def __len__(self):
            return 50

        def __getitem__(self, index):
            if "measure_test" in [frame.name for frame in traceback.extract_stack()]:
                raise SystemExit(0)
            images, targets = data(50, 1)
            return images[index], targets[index]
    arguments["test"] = torch.utils.data.DataLoader(Held(), batch_size=50)
"""
    answer = command("run", write(tmp_path, change=change), "--out", tmp_path / "run", "--trials", "1")
    assert answer.code == 1, answer.text
    assert "Test numbers are missing for candidate 0; " in answer.sentence
    assert "your code raised SystemExit: 0" in answer.sentence
    assert "autoprune choose" in answer.out
    assert (tmp_path / "run" / "report.html").exists()
