"""Convert the user's data to splits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from typing import cast

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from autoprune.errors import ConfigurationError, error_message
from autoprune.task.data import IterableSplit, Pair, Split, TensorSplit, check_arrays


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
    # Exactly this type: a subclass may transform samples.
    pair = data.tensors if type(data) is TensorDataset else data
    if isinstance(pair, tuple | list):
        check_arrays(pair)
    if isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(part, Tensor) for part in pair):
        return non_empty(_tensor_split(pair[0], pair[1], batch_size))
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        if isinstance(data, Sized) and len(data) == 0:
            raise ConfigurationError(error_message("a split", "hold at least one sample", "none"))
        return IterableSplit(DataLoader(data, batch_size=batch_size, shuffle=True))
    _check_iterable(data)
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
        raise ConfigurationError(error_message("a split", "hold at least one batch", "none"))
    return split


def _check_iterable(data: object) -> None:
    """Raise ConfigurationError for data that cannot be iterated repeatedly."""
    stream: object = data.dataset if isinstance(data, DataLoader) else data
    if stream is data and isinstance(data, IterableDataset):
        remedy = "Wrap it: DataLoader(dataset, batch_size=32), or batch_size=None where it yields whole batches."
        raise ConfigurationError(error_message("a split", "yield batches", "a bare IterableDataset", remedy))
    if not isinstance(data, Iterable):
        expected = "be a pair of tensors, a Dataset, a DataLoader or an iterable of (inputs, targets)"
        raise ConfigurationError(error_message("a split", expected, type(data).__name__))
    own = isinstance(stream, IterableDataset) or not isinstance(data, Sequence | DataLoader)
    if own and isinstance(stream, Iterable) and iter(stream) is iter(stream):
        remedy = "Pass a list or a DataLoader."
        raise ConfigurationError(error_message("a split", "be iterable more than once", "a one-shot iterator", remedy))


def _tensor_split(inputs: Tensor, targets: Tensor, batch_size: int) -> TensorSplit:
    if len(inputs) != len(targets):
        raise ConfigurationError(
            error_message("inputs and targets", "have the same length", f"{len(inputs)} and {len(targets)}")
        )
    return TensorSplit(inputs, targets, batch_size)
