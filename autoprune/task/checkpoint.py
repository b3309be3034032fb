"""Read and write model weights. Tensors only: a pickle with any other object is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from autoprune.display import join_faults
from autoprune.errors import ConfigurationError, NotFoundError, StorageError, error_message
from autoprune.task.clone import drop_cached_tensors
from autoprune.task.models import common_prefix, without_wrapping
from autoprune.task.soundness import misfit_faults
from autoprune.task.sparse_file import decode, separate, serialize_sparse


def read_weights(path: Path, largest: int | None = None) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file or a torch checkpoint (plain, or under "state_dict" or "model").

    A compressed .safetensors file (see sparse_file) gives the tensors that were written.

    Args:
        path: The file.
        largest: Most bytes that the tensors of a compressed file may have together, checked before any is allocated;
            None
            for no limit.

    Returns:
        Name -> tensor, on the CPU.

    Raises:
        NotFoundError: There is no file.
        StorageError: The file cannot be read, or is too large.
    """
    if not path.is_file():
        raise NotFoundError(error_message("checkpoint", "be a file", str(path)))
    try:
        if path.suffix == ".safetensors":
            data: object = _read_safetensors(path, largest)
        else:
            data = torch.load(path, map_location="cpu", weights_only=True)
    except StorageError as error:
        raise StorageError(f"{path}: {error}") from error
    except pickle.UnpicklingError as error:
        # torch's own message advises weights_only=False, which would run code in the file.
        remedy = "Store model.state_dict() with torch.save or safetensors."
        raise StorageError(
            error_message("checkpoint", "hold tensors alone", f"{path} with other objects", remedy)
        ) from error
    except Exception as error:  # other files fail in many ways inside torch
        got = f"{path} ({type(error).__name__})"
        raise StorageError(
            error_message("checkpoint", "hold tensors (.safetensors or a torch state dict)", got)
        ) from error
    return _tensors(data, path)


def _read_safetensors(path: Path, largest: int | None) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return decode(stored, file.metadata() or {}, largest)


def parse_weights(data: bytes, where: str, largest: int | None = None) -> dict[str, Tensor]:
    """Read a state dict from the content of a .safetensors file, which may be compressed.

    Args:
        data: Content of the file.
        where: Path or URL of the file, for messages.
        largest: As in `read_weights`.

    Returns:
        Name -> tensor, on the CPU.

    Raises:
        StorageError: It is no such file, or too large.
    """
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return decode(load(data), header.get("__metadata__", {}), largest)
    except StorageError as error:
        raise StorageError(f"{where}: {error}") from error
    except Exception as error:  # other files fail in many ways inside safetensors
        got = f"{where} ({type(error).__name__})"
        raise StorageError(error_message("checkpoint", "hold tensors (.safetensors)", got)) from error


def read_metadata(path: Path) -> dict[str, str]:
    """Read the texts in the header of a .safetensors file.

    Args:
        path: The file.

    Returns:
        Name -> text.

    Raises:
        StorageError: It is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except Exception as error:  # other files fail in many ways inside safetensors
        got = f"{path} ({type(error).__name__})"
        raise StorageError(error_message("checkpoint", "be a .safetensors file", got)) from error


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """List the parameters and buffers of a model, those that are not stored with its weights included.

    Args:
        model: The model.

    Returns:
        Name -> tensor, in the memory of the model.
    """
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def bytes_of(tensors: Mapping[str, Tensor]) -> int:
    """Sum the bytes of tensors. Tensors that share memory count once for each name, as they are stored.

    Args:
        tensors: Tensors by name.

    Returns:
        Their bytes.
    """
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _tensors(data: object, path: Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(data, Mapping) and isinstance(data.get(key), Mapping):
            data = data[key]
    if not isinstance(data, Mapping):
        raise StorageError(error_message("checkpoint", "hold a state dict", f"{path} with a {type(data).__name__}"))
    weights = {str(name): tensor for name, tensor in data.items() if isinstance(tensor, Tensor)}
    if not weights:
        raise StorageError(error_message("checkpoint", "hold tensors", f"{path} without any"))
    return weights


def load_into(model: nn.Module, path: Path) -> None:
    """Load a checkpoint into a model.

    Args:
        model: The model, changed in place.
        path: The file.

    Raises:
        ConfigurationError: The checkpoint does not fit; the message names the keys, shapes, dtypes or numbers.
    """
    try:
        weights = without_wrapping(read_weights(path, bytes_of(model.state_dict())), model.state_dict().keys())
    except StorageError as error:
        raise ConfigurationError(str(error)) from error
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    missing = sorted(own.keys() - weights.keys())
    extra = sorted(weights.keys() - own.keys())
    other = sorted(name for name in own.keys() & weights.keys() if own[name] != tuple(weights[name].shape))
    if missing or extra or other:
        parts = [
            f"{label}: {', '.join(names[:5])}"
            for label, names in (("missing", missing), ("unknown", extra), ("other shape", other))
            if names
        ]
        prefix = common_prefix(weights)
        remedy = f"Every key begins with {prefix!r}: was it stored from a wrapper of the model?" if prefix else ""
        raise ConfigurationError(error_message("checkpoint", "fit the model", f"{path} ({'; '.join(parts)})", remedy))
    unfit = misfit_faults(weights, model.state_dict())
    if unfit:
        remedy = "Store it from a model as the task builds it."
        raise ConfigurationError(error_message("checkpoint", "fit the model", f"{path} ({join_faults(unfit)})", remedy))
    model.load_state_dict(weights)
    drop_cached_tensors(model)


def serialize(tensors: Mapping[str, Tensor]) -> bytes:
    """Convert tensors to the bytes of a safetensors file. Tensors that share memory are written once for each name.

    Args:
        tensors: Tensors by name.

    Returns:
        The bytes.
    """
    return save(separate(tensors))


def serialize_smallest(tensors: Mapping[str, Tensor]) -> bytes:
    """Convert tensors to the bytes of a safetensors file or of a compressed one, whichever is smaller.

    Args:
        tensors: Tensors by name.

    Returns:
        The bytes; `read_weights` reads both.
    """
    return min(serialize(tensors), serialize_sparse(tensors), key=len)
