"""Find samples that two splits share: a candidate must not be scored on the samples it was chosen or trained by."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from autoprune.task.data import IterableSplit, Split, TensorSplit, as_batch
from autoprune.task.loaders import drawn_positions
from autoprune.task.nested import first_tensor

#: Place of samples -> positions there. Samples in memory are identified by address, others by dataset and position.
Footprint = Mapping[Hashable, Collection[int]]


def overlap(one: Split, other: Split) -> str | None:
    """Find the samples that two splits share.

    Copies of the same samples are not recognised, nor the samples of a custom sampler.

    Args:
        one: A split.
        other: Another split.

    Returns:
        The overlap in words; None if none is known.
    """
    if _source(one) is _source(other):
        return "the same object"
    first, second = _footprint(one), _footprint(other)
    shared = sum(len(set(first[place]) & set(second[place])) for place in first.keys() & second.keys())
    return f"{shared} common samples" if shared else None


def _source(split: Split) -> object:
    if not isinstance(split, IterableSplit):
        return split
    if isinstance(split.batches, DataLoader) and isinstance(split.batches.dataset, IterableDataset):
        return split.batches.dataset
    return split.batches


def _footprint(split: Split) -> Footprint:
    if isinstance(split, TensorSplit):
        return _rows(split.inputs)
    source = split.batches if isinstance(split, IterableSplit) else None
    if isinstance(source, DataLoader):
        positions = drawn_positions(source)
        return _in_dataset(source.dataset, positions) if positions is not None else {}
    # Only a real list keeps its batches; tensors that are made anew each time have no lasting address.
    return _in_batches(source) if isinstance(source, list | tuple) else {}


def _in_dataset(dataset: object, positions: Sequence[int]) -> Footprint:
    while isinstance(dataset, Subset):
        indices = dataset.indices
        positions = [int(indices[position]) for position in positions]
        dataset = dataset.dataset
    if type(dataset) is TensorDataset:
        place = _rows(dataset.tensors[0])
        return {key: [rows[position] for position in positions] for key, rows in place.items()}
    return {("dataset", id(dataset)): positions}


def _in_batches(batches: Sequence[object]) -> Footprint:
    found: dict[Hashable, set[int]] = {}
    for pair in batches:
        inputs = first_tensor(as_batch(pair).inputs)
        for key, rows in _rows(inputs).items() if inputs is not None else ():
            found.setdefault(key, set()).update(rows)
    return found


def _rows(tensor: Tensor) -> dict[Hashable, Sequence[int]]:
    """Device -> address of each row. Views of one tensor that hold other rows share no address."""
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.ndim == 0 or tensor.numel() == 0:
        return {}
    start, step = tensor.data_ptr(), tensor.stride(0) * tensor.element_size()
    rows = range(start, start + step * len(tensor), step) if step else [start] * len(tensor)
    return {str(tensor.device): rows}
