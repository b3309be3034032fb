"""Recover without training: solve for the weights of the layers behind a cut by least squares."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from autoprune.plan.kept import KeptChannels
from autoprune.plan.recovery import RecoveryPlan
from autoprune.records.work import Work
from autoprune.recovery.batch_norm import keeps_statistics, recalibrate
from autoprune.recovery.least_squares import Layer, channels_first, patches, refit, select_places, unknowns_of
from autoprune.recovery.step import CutMade, RecoveryState, RecoveryStep, first_samples
from autoprune.structure.topology import Topology
from autoprune.surgery.positions import alive_positions
from autoprune.task.data import Batch, Inputs, call, eval_mode
from autoprune.task.nested import first_tensor

#: Most rows of a layer: each holds the outputs of all channels at one position of one sample.
ROWS = 2**14
#: Layers with more unknowns per output are left alone: their equations would take gigabytes and minutes.
MOST_UNKNOWNS = 5000
#: Most entries of the largest output of any module, and of all targets together: 1 GiB in float32.
_MAX_ENTRIES = 2**28
#: Forwards of the supported layers; an overridden forward is not among them.
_FORWARDS = frozenset(
    kind.forward
    for kind in (
        nn.Linear,
        *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
        *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A layer in the cut model, the same layer in the source model, and the outputs of the latter that stay."""

    layer: Layer
    source: Layer
    outputs: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """The outputs that a layer should give.

    shape: samples and positions of its whole output. places: sampled positions, int64 [R] for each axis of the shape.
    values: [R, outputs].
    """

    shape: tuple[int, ...]
    places: tuple[Tensor, ...]
    values: Tensor


class Reconstruction(RecoveryStep):
    """Solve the layers behind each cut by least squares."""

    def __init__(self, plan: RecoveryPlan) -> None:
        self.settings = plan.reconstruction

    def after_cut(self, state: RecoveryState, cut: CutMade) -> None:
        """Solve for the weights of each layer that reads fewer channels."""
        with state.timer.phase("reconstruct"):
            batches = first_samples(state.task, self.settings.samples)
            seen = reconstruct(state.model, cut.source, cut.topology, cut.kept, cut.before, batches)
            state.work += Work(forward=seen)


@torch.no_grad()
def reconstruct(
    model: nn.Module,
    source: nn.Module,
    topology: Topology,
    kept: KeptChannels,
    before: KeptChannels,
    batches: Iterable[Batch],
) -> int:
    """Solve for the weights of each layer that reads fewer channels, so that its outputs are those before the cut.

    A layer is a linear layer or a convolution. In the order of the forward, each gets the weight and bias W that
    minimise |Y - X W|^2 + ridge |W - W of the cut|^2. Y is the output of the source's layer at the channels that stay.
    X is the input of the cut model's layer, behind layers that are solved for already. At most ROWS outputs are used.
    Running statistics of norms are re-estimated just before the layers behind them are solved for, so that
    recalibration
    afterwards does not change the inputs of these layers. All samples pass at once: batches are used whose tensors fit
    together with those of the first one, as many samples as the largest output of a module leaves room for.

    Left alone: layers whose inputs have not changed, depthwise ones among them; layers with more than MOST_UNKNOWNS
    unknowns; weights that are frozen, shared, computed (weight norm) or rescaled by the cut; layers with hooks that
    change their output or with an overridden forward; modules that are not called exactly once in a forward, and so the
    weights inside nn.MultiheadAttention, nn.LSTM and the like; and layers for which no solution helps, see `refit`.
    Source: He et al., Channel Pruning for Accelerating Very Deep Neural Networks, 2017; He et al., AMC, 2018.

    Args:
        model: Model cut from `source` to `kept`; changed in place.
        source: Model with the channels `before`.
        topology: Proved groups of the dense model.
        kept: Channels of the cut model, in dense indices.
        before: Channels of the source, in dense indices.
        batches: Samples, on the device of the models.

    Returns:
        Number of samples passed forward through either model.
    """
    jobs = _jobs(model, source, topology, kept, before)
    parts = list(batches)
    if not jobs or sum(part.size for part in parts) < 2:  # one half of the samples checks the other
        return 0
    with eval_mode(model), eval_mode(source):
        once, largest = _first_look(source, parts[0])
        inputs, samples = _joined(parts, _MAX_ENTRIES // max(1, largest))
        jobs = {name: job for name, job in jobs.items() if name in once}
        if not jobs or samples < 2:
            return parts[0].size
        targets = _targets(source, inputs, jobs)
        with _refreshed([module for name, module in model.named_modules() if name in once], samples):
            _solve(model, inputs, jobs, targets)
    return parts[0].size + 2 * samples


def _jobs(
    model: nn.Module, source: nn.Module, topology: Topology, kept: KeptChannels, before: KeptChannels
) -> dict[str, _Job]:
    """Layers that read fewer channels than in the source, by name."""
    sources = dict(source.named_modules())
    uses = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    now, then = alive_positions(topology, kept), alive_positions(topology, before)
    rescaled = _rescaled(topology, kept, before)

    def stay(tensor: str, axis: int, size: int) -> Tensor:
        alive, known = now.get((tensor, axis)), then.get((tensor, axis))
        if alive is None:
            return torch.arange(size)
        return alive if known is None else torch.searchsorted(known, alive)

    jobs: dict[str, _Job] = {}
    for name, layer in model.named_modules():
        was = sources.get(name)
        if not (isinstance(layer, Layer) and isinstance(was, Layer) and _is_plain(layer, uses)):
            continue
        if unknowns_of(layer) >= unknowns_of(was) or unknowns_of(layer) > MOST_UNKNOWNS:
            continue
        prefix = f"{name}." if name else ""
        if rescaled.isdisjoint((f"{prefix}weight", f"{prefix}bias")):
            weight = f"{prefix}weight"
            outputs = stay(weight, 0, len(was.weight))
            if not isinstance(was, nn.Linear) and was.transposed:
                each = was.weight.shape[1]
                groups = (outputs // (was.in_channels // was.groups)).unique()
                outputs = (groups.unsqueeze(1) * each + stay(weight, 1, each)).flatten()
            jobs[name] = _Job(layer=layer, source=was, outputs=outputs)
    return jobs


def _rescaled(topology: Topology, kept: KeptChannels, before: KeptChannels) -> set[str]:
    """Names of the tensors whose values this cut has multiplied."""
    now, then = ({**topology.widths, **of.widths} for of in (kept, before))
    return {
        values.tensor for group in topology.groups for values in group.rescaled if now[group.name] < then[group.name]
    }


def _is_plain(layer: Layer, uses: Mapping[int, int]) -> bool:
    """Whether the output follows from the layer's own trained weight and bias, which no other module uses."""
    weight = layer._parameters.get("weight")
    own = [parameter for parameter in layer._parameters.values() if parameter is not None]
    return (
        weight is not None
        and weight.requires_grad
        and weight.is_floating_point()
        and all(uses[id(parameter)] == 1 for parameter in own)
        and getattr(layer.forward, "__func__", None) in _FORWARDS
        and not layer._forward_hooks
    )


def _first_look(model: nn.Module, batch: Batch) -> tuple[set[str], int]:
    """Names of the modules that one forward calls exactly once, and the size of the largest output for one sample."""
    calls: Counter[str] = Counter()
    largest = 0

    def look(name: str, module: nn.Module, args: object, output: object) -> None:
        nonlocal largest
        del module, args
        calls[name] += 1
        tensor = first_tensor(output)
        if tensor is not None:
            largest = max(largest, tensor.numel())

    with ExitStack() as stack:
        for name, module in model.named_modules():
            stack.callback(module.register_forward_hook(partial(look, name)).remove)
        call(model, batch.inputs)
    return {name for name, count in calls.items() if count == 1}, math.ceil(largest / max(1, batch.size))


def _joined(parts: Sequence[Batch], most: int) -> tuple[Inputs, int]:
    """Join batches to one: the first, and further ones whose tensors fit, up to `most` samples. Also the number of
    samples.
    """
    first = _tensors(parts[0])
    chosen, samples = [first], parts[0].size
    for part in parts[1:] if first else ():
        tensors = _tensors(part)
        if samples + part.size <= most and _layout(tensors) == _layout(first):
            chosen.append(tensors)
            samples += part.size
    inputs = parts[0].inputs
    if len(chosen) == 1:
        return inputs, samples
    whole = {key: torch.cat([tensors[key] for tensors in chosen]) for key in first}
    if isinstance(inputs, Mapping):
        return whole, samples
    return tuple(whole.values()) if isinstance(inputs, tuple) else whole[""], samples


def _tensors(batch: Batch) -> dict[str, Tensor]:
    """The inputs by name or place; none at all where one of them does not have the samples along its first axis."""
    inputs = batch.inputs
    named: Mapping[str, object] = {"": inputs} if isinstance(inputs, Tensor) else {}
    if isinstance(inputs, Mapping | tuple):
        named = inputs if isinstance(inputs, Mapping) else {str(place): x for place, x in enumerate(inputs)}
    found = {key: x for key, x in named.items() if isinstance(x, Tensor) and x.ndim and len(x) == batch.size}
    return found if len(found) == len(named) else {}


def _layout(tensors: Mapping[str, Tensor]) -> list[tuple[str, torch.Size, torch.dtype]]:
    return [(key, x.shape[1:], x.dtype) for key, x in tensors.items()]


def _targets(source: nn.Module, inputs: Inputs, jobs: Mapping[str, _Job]) -> dict[str, _Target]:
    """The outputs of the source's layers at the channels that stay."""
    rows = min(ROWS, max(1, _MAX_ENTRIES // sum(len(job.outputs) for job in jobs.values())))
    targets: dict[str, _Target] = {}

    def look(name: str, module: nn.Module, args: object, output: object) -> None:
        del module, args
        if isinstance(output, Tensor) and not output.is_nested and output.numel():
            job = jobs[name]
            y = channels_first(job.source, output)
            shape = (len(y), *y.shape[2:])
            places = _places(shape, rows, y.device)
            values = select_places(y, places).index_select(1, job.outputs.to(y.device))
            targets[name] = _Target(shape=shape, places=places, values=values)

    with ExitStack() as stack:
        for name, job in jobs.items():
            stack.callback(job.source.register_forward_hook(partial(look, name)).remove)
        call(source, inputs)
    return targets


def _places(shape: tuple[int, ...], rows: int, device: torch.device) -> tuple[Tensor, ...]:
    """At most `rows` random positions of a grid, the same for the same shape."""
    total = math.prod(shape)
    flat = torch.arange(total)
    if total > rows:
        flat = torch.randperm(total, generator=torch.Generator().manual_seed(0))[:rows]
    return torch.unravel_index(flat.to(device), shape)


@contextmanager
def _refreshed(modules: Sequence[nn.Module], samples: int) -> Iterator[None]:
    """Re-estimate the statistics of each norm just before it runs."""

    def look(norm: nn.Module, args: tuple[object, ...]) -> None:
        if not norm.training and args:  # recalibrate itself runs it in training mode
            recalibrate(norm, [Batch(inputs=args, targets=None, size=samples)])

    with ExitStack() as stack:
        for norm in filter(keeps_statistics, modules):
            stack.callback(norm.register_forward_pre_hook(look).remove)
        yield


def _solve(model: nn.Module, inputs: Inputs, jobs: Mapping[str, _Job], targets: Mapping[str, _Target]) -> None:
    """Run one forward of the cut model, in which each layer is solved for just before it runs."""

    def look(name: str, module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        del module
        target, layer = targets[name], jobs[name].layer
        x = args[0] if args else kwargs.get("input")
        if isinstance(x, Tensor) and not x.is_nested:
            x = channels_first(layer, x)
            read = patches(layer, x, target.shape[1:])
            # If heads or channels are folded into the samples, the cut model has fewer samples here.
            if (len(read), *read.shape[2 : 1 + len(target.shape)]) == target.shape:
                refit(layer, read, target.places, target.values)

    with ExitStack() as stack:
        for name in targets:
            stack.callback(jobs[name].layer.register_forward_pre_hook(partial(look, name), with_kwargs=True).remove)
        call(model, inputs)
