"""Data of any common shape as one kind of object: a Split that can be iterated again and again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from autoprune.errors import ConfigurationError, fault
from autoprune.task.loaders import own_generators, samples_drawn, seeded_states, swapped

#: What a model is called with: one tensor, a tuple of positional or a dict of keyword arguments.
Inputs = Tensor | tuple[object, ...] | Mapping[str, object]
#: (inputs, targets), as a DataLoader yields it.
Pair = tuple[object, object] | Sequence[object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch: call the model with `inputs`, compare with `targets`; `size` is its number of samples.

    index: positions of the samples in their split, int64 [size], where the split knows them.
    """

    inputs: Inputs
    targets: object
    size: int
    index: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        inputs: Inputs = _move(self.inputs, device)  # type: ignore[assignment]  # of the kind it was
        return replace(self, inputs=inputs, targets=_move(self.targets, device))


@runtime_checkable
class Split(Protocol):
    """A re-iterable part of the data."""

    @property
    def samples(self) -> int | None:
        """Number of samples, None when the data does not say."""

    def ordered(self) -> Iterator[Batch]:
        """One pass in a fixed order."""

    def shuffled(self, seed: int) -> Iterator[Batch]:
        """One pass in an order that depends on `seed` where the data allows it."""


class TensorSplit:
    """A split held as tensors: the quickest form, its order is a function of the seed."""

    def __init__(self, inputs: Tensor, targets: Tensor, batch_size: int) -> None:
        self.inputs, self.targets, self.batch_size = inputs, targets, batch_size

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.targets)

    def ordered(self) -> Iterator[Batch]:
        """One pass in the stored order, the short last batch included."""
        for start in range(0, self.samples, self.batch_size):
            yield self._batch(slice(start, start + self.batch_size))

    def shuffled(self, seed: int) -> Iterator[Batch]:
        """One pass in random order; a short last batch is left out, since it upsets batch statistics."""
        order = torch.randperm(self.samples, generator=torch.Generator().manual_seed(seed)).to(self.inputs.device)
        size = min(self.batch_size, self.samples)
        for start in range(0, self.samples - size + 1, size):
            yield self._batch(order[start : start + size])

    def take(self, indices: Tensor) -> TensorSplit:
        """The split of these samples."""
        indices = indices.to(self.inputs.device)
        return TensorSplit(self.inputs[indices], self.targets[indices], self.batch_size)

    def _batch(self, index: slice | Tensor) -> Batch:
        inputs = self.inputs[index]
        positions = torch.arange(self.samples)[index] if isinstance(index, slice) else index
        return Batch(inputs=inputs, targets=self.targets[index], size=len(inputs), index=positions)


class IterableSplit:
    """A split held as any iterable of (inputs, targets) that can be iterated more than once."""

    def __init__(self, batches: Iterable[Pair]) -> None:
        self.batches = batches

    @property
    def samples(self) -> int | None:
        """Number of samples if the loader, the underlying dataset or the list tells it."""
        if isinstance(self.batches, DataLoader):
            return samples_drawn(self.batches)
        dataset = getattr(self.batches, "dataset", None)
        if isinstance(dataset, Sized):
            return len(dataset)
        if isinstance(self.batches, Sequence):
            return sum(batch.size for batch in self.ordered())
        return None

    def ordered(self) -> Iterator[Batch]:
        """One pass in the iterable's own order; a DataLoader that shuffles gives the same order each time."""
        return self._seeded(0)

    def shuffled(self, seed: int) -> Iterator[Batch]:
        """One pass; a list is shuffled batch-wise, a DataLoader shuffles by itself under torch's seed."""
        if isinstance(self.batches, Sequence):
            order = torch.randperm(len(self.batches), generator=torch.Generator().manual_seed(seed))
            return (as_batch(self.batches[position]) for position in order.tolist())
        return self._seeded(seed)

    def _seeded(self, seed: int) -> Iterator[Batch]:
        # A generator that a loader or sampler was given knows nothing of torch's seed and may be drawn from as late
        # as in the last batch: it is seeded too, and has the user's own state whenever the user looks.
        generators = own_generators(self.batches)
        states = seeded_states(generators, seed)
        with torch.random.fork_rng(devices=[]), swapped(generators, states):
            # RandomSampler draws its seed from torch's generator at the first next(), not at iter().
            torch.manual_seed(seed)
            iterator = iter(self.batches)
            pairs = list(islice(iterator, 1))
        while pairs:
            yield as_batch(pairs[0])
            with swapped(generators, states):
                pairs = list(islice(iterator, 1))


def as_batch(pair: object) -> Batch:
    """Read what a loader yields. Raises ConfigurationError when it is no (inputs, targets) pair."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        got = f"{type(pair).__name__} of {len(pair)}" if isinstance(pair, Sized) else type(pair).__name__
        raise ConfigurationError(
            fault("a batch", "be a pair (inputs, targets)", got, "Wrap the loader so that it yields pairs.")
        )
    inputs, targets = pair
    if isinstance(inputs, list):
        inputs = tuple(inputs)
    return Batch(inputs=inputs, targets=targets, size=_batch_size(targets, inputs))


def as_split(data: object, batch_size: int) -> Split:
    """Turn a tensor pair, Dataset, DataLoader or any re-iterable of batches into a Split.

    Raises ConfigurationError for anything else, a one-shot generator or an empty one included.
    """
    if isinstance(data, TensorSplit | IterableSplit):
        return data
    # Exactly this type: a subclass may do more to a sample than look it up.
    pair = data.tensors if type(data) is TensorDataset else data
    if isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(part, Tensor) for part in pair):
        return non_empty(_tensor_split(pair[0], pair[1], batch_size))
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        if isinstance(data, Sized) and len(data) == 0:
            raise ConfigurationError(fault("a split", "hold at least one sample", "none"))
        return IterableSplit(DataLoader(data, batch_size=batch_size, shuffle=True))
    if isinstance(data, Iterator):
        raise ConfigurationError(
            fault("a split", "be iterable more than once", "a one-shot iterator", "Pass a list or a DataLoader.")
        )
    if isinstance(data, Iterable):
        return non_empty(IterableSplit(data))
    raise ConfigurationError(
        fault(
            "a split",
            "be a pair of tensors, a Dataset, a DataLoader or an iterable of (inputs, targets)",
            type(data).__name__,
        )
    )


def head(split: Split, samples: int) -> list[Batch]:
    """The first batches of a split that together hold at most `samples` samples; the last one is shortened."""
    return take(split.ordered(), samples)


def take(source: Iterator[Batch], samples: int) -> list[Batch]:
    """The first batches of a pass that together hold at most `samples` samples; the last one is shortened."""
    batches: list[Batch] = []
    left = samples
    for batch in source:
        if left <= 0:
            break
        batches.append(batch if batch.size <= left else shorten(batch, left))
        left -= batches[-1].size
    return batches


def shorten(batch: Batch, size: int) -> Batch:
    """The first `size` samples of a batch."""
    return Batch(inputs=_narrow(batch.inputs, size), targets=_narrow(batch.targets, size), size=size)  # type: ignore[arg-type]


def call(model: torch.nn.Module, inputs: Inputs) -> object:
    """Call a model the way its inputs ask for: positional for a tensor or tuple, keywords for a dict."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, tuple):
        return model(*inputs)
    return model(inputs)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode, and each module back to its own mode after.

    By `train`, which modules override to let go of what they keep of their weights in eval mode.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        model.train(modes[model])
        for module, mode in modes.items():
            module.training = mode


def endless(split: Split, seed: int) -> Iterator[tuple[int, Batch]]:
    """Shuffled passes without end, each batch with the number of passes before it.

    Raises ConfigurationError if a pass yields nothing.
    """
    epoch = 0
    while True:
        empty = True
        for batch in split.shuffled(seed + epoch):
            empty = False
            yield epoch, batch
        if empty:
            raise ConfigurationError(fault("the train split", "yield batches", "none in a whole pass"))
        epoch += 1


def _tensor_split(inputs: Tensor, targets: Tensor, batch_size: int) -> TensorSplit:
    if len(inputs) != len(targets):
        raise ConfigurationError(
            fault("inputs and targets", "have the same length", f"{len(inputs)} and {len(targets)}")
        )
    return TensorSplit(inputs, targets, batch_size)


def non_empty(split: Split) -> Split:
    """The split itself; ConfigurationError when a pass yields nothing."""
    if not list(islice(split.ordered(), 1)):
        raise ConfigurationError(fault("a split", "hold at least one batch", "none"))
    return split


def _batch_size(targets: object, inputs: object) -> int:
    for candidate in (targets, inputs):
        tensor = first_tensor(candidate)
        if tensor is not None and tensor.ndim > 0:
            return len(tensor)
    return 1


def first_tensor(value: object) -> Tensor | None:
    """The first tensor in nested data, None when it holds none."""
    if isinstance(value, Tensor):
        return value
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    for item in items:
        tensor = first_tensor(item)
        if tensor is not None:
            return tensor
    return None


def _move(value: object, device: torch.device) -> object:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: _move(item, device) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_move(item, device) for item in value)
    return value


def _narrow(value: object, size: int) -> object:
    if isinstance(value, Tensor):
        return value[:size] if value.ndim else value
    if isinstance(value, Mapping):
        return {key: _narrow(item, size) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_narrow(item, size) for item in value)
    return value
