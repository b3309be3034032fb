"""Passes over the calibration batches: each serves every criterion that asks for what it gathers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from autoprune.criteria.layer_inputs import LayerInput, capture_inputs
from autoprune.errors import ConfigurationError, error_message
from autoprune.task.data import Batch, Inputs, call, evaluating
from autoprune.task.modes import in_mode_of

Key = TypeVar("Key", str, int)
Loss = Callable[[object, object], Tensor]

#: Rademacher probes for each batch that estimate the diagonal of the Hessian.
HESSIAN_PROBES = 4
#: Parts of the weights that make channels, probed one after the other: what lies in other parts adds no noise.
HESSIAN_PARTS = 8
#: What a probe of all parts costs, in forwards and backwards of the whole model: each part needs some of it.
HESSIAN_PARTS_COST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationStatistics:
    """Moments of one reading layer's input, per input channel, over batch and positions.

    count: entries of each channel. mean_abs: mean of |x|. mean_square: mean of x squared. mean, variance: of x.
    positive: share of entries above 0. All but count are float [channels].
    axis: the weight's axis that reads them.
    parts: of an attention whose queries, keys and values have one weight, what each third of its rows reads.
    """

    count: int
    mean_abs: Tensor
    mean_square: Tensor
    mean: Tensor
    variance: Tensor
    positive: Tensor
    axis: int = 1
    parts: tuple[ActivationStatistics, ...] = ()

    @classmethod
    def of(cls, values: Tensor, axis: int = 1) -> ActivationStatistics:
        """Of values [channels, entries]; axis: the weight's axis that reads them."""
        mean = values.mean(1)
        return cls(
            count=values.shape[1],
            mean_abs=values.abs().mean(1),
            mean_square=values.square().mean(1),
            mean=mean,
            variance=(values - mean.unsqueeze(1)).square().mean(1),
            positive=(values > 0).float().mean(1),
            axis=axis,
        )

    def norms(self, size: int) -> Tensor:
        """Euclidean norms over the entries of what is read, [shares of the weight's rows, size].

        size: length of the weight's axis. There is more than one share where equal shares of the rows read channels of
        their own: the groups of a convolution; queries, keys and values.
        """
        norms = [(part.mean_square * part.count).sqrt() for part in self.parts or (self,)]
        return torch.cat(norms).reshape(-1, size)

    def joined(self, other: ActivationStatistics) -> ActivationStatistics:
        """Of the entries of both together; the variance without loss of digits where the mean is far from 0."""
        count = self.count + other.count
        share = other.count / count
        between = (other.mean - self.mean).square() * (share * (1 - share))
        return ActivationStatistics(
            count=count,
            mean_abs=torch.lerp(self.mean_abs, other.mean_abs, share),
            mean_square=torch.lerp(self.mean_square, other.mean_square, share),
            mean=torch.lerp(self.mean, other.mean, share),
            variance=torch.lerp(self.variance, other.variance, share) + between,
            positive=torch.lerp(self.positive, other.positive, share),
            axis=self.axis,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPositions:
    """Where one group's channels are on the input axis of a weight.

    group: its name. where: positions, int64 [channels alive, k]. size: length of the axis.
    """

    group: str
    where: Tensor
    size: int

    def products(self, x: Tensor, gradient: Tensor, axis: int) -> Tensor:
        """|sum over positions of x times its gradient|, [samples, channels]; axis: that of x's channels, from the end.

        The first axis of x is taken for the samples, unless it is that of the channels: then there is one sample.
        A grouped convolution's weight has one group's input axis: its groups are added up like positions.
        """
        product = (x.detach() * gradient).float()
        if x.ndim + axis == 0:
            product = product.unsqueeze(0)
        sums = product.movedim(axis, -1).flatten(1, -2).sum(1) if product.ndim > 2 else product
        sums = sums.reshape(len(sums), -1, self.size).sum(1)
        read: Tensor = sums[:, self.where.to(sums.device)].sum(2)
        return read.abs()


@torch.no_grad()
def measure_activations(model: nn.Module, batches: Sequence[Batch]) -> dict[str, ActivationStatistics]:
    """Name of a weight -> what is read by it, per input channel, for the weights of readers.watching; one forward."""
    found: dict[str, ActivationStatistics] = {}
    parts: dict[str, dict[int, ActivationStatistics]] = {}

    def see(read: LayerInput) -> None:
        values = read.x.detach().movedim(read.axis, 0).flatten(1).float()
        if values.shape[1] > 0:
            statistics = ActivationStatistics.of(values, read.weight_axis)
            _join(found, read.weight, statistics)
            for part in read.parts:
                _join(parts.setdefault(read.weight, {}), part, statistics)

    with evaluating(model), capture_inputs(model, see):
        for batch in batches:
            call(model, batch.inputs)
    of_parts = {name: tuple(values for _, values in sorted(each.items())) for name, each in parts.items()}
    return {name: replace(statistics, parts=of_parts.get(name, ())) for name, statistics in found.items()}


def _join(found: dict[Key, ActivationStatistics], key: Key, statistics: ActivationStatistics) -> None:
    found[key] = found[key].joined(statistics) if key in found else statistics


@torch.enable_grad()
def measure_gradients(
    model: nn.Module,
    batches: Sequence[Batch],
    loss: Loss,
    names: Sequence[str],
    readings: Mapping[str, Sequence[InputPositions]],
) -> tuple[dict[str, list[Tensor]], dict[str, dict[str, Tensor]]]:
    """One forward and backward, in the mode of the loss: with the statistics of the model, not of one batch.

    names: of parameters. readings: name of a weight -> the groups that it reads.
    Gives the gradients of the named parameters that the loss reaches, batch by batch; and group -> weight ->
    mean over samples of Reading.products, [channels alive].
    """
    of = dict(model.named_parameters())
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    products = _Products(readings)
    seen: list[LayerInput] = []

    def see(read: LayerInput) -> None:
        if read.weight in readings and read.x.requires_grad:
            seen.append(read)

    # What the layers read has a gradient whether or not weights before it are frozen.
    with in_mode_of(loss, model), _unfrozen(model, bool(readings)), capture_inputs(model, see):
        for batch in batches:
            seen.clear()
            value = loss(call(model, batch.inputs), batch.targets)
            wanted = [*(of[name] for name in names), *(read.x for read in seen)]
            if not wanted or not value.requires_grad:
                continue
            each = torch.autograd.grad(value, wanted, allow_unused=True)
            for name, gradient in zip(names, each, strict=False):
                found[name] += [] if gradient is None else [gradient]
            for read, gradient in zip(seen, each[len(names) :], strict=True):
                products.add(read, gradient)
    return {name: values for name, values in found.items() if values}, products.means()


class _Products:
    """Adds up Reading.products over batches and over the uses of a layer."""

    def __init__(self, readings: Mapping[str, Sequence[InputPositions]]) -> None:
        self._readings = readings
        self._totals: dict[tuple[str, str], tuple[Tensor, int]] = {}

    def add(self, read: LayerInput, gradient: Tensor | None) -> None:
        if gradient is None:
            return
        for reading in self._readings[read.weight]:
            key, products = (reading.group, read.weight), reading.products(read.x, gradient, read.axis)
            total, samples = self._totals.get(key, (torch.zeros_like(products[0]), 0))
            self._totals[key] = (total + products.sum(0), samples + len(products))

    def means(self) -> dict[str, dict[str, Tensor]]:
        """Group -> weight -> mean over samples."""
        found: dict[str, dict[str, Tensor]] = {}
        for (group, name), (total, samples) in self._totals.items():
            found.setdefault(group, {})[name] = total / samples
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """What the diagonal of the Hessian is asked with.

    signs: (name, number) -> +1 and -1, of the parameter's shape. parts: name -> which parameters are probed together, 0
    where nothing is said; those of other parts add no noise to them.
    sized: the signs times the weights. Of sums of h w^2 over many weights less is noise then, as large weights are
    hardly heard through small ones; of single small weights more is.
    """

    signs: Callable[[str, int], Tensor]
    parts: Mapping[str, int] = field(default_factory=dict)
    sized: bool = False

    def of(self, name: str, number: int, weight: Tensor) -> Tensor:
        """The probe of that number for a parameter."""
        return self.signs(name, number).to(weight) * (weight if self.sized else weight != 0)

    def apart(self, measure_gradients: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """What is probed together, part by part."""
        found: dict[int, dict[str, Tensor]] = {}
        for name, gradient in measure_gradients.items():
            found.setdefault(self.parts.get(name, 0), {})[name] = gradient
        return list(found.values())


@torch.enable_grad()
def estimate_hessian(
    model: nn.Module,
    batches: Sequence[Batch],
    loss: Loss,
    names: Sequence[str],
    probes: Probes,
) -> dict[str, Tensor]:
    """Diagonal of the Hessian of the mean loss over batches, for the named parameters that the loss reaches.

    Hutchinson's estimator, the mean over probes z of z * (H z) / z^2, in the mode of the loss; one forward, one
    backward and PROBES backwards through the backward for each batch and part. Weights of exactly 0 are left out of the
    probes, and 0 in the result: nothing is lost with them.
    Raises ConfigurationError for a model that cannot be differentiated twice.
    """
    of = dict(model.named_parameters())
    found: dict[str, Tensor] = {}
    # The fused kernels of attention have no second derivative.
    with in_mode_of(loss, model), sdpa_kernel(SDPBackend.MATH):
        for number, batch in enumerate(batches):
            value = loss(call(model, batch.inputs), batch.targets)
            if not names or not value.requires_grad:
                continue
            first = torch.autograd.grad(value, [of[name] for name in names], create_graph=True, allow_unused=True)
            reached = {name: gradient for name, gradient in zip(names, first, strict=True) if gradient is not None}
            for name in reached:
                found.setdefault(name, torch.zeros_like(of[name], dtype=_wide(of[name])))
            numbers = range(number * HESSIAN_PROBES, (number + 1) * HESSIAN_PROBES)
            for probe, chosen in itertools.product(numbers, probes.apart(reached)):
                z = {name: probes.of(name, probe, of[name].detach()) for name in chosen}
                for name, product in _hessian_times(z, chosen, of).items():
                    found[name] += z[name].to(found[name].dtype) * product / (HESSIAN_PROBES * len(batches))
    if not probes.sized:
        return found
    return {name: _over_square(changes, of[name].detach().to(changes.dtype)) for name, changes in found.items()}


def _wide(tensor: Tensor) -> torch.dtype:
    """Float32, or float64 where it is that already: squares of half precision leave its range."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _over_square(changes: Tensor, weight: Tensor) -> Tensor:
    """The changes over weight^2, 0 where the square is not a normal number."""
    square = weight.square()
    normal = square >= torch.finfo(square.dtype).tiny
    return torch.where(normal, changes / torch.where(normal, square, 1.0), 0.0)


def _hessian_times(
    z: Mapping[str, Tensor], measure_gradients: Mapping[str, Tensor], of: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """H z by a backward through the gradients; what is not in the result is 0."""
    curved = [name for name, gradient in measure_gradients.items() if gradient.requires_grad]
    if not curved:
        return {}
    try:
        products = torch.autograd.grad(
            [measure_gradients[name] for name in curved],
            [of[name] for name in measure_gradients],
            [z[name] for name in curved],
            retain_graph=True,
            allow_unused=True,
        )
    except RuntimeError as error:
        if "not implemented" not in str(error):
            raise
        raise ConfigurationError(
            error_message("the signal 'hessian'", "be gathered on a model that has second derivatives", str(error))
        ) from error
    return {name: product for name, product in zip(measure_gradients, products, strict=True) if product is not None}


@contextmanager
def _unfrozen(model: nn.Module, enabled: bool) -> Iterator[None]:
    frozen = [p for p in model.parameters() if enabled and p.is_floating_point() and not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


@contextmanager
def functional_model(model: nn.Module, loss: Loss) -> Iterator[Callable[[Mapping[str, Tensor], Inputs], object]]:
    """A function (tensors by name, inputs) -> outputs of the model with those tensors in place of its own.

    In the mode in which the loss is defined; the model itself stays as it is.
    """

    def run(tensors: Mapping[str, Tensor], inputs: Inputs) -> object:
        args, kwargs = ((), dict(inputs)) if isinstance(inputs, Mapping) else (inputs, {})
        return torch.func.functional_call(model, dict(tensors), args, kwargs)

    try:
        with in_mode_of(loss, model):
            yield run
    finally:
        for module in model.modules():
            if isinstance(module, nn.RNNBase):  # it keeps a list of the weights that it was last called with
                for name, parameter in module.named_parameters(recurse=False):
                    setattr(module, name, parameter)
