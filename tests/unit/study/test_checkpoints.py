"""Models on their way: stored every n passes, found again by trial and epoch, and never those of an earlier start."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

import autoprune
from autoprune.errors import ConfigurationError, NotFoundError, StorageError
from autoprune.plan.kept import KeptChannels
from autoprune.records.run_folder import RunFolder
from autoprune.recovery.callbacks import Snapshot
from autoprune.recovery.learning_rate import scheduler, simulate
from autoprune.study import checkpoints, store
from autoprune.task.checkpoint import serialize
from autoprune.trial.candidate import evaluate_plan
from tests.tasks import trained_mlp
from tests.unit.recovery.watching import Seen, look, one_batch_task, zeros_of
from tests.unit.study.small import Switch, comparable, settings, space

STEPS, EVERY = 9, 4


def task(**changes: object) -> autoprune.PreparedTask:
    """Each step ends a pass."""
    return one_batch_task(flat=True, **changes)


def chosen(**changes: object) -> autoprune.StudySettings:
    """Masks and schedules beside widths, nine passes a trial, a checkpoint every four."""
    own = space(
        kinds=("channels", "weights"),
        patterns=("unstructured",),
        sparsity=(0.6, 0.9),
        names=("cubic", "one_shot"),
        regrowth=(0.2,),
        steps=STEPS,
    )
    return settings(**{"trials": 6, "checkpoint_epochs": EVERY, "space": own, **changes})


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> autoprune.Study:
    made = autoprune.Study.create(task(), chosen(), out=tmp_path_factory.mktemp("checkpoints") / "run")
    made.run()
    return made


def trained(study: autoprune.Study) -> list[int]:
    return [record.number for record in study.records if record.plan.recovery.steps]


def test_every_fourth_pass_of_every_trial_that_trains(study: autoprune.Study) -> None:
    assert len(trained(study)) == 5
    for record in study.records:
        found = study.checkpoints(record.number)
        wanted = [4, 8] if record.number in trained(study) else []
        assert [checkpoint.epoch for checkpoint in found] == [checkpoint.step for checkpoint in found] == wanted
        rates = simulate(scheduler("one_cycle"), record.plan.recovery.learning_rate, STEPS)
        assert rates is not None
        assert [checkpoint.learning_rate for checkpoint in found] == [rates[epoch] for epoch in wanted]
        assert {checkpoint.trial for checkpoint in found} <= {record.number}


def test_they_are_what_the_trial_was_then(study: autoprune.Study) -> None:
    """The trial again, from its parent, and looked at on its way."""
    assert study.context is not None
    for number in trained(study):
        record = study.front().get(number)
        assert record.parent is not None
        parent = store.load_parent(study.context, study.folder, study.front().get(record.parent))
        seen: dict[int, Seen] = {}
        evaluate_plan(
            study.context,
            record.plan,
            parent,
            on_epoch=lambda snapshot, seen=seen: seen.update({snapshot.epoch: look(snapshot)}),
        )
        for checkpoint in study.checkpoints(number):
            model = study.rebuild(number, epoch=checkpoint.epoch)
            then = seen[checkpoint.epoch]
            assert not any(module.training for module in model.modules())
            assert dict(model.named_parameters()).keys() == then.weights.keys()
            for name, parameter in model.named_parameters():
                assert torch.equal(parameter, then.weights[name]), (number, checkpoint.epoch, name)
            assert {name: len(indices) for name, indices in checkpoint.kept.items()} == then.widths
            entries = sum(weight.numel() for weight in then.weights.values())
            zeros = sum(int((weight == 0).sum()) for weight in then.weights.values())
            assert checkpoint.sparsity == pytest.approx(zeros / entries)
            assert then.step == checkpoint.step


def test_sparsity_grows_from_one_to_the_next(study: autoprune.Study) -> None:
    gradual = [n for n in trained(study) if study.front().get(n).plan.recovery.schedule.name == "cubic"]
    assert gradual
    for number in gradual:
        first, second = study.checkpoints(number)
        assert second.sparsity > first.sparsity - 0.02
        last = zeros_of(study.rebuild(number))
        assert zeros_of(study.rebuild(number, epoch=8)).keys() == last.keys()


def test_another_process_finds_them(study: autoprune.Study) -> None:
    seen = autoprune.Study.open(study.folder.path)
    number = trained(study)[0]
    assert seen.checkpoints(number) == study.checkpoints(number)
    with pytest.raises(ConfigurationError, match="a study to rebuild must be opened with its task"):
        seen.rebuild(number, epoch=4)
    again = autoprune.Study.open(study.folder.path, task())
    left, right = (found.rebuild(number, epoch=4) for found in (study, again))
    assert all(map(torch.equal, left.state_dict().values(), right.state_dict().values()))


def test_an_epoch_that_is_not_there_lists_those_that_are(study: autoprune.Study) -> None:
    number = trained(study)[0]
    with pytest.raises(NotFoundError, match=f"a checkpoint of trial {number} must be of an epoch of 4, 8, but got 5"):
        study.rebuild(number, epoch=5)
    with pytest.raises(NotFoundError, match=r"none, set storage.checkpoint_epochs, but got 4"):
        study.rebuild(0, epoch=4)
    assert study.checkpoints(99) == []


def test_storing_them_changes_nothing(study: autoprune.Study, tmp_path: Path) -> None:
    without = autoprune.Study.create(task(), chosen(checkpoint_epochs=0), out=tmp_path / "run")
    without.run()
    assert comparable(without.records) == comparable(study.records)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_trial_that_runs_again_does_not_keep_what_its_first_start_left(
    study: autoprune.Study, tmp_path: Path
) -> None:
    """The process ends in the middle of a trial, after its second checkpoint."""
    switch = Switch()
    calls: list[int] = []

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if outputs.requires_grad and (tmp_path / "run" / "checkpoints" / "00003" / "00008").is_dir() and not calls:
            calls.append(1)
            switch.error = KeyboardInterrupt()
        return switch(outputs, targets)

    made = autoprune.Study.create(task(loss=loss), chosen(), out=tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        made.run()
    switch.error = None
    left = made.folder.path / "checkpoints" / "00003"
    assert [path.name for path in sorted(left.iterdir())] == ["00004", "00008"]
    (left / "00008").rename(left / "00012")  # as if it had come further than it will
    made = autoprune.Study.create(task(loss=loss), chosen(), out=tmp_path / "run")
    made.run()
    assert [checkpoint.epoch for checkpoint in made.checkpoints(3)] == [4, 8]
    assert comparable(made.records) == comparable(study.records)
    for number in trained(study):
        for epoch in (4, 8):
            found = [s.rebuild(number, epoch=epoch).state_dict().values() for s in (made, study)]
            assert all(map(torch.equal, *found))


# ---- files


def snapshot(epoch: int = 3, share: float = 0.0) -> Snapshot:
    """The perceptron, with that share of its first weight at zero."""
    model = copy.deepcopy(trained_mlp())
    with torch.no_grad():
        model[0].weight[: round(32 * share)] = 0.0
    return Snapshot(model=model, kept=KeptChannels(groups={}), masks={}, step=2 * epoch, epoch=epoch, rate=0.1)


def test_the_same_epoch_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    checkpoints.write(folder, 7, snapshot(share=0.25))
    path = checkpoints.write(folder, 7, snapshot(share=0.5))
    assert path == tmp_path / "checkpoints" / "00007" / "00003"
    (found,) = checkpoints.read(folder, 7)
    entries = sum(parameter.numel() for parameter in trained_mlp().parameters())
    assert found.sparsity == pytest.approx(0.5 * 32 * 64 / entries, abs=1e-3)
    assert (found.trial, found.epoch, found.step, found.learning_rate, found.path) == (7, 3, 6, 0.1, str(path))
    assert [entry.name for entry in path.parent.iterdir()] == ["00003"], "nothing else is left"


def test_zeros_take_little_room(tmp_path: Path) -> None:
    sparse = snapshot(share=0.9)
    path = checkpoints.write(RunFolder(tmp_path), 0, sparse)
    size = (path / "weights.safetensors").stat().st_size
    assert size < 0.6 * len(serialize(sparse.model.state_dict()))


def test_they_come_in_the_order_of_their_epochs(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for epoch in (100_000, 2, 10, 99_999):
        checkpoints.write(folder, 0, snapshot(epoch))
    assert [checkpoint.epoch for checkpoint in checkpoints.read(folder, 0)] == [2, 10, 99_999, 100_000]


def test_clearing_one_trial_leaves_the_others(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for trial in (1, 2):
        checkpoints.write(folder, trial, snapshot())
    checkpoints.clear(folder, 1)
    checkpoints.clear(folder, 5)
    assert [len(checkpoints.read(folder, trial)) for trial in (1, 2)] == [0, 1]


def test_what_an_interrupted_write_left_is_no_checkpoint_and_is_swept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    path = checkpoints.write(folder, 0, snapshot())
    leftover = path.with_name(".00004.123.tmp")
    path.rename(leftover)
    assert checkpoints.read(folder, 0) == []
    folder.remove_partial_writes()
    assert not leftover.exists()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"version": 1}', '{"version": 2, "trial": 0}', None])
def test_a_record_that_can_not_be_read_is_named(text: str | None, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    record = checkpoints.write(folder, 0, snapshot()) / "checkpoint.json"
    if text is None:
        record.unlink()
    else:
        record.write_text(text)
    with pytest.raises(StorageError, match=r"checkpoint\.json(: its version)? must"):
        checkpoints.read(folder, 0)


def test_the_record_is_plain_json(tmp_path: Path) -> None:
    path = checkpoints.write(RunFolder(tmp_path), 4, snapshot())
    data = json.loads((path / "checkpoint.json").read_text())
    assert (data["version"], data["trial"], data["epoch"], data["dropped"]) == (1, 4, 3, [])
