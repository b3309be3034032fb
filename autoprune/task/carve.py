"""Carving a search split off the train split."""

from __future__ import annotations

from collections.abc import Sequence, Sized

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
)

from autoprune.errors import ConfigurationError, fault
from autoprune.task.data import IterableSplit, Split, TensorSplit, non_empty


def carve(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Cut `share` of a split off at random: (what remains, what was cut off), disjoint.

    Tensors and map-style datasets are divided by sample (of a SubsetRandomSampler only its samples), lists by
    batch. Raises ConfigurationError for data that can not be divided, such as an IterableDataset or a loader
    with a sampler of another kind.
    """
    generator = torch.Generator().manual_seed(seed)
    if isinstance(split, TensorSplit):
        kept, cut = _divide(torch.arange(split.samples), share, generator, "samples")
        return split.take(kept), split.take(cut)
    assert isinstance(split, IterableSplit)
    source = split.batches
    if isinstance(source, DataLoader) and not isinstance(source.dataset, IterableDataset):
        kept, cut = _divide(_drawn(source), share, generator, "samples")
        train = IterableSplit(_loader_like(source, Subset(source.dataset, kept.tolist()), shuffle=True))
        return _filled(train), IterableSplit(_loader_like(source, Subset(source.dataset, cut.tolist()), shuffle=False))
    if isinstance(source, Sequence):
        kept, cut = _divide(torch.arange(len(source)), share, generator, "batches")
        return IterableSplit([source[i] for i in kept.tolist()]), IterableSplit([source[i] for i in cut.tolist()])
    raise _can_not(f"a {type(source).__name__}")


def _divide(
    items: torch.Tensor, share: float, generator: torch.Generator, unit: str
) -> tuple[torch.Tensor, torch.Tensor]:
    order = items[torch.randperm(len(items), generator=generator)]
    cut = max(1, round(len(order) * share))
    if cut >= len(order):
        raise ConfigurationError(
            fault(
                "train", f"hold enough {unit} to carve a search split from", len(order), "Pass search=... or more data."
            )
        )
    return order[cut:], order[:cut]


def _drawn(loader: DataLoader[object]) -> torch.Tensor:
    """Positions in the dataset that a loader draws from, in order."""
    sampler = loader.sampler
    if loader.batch_size is not None and type(loader.batch_sampler) is not BatchSampler:
        raise _can_not("a loader with a batch_sampler of its own")
    if loader.batch_size is None and loader.batch_sampler is not None:
        raise _can_not("a loader with a batch_sampler of its own")
    if isinstance(sampler, SubsetRandomSampler):
        return torch.tensor(sorted(sampler.indices), dtype=torch.int64)
    if type(sampler) not in (SequentialSampler, RandomSampler):
        raise _can_not(f"a loader with a {type(sampler).__name__}")
    return torch.arange(len(loader.dataset) if isinstance(loader.dataset, Sized) else 0)


def _loader_like(source: DataLoader[object], dataset: Dataset[object], *, shuffle: bool) -> DataLoader[object]:
    return DataLoader(
        dataset,
        batch_size=source.batch_size,
        shuffle=shuffle,
        num_workers=source.num_workers,
        collate_fn=source.collate_fn,
        pin_memory=source.pin_memory,
        drop_last=shuffle and source.drop_last,
    )


def _filled(split: Split) -> Split:
    try:
        return non_empty(split)
    except ConfigurationError as error:
        raise ConfigurationError(f"train, once a search split is carved from it: {error}") from error


def _can_not(got: str) -> ConfigurationError:
    return ConfigurationError(
        fault("the search split", "be given when train can not be divided", got, "Pass search=...")
    )
