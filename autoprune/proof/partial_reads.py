"""Read large weights in part: silenced entries count as zeros, and of the rows that only make outputs a sample runs.

A mask that copies every weight to set entries to zero spends more time on the copies than on its forward. Here the
weights stay unchanged, and the values that an operator reads are silenced.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from autoprune.structure.reasons import OUTPUT
from autoprune.structure.topology import Topology

#: Number of elements of a weight that are converted at once.
LARGE = 2**18

#: Axis -> positions that count.
Positions = Mapping[int, Tensor]
#: Name of a parameter -> positions that stay on its axes; what lies elsewhere is read as zero.
Staying = Mapping[str, Positions]


class Sample(NamedTuple):
    """A sample of the outputs that a weight makes: the products with the others are taken to be zero.

    Attributes:
        axis: The axis of the weight along which the outputs lie.
        positions: The sampled ones.
        of: Number of outputs.
    """

    axis: int
    positions: Tensor
    of: int


def sampled_outputs(topology: Topology) -> dict[str, Sample]:
    """Choose outputs of the model that prove as much as all of them: twice as many as their weight has inputs.

    The rows of a head over a vocabulary are all read alike. A difference in what the head reads shows in the products
    with any set of rows that has the rank of the weight, and no cut shortens that axis. To leave the other products at
    zero is to run the model with other weights there, which a proof may choose.

    Args:
        topology: The topology.

    Returns:
        Weight -> sample.
    """
    held = {(member.tensor, member.axis) for group in topology.groups for member in group.members}
    whole = {
        (entry.module, entry.of)
        for entry in topology.unprunable
        if entry.why.kind == OUTPUT and entry.channels == entry.of
    }
    found = {}
    for name, inner in topology.input_axes.items():
        info = topology.tensors[name]
        axis, count = 1 - inner, 2 * info.shape[inner]
        fits = info.is_parameter and len(info.shape) == 2 and (name, axis) not in held
        if fits and info.shape[axis] > 2 * count and (name.rpartition(".")[0] or name, info.shape[axis]) in whole:
            generator = torch.Generator().manual_seed(5)
            positions = torch.randperm(info.shape[axis], generator=generator)[:count].sort().values
            found[name] = Sample(axis, positions, info.shape[axis])
    return found


@dataclass(frozen=True, slots=True)
class _Read:
    """How a weight is read. stays: in every operator. samples: in products."""

    weight: Tensor
    stays: Positions
    samples: Positions

    def order(self, view: Tensor) -> tuple[int, int] | None:
        """Return the axis of the weight behind each axis of a matrix, None if it is not all of the weight."""
        for order in ((0, 1), (1, 0)) if self.weight.ndim == view.ndim == 2 else ():
            like = self.weight.permute(order)
            if _layout(view) == _layout(like):
                return order
        return None

    def silenced(self, view: Tensor) -> Tensor:
        """Copy a view of the weight with zeros in the silenced entries."""
        if not self.stays:
            return view
        whole = self.weight.detach().clone()
        for axis, positions in self.stays.items():
            whole.index_fill_(axis, _others(positions, whole.shape[axis]), 0)
        return whole.as_strided(view.size(), view.stride(), view.storage_offset())


class PartialReads:
    """The weights of a model that are read in part, found by their storages.

    Args:
        model: The model that is about to run.
        staying: Positions that stay; the storage of each of these weights holds nothing else.
        samples: Samples of outputs.
    """

    def __init__(self, model: nn.Module, staying: Staying, samples: Mapping[str, Sample]) -> None:
        self._reads: dict[int, list[_Read]] = defaultdict(list)
        for name, weight in model.named_parameters() if staying or samples else ():
            sample = samples.get(name)
            some = {sample.axis: sample.positions} if sample is not None and _fits(weight, sample) else {}
            if some or name in staying:
                stays, made = (_on(weight.device, positions) for positions in (staying.get(name, {}), some))
                self._reads[storage_of(weight)].append(_Read(weight, stays, made))

    def __bool__(self) -> bool:
        return bool(self._reads)

    def silenced(self, tensor: Tensor) -> Tensor:
        """Return a tensor without the silenced entries, if it is a view of a weight with some."""
        for read in self._of(tensor):
            tensor = read.silenced(tensor)
        return tensor

    def product(self, values: Tensor, weight: Tensor, cast: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Multiply with a weight that is read in part.

        Args:
            values: The values, [n, inputs].
            weight: The weight, [inputs, outputs].
            cast: Converts the parts of the weight; the values are converted already.

        Returns:
            The product, [n, outputs]; None if the weight is read whole, or is only a part of one.
        """
        found = ((read, read.order(weight)) for read in self._of(weight))
        read, order = next(((read, order) for read, order in found if order is not None), (None, None))
        if read is None or order is None or cast(weight[:0]).dtype != values.dtype:
            return None
        inner, outer = (read.stays.get(axis) for axis in order)
        sample = read.samples.get(order[1])
        if sample is not None:
            outer = sample if outer is None else outer[torch.isin(outer, sample)]
        return product(values, weight, cast, inner, outer)

    def picked(self, func: torch._ops.OpOverload, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
        """Look up rows of a table of which only columns are silenced; None for anything else."""
        table = args[0] if args and func is torch.ops.aten.embedding.default else None
        if not isinstance(table, Tensor):
            return None
        for read in self._of(table):
            if read.order(table) == (0, 1) and set(read.stays) == {1}:
                rows = func(*args, **kwargs)
                assert isinstance(rows, Tensor)
                return rows.index_fill_(-1, _others(read.stays[1], read.weight.shape[1]), 0)
        return None

    def _of(self, tensor: Tensor) -> Sequence[_Read]:
        return self._reads.get(storage_of(tensor), ())


def product(
    values: Tensor,
    weight: Tensor,
    cast: Callable[[Tensor], Tensor],
    inner: Tensor | None = None,
    outer: Tensor | None = None,
) -> Tensor:
    """Multiply with a weight part by part, in the order in which it lies in memory.

    Args:
        values: The values, [n, inputs].
        weight: The weight, [inputs, outputs].
        cast: Converts a part of the weight.
        inner: Inputs that count; None for all.
        outer: Outputs that are worked out, the others are zero; None for all.

    Returns:
        The product, [n, outputs].
    """
    out = values.new_zeros(values.shape[0], weight.shape[1])
    if weight.stride(1) == 1:
        for part in _parts(inner, weight):
            out.addmm_(values[:, part], cast(weight[part]))
        return out if outer is None else out.index_fill_(1, _others(outer, weight.shape[1]), 0)
    if inner is not None:
        values = values.index_fill(1, _others(inner, weight.shape[0]), 0)
    rows = weight.t()
    for part in _parts(outer, rows):
        out[:, part] = values @ cast(rows[part]).t()
    return out


def storage_of(tensor: Tensor) -> int:
    """Identify the storage of a tensor.

    Args:
        tensor: The tensor.

    Returns:
        Identity of the storage; 0 for a tensor without one.
    """
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else 0


def large_among(model: nn.Module, storages: Container[int]) -> frozenset[str]:
    """Name the large weights of a model that fill one of some storages alone.

    Args:
        model: The model.
        storages: Identities of the storages.

    Returns:
        Names of parameters.
    """
    large = ((name, weight) for name, weight in model.named_parameters() if weight.numel() > LARGE)
    return frozenset(
        name
        for name, weight in large
        if storage_of(weight) in storages
        and weight.numel() * weight.element_size() == weight.untyped_storage().nbytes()
    )


def _on(device: torch.device, positions: Positions) -> Positions:
    return {axis: where.to(device) for axis, where in positions.items()}


def _layout(tensor: Tensor) -> tuple[object, ...]:
    return tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


def _fits(weight: Tensor, sample: Sample) -> bool:
    return weight.ndim == 2 and weight.shape[sample.axis] == sample.of


def _parts(positions: Tensor | None, rows: Tensor) -> Iterator[Tensor | slice]:
    """Yield parts of the rows, each with at most `LARGE` elements."""
    step = max(1, LARGE // rows.shape[1])
    for start in range(0, len(rows) if positions is None else len(positions), step):
        some = slice(start, start + step)
        yield some if positions is None else positions[some]


def _others(positions: Tensor, size: int) -> Tensor:
    """Return the positions of an axis that are not among some."""
    gone = torch.ones(size, dtype=torch.bool, device=positions.device)
    gone[positions] = False
    return gone.nonzero().squeeze(1)
