"""Data of any common form as one type: a Split that can be iterated repeatedly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from autoprune.errors import ConfigurationError, error_message
from autoprune.task.loaders import generator_states, own_generators, samples_drawn, seeded_states
from autoprune.task.nested import arguments, first_tensor, is_along_first, narrow, to_device
from autoprune.task.seeding import seed_torch

#: Inputs of a model: one tensor, a tuple of positional arguments or a dict of keyword arguments.
Inputs = Tensor | tuple[object, ...] | Mapping[str, object]
#: (inputs, targets), as a DataLoader yields it.
Pair = tuple[object, object] | Sequence[object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch of a split.

    Attributes:
        inputs: Inputs that the model is called with.
        targets: Targets that the outputs are compared with.
        size: Number of samples.
        index: Positions of the samples in their split, int64 [size]; None if the split does not know them.
        divisible: Whether the samples lie along the first axis of every tensor. Other batches are never cut.
    """

    inputs: Inputs
    targets: object
    size: int
    index: Tensor | None = None
    divisible: bool = True

    def to(self, device: torch.device) -> Batch:
        """Move the batch to a device.

        Args:
            device: The device.

        Returns:
            The moved batch.
        """
        inputs: Inputs = to_device(self.inputs, device)  # type: ignore[assignment]  # the same type
        return replace(self, inputs=inputs, targets=to_device(self.targets, device))


@runtime_checkable
class Split(Protocol):
    """A part of the data that can be iterated repeatedly."""

    @property
    def samples(self) -> int | None:
        """Number of samples; None if the data does not tell."""

    def ordered(self) -> Iterator[Batch]:
        """Iterate once in a fixed order.

        Yields:
            The batches.
        """

    def shuffled(self, seed: int) -> Iterator[Batch]:
        """Iterate once in an order that depends on the seed, if the data allows it.

        Args:
            seed: Seed of the order.

        Yields:
            The batches.
        """


class TensorSplit:
    """A split held as tensors: the fastest form. Its order is a function of the seed.

    Args:
        inputs: [N, ...].
        targets: [N, ...].
        batch_size: Samples per batch, >= 1.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, batch_size: int) -> None:
        self.inputs, self.targets, self.batch_size = inputs, targets, batch_size

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.targets)

    def ordered(self) -> Iterator[Batch]:
        """Iterate once in the stored order, with the short last batch.

        Yields:
            The batches.
        """
        for start in range(0, self.samples, self.batch_size):
            yield self._batch(slice(start, start + self.batch_size))

    def shuffled(self, seed: int) -> Iterator[Batch]:
        """Iterate once in random order, without a short last batch, which would disturb batch statistics.

        Args:
            seed: Seed of the order.

        Yields:
            The batches.
        """
        order = torch.randperm(self.samples, generator=torch.Generator().manual_seed(seed)).to(self.inputs.device)
        size = min(self.batch_size, self.samples)
        for start in range(0, self.samples - size + 1, size):
            yield self._batch(order[start : start + size])

    def take(self, indices: Tensor) -> TensorSplit:
        """Select samples.

        Args:
            indices: Positions of the samples, int64.

        Returns:
            A split of these samples.
        """
        indices = indices.to(self.inputs.device)
        return TensorSplit(self.inputs[indices], self.targets[indices], self.batch_size)

    def _batch(self, index: slice | Tensor) -> Batch:
        inputs = self.inputs[index]
        positions = torch.arange(self.samples)[index] if isinstance(index, slice) else index
        return Batch(inputs=inputs, targets=self.targets[index], size=len(inputs), index=positions)


class IterableSplit:
    """A split held as an iterable of (inputs, targets) that can be iterated more than once.

    Args:
        batches: The iterable.
        name: Name of the split in messages.

    Attributes:
        divisible: False where batches must stay whole, whatever their shapes look like.
    """

    def __init__(self, batches: Iterable[Pair], name: str = "a split") -> None:
        self.batches, self.name, self.divisible = batches, name, True

    @property
    def samples(self) -> int | None:
        """Number of samples if the loader, its dataset or the list tells."""
        if isinstance(self.batches, DataLoader):
            return samples_drawn(self.batches)
        dataset = getattr(self.batches, "dataset", None)
        if isinstance(dataset, Sized):
            return len(dataset)
        if isinstance(self.batches, Sequence):
            return sum(batch.size for batch in self.ordered())
        return None

    def ordered(self) -> Iterator[Batch]:
        """Iterate once in the iterable's own order. A DataLoader that shuffles gives the same order each time.

        Returns:
            The batches.
        """
        return self._filled(self._seeded(0))

    def shuffled(self, seed: int) -> Iterator[Batch]:
        """Iterate once in another order: a list is shuffled by batch, a DataLoader shuffles by itself under torch's
        seed.

        Args:
            seed: Seed of the order.

        Returns:
            The batches.
        """
        if isinstance(self.batches, Sequence):
            order = torch.randperm(len(self.batches), generator=torch.Generator().manual_seed(seed))
            return self._filled(self.batches[position] for position in order.tolist())
        return self._filled(self._seeded(seed))

    def _filled(self, pairs: Iterator[Pair]) -> Iterator[Batch]:
        """Non-empty batches. Raises ConfigurationError at the end of a pass without any."""
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
        # A generator of a loader or sampler does not follow torch's seed and may be used up to the last batch. It is
        # seeded, too, and has the user's state between the batches.
        generators = own_generators(self.batches)
        states = seeded_states(generators, seed)
        with torch.random.fork_rng(devices=[]), generator_states(generators, states):
            # RandomSampler draws its seed from torch's generator at the first next(), not at iter().
            seed_torch(seed)
            iterator = iter(self.batches)
            pairs = list(islice(iterator, 1))
        while pairs:
            yield pairs[0]
            with generator_states(generators, states):
                pairs = list(islice(iterator, 1))


def as_batch(pair: object) -> Batch:
    """Convert one item of a loader to a batch.

    Args:
        pair: The item.

    Returns:
        The batch.

    Raises:
        ConfigurationError: The item is no (inputs, targets) pair.
    """
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        got = f"{type(pair).__name__} of {len(pair)}" if isinstance(pair, Sized) else type(pair).__name__
        remedy = "Wrap the loader, or give it a collate_fn, so that it yields pairs"
        if isinstance(pair, Mapping):
            remedy += ", such as (batch, batch['labels'])"
        elif isinstance(pair, tuple | list) and len(pair) > 2:
            remedy += ", such as ((first, second), targets)"
        raise ConfigurationError(error_message("a batch", "be a pair (inputs, targets)", got, f"{remedy}."))
    check_arrays(pair)
    inputs, targets = pair
    if isinstance(inputs, list):
        inputs = tuple(inputs)
    size = _batch_size(targets, inputs)
    divisible = is_along_first(inputs, size) and is_along_first(targets, size)
    return Batch(inputs=inputs, targets=targets, size=size, divisible=divisible)


def first_batches(split: Split, samples: int, least: int = 1) -> list[Batch]:
    """Take the first batches of a split, see `take_batches`.

    Args:
        split: The split.
        samples: Most samples.
        least: Fewest samples of a batch.

    Returns:
        The batches.
    """
    return take_batches(split.ordered(), samples, least)


def take_batches(source: Iterator[Batch], samples: int, least: int = 1) -> list[Batch]:
    """Take the first batches of a pass that together hold at most `samples` samples.

    The last one is shortened. A batch that is not divisible is left out, or taken whole if it is the first.

    Args:
        source: A pass.
        samples: Most samples.
        least: Fewest samples of a batch, unless all batches are smaller.

    Returns:
        The batches.
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
    """Cut a divisible batch to its first samples.

    Args:
        batch: The batch.
        size: Number of samples that stay.

    Returns:
        The shorter batch.
    """
    return Batch(inputs=narrow(batch.inputs, size), targets=narrow(batch.targets, size), size=size)  # type: ignore[arg-type]


def call(model: torch.nn.Module, inputs: Inputs) -> object:
    """Call a model with positional arguments for a tensor or tuple, and with keywords for a mapping.

    Args:
        model: The model.
        inputs: Its inputs.

    Returns:
        Its outputs.
    """
    args, kwargs = arguments(inputs)
    return model(*args, **kwargs)


def restore_sample_axis(outputs: Tensor, size: int) -> Tensor:
    """Restore the axis of samples, which models that end with squeeze() drop for one sample.

    Args:
        outputs: Outputs for one batch.
        size: Samples of the batch.

    Returns:
        Outputs [N, ...].
    """
    return outputs.unsqueeze(0) if size == 1 and (outputs.ndim == 0 or len(outputs) != 1) else outputs


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Switch a model to eval mode in a `with` block, and restore the mode of each module afterwards.

    It calls `train`, which modules override to drop tensors that they cache in eval mode.

    Args:
        model: The model.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        model.train(modes[model])
        for module, mode in modes.items():
            module.training = mode


def endless_batches(split: Split, seed: int, least: int = 1, epoch: int = 0) -> Iterator[tuple[int, Batch]]:
    """Iterate over shuffled passes without end.

    Args:
        split: The split.
        seed: Seed of the first pass; each further pass uses the next number.
        least: Fewest samples of a batch; smaller ones are skipped.
        epoch: Passes that are finished already.

    Yields:
        The number of finished passes, and a batch.

    Raises:
        ConfigurationError: A pass holds no such batch.
    """
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


def check_arrays(pair: Sequence[object]) -> None:
    """Refuse numpy arrays.

    Args:
        pair: Inputs and targets.

    Raises:
        ConfigurationError: One of them is an array.
    """
    if any(isinstance(part, np.ndarray) for part in pair):
        raise ConfigurationError(
            error_message("data", "be tensors", "numpy arrays", "Convert them with torch.from_numpy.")
        )


def _batch_size(targets: object, inputs: object) -> int:
    if isinstance(targets, tuple | list) and targets and all(isinstance(target, Mapping) for target in targets):
        return len(targets)  # one mapping per image, as for detectors
    for candidate in (targets, inputs):
        tensor = first_tensor(candidate)
        if tensor is not None and tensor.ndim > 0:
            return len(tensor)
    return 1
