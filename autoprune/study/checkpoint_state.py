"""Files of a checkpoint from which its trial can go on: the state of the fine-tune, beside the weights."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from autoprune.codec import load_dataclass, read_bytes, to_plain
from autoprune.errors import StorageError
from autoprune.records.run_folder import CHECKPOINT
from autoprune.records.weights_file import WEIGHTS, digest_line
from autoprune.recovery.trial_state import TrialState
from autoprune.task.checkpoint import parse_weights, serialize

#: Numbers of the state; its tensors; digests of every file of the checkpoint, in the format of `sha256sum --check`.
STATE, STATE_TENSORS, STATE_DIGESTS = "state.json", "state.safetensors", "state.sha256"
#: Kind of those tensors that are buffers of the model and no part of its weights.
_BUFFER = "buffer"


def state_files(state: TrialState, files: Mapping[str, bytes], weights: Mapping[str, Tensor]) -> dict[str, bytes]:
    """Make the files of a state.

    Args:
        state: State of the trial.
        files: Name -> content of the other files of the checkpoint.
        weights: Weights of the model, which are in one of them.

    Returns:
        Name -> content.
    """
    buffers = {name: tensor for name, tensor in state.model.items() if name not in weights}
    by_kind = {**state.training.tensors, _BUFFER: buffers}
    tensors = {f"{kind}/{name}": tensor for kind, named in by_kind.items() for name, tensor in named.items()}
    made = {STATE: json.dumps(to_plain(state)).encode(), STATE_TENSORS: serialize(tensors)}
    return {**made, STATE_DIGESTS: _digests({**files, **made})}


def read_state(path: Path, largest: int | None) -> TrialState | None:
    """Read the state of a checkpoint.

    Args:
        path: Folder of the checkpoint, whose name is the epoch.
        largest: Most bytes of the model's weights; None for no limit.

    Returns:
        The state with its model; None where the checkpoint has none, or is damaged.
    """
    try:
        files = {name: read_bytes(path / name) for name in (WEIGHTS, CHECKPOINT, STATE, STATE_TENSORS)}
        if read_bytes(path / STATE_DIGESTS) != _digests(files):
            return None
        state = load_dataclass(TrialState, path / STATE)
        tensors, weights = (parse_weights(files[name], name, largest) for name in (STATE_TENSORS, WEIGHTS))
    except StorageError:
        return None
    if state.training.epoch != int(path.name):
        return None
    by_kind: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        by_kind.setdefault(kind, {})[rest] = tensor
    model = {**weights, **by_kind.pop(_BUFFER, {})}
    return replace(state, model=model, training=replace(state.training, tensors=by_kind))


def has_state(path: Path) -> bool:
    """Tell whether a checkpoint has a state from which its trial can go on.

    Args:
        path: Folder of the checkpoint.
    """
    return (path / STATE_DIGESTS).exists()


def remove_state(path: Path) -> None:
    """Delete the state of a checkpoint; its weights stay. What cannot be deleted stays, too.

    Args:
        path: Folder of the checkpoint.
    """
    with contextlib.suppress(OSError):
        for name in (STATE_DIGESTS, STATE, STATE_TENSORS):  # without the first, the rest is no state
            (path / name).unlink(missing_ok=True)


def _digests(files: Mapping[str, bytes]) -> bytes:
    return b"".join(digest_line(files[name], name) for name in sorted(files))
