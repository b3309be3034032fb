"""Checkpoints of trials: the model after a number of passes over the train split, and the way on from the latest."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from autoprune.codec import Format, load_dataclass, stored, to_plain
from autoprune.errors import NotFoundError, StorageError, error_message
from autoprune.plan.kept import KeptChannels
from autoprune.records.atomic import atomic_folder, write_atomically
from autoprune.records.run_folder import CHECKPOINT, CHECKPOINTS, RunFolder
from autoprune.records.weights_file import WEIGHTS
from autoprune.recovery.callbacks import Snapshot
from autoprune.recovery.trial_state import TrialState
from autoprune.study.checkpoint_state import has_state, read_state, remove_state, state_files
from autoprune.surgery.cut import rebuild
from autoprune.task.checkpoint import bytes_of, parse_weights, read_weights, serialize_smallest
from autoprune.trial.context import TrialContext


@stored(Format(what="a checkpoint", version=1, apart=("path",), refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Description of a stored checkpoint.

    Attributes:
        trial: Number of the trial.
        epoch: Finished passes over the train split.
        step: Finished optimizer steps.
        learning_rate: Learning rate of the next step.
        sparsity: Share of zero entries among the parameters, in [0, 1].
        kept: Group name -> kept channels, as indices of the dense model.
        dropped: Names of the dropped blocks.
        path: Folder of the checkpoint.
    """

    trial: int
    epoch: int
    step: int
    learning_rate: float
    sparsity: float
    kept: Mapping[str, tuple[int, ...]]
    dropped: tuple[str, ...]
    path: str = ""


def write(folder: RunFolder, trial: int, snapshot: Snapshot) -> Path:
    """Store a checkpoint in its folder, atomically. It alone then holds a state from which the trial can go on.

    Args:
        folder: Run folder.
        trial: Number of the trial.
        snapshot: Model and state of the fine-tune.

    Returns:
        Folder of the checkpoint.
    """
    final = _folder(folder, trial) / f"{snapshot.epoch:05d}"
    parameters = list(snapshot.model.parameters())
    zeros = sum(int((parameter == 0).sum()) for parameter in parameters)
    record = Checkpoint(
        trial=trial,
        epoch=snapshot.epoch,
        step=snapshot.step,
        learning_rate=snapshot.rate,
        sparsity=zeros / max(sum(parameter.numel() for parameter in parameters), 1),
        kept=dict(snapshot.kept.groups),
        dropped=snapshot.kept.dropped,
    )
    weights = snapshot.model.state_dict()
    files = {WEIGHTS: serialize_smallest(weights), CHECKPOINT: json.dumps(to_plain(record), indent=1).encode()}
    if snapshot.state is not None:
        files |= state_files(snapshot.state(), files, weights)
    with atomic_folder(final) as temporary:
        for name, data in files.items():
            write_atomically(temporary / name, data)
    for earlier in _epochs(folder, trial):
        if earlier != final and has_state(earlier):
            _retire(folder, trial, earlier)
    return final


def writer(folder: RunFolder, trial: int, every: int) -> Callable[[Snapshot], None] | None:
    """Make the callback that stores the checkpoints of a trial.

    Args:
        folder: Run folder.
        trial: Number of the trial.
        every: Passes over the train split between two checkpoints; 0 for none.

    Returns:
        The callback; None where none are requested.
    """

    def store(snapshot: Snapshot) -> None:
        if snapshot.epoch % every == 0:
            write(folder, trial, snapshot)

    return store if every else None


def latest_state(folder: RunFolder, trial: int, identity: str) -> TrialState | None:
    """Find the state from which a trial can go on, and delete the checkpoints that it will not come to again.

    Args:
        folder: Run folder.
        trial: Number of the trial.
        identity: Fingerprint of the trial, from `identity_of`.

    Returns:
        State of the latest checkpoint; None where there is none of this trial, or it is damaged. No checkpoint is left
        then.
    """
    largest = folder.read_study().bytes if folder.holds_study else None
    for path in reversed(_epochs(folder, trial)):
        state = read_state(path, largest)
        if state is not None and state.identity == identity:
            return state
        _delete(folder, trial, path)
    clear(folder, trial)
    return None


def remove_states(folder: RunFolder, trial: int) -> None:
    """Delete the state from which a trial could go on, once it has ended. Its checkpoints stay, and are uploaded.

    Args:
        folder: Run folder.
        trial: Number of the trial.
    """
    for path in _epochs(folder, trial):
        _retire(folder, trial, path)


def clear(folder: RunFolder, trial: int) -> None:
    """Delete the checkpoints that an earlier attempt of a trial left; it may have come further than the next one.

    Args:
        folder: Run folder.
        trial: Number of the trial.
    """
    for path in _epochs(folder, trial):
        _delete(folder, trial, path)
    shutil.rmtree(_folder(folder, trial), ignore_errors=True)


def read(folder: RunFolder, trial: int) -> list[Checkpoint]:
    """Return the checkpoints of a trial in the order of their epochs.

    Args:
        folder: Run folder.
        trial: Number of the trial.

    Raises:
        StorageError: A checkpoint cannot be read.
    """
    return [_read(trial, path) for path in _epochs(folder, trial)]


def load_model(context: TrialContext, folder: RunFolder, trial: int, epoch: int) -> nn.Module:
    """Load the model of a checkpoint, in eval mode.

    Args:
        context: Context of the trials.
        folder: Run folder.
        trial: Number of the trial.
        epoch: Finished passes over the train split.

    Raises:
        NotFoundError: There is no such checkpoint; the message lists those that exist.
    """
    known = {checkpoint.epoch: checkpoint for checkpoint in read(folder, trial)}
    if epoch not in known:
        there = ", ".join(str(number) for number in known) or "none, set storage.checkpoint_epochs"
        raise NotFoundError(error_message(f"a checkpoint of trial {trial}", f"be of an epoch of {there}", epoch))
    found = known[epoch]
    kept = KeptChannels(groups=found.kept, dropped=found.dropped)
    file, largest = folder.checkpoint_file(trial, epoch), bytes_of(context.task.dense.state_dict())
    uploaded = file.read_uploaded()
    weights = read_weights(file.path, largest) if uploaded is None else parse_weights(uploaded, file.place, largest)
    return rebuild(context.task.dense, context.topology, kept, weights).eval()


def _retire(folder: RunFolder, trial: int, path: Path) -> None:
    """Keep the model of a checkpoint alone, in the storage of artifacts if the run has one."""
    remove_state(path)
    folder.checkpoint_file(trial, int(path.name)).try_to_upload()


def _delete(folder: RunFolder, trial: int, path: Path) -> None:
    """Delete a checkpoint. An object that cannot be deleted now is one that `autoprune doctor` tells."""
    file = folder.checkpoint_file(trial, int(path.name))
    if file.is_uploaded:
        with contextlib.suppress(StorageError):
            file.finish_removal()
    shutil.rmtree(path, ignore_errors=True)


def _folder(folder: RunFolder, trial: int) -> Path:
    return folder.path / CHECKPOINTS / f"{trial:05d}"


def _epochs(folder: RunFolder, trial: int) -> list[Path]:
    """Return the folders of a trial's checkpoints in the order of their epochs."""
    root = _folder(folder, trial)
    paths = [path for path in root.iterdir() if path.name.isascii() and path.name.isdigit()] if root.is_dir() else []
    return sorted(paths, key=lambda path: int(path.name))


def _read(trial: int, path: Path) -> Checkpoint:
    found = replace(load_dataclass(Checkpoint, path / CHECKPOINT), path=str(path))
    if (found.trial, found.epoch) != (trial, int(path.name)) or found.step < 0:
        got = f"trial {found.trial}, epoch {found.epoch} and step {found.step}"
        raise StorageError(
            error_message(str(path / CHECKPOINT), f"be of trial {trial} and epoch {int(path.name)}", got)
        )
    return found
