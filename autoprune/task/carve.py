"""Carve a search split off the train split."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, Subset

from autoprune.errors import ConfigurationError, error_message
from autoprune.task.data import IterableSplit, Split, TensorSplit
from autoprune.task.loaders import drawn_positions, sampler_of
from autoprune.task.splits import non_empty


def carve(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Divide a split into two disjoint parts at random.

    Tensors and map-style datasets are divided by sample, lists and datasets of batches by batch. A loader keeps to the
    samples that its sampler draws.

    Args:
        split: The split to divide.
        share: Share that is cut off, in (0, 1).
        seed: Seed of the choice.

    Returns:
        The rest, and the part that was cut off.

    Raises:
        ConfigurationError: The data cannot be divided, such as an IterableDataset or a loader with a custom sampler.
    """
    generator = torch.Generator().manual_seed(seed)
    if isinstance(split, TensorSplit):
        kept, cut = _divide(range(split.samples), share, generator, "samples")
        return split.take(torch.tensor(kept)), split.take(torch.tensor(cut))
    source = split.batches if isinstance(split, IterableSplit) else split
    if isinstance(source, DataLoader):
        kept, cut = _divide_loader(source, share, generator)
        train = _filled(_loader_like(source, kept, shuffle=True))
        return train, IterableSplit(_loader_like(source, cut, shuffle=False), "search")
    if isinstance(source, Sequence):
        kept, cut = _divide(range(len(source)), share, generator, "batches")
        return IterableSplit([source[i] for i in kept], "train"), IterableSplit([source[i] for i in cut], "search")
    raise _can_not(f"a {type(source).__name__}")


def _divide(items: Sequence[int], share: float, generator: torch.Generator, unit: str) -> tuple[list[int], list[int]]:
    order = [items[position] for position in torch.randperm(len(items), generator=generator).tolist()]
    cut = max(1, round(len(order) * share))
    if cut >= len(order):
        raise ConfigurationError(
            error_message(
                "train", f"hold enough {unit} to carve a search split from", len(order), "Pass search=... or more data."
            )
        )
    return order[cut:], order[:cut]


def _divide_loader(loader: DataLoader[object], share: float, generator: torch.Generator) -> tuple[list[int], list[int]]:
    positions = drawn_positions(loader)
    if positions is None or not _draws_all_once(loader):
        raise _can_not(_description(loader))
    unit = "samples" if loader.batch_sampler is not None else "batches"
    kept, cut = _divide(list(dict.fromkeys(positions)), share, generator, unit)
    if len(kept) + len(cut) < len(positions):
        # A sampler may draw a sample twice; both draws stay in one part.
        held = set(cut)
        kept = [position for position in positions if position not in held]
    return kept, cut


def _draws_all_once(loader: DataLoader[object]) -> bool:
    """Whether each pass draws every sample once, as torch's own samplers do."""
    sampler = sampler_of(loader)
    partial = isinstance(sampler, RandomSampler) and (
        sampler.replacement or sampler.num_samples != len(sampler.data_source)
    )
    return not partial and type(loader).__iter__ is DataLoader.__iter__


def _description(loader: DataLoader[object]) -> str:
    kind = type(loader).__name__
    if isinstance(loader.dataset, IterableDataset):
        return f"a {kind} over an IterableDataset"
    sampler = sampler_of(loader)
    return f"a {kind} with a custom {type(loader.batch_sampler if sampler is None else sampler).__name__}"


def _loader_like(source: DataLoader[object], positions: Sequence[int], *, shuffle: bool) -> DataLoader[object]:
    """The same loader over some positions. Only the training part may shuffle or drop a short last batch."""
    part: Dataset[object] = Subset(source.dataset, positions)
    # With a custom batch sampler the sizes are in the sampler, and the loader's are None.
    batches = source.batch_sampler if isinstance(source.batch_sampler, BatchSampler) else None
    return DataLoader(
        part,
        batch_size=batches.batch_size if batches is not None else None,
        drop_last=shuffle and batches is not None and batches.drop_last,
        shuffle=shuffle,
        num_workers=source.num_workers,
        collate_fn=source.collate_fn,
        pin_memory=source.pin_memory,
        timeout=source.timeout,
        worker_init_fn=source.worker_init_fn,
        multiprocessing_context=source.multiprocessing_context,
        prefetch_factor=source.prefetch_factor,
        persistent_workers=source.persistent_workers,
    )


def _filled(loader: DataLoader[object]) -> Split:
    try:
        return non_empty(IterableSplit(loader, "train"))
    except ConfigurationError as error:
        raise ConfigurationError(f"train, once a search split is carved from it: {error}") from error


def _can_not(got: str) -> ConfigurationError:
    return ConfigurationError(
        error_message("the search split", "be given when train cannot be divided", got, "Pass search=...")
    )
