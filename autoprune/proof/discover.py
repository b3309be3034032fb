"""Prove a topology: a group is offered only if its cut and its mask compute the same on the example inputs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import nn

from autoprune.proof.block_proof import without_depth
from autoprune.proof.comparison import EquivalenceCheck
from autoprune.proof.draws import layer_of
from autoprune.proof.forwards import OutOfTime
from autoprune.proof.group_proof import Lessons, Proof
from autoprune.proof.repeated_layers import without_repeats
from autoprune.structure.reasons import NO_EFFECT, PROOF_TIME, Reason
from autoprune.structure.topology import Topology
from autoprune.task.data import Inputs
from autoprune.trace.trace import trace

#: Seconds of processor time after which unproved groups are withdrawn.
PROOF_SECONDS = 300.0


def prove(
    model: nn.Module, topology: Topology, example_inputs: Inputs, *, seed: int = 0, seconds: float = PROOF_SECONDS
) -> Topology:
    """Withdraw every group and block that a cut would break.

    Three draws are made. In each, some groups keep a random half of their channels, others a random number, or all but
    one, so that widths that have to stay equal differ. A single channel is tried last. Groups that share positions,
    such as heads and head width, or a number of a module, can pass together and fail alone, so two draws take them
    apart. Many groups are drawn at once: a few forwards prove a sound model, and some log2(groups) more find each
    unsound group. A failing group may pass with a repair (`surgery.repairs`), which is then tried for the same layer of
    other blocks too. `surgery.comparison` describes the comparison.

    Args:
        model: The model.
        topology: Its topology.
        example_inputs: Inputs of its forward.
        seed: Seed of the draws.
        seconds: Processor time; groups that are not proved by then are withdrawn, so that a proof always ends.

    Returns:
        The topology without unproved groups and blocks.

    Raises:
        TraceError: If the model does not run on the inputs.
    """
    if not topology.groups and not topology.blocks:
        return topology
    deadline = time.process_time() + seconds
    try:
        return Proof(topology, EquivalenceCheck.of(model, example_inputs, deadline, topology=topology), seed).run()
    except OutOfTime:
        return _unproved(topology)


def discover_structure(
    model: nn.Module, example_inputs: Inputs, *, seed: int = 0, seconds: float = PROOF_SECONDS
) -> Topology:
    """Trace and prove a model: the first step of every study.

    Attention that takes its width from its input (`B, N, C = x.shape`) only runs if both shrink alike. If heads fail
    for that reason, the model is traced again with the two tied, and that topology is returned if it reaches much
    smaller models. If eval mode leaves weights unread, training mode is traced as well: weights that only training
    reads have to follow the channels they are used with. In a model of many like layers, repairs are searched on a copy
    without the repeats, and the whole model is proved with them.

    Args:
        model: The model.
        example_inputs: Inputs of its forward.
        seed: Seed of the draws.
        seconds: Processor time of the proof, without the trace.

    Returns:
        The proved topology.

    Raises:
        TraceError: If the model cannot be copied or run.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
        >>> discover_structure(model, torch.randn(3, 4)).widths
        {'0': 8}
    """
    start = time.process_time()
    topology = trace(model, example_inputs)
    if not topology.groups and not topology.blocks:
        return topology
    now = time.process_time()
    try:
        return _Discovery(model, example_inputs, seed, now + seconds, now - start).run(topology)
    except OutOfTime:
        return _unproved(topology)


class _Way(NamedTuple):
    """Options of a trace, as in `trace`."""

    tied: frozenset[str] = frozenset()
    in_training: bool = False


class _Tried(NamedTuple):
    """A step of a proof: the topology it found, and the trace it began from."""

    found: Topology
    proof: Proof
    way: _Way


@dataclass(frozen=True, slots=True)
class _Discovery:
    """A discovery in progress. deadline: in processor time. trace_seconds: processor time of one trace."""

    model: nn.Module
    inputs: Inputs
    seed: int
    deadline: float
    trace_seconds: float

    def run(self, topology: Topology) -> Topology:
        """Prove a model that may have repeated layers, which are left out to learn repairs."""
        check = EquivalenceCheck.of(self.model, self.inputs, self.deadline, topology=topology)
        proof = Proof(topology, check, self.seed)
        lessons = None if proof.passes_at_once() else self._learn_without_repeats()
        if lessons is None:
            return self._better(proof, Proof.run)[0]
        if lessons.tied or lessons.in_training:
            tied = frozenset(name for name, _ in self.model.named_modules() if layer_of(name) in lessons.tied)
            topology = self._traced(_Way(tied, lessons.in_training)) or topology
            proof.check.forget()
            proof.passed.clear()  # they were of other groups
        return Proof(topology, proof.check, self.seed, lessons, passed=proof.passed, apart=1).run()

    def _better(self, proof: Proof, step: Callable[[Proof], Topology]) -> tuple[Topology, Lessons]:
        """Take a step of a proof, again with tied channels if that is better; return its lessons too."""
        proof, way = self._with_training(proof)
        best = _Tried(step(proof), proof, way)
        wrong = [name for name, reason in best.proof.reasons.items() if reason.kind not in (PROOF_TIME, NO_EFFECT)]
        tied = frozenset(module for name in wrong for module in best.proof.topology.group(name).reshaped)
        topology = self._traced(way._replace(tied=tied)) if tied else None
        if topology is not None:
            again = self._anew(proof, topology)
            other = _Tried(step(again), again, way._replace(tied=tied))
            # Tied groups are fewer, so they have to reach much farther.
            if _half(other.found) < 0.7 * _half(best.found):
                best = other
        layers = frozenset(map(layer_of, best.way.tied))
        return best.found, replace(best.proof.taught(), tied=layers, in_training=way.in_training)

    def _with_training(self, proof: Proof) -> tuple[Proof, _Way]:
        """Begin from a trace of training mode too, if eval mode leaves weights unread and no channel is lost by it."""
        way = _Way(in_training=True)
        topology = self._traced(way) if proof.check.traced.unread() else None
        if topology is None or _half(topology) > _half(proof.topology):
            return proof, _Way()
        return self._anew(proof, topology), way

    def _anew(self, proof: Proof, topology: Topology) -> Proof:
        """Begin a proof of another topology of the same model."""
        proof.check.forget()
        return Proof(topology, proof.check, self.seed)

    def _traced(self, way: _Way) -> Topology | None:
        """Trace the model again, None if there is no time left."""
        if time.process_time() + self.trace_seconds > self.deadline:
            return None
        return trace(self.model, self.inputs, tied=way.tied, in_training=way.in_training)

    def _learn_without_repeats(self) -> Lessons | None:
        """Learn on a copy without repeated layers; None if there is no such copy, or it does not run."""
        shallow = without_repeats(self.model)
        if shallow is None:
            return None
        start = time.process_time()
        half = (start + self.deadline) / 2  # the other half is for the proof itself
        if start + self.trace_seconds > half:
            return None
        try:
            topology = trace(shallow, self.inputs)
            check = EquivalenceCheck.of(shallow, self.inputs, half, topology=topology, rough=_is_fine(shallow))
        except (Exception, OutOfTime):  # user code runs in here, and may need all of its layers
            return None
        seconds = time.process_time() - start
        rehearsal = _Discovery(shallow, self.inputs, self.seed, half, seconds)
        return rehearsal._better(Proof(topology, check, self.seed), Proof.learn)[1]


def _is_fine(model: nn.Module) -> bool:
    """Tell whether a model computes precisely enough to tell right from wrong in most cases."""
    return not any(tensor.dtype in {torch.float16, torch.bfloat16} for tensor in model.parameters())


def _unproved(topology: Topology) -> Topology:
    """Withdraw everything, for lack of time."""
    return without_depth(topology.without(dict.fromkeys(topology.widths, Reason(kind=PROOF_TIME))))


def _half(topology: Topology) -> int:
    """Return the multiply-adds with every group halved."""
    return topology.cost({group.name: group.channels // 2 for group in topology.groups}).multiply_adds
