"""The batch size of a split."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.data import DataLoader

from autoprune.task.data import IterableSplit, Split, TensorSplit
from autoprune.task.loaders import samples_in_batch


def batch_samples(split: Split) -> int | None:
    """Count the samples of a whole batch.

    Args:
        split: A split of the task.

    Returns:
        Their number; None if it can only be found by reading the data, or if the batches of a list differ.
    """
    if isinstance(split, TensorSplit):
        return min(split.batch_size, split.samples)
    batches = split.batches if isinstance(split, IterableSplit) else None
    if isinstance(batches, DataLoader):
        return samples_in_batch(batches)
    sizes = {batch.size for batch in split.ordered()} if isinstance(batches, Sequence) else set()
    return sizes.pop() if len(sizes) == 1 else None
