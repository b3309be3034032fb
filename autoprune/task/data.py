"""Data of any common shape as one kind of object: a Split that can be iterated again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from autoprune.errors import ConfigurationError, error_message
from autoprune.task.loaders import own_generators, samples_drawn, seeded_states, swapped

#: What a model is called with: one tensor, a tuple of positional or a dict of keyword arguments.
Inputs = Tensor | tuple[object, ...] | Mapping[str, object]
#: (inputs, targets), as a DataLoader yields it.
Pair = tuple[object, object] | Sequence[object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch: call the model with `inputs`, compare with `targets`; `size` is its number of samples.

    index: positions of the samples in their split, int64 [size], where the split knows them.
    divisible: whether the samples lie along the first axis of every tensor; others than these are never cut.
    """

    inputs: Inputs
    targets: object
    size: int
    index: Tensor | None = None
    divisible: bool = True

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
    """A split held as any iterable of (inputs, targets) that can be iterated more than once.

    name: what messages call it. divisible: False where batches must stay whole, whatever their shapes look like.
    """

    def __init__(self, batches: Iterable[Pair], name: str = "a split") -> None:
        self.batches, self.name, self.divisible = batches, name, True

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
        return self._filled(self._seeded(0))

    def shuffled(self, seed: int) -> Iterator[Batch]:
        """One pass; a list is shuffled batch-wise, a DataLoader shuffles by itself under torch's seed."""
        if isinstance(self.batches, Sequence):
            order = torch.randperm(len(self.batches), generator=torch.Generator().manual_seed(seed))
            return self._filled(self.batches[position] for position in order.tolist())
        return self._filled(self._seeded(seed))

    def _filled(self, pairs: Iterator[Pair]) -> Iterator[Batch]:
        """Batches that hold a sample. Raises ConfigurationError at the end of a pass without any."""
        empty = True
        for pair in pairs:
            batch = as_batch(pair)
            if batch.size > 0:
                empty = False
                yield batch if self.divisible else replace(batch, divisible=False)
        if empty:
            remedy = "Can it be read only once, or are its batches larger than its data? Give a list or a DataLoader."
            raise ConfigurationError(error_message(self.name, "hold at least one batch", "none in a pass", remedy))

    def _seeded(self, seed: int) -> Iterator[Pair]:
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
            yield pairs[0]
            with swapped(generators, states):
                pairs = list(islice(iterator, 1))


def as_batch(pair: object) -> Batch:
    """Read what a loader yields. Raises ConfigurationError when it is no (inputs, targets) pair."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        got = f"{type(pair).__name__} of {len(pair)}" if isinstance(pair, Sized) else type(pair).__name__
        remedy = "Wrap the loader, or give it a collate_fn, so that it yields pairs"
        if isinstance(pair, Mapping):
            remedy += ", such as (batch, batch['labels'])"
        elif isinstance(pair, tuple | list) and len(pair) > 2:
            remedy += ", such as ((first, second), targets)"
        raise ConfigurationError(error_message("a batch", "be a pair (inputs, targets)", got, f"{remedy}."))
    _check_arrays(pair)
    inputs, targets = pair
    if isinstance(inputs, list):
        inputs = tuple(inputs)
    size = _batch_size(targets, inputs)
    divisible = _is_along_first(inputs, size) and _is_along_first(targets, size)
    return Batch(inputs=inputs, targets=targets, size=size, divisible=divisible)


def as_split(data: object, batch_size: int) -> Split:
    """Turn a pair of tensors, a Dataset, a DataLoader or any re-iterable of batches into a Split.

    Args:
        data: what the user gave.
        batch_size: for tensors and a Dataset.

    Returns:
        The split; `data` itself when it is one.

    Raises:
        ConfigurationError: When it is anything else, a one-shot iterator or empty.

    """
    if isinstance(data, TensorSplit | IterableSplit):
        return data
    # Exactly this type: a subclass may do more to a sample than look it up.
    pair = data.tensors if type(data) is TensorDataset else data
    if isinstance(pair, tuple | list):
        _check_arrays(pair)
    if isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(part, Tensor) for part in pair):
        return non_empty(_tensor_split(pair[0], pair[1], batch_size))
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        if isinstance(data, Sized) and len(data) == 0:
            raise ConfigurationError(error_message("a split", "hold at least one sample", "none"))
        return IterableSplit(DataLoader(data, batch_size=batch_size, shuffle=True))
    _check_iterable(data)
    return non_empty(IterableSplit(cast("Iterable[Pair]", data)))


def head(split: Split, samples: int, least: int = 1) -> list[Batch]:
    """The first batches of a split that together hold at most `samples` samples, see `take`."""
    return take(split.ordered(), samples, least)


def take(source: Iterator[Batch], samples: int, least: int = 1) -> list[Batch]:
    """Take the first batches of a pass that together hold at most `samples` samples.

    The last one is shortened. One that is not divisible is left out, or taken whole when it is the first.

    Args:
        source: a pass.
        samples: the most samples.
        least: samples of the smallest batch, unless there are only smaller ones.

    """
    batches: list[Batch] = []
    left = samples
    for batch in source:
        if left <= 0 or (batch.size > left and not batch.divisible and batches):
            break
        batches.append(batch if batch.size <= left or not batch.divisible else shorten(batch, left))
        left -= batches[-1].size
    return [batch for batch in batches if batch.size >= least] or batches


def shorten(batch: Batch, size: int) -> Batch:
    """The first `size` samples of a batch whose samples lie along the first axis of every tensor."""
    return Batch(inputs=_narrow(batch.inputs, size), targets=_narrow(batch.targets, size), size=size)  # type: ignore[arg-type]


def call(model: torch.nn.Module, inputs: Inputs) -> object:
    """Call a model the way its inputs ask for: positional for a tensor or tuple, keywords for a dict."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, tuple):
        return model(*inputs)
    return model(inputs)


def with_samples(outputs: Tensor, size: int) -> Tensor:
    """Give outputs of one sample the axis of samples back, which models that end with squeeze() drop.

    Args:
        outputs: of a batch.
        size: samples of the batch.

    Returns:
        Outputs [N, ...].

    """
    return outputs.unsqueeze(0) if size == 1 and (outputs.ndim == 0 or len(outputs) != 1) else outputs


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


def endless(split: Split, seed: int, least: int = 1) -> Iterator[tuple[int, Batch]]:
    """Make shuffled passes without end.

    Args:
        split: what to pass over.
        seed: of the first pass; each pass has its own.
        least: samples of the smallest batch that is given.

    Yields:
        The number of passes before it, and a batch.

    Raises:
        ConfigurationError: When a pass holds no such batch.

    """
    epoch = 0
    while True:
        empty = True
        for batch in split.shuffled(seed + epoch):
            if batch.size >= least:
                empty = False
                yield epoch, batch
        if empty:
            expected = f"hold batches of {least} samples or more at every pass: the model cannot be trained on fewer"
            raise ConfigurationError(error_message("the train split", expected, "none", "Set a larger batch size."))
        epoch += 1


def _check_iterable(data: object) -> None:
    """Raise ConfigurationError for what cannot be passed over again and again."""
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


def _check_arrays(pair: Sequence[object]) -> None:
    if any(isinstance(part, np.ndarray) for part in pair):
        raise ConfigurationError(
            error_message("data", "be tensors", "numpy arrays", "Convert them with torch.from_numpy.")
        )


def _tensor_split(inputs: Tensor, targets: Tensor, batch_size: int) -> TensorSplit:
    if len(inputs) != len(targets):
        raise ConfigurationError(
            error_message("inputs and targets", "have the same length", f"{len(inputs)} and {len(targets)}")
        )
    return TensorSplit(inputs, targets, batch_size)


def non_empty(split: Split) -> Split:
    """The split itself; ConfigurationError when a pass yields nothing."""
    if next(split.ordered(), None) is None:
        raise ConfigurationError(error_message("a split", "hold at least one batch", "none"))
    return split


def _batch_size(targets: object, inputs: object) -> int:
    if isinstance(targets, tuple | list) and targets and all(isinstance(target, Mapping) for target in targets):
        return len(targets)  # one for each image, as detectors take them
    for candidate in (targets, inputs):
        tensor = first_tensor(candidate)
        if tensor is not None and tensor.ndim > 0:
            return len(tensor)
    return 1


def _is_along_first(value: object, size: int) -> bool:
    """Whether every tensor has its samples along the first axis, and nothing else could hold one for each."""
    if isinstance(value, Tensor):
        return value.ndim == 0 or len(value) == size
    if isinstance(value, Mapping):
        return all(_is_along_first(item, size) for item in value.values())
    if isinstance(value, tuple | list):
        return all(_is_along_first(item, size) for item in value)
    return value is None or isinstance(value, bool | int | float)


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
        return _like(value, [_move(item, device) for item in value])
    return value


def _narrow(value: object, size: int) -> object:
    if isinstance(value, Tensor):
        return value[:size] if value.ndim else value
    if isinstance(value, Mapping):
        return {key: _narrow(item, size) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return _like(value, [_narrow(item, size) for item in value])
    return value


def _like(value: tuple[object, ...] | list[object], items: list[object]) -> object:
    """Items as the tuple, list or named tuple that `value` is."""
    make: Callable[..., object] = type(value)
    return make(*items) if hasattr(value, "_fields") else make(items)
