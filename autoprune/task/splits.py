"""Convert the user's data to splits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from typing import cast

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from autoprune.errors import ConfigurationError, error_message
from autoprune.task.data import IterableSplit, Pair, Split, TensorSplit, check_arrays

_EMPTY = error_message("a split", "hold at least one batch", "none")


def check_type(data: object, name: str) -> None:
    """Check that a value has the type and the lengths of a split, without reading it.

    Args:
        data: The value.
        name: Name of the split in the message.

    Raises:
        ConfigurationError: It is no pair of tensors of one length, Dataset, DataLoader or iterable.
    """
    try:
        _check_type(data)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from error


def _check_type(data: object) -> None:
    if isinstance(data, TensorSplit | IterableSplit):
        return
    pair = _pair(data)
    if pair is not None and len(pair[0]) != len(pair[1]):
        got = f"{len(pair[0])} and {len(pair[1])}"
        raise ConfigurationError(error_message("inputs and targets", "have the same length", got))
    if (type(data) is list and not data) or (pair is not None and len(pair[0]) == 0):
        raise ConfigurationError(_EMPTY)
    if isinstance(data, IterableDataset):
        remedy = "Wrap it: DataLoader(dataset, batch_size=32), or batch_size=None where it yields whole batches."
        raise ConfigurationError(error_message("a split", "yield batches", "a bare IterableDataset", remedy))
    if not isinstance(data, Iterable | Dataset):
        expected = "be a pair of tensors, a Dataset, a DataLoader or an iterable of (inputs, targets)"
        raise ConfigurationError(error_message("a split", expected, type(data).__name__))


def _pair(data: object) -> tuple[Tensor, Tensor] | None:
    """Return the tensors of a pair, or of a TensorDataset; None for anything else."""
    # Exactly this type: a subclass may transform samples.
    pair = data.tensors if type(data) is TensorDataset else data
    if isinstance(pair, tuple | list):
        check_arrays(pair)
    if isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(part, Tensor) for part in pair):
        return pair
    return None


def as_split(data: object, batch_size: int) -> Split:
    """Convert a pair of tensors, a Dataset, a DataLoader or a re-iterable of batches to a split.

    Args:
        data: The user's data.
        batch_size: Samples per batch, for tensors and a Dataset.

    Returns:
        The split; `data` itself if it is one.

    Raises:
        ConfigurationError: The data is anything else, a one-shot iterator, or empty.
    """
    if isinstance(data, TensorSplit | IterableSplit):
        return data
    _check_type(data)
    pair = _pair(data)
    if pair is not None:
        return non_empty(TensorSplit(*pair, batch_size))
    if isinstance(data, Dataset):
        if isinstance(data, Sized) and len(data) == 0:
            raise ConfigurationError(error_message("a split", "hold at least one sample", "none"))
        return IterableSplit(DataLoader(data, batch_size=batch_size, shuffle=True))
    _check_repeatable(data)
    return non_empty(IterableSplit(cast("Iterable[Pair]", data)))


def non_empty(split: Split) -> Split:
    """Check that a split holds a batch.

    Args:
        split: The split.

    Returns:
        The split itself.

    Raises:
        ConfigurationError: A pass yields nothing.
    """
    if next(split.ordered(), None) is None:
        raise ConfigurationError(_EMPTY)
    return split


def _check_repeatable(data: object) -> None:
    """Raise ConfigurationError for data that can be iterated only once."""
    stream: object = data.dataset if isinstance(data, DataLoader) else data
    own = isinstance(stream, IterableDataset) or not isinstance(data, Sequence | DataLoader)
    if own and isinstance(stream, Iterable) and iter(stream) is iter(stream):
        remedy = "Pass a list or a DataLoader."
        raise ConfigurationError(error_message("a split", "be iterable more than once", "a one-shot iterator", remedy))
