"""Weights of the layers that follow a cut, solved for by least squares: recovery without training."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from autoprune.criteria.kept import KeptChannels, alive_positions
from autoprune.errors import SurgeryError, fault
from autoprune.recovery.least_squares import (
    Layer,
    Moments,
    best_change,
    channels_first,
    design,
    inputs_of,
    matrix_of,
    slices,
    weight_of,
)
from autoprune.task.data import Batch, Inputs, call, evaluating
from autoprune.trace.topology import Topology

#: Output positions of each sample that are looked at, at most.
POSITIONS = 32
#: Layers with more unknowns for each output are left alone: their equations would take gigabytes.
MOST_UNKNOWNS = 6000
#: Numbers of inputs that go through a model at once, at most, and of the reference's outputs that are held.
_JOINED, _HELD = 2**24, 2**26


@dataclass(slots=True, kw_only=True)
class _Target:
    """Outputs that a layer is to give. where: their flat positions, [N, P]. size: of the whole output. values: [N, P, O]."""

    where: Tensor
    size: tuple[int, ...]
    values: Tensor


@dataclass(slots=True, eq=False, kw_only=True)
class _Job:
    """One layer to solve for.

    layer: in the cut model. source: the same in the reference. outputs: which of the source's output channels stay.
    scale: what the cut has multiplied each of them by. calls: in one forward of the reference. wide: numbers of
    targets that one sample makes. linear: its outputs are what its weight says. targets: (batch, call) -> its target.
    """

    layer: Layer
    source: Layer
    outputs: Tensor
    scale: Tensor
    calls: int = 0
    wide: int = 0
    linear: bool = True
    targets: dict[tuple[int, int], _Target] = field(default_factory=dict)


@torch.no_grad()
def reconstruct(  # noqa: PLR0913, PLR0917
    model: nn.Module,
    reference: nn.Module,
    topology: Topology,
    kept: KeptChannels,
    before: KeptChannels,
    batches: Iterable[Batch],
) -> int:
    """Change `model` in place"""
    jobs = _jobs(model, reference, topology, kept, before)
    parts = list(batches)
    if not jobs or not parts:
        return 0
    with _undisturbed(model), _undisturbed(reference):
        work = _Work(model, reference, parts)
        jobs = work.in_order(jobs)
        work.parts = list(_joined(parts))
        for window in _windows(jobs, sum(part.size for part in work.parts)):
            work.observe(window)
            work.solve(window)
    return work.samples


class _Work:
    def __init__(self, model: nn.Module, reference: nn.Module, parts: list[Batch]) -> None:
        self.model, self.reference, self.parts = model, reference, parts
        self.samples = 0
        self.part = 0
        self.queue: deque[_Job] = deque()
        self.seen: Counter[int] = Counter()
        self.settled = False
        self.halves = ()

    def _run(self, model, part) -> None:
        self.seen.clear()
        call(model, part.inputs)
        self.samples += part.size

    def in_order(self, jobs: list[_Job]) -> list[_Job]:
        order: list[_Job] = []

        def look(job: _Job, module, args, kwargs, output) -> None:
            if job.calls == 0:
                order.append(job)
            job.calls += 1
            x = args[0] if args else kwargs.get("input")
            job.linear = job.linear and _explained(job.source, x, output)
            if job.linear:
                job.wide += min(POSITIONS, math.prod(channels_first(job.source, output).shape[2:])) * len(job.outputs)

        with ExitStack() as stack:
            for job in jobs:
                stack.callback(job.source.register_forward_hook(partial(look, job), with_kwargs=True).remove)
            self._run(self.reference, self.parts[0])
        return [job for job in order if job.linear]

    def observe(self, jobs) -> None:
        def look(number: int, job: _Job, module, args, output) -> None:
            call_number = self.seen[number]
            self.seen[number] += 1
            if not isinstance(output, Tensor) or output.is_nested:
                return
            y = channels_first(job.source, output)
            size = tuple(y.shape[2:])
            where = _positions(len(y), math.prod(size), (number, self.part, call_number)).to(y.device)
            index = where.unsqueeze(1).expand(-1, y.shape[1], -1)
            values = y.flatten(2).gather(2, index).transpose(1, 2)[..., job.outputs] * job.scale
            job.targets[self.part, call_number] = _Target(where=where, size=size, values=values)

        with ExitStack() as stack:
            for number, job in enumerate(jobs):
                stack.callback(job.source.register_forward_hook(partial(look, number, job)).remove)
            for self.part, part in enumerate(self.parts):
                self._run(self.reference, part)

    def solve(self, jobs) -> None:
        self.queue = deque(jobs)
        with ExitStack() as stack:
            for number, job in enumerate(jobs):
                hook = job.layer.register_forward_pre_hook(partial(self._read, number, job), with_kwargs=True)
                stack.callback(hook.remove)
            while self.queue:
                first = self.queue[0]
                self._begin(first)
                self.settled = False
                for self.part, part in enumerate(self.parts):
                    self._run(self.model, part)
                if self.queue and self.queue[0] is first:
                    self.queue.popleft().targets.clear()

    def _begin(self, job) -> None:
        self.matrix = matrix_of(job.layer)
        self.bias = job.layer.bias if job.layer.bias is not None else None
        self.free = int(self.bias is not None and self.bias.requires_grad)
        rows = torch.nn.functional.pad(self.matrix, (0, 0, 0, self.free))
        self.halves = (Moments.none(rows), Moments.none(rows))

    def _read(self, number, job, module, args, kwargs) -> None:
        call_number = self.seen[number]
        self.seen[number] += 1
        if self.settled or not self.queue or self.queue[0] is not job:
            return
        x = args[0] if args else kwargs.get("input")
        target = job.targets.get((self.part, call_number))
        if target is None or not isinstance(x, Tensor) or x.is_nested:
            self.settled = True
            return
        self._gather(job, channels_first(job.layer, x), target)
        if self.part == len(self.parts) - 1 and self.seen[number] == job.calls:
            _settle(job.layer, self.halves, self.free)
            self.queue.popleft().targets.clear()
            self.settled = len(self.parts) > 1 or job.calls > 1
            if self.queue and not self.settled:
                self._begin(self.queue[0])

    def _gather(self, job, x, target) -> None:
        values = target.values.double()
        for half, some in slices(len(x), target.where.shape[1] * self.matrix.shape[1] * len(self.matrix)):
            rows = design(job.layer, x[some], target.where[some], target.size).flatten(1, 2)
            missing = values[some].flatten(0, 1)
            if self.bias is not None:
                missing = missing - self.bias.double()
            missing = missing.unflatten(1, (len(self.matrix), -1)).transpose(0, 1) - torch.bmm(rows, self.matrix)
            if self.free:
                rows = torch.nn.functional.pad(rows, (0, 1), value=1.0)
            self.halves[(half + self.part) % 2].add(rows, missing)


def _settle(layer, halves, free) -> None:
    change = best_change(halves, free)
    if change is None:
        return
    old = matrix_of(layer)
    unknowns = old.shape[1]
    weight = weight_of(layer, old + change[:, :unknowns])
    bias = layer.bias.double() + change[:, unknowns].flatten() if free else None
    # rounded
    backup = layer.weight.detach().clone()
    layer.weight.copy_(weight)
    done = matrix_of(layer) - old
    if free:
        rounded = bias.to(layer.bias.dtype)
        done = torch.cat([done, (rounded.double() - layer.bias.double()).view(len(old), 1, -1)], 1)
    whole = halves[0] + halves[1]
    if whole.error(done) < whole.missing:
        if free:
            layer.bias.copy_(rounded)
    else:
        layer.weight.copy_(backup)


def _explained(layer, x, output) -> bool:
    if not isinstance(x, Tensor) or not isinstance(output, Tensor) or x.is_nested or output.is_nested:
        return False
    y = channels_first(layer, output)[:4]
    x = channels_first(layer, x)[:4]
    size = tuple(y.shape[2:])
    where = _positions(len(y), math.prod(size), (0,)).to(y.device)
    matrix = matrix_of(layer)
    got = torch.bmm(design(layer, x, where, size).flatten(1, 2), matrix).transpose(0, 1).flatten(1)
    if layer.bias is not None:
        got = got + layer.bias.double()
    index = where.unsqueeze(1).expand(-1, y.shape[1], -1)
    wanted = y.flatten(2).gather(2, index).transpose(1, 2).flatten(0, 1).double()
    return bool((got - wanted).abs().max() <= 0.02 * wanted.abs().max())


def _positions(samples: int, positions: int, seed) -> Tensor:
    if positions <= POSITIONS:
        return torch.arange(positions).expand(samples, -1)
    generator = torch.Generator().manual_seed(hash(seed) % 2**63)
    return torch.randint(positions, (samples, POSITIONS), generator=generator)


def _windows(jobs, samples):
    window, held = [], 0
    for job in jobs:
        if window and held + job.wide * samples > _HELD:
            yield window
            window, held = [], 0
        window.append(job)
        held += job.wide * samples
    if window:
        yield window


def _joined(batches):
    run = []
    for batch in batches:
        if run and not (
            isinstance(batch.inputs, Tensor)
            and isinstance(run[0].inputs, Tensor)
            and batch.inputs.shape[1:] == run[0].inputs.shape[1:]
        ):
            yield Batch(
                inputs=torch.cat([b.inputs for b in run]) if len(run) > 1 else run[0].inputs,
                targets=(),
                size=sum(b.size for b in run),
            )
            run = []
        run.append(batch)
    if run:
        yield Batch(
            inputs=torch.cat([b.inputs for b in run]) if len(run) > 1 else run[0].inputs,
            targets=(),
            size=sum(b.size for b in run),
        )


@contextmanager
def _undisturbed(model):
    with evaluating(model):
        yield


def _jobs(model, reference, topology, kept, before):
    now, then = alive_positions(topology, kept), alive_positions(topology, before)
    sources = dict(reference.named_modules())
    uses = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)
    inside = tuple(f"{n}." for n, m in model.named_modules() if isinstance(m, nn.MultiheadAttention))
    jobs = []
    for name, layer in model.named_modules():
        source = sources.get(name)
        if not isinstance(layer, Layer) or not isinstance(source, Layer) or name.startswith(inside):
            continue
        if inputs_of(layer) == inputs_of(source):
            continue
        if not _own(layer, uses):
            continue
        weight = f"{name}.weight" if name else "weight"

        def relative(axis):
            key = (weight, axis)
            n, t = now.get(key), then.get(key)
            size = source.weight.shape[axis]
            if n is None:
                return torch.arange(size)
            return n if t is None else torch.searchsorted(t, n)

        transposed = not isinstance(layer, nn.Linear) and layer.transposed
        if transposed:
            groups = (relative(0) // (source.in_channels // source.groups)).unique()
            per = source.weight.shape[1]
            outputs = (groups[:, None] * per + relative(1)).flatten()
        else:
            outputs = relative(0)
        if inputs_of(layer) // getattr(layer, "groups", 1) * math.prod(layer.weight.shape[2:]) > MOST_UNKNOWNS:
            continue
        scale = torch.ones(len(outputs))
        jobs.append(_Job(layer=layer, source=source, outputs=outputs, scale=scale))
    return jobs


def _own(layer, uses) -> bool:
    w = layer._parameters.get("weight")
    return (
        w is not None
        and w.requires_grad
        and w.is_floating_point()
        and uses[id(w)] == 1
        and (layer.bias is None or uses[id(layer.bias)] == 1)
    )
