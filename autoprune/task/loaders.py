"""Samplers and random generators of a DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
)


def drawn_positions(loader: DataLoader[object]) -> Sequence[int] | None:
    """List the positions in the dataset that passes draw from.

    Args:
        loader: The loader.

    Returns:
        The positions; None if they can only be found by running a custom sampler.
    """
    sampler = sampler_of(loader)
    # Exact types: a subclass may draw anything.
    if type(sampler) is SequentialSampler or type(sampler) is RandomSampler:
        return range(len(sampler.data_source)) if isinstance(sampler.data_source, Sized) else None
    if type(sampler) is SubsetRandomSampler:
        return [int(position) for position in sampler.indices]
    return None


def surely_ends(source: object) -> bool:
    """Tell whether a pass is known to end: over a list, or by torch's own samplers over a dataset with a length.

    Args:
        source: A loader or another iterable.

    Returns:
        Whether it is known to end.
    """
    if not isinstance(source, DataLoader):
        return isinstance(source, Sequence)
    own = type(source).__iter__ is not DataLoader.__iter__
    sampler = sampler_of(source)
    return not own and sampler is not None and type(sampler).__module__.startswith("torch.utils.data.")


def samples_drawn(loader: DataLoader[object]) -> int | None:
    """Count the samples of one pass.

    Args:
        loader: The loader.

    Returns:
        Their number; None if the loader does not tell.
    """
    if loader.batch_sampler is None and not isinstance(loader.dataset, IterableDataset):
        return None  # batch_size=None: an item of the dataset is a batch of unknown size
    for source in (sampler_of(loader), loader.dataset):
        if isinstance(source, Sized):
            return len(source)
    return None


def samples_in_batch(loader: DataLoader[object]) -> int | None:
    """Count the samples of a whole batch.

    Args:
        loader: The loader.

    Returns:
        Their number; None if the loader does not tell.
    """
    size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
    return size if isinstance(size, int) else None


def own_generators(source: object) -> list[torch.Generator]:
    """List the random generators that a loader and its samplers were given, each once.

    Args:
        source: A loader or another iterable.

    Returns:
        The generators.
    """
    if not isinstance(source, DataLoader):
        return []
    holders = (source, source.sampler, source.batch_sampler, getattr(source.batch_sampler, "sampler", None))
    found = (getattr(holder, "generator", None) for holder in holders)
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())


def seeded_states(generators: Iterable[torch.Generator], seed: int) -> list[torch.Tensor]:
    """Compute the state that each generator has right after it is seeded.

    Args:
        generators: The generators; unchanged.
        seed: The seed.

    Returns:
        One state per generator.
    """
    return [torch.Generator(device=one.device).manual_seed(seed).get_state() for one in generators]


@contextmanager
def generator_states(generators: Sequence[torch.Generator], states: list[torch.Tensor]) -> Iterator[None]:
    """Give generators other states in a `with` block, and restore their own states afterwards.

    Args:
        generators: The generators.
        states: Their states in the block; updated in place at its end.
    """
    own = [one.get_state() for one in generators]
    for one, state in zip(generators, states, strict=True):
        one.set_state(state)
    try:
        yield
    finally:
        states[:] = [one.get_state() for one in generators]
        for one, state in zip(generators, own, strict=True):
            one.set_state(state)


def sampler_of(loader: DataLoader[object]) -> object:
    """Find the sampler that draws the samples of a loader.

    Args:
        loader: The loader.

    Returns:
        The sampler; None for a custom batch sampler and for a stream.
    """
    if isinstance(loader.dataset, IterableDataset):
        return None
    if loader.batch_sampler is None:
        return loader.sampler
    # With batch_sampler=... the loader's own sampler is a placeholder that draws nothing.
    return loader.batch_sampler.sampler if type(loader.batch_sampler) is BatchSampler else None
