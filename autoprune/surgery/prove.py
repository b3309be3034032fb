"""The proof gate: a group is offered only if a cut and a mask of it compute the same on the example inputs."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.criteria.kept import KeptChannels
from autoprune.errors import TraceError
from autoprune.surgery.cut import cut
from autoprune.surgery.mask import mask
from autoprune.surgery.remedies import Remedy, remedies
from autoprune.task.data import Inputs, call
from autoprune.trace.topology import Block, ChannelGroup, Topology
from autoprune.trace.trace import trace
from autoprune.trace.tracer import Tracer, plain_operators, run, tensors_in

#: Seconds of proving after which what is not yet proved is withdrawn.
PROOF_SECONDS = 120.0


def prove(
    model: nn.Module, topology: Topology, example_inputs: Inputs, *, seed: int = 0, seconds: float = PROOF_SECONDS
) -> Topology:
    """The topology with every group and block withdrawn that a cut would break.

    Three draws: every group loses a random half, then another random number, twice (widths that have to stay equal
    to each other pass the first and fail the others). Groups that share positions, such as heads and head width, or
    a number of a module, can be right together and wrong alone, so they are drawn apart first. Many groups are drawn
    at once, and halved where that differs or crashes: a few forwards prove a sound model, and some log2(groups) more
    find each unsound group. Both models run in eval mode on the example inputs, in float64 so that the comparison can
    be strict; a model that only runs in its own precision is compared in that.

    seconds: what is not proved by then is withdrawn, so that a proof always ends.
    """
    if not topology.groups and not topology.blocks:
        return topology
    return _proved(topology, _Bench.of(model, example_inputs), seed, time.monotonic() + seconds)[0]


def survey(model: nn.Module, example_inputs: Inputs, *, seed: int = 0, seconds: float = PROOF_SECONDS) -> Topology:
    """Trace and prove a model; what every study starts from.

    Attention that takes its width from its input (`B, N, C = x.shape`) only runs when both shrink alike. Where heads
    could not be proved for that, the model is traced once more with the two tied, and the topology that reaches the
    smaller model is given. Raises TraceError when the model can not be copied or run.
    """
    topology = trace(model, example_inputs)
    if not topology.groups and not topology.blocks:
        return topology
    bench, deadline = _Bench.of(model, example_inputs), time.monotonic() + seconds
    found, reasons = _proved(topology, bench, seed, deadline)
    tied = frozenset(module for name in reasons for module in topology.group(name).reshaped)
    if not tied:
        return found
    again, _ = _proved(trace(model, example_inputs, tied=tied), bench, seed, deadline)
    return again if _half(again) < _half(found) else found


def _half(topology: Topology) -> tuple[int, int]:
    """Cost with every group halved."""
    cost = topology.cost({group.name: group.channels // 2 for group in topology.groups})
    return cost.multiply_adds, cost.parameters


def _proved(topology: Topology, bench: _Bench, seed: int, deadline: float) -> tuple[Topology, dict[str, str]]:
    """The topology with what is wrong withdrawn, and the reasons by group."""
    proof = _Proof(topology, bench, seed, deadline)
    for names in _apart(topology):
        proof.settle(names)
    proof.settle_together()
    return proof.with_blocks(proof.topology.without(proof.reasons)), proof.reasons


def _apart(topology: Topology) -> list[list[str]]:
    """Group names in sets, no two of a set on the same position of an axis or in the same number of a module."""
    shared: dict[str, set[str]] = {name: set() for name in topology.widths}
    numbers = [attribute.runs for group in topology.groups for attribute in group.attributes]
    together = [{name for run in runs for name in run.groups} for runs in numbers]
    together += [set(run.groups) for runs in topology.runs.values() for run in runs]
    for names in together:
        for name in names & shared.keys():
            shared[name] |= names - {name}
    sets: list[list[str]] = []
    for name in topology.widths:
        free = next((names for names in sets if not shared[name].intersection(names)), None)
        if free is None:
            sets.append([name])
        else:
            free.append(name)
    return sets


@dataclass(slots=True)
class _Proof:
    """One proof under way. reasons: groups that are withdrawn so far, and why."""

    topology: Topology
    bench: _Bench
    seed: int
    deadline: float
    reasons: dict[str, str] = field(default_factory=dict)
    learned: list[Remedy] = field(default_factory=list)
    draws: tuple[dict[str, tuple[int, ...]], ...] = field(init=False)

    def __post_init__(self) -> None:
        self.draws = tuple(
            {group.name: _keep(group, share, seed + number) for number, group in enumerate(self.topology.groups)}
            for share, seed in ((0.5, self.seed), (None, self.seed + 10_007), (None, self.seed + 20_011))
        )

    def fault(self, names: Sequence[str], topology: Topology | None = None) -> str | None:
        """Why these groups can not be cut together, None when they can."""
        if time.monotonic() > self.deadline:
            return "was not proved in the time that proving may take"
        for draw in self.draws:
            kept = KeptChannels(groups={name: draw[name] for name in names})
            reason = self.bench.difference(topology or self.topology, kept)
            if reason is not None:
                return reason
        return None

    def settle(self, names: Sequence[str]) -> None:
        """Find the groups of these that are wrong; together first, then half by half."""
        reason = self.fault(names) if names else None
        if reason is None:
            return
        if len(names) == 1:
            if not self._remedied(names[0]):
                self.reasons[names[0]] = self._explained(names[0], reason)
            return
        middle = len(names) // 2
        self.settle(names[:middle])
        self.settle(names[middle:])

    def settle_together(self) -> None:
        """What is right apart has to be right together; one by one, a group that is not is withdrawn."""
        left = [name for name in self.topology.widths if name not in self.reasons]
        if not left or self.fault(left) is None:
            return
        sound: list[str] = []
        for name in left:
            reason = self.fault([*sound, name])
            if reason is None or self._remedied(name, sound):
                sound.append(name)
            else:
                self.reasons[name] = self._explained(name, f"{reason} together with other groups")

    def _explained(self, name: str, reason: str) -> str:
        hint = self.topology.group(name).hint
        return f"{reason}; it {hint}" if hint else reason

    def _remedied(self, name: str, others: Sequence[str] = ()) -> bool:
        """Look for a change to a group that makes it right; what helped another group is tried first."""
        for remedy in [*self.learned, *remedies(self.topology.group(name))]:
            changed = remedy(self.topology.group(name))
            if changed is None:
                continue
            groups = tuple(changed if group.name == name else group for group in self.topology.groups)
            candidate = replace(self.topology, groups=groups)
            if self.fault([*others, name], candidate) is None:
                self.topology = candidate
                if remedy not in self.learned:
                    self.learned.append(remedy)
                return True
        return False

    def with_blocks(self, topology: Topology) -> Topology:
        """The topology with the blocks that can be dropped: the innermost of those that are proved."""
        proved: list[Block] = []
        left = list(topology.blocks)
        while left:
            inner = [block for block in left if not any(_inside(other, block) for other in left)]
            proved += self._droppable(topology, inner)
            left = [block for block in left if block not in inner and not any(_inside(b, block) for b in proved)]
        order = {block.name: number for number, block in enumerate(topology.blocks)}
        return replace(topology, blocks=tuple(sorted(proved, key=lambda block: order[block.name])))

    def _droppable(self, topology: Topology, blocks: Sequence[Block]) -> list[Block]:
        if not blocks or time.monotonic() > self.deadline:
            return []
        kept = KeptChannels(groups={}, dropped=tuple(block.name for block in blocks))
        if self.bench.difference(topology, kept) is None:
            return list(blocks)
        if len(blocks) == 1:
            return []
        middle = len(blocks) // 2
        return self._droppable(topology, blocks[:middle]) + self._droppable(topology, blocks[middle:])


def _inside(block: Block, other: Block) -> bool:
    return block != other and other.holds(block.name)


@dataclass(frozen=True, slots=True)
class _Bench:
    """The copy of a model that proofs run on, its inputs, a trace of both, its outputs, and what may differ."""

    model: nn.Module
    inputs: Inputs
    traced: Tracer
    dense: list[Tensor]
    tolerance: _Tolerance

    @classmethod
    def of(cls, model: nn.Module, example_inputs: Inputs) -> _Bench:
        double = _stirred(model, torch.float64)
        inputs: Inputs = _cast(example_inputs)  # type: ignore[assignment]
        try:
            precisions, dense = _outputs(double, inputs)
        except Exception:  # a model that fixes its own precision, by a cast say, does not run in another
            double, inputs = _stirred(model, None), example_inputs
            try:
                precisions, dense = _outputs(double, inputs)
            except Exception as error:  # user code runs in here
                raise TraceError(
                    f"the model must run on example_inputs more than once, but got {type(error).__name__}: {error}"
                ) from error
        return cls(double, inputs, run(double, inputs)[0], dense, _Tolerance.of(precisions))

    def difference(self, topology: Topology, chosen: KeptChannels) -> str | None:
        """None when cut and mask agree, else what went wrong."""
        try:
            smaller = cut(self.model, topology, chosen)
            with torch.no_grad(), plain_operators(smaller):
                outputs = tensors_in(call(smaller, self.inputs))
        except Exception as error:  # any failure of the cut model means the same: do not offer the group
            first = (str(error).splitlines() or [""])[0]
            return f"the model does not run once it is cut ({type(error).__name__}: {first[:160]})"
        silenced = mask(self.model, topology, chosen, traced=self.traced)
        with torch.no_grad(), plain_operators(silenced):
            expected = tensors_in(call(silenced, self.inputs))
        worst, effect = _distance(outputs, expected), _distance(expected, self.dense)
        if self.tolerance.allows(worst, effect):
            return None
        return f"cutting it changes the outputs by {worst:.2g} more than silencing it"


class _Tolerance(NamedTuple):
    """How far a right cut may be from a mask, relative to the largest output: rounding, as sums have fewer terms.

    noise: any difference up to that is rounding. most: one up to that is rounding where silencing changes much more.
    """

    noise: float
    most: float

    @classmethod
    def of(cls, precisions: set[torch.dtype]) -> _Tolerance:
        """From the floating-point types in use, the coarsest of which counts."""
        eps = max(torch.finfo(precision).eps for precision in precisions)
        return cls(min(math.sqrt(eps), 1e-8 + 100 * eps), math.sqrt(eps))

    def allows(self, difference: float, effect: float) -> bool:
        """True for a difference that rounding explains. effect: what silencing changed."""
        return difference <= self.noise or (difference <= self.most and difference <= 0.02 * effect)


class _Precisions(TorchDispatchMode):
    """The floating-point types of every result of a forward: a model in float64 may well cast inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.found: set[torch.dtype] = set()

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        del types
        out = func(*args, **(kwargs or {}))
        # Constants may be coarse without harm; what is computed from several values may not.
        self.found.update(tensor.dtype for tensor in tensors_in(out) if tensor.is_floating_point() and tensor.ndim > 1)
        return out


def _outputs(model: nn.Module, inputs: Inputs) -> tuple[set[torch.dtype], list[Tensor]]:
    """The floating-point types in use in a forward, and what comes out of it."""
    with torch.no_grad(), plain_operators(model), _Precisions() as seen:
        outputs = tensors_in(call(model, inputs))
    return seen.found or {torch.float32}, outputs


def _distance(outputs: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference relative to the largest value; infinite for other shapes or values that are not finite."""
    if len(outputs) != len(expected) or any(a.shape != b.shape for a, b in zip(outputs, expected, strict=True)):
        return math.inf
    worst = 0.0
    for a, b in zip(outputs, expected, strict=True):
        if a.numel() == 0:
            continue
        scale = max(float(b.double().abs().max()), 1e-12)
        distance = float((a.double() - b.double()).abs().max()) / scale
        worst = max(worst, distance if math.isfinite(distance) else math.inf)
    return worst


def _keep(group: ChannelGroup, share: float | None, seed: int) -> tuple[int, ...]:
    """Random channels of a group: that share of them, or a random number when None; at least one, never all."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(group.channels, generator=generator)
    count = group.channels // 2
    if share is None:
        count = int(torch.randint(1, group.channels, (1,), generator=generator))
    return tuple(order[: max(1, count)].tolist())


def _stirred(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """A copy in eval mode whose norms have statistics of their own for every channel.

    Fresh ones are 0 and 1 everywhere and would hide channels in a wrong order.
    """
    scratch = copy.deepcopy(model).eval()
    if dtype is not None:
        scratch = scratch.to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in scratch.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
                noise = torch.rand(module.running_mean.shape, generator=generator, dtype=torch.float64)
                module.running_mean += noise.to(module.running_mean)
    return scratch


def _cast(value: object) -> object:
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _cast(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_cast(item) for item in value)
    return value
