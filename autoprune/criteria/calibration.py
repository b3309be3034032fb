"""Passes over the calibration batches: each serves every criterion that asks for what it gathers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from autoprune.errors import ConfigurationError, fault
from autoprune.task.data import Batch, call, evaluating

Loss = Callable[[object, object], Tensor]

#: Rademacher probes for each batch that estimate the diagonal of the Hessian.
PROBES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationStatistics:
    """Moments of one reading layer's input, per input channel, over batch and positions.

    count: entries of each channel. mean_abs: mean of |x|. mean_square: mean of x squared. mean, variance: of x.
    positive: share of entries above 0. All but count are float [channels].
    """

    count: int
    mean_abs: Tensor
    mean_square: Tensor
    mean: Tensor
    variance: Tensor
    positive: Tensor

    @classmethod
    def of(cls, values: Tensor) -> ActivationStatistics:
        """Of values [channels, entries]."""
        mean = values.mean(1)
        return cls(
            count=values.shape[1],
            mean_abs=values.abs().mean(1),
            mean_square=values.square().mean(1),
            mean=mean,
            variance=(values - mean.unsqueeze(1)).square().mean(1),
            positive=(values > 0).float().mean(1),
        )

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
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
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
def activations(model: nn.Module, batches: Sequence[Batch]) -> dict[str, ActivationStatistics]:
    """Name of a weight -> what convolutions and linear layers read by it, per input channel; one forward."""
    found: dict[str, ActivationStatistics] = {}

    def see(name: str, x: Tensor, axis: int) -> None:
        values = x.detach().movedim(axis, 0).flatten(1).float()
        if values.shape[1] > 0:
            statistics = ActivationStatistics.of(values)
            found[name] = found[name].joined(statistics) if name in found else statistics

    with evaluating(model), _watching(model, see):
        for batch in batches:
            call(model, batch.inputs)
    return found


@torch.enable_grad()
def gradients(
    model: nn.Module,
    batches: Sequence[Batch],
    loss: Loss,
    names: Sequence[str],
    readings: Mapping[str, Sequence[Reading]],
) -> tuple[dict[str, list[Tensor]], dict[str, dict[str, Tensor]]]:
    """One forward and backward, in eval mode: the numbers that the model has, not those of one batch's statistics.

    names: of parameters. readings: name of a weight -> the groups that it reads.
    Gives the gradients of the named parameters that the loss reaches, batch by batch; and group -> weight ->
    mean over samples of Reading.products, [channels alive].
    """
    of = dict(model.named_parameters())
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    products = _Products(readings)
    seen: list[tuple[str, Tensor, int]] = []

    def see(name: str, x: Tensor, axis: int) -> None:
        if name in readings and x.requires_grad:
            seen.append((name, x, axis))

    # What the layers read has a gradient whether or not weights before it are frozen.
    with evaluating(model), _unfrozen(model, bool(readings)), _watching(model, see):
        for batch in batches:
            seen.clear()
            value = loss(call(model, batch.inputs), batch.targets)
            wanted = [*(of[name] for name in names), *(x for _, x, _ in seen)]
            if not wanted or not value.requires_grad:
                continue
            each = torch.autograd.grad(value, wanted, allow_unused=True)
            for name, gradient in zip(names, each, strict=False):
                found[name] += [] if gradient is None else [gradient]
            for (name, x, axis), gradient in zip(seen, each[len(names) :], strict=True):
                products.add(name, x, gradient, axis)
    return {name: values for name, values in found.items() if values}, products.means()


class _Products:
    """Adds up Reading.products over batches and over the uses of a layer."""

    def __init__(self, readings: Mapping[str, Sequence[Reading]]) -> None:
        self._readings = readings
        self._totals: dict[tuple[str, str], tuple[Tensor, int]] = {}

    def add(self, name: str, x: Tensor, gradient: Tensor | None, axis: int) -> None:
        if gradient is None:
            return
        for reading in self._readings[name]:
            products = reading.products(x, gradient, axis)
            total, samples = self._totals.get((reading.group, name), (torch.zeros_like(products[0]), 0))
            self._totals[reading.group, name] = (total + products.sum(0), samples + len(products))

    def means(self) -> dict[str, dict[str, Tensor]]:
        """Group -> weight -> mean over samples."""
        found: dict[str, dict[str, Tensor]] = {}
        for (group, name), (total, samples) in self._totals.items():
            found.setdefault(group, {})[name] = total / samples
        return found


@torch.enable_grad()
def hessian(
    model: nn.Module,
    batches: Sequence[Batch],
    loss: Loss,
    names: Sequence[str],
    signs: Callable[[str, int], Tensor],
) -> dict[str, Tensor]:
    """Diagonal of the Hessian of the mean loss over batches, for the named parameters that the loss reaches.

    Hutchinson's estimator, the mean over probes z of z * (H z), in eval mode; one forward, one backward and PROBES
    backwards through the backward for each batch. signs: (name, number) -> a probe of +1 and -1, of the parameter's
    shape. Weights of exactly 0 are left out of the probes, and 0 in the result: nothing is lost with them.
    Raises ConfigurationError for a model that can not be differentiated twice.
    """
    of = dict(model.named_parameters())
    found: dict[str, Tensor] = {}
    # The fused kernels of attention have no second derivative.
    with evaluating(model), sdpa_kernel(SDPBackend.MATH):
        for number, batch in enumerate(batches):
            value = loss(call(model, batch.inputs), batch.targets)
            if not names or not value.requires_grad:
                continue
            first = torch.autograd.grad(value, [of[name] for name in names], create_graph=True, allow_unused=True)
            reached = {name: gradient for name, gradient in zip(names, first, strict=True) if gradient is not None}
            for name in reached:
                found.setdefault(name, torch.zeros_like(of[name]))
            for probe in range(number * PROBES, (number + 1) * PROBES):
                z = {name: signs(name, probe).to(of[name]) * (of[name].detach() != 0) for name in reached}
                for name, product in _hessian_times(z, reached, of).items():
                    found[name] += z[name] * product / (PROBES * len(batches))
    return found


def _hessian_times(
    z: Mapping[str, Tensor], gradients: Mapping[str, Tensor], of: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """H z by a backward through the gradients; what is not in the result is 0."""
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
            fault("the signal 'hessian'", "be gathered on a model that has second derivatives", str(error))
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
def _watching(model: nn.Module, see: Callable[[str, Tensor, int], None]) -> Iterator[None]:
    """Call `see` with what each convolution and linear layer reads: name of its weight, input, channel axis.

    A weight that several layers share has the first one's name, as among the model's parameters.
    """

    def watch(name: str, axis: int) -> Callable[[nn.Module, tuple[object, ...], Mapping[str, object]], None]:
        def hook(module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
            del module
            x = args[0] if args else kwargs.get("input")
            if isinstance(x, Tensor):
                # Sequences without their padding, as torch's encoder makes them: their entries one after the other.
                see(name, torch.cat([part.flatten(0, -2) for part in x.unbind()]) if x.is_nested else x, axis)

        return hook

    names = {id(parameter): name for name, parameter in model.named_parameters()}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            own = f"{name}.weight" if name else "weight"
            axis = -1 if isinstance(module, nn.Linear) else 1 - module.weight.ndim
            hook = watch(names.get(id(module.weight), own), axis)
            handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
