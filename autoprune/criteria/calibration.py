"""Passes over the calibration batches; each serves every criterion that needs its signals."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from autoprune.criteria.layer_inputs import InputPositions, LayerInput, capture_inputs
from autoprune.errors import ConfigurationError, error_message
from autoprune.task.data import Batch, Inputs, call, eval_mode
from autoprune.task.modes import in_mode_of
from autoprune.task.nested import arguments

Key = TypeVar("Key", str, int)
Loss = Callable[[object, object], Tensor]

#: Rademacher probes for each batch that estimate the diagonal of the Hessian.
HESSIAN_PROBES = 4
#: Parts of the weights that produce channels, probed one after the other: other parts add no noise.
HESSIAN_PARTS = 8
#: Cost of a probe of all parts, in forwards and backwards of the whole model: each part needs some of the backward.
HESSIAN_PARTS_COST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationStatistics:
    """Moments of a layer's input for each input channel, over batch and positions. All but count are float [channels].

    Attributes:
        count: Entries of each channel.
        mean_abs: Mean of |x|.
        mean_square: Mean of x squared.
        mean: Mean of x.
        variance: Variance of x.
        positive: Share of entries above 0.
        axis: Axis of the weight that reads the channels.
        parts: Inputs of each third of the rows of an attention weight that holds queries, keys and values.
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
        """Compute the statistics of values.

        Args:
            values: Input [channels, entries].
            axis: Axis of the weight that reads the channels.

        Returns:
            The statistics.
        """
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
        """Compute Euclidean norms over the entries of the input.

        There are several shares where equal shares of the weight's rows read different channels: groups of a
        convolution, or queries, keys and values.

        Args:
            size: Length of the weight's axis.

        Returns:
            Norms [shares of the weight's rows, size].
        """
        norms = [(part.mean_square * part.count).sqrt() for part in self.parts or (self,)]
        return torch.cat(norms).reshape(-1, size)

    def merged(self, other: ActivationStatistics) -> ActivationStatistics:
        """Merge with the statistics of other entries; precise where the mean is far from 0.

        Args:
            other: Statistics of the other entries.

        Returns:
            Statistics of all entries.
        """
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


@torch.no_grad()
def measure_activations(model: nn.Module, batches: Sequence[Batch]) -> dict[str, ActivationStatistics]:
    """Measure the inputs of weights in one forward, for the weights of layer_inputs.capture_inputs.

    Args:
        model: Any model.
        batches: Calibration batches on the model's device.

    Returns:
        Name of a weight -> statistics of its input.
    """
    found: dict[str, ActivationStatistics] = {}
    parts: dict[str, dict[int, ActivationStatistics]] = {}

    def see(read: LayerInput) -> None:
        values = read.x.detach().movedim(read.axis, 0).flatten(1).float()
        if values.shape[1] > 0:
            statistics = ActivationStatistics.of(values, read.weight_axis)
            _join(found, read.weight, statistics)
            for part in read.parts:
                _join(parts.setdefault(read.weight, {}), part, statistics)

    with eval_mode(model), capture_inputs(model, see):
        for batch in batches:
            call(model, batch.inputs)
    of_parts = {name: tuple(values for _, values in sorted(each.items())) for name, each in parts.items()}
    return {name: replace(statistics, parts=of_parts.get(name, ())) for name, statistics in found.items()}


def _join(found: dict[Key, ActivationStatistics], key: Key, statistics: ActivationStatistics) -> None:
    found[key] = found[key].merged(statistics) if key in found else statistics


@torch.enable_grad()
def measure_gradients(
    model: nn.Module,
    batches: Sequence[Batch],
    loss: Loss,
    names: Sequence[str],
    readings: Mapping[str, Sequence[InputPositions]],
) -> tuple[dict[str, list[Tensor]], dict[str, dict[str, Tensor]]]:
    """Measure gradients in one forward and backward, in the mode of the loss, with the model's running statistics.

    Args:
        model: Any model.
        batches: Calibration batches on the model's device.
        loss: Loss of the task.
        names: Names of parameters.
        readings: Name of a weight -> the groups that it reads.

    Returns:
        Name of a parameter that the loss reaches -> its gradients, batch by batch; and group -> weight -> mean over
        samples of InputPositions.products, [remaining channels].
    """
    of = dict(model.named_parameters())
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    products = _Products(readings)
    seen: list[LayerInput] = []

    def see(read: LayerInput) -> None:
        if read.weight in readings and read.x.requires_grad:
            seen.append(read)

    # The inputs of layers need gradients even where the weights before them are frozen.
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
    """Sum of InputPositions.products over batches and over the uses of a layer."""

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
    """Probes for the diagonal of the Hessian.

    Attributes:
        signs: (name, number) -> +1 and -1, in the parameter's shape.
        parts: Name of a parameter -> its part, 0 by default. Parameters of one part are probed together; other parts
            add no noise.
        sized: Whether the signs are multiplied by the weights. Sums of h w^2 over many weights have less noise then, as
            the noise of each term scales with its weight; single small weights have more.
    """

    signs: Callable[[str, int], Tensor]
    parts: Mapping[str, int] = field(default_factory=dict)
    sized: bool = False

    def of(self, name: str, number: int, weight: Tensor) -> Tensor:
        """Compute a probe for a parameter.

        Args:
            name: Name of the parameter.
            number: Number of the probe.
            weight: The parameter.

        Returns:
            Tensor of the parameter's shape; 0 where the weight is 0.
        """
        return self.signs(name, number).to(weight) * (weight if self.sized else weight != 0)

    def split(self, gradients: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Split parameters into the parts that are probed together.

        Args:
            gradients: Name of a parameter -> its gradient.

        Returns:
            The gradients, part by part.
        """
        found: dict[int, dict[str, Tensor]] = {}
        for name, gradient in gradients.items():
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
    """Estimate the diagonal of the Hessian of the mean loss over batches.

    Hutchinson's estimator, the mean over probes z of z * (H z) / z^2, in the mode of the loss; one forward, one
    backward and HESSIAN_PROBES backwards through the backward for each batch and part. Weights of exactly 0 are left
    out of the probes and are 0 in the result: their removal costs nothing.

    Args:
        model: Any model.
        batches: Calibration batches on the model's device.
        loss: Loss of the task.
        names: Names of parameters.
        probes: Probes to use.

    Returns:
        Name of a parameter that the loss reaches -> diagonal, in the parameter's shape.

    Raises:
        ConfigurationError: For a model without second derivatives.
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
            for probe, chosen in itertools.product(numbers, probes.split(reached)):
                z = {name: probes.of(name, probe, of[name].detach()) for name in chosen}
                for name, product in _hessian_times(z, chosen, of).items():
                    found[name] += z[name].to(found[name].dtype) * product / (HESSIAN_PROBES * len(batches))
    if not probes.sized:
        return found
    return {name: _over_square(changes, of[name].detach().to(changes.dtype)) for name, changes in found.items()}


def _wide(tensor: Tensor) -> torch.dtype:
    """Float32, or float64 for float64: squares of half precision overflow."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _over_square(changes: Tensor, weight: Tensor) -> Tensor:
    """Divide the changes by weight^2; 0 where the square is not a normal number."""
    square = weight.square()
    normal = square >= torch.finfo(square.dtype).tiny
    return torch.where(normal, changes / torch.where(normal, square, 1.0), 0.0)


def _hessian_times(
    z: Mapping[str, Tensor], gradients: Mapping[str, Tensor], of: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Compute H z by a backward through the gradients; parameters that are missing in the result have 0."""
    curved = [name for name, gradient in gradients.items() if gradient.requires_grad]
    if not curved:
        return {}
    try:
        products = torch.autograd.grad(
            [gradients[name] for name in curved],
            [of[name] for name in gradients],
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
    return {name: product for name, product in zip(gradients, products, strict=True) if product is not None}


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
    """Provide a function that runs a model with other tensors in place of its parameters, in the mode of the loss.

    Args:
        model: Any model; its parameters do not change.
        loss: Loss of the task.

    Yields:
        Function of tensors by name and inputs; returns the model's outputs.
    """

    def run(tensors: Mapping[str, Tensor], inputs: Inputs) -> object:
        args, kwargs = arguments(inputs)
        return torch.func.functional_call(model, dict(tensors), args, kwargs)

    try:
        with in_mode_of(loss, model):
            yield run
    finally:
        for module in model.modules():
            if isinstance(module, nn.RNNBase):  # which lists the weights of its last call
                for name, parameter in module.named_parameters(recurse=False):
                    setattr(module, name, parameter)
