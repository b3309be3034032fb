"""The proof gate: a group is offered only if a cut and a mask of it compute the same on the example inputs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import nn

from autoprune.surgery.block_proof import without_depth
from autoprune.surgery.comparison import EquivalenceCheck
from autoprune.surgery.draws import layer_of
from autoprune.surgery.forwards import OutOfTime
from autoprune.surgery.group_proof import Lessons, Proof
from autoprune.surgery.repeated_layers import without_repeats
from autoprune.task.data import Inputs
from autoprune.trace.reasons import NO_EFFECT, PROOF_TIME, Reason
from autoprune.trace.topology import Topology
from autoprune.trace.trace import trace

#: Seconds of processor time after which what is not yet proved is withdrawn.
PROOF_SECONDS = 300.0


def prove(
    model: nn.Module, topology: Topology, example_inputs: Inputs, *, seed: int = 0, seconds: float = PROOF_SECONDS
) -> Topology:
    """The topology with every group and block withdrawn that a cut would break.

    Three draws are made; in each, some groups keep a random half of their channels, others a random number, or all but
    one, so that widths which have to stay equal differ. One channel alone is tried last. Groups that share positions,
    such as heads and head width, or a number of a module, can be right together and wrong alone, so two draws take them
    apart. Many groups are drawn at once: a few forwards prove a sound model, and some log2(groups) more find each
    unsound group. A group that fails may become right by a change (`surgery.repairs`), which is then taken for the
    same layer of other blocks, too. What is compared, and on what, is said in `surgery.comparison`.

    seconds: processor time; what is not proved by then is withdrawn, so that a proof always ends.
    """
    if not topology.groups and not topology.blocks:
        return topology
    deadline = time.process_time() + seconds
    try:
        return Proof(topology, EquivalenceCheck.of(model, example_inputs, deadline), seed).run()
    except OutOfTime:
        return _unproved(topology)


def discover_structure(
    model: nn.Module, example_inputs: Inputs, *, seed: int = 0, seconds: float = PROOF_SECONDS
) -> Topology:
    """Trace and prove a model; what every study starts from.

    Attention that takes its width from its input (`B, N, C = x.shape`) only runs when both shrink alike. Where heads
    could not be proved for that, the model is traced once more with the two tied, and that topology is given if it
    reaches much smaller models. Where eval mode leaves weights unread, training mode is traced, too: weights that are
    read there alone have to follow the channels that they are used with. Where something is wrong in a
    model of many like layers, what makes it right is looked for in a copy without the repeats; the whole model is
    proved with what was found. Raises TraceError when the model cannot be copied or run.

    seconds: as in `prove`, without the trace.
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
    """How a model is traced, as in `trace`."""

    tied: frozenset[str] = frozenset()
    in_training: bool = False


class _Tried(NamedTuple):
    """What a step of a proof found, and the trace that it began from."""

    found: Topology
    proof: Proof
    way: _Way


@dataclass(frozen=True, slots=True)
class _Discovery:
    """One discovery under way. deadline: in processor time. trace_seconds: what one trace takes of it."""

    model: nn.Module
    inputs: Inputs
    seed: int
    deadline: float
    trace_seconds: float

    def run(self, topology: Topology) -> Topology:
        """What is proved of a model that may have repeats, which are left out to learn what helps."""
        proof = Proof(topology, EquivalenceCheck.of(self.model, self.inputs, self.deadline), self.seed)
        lessons = None if proof.passes_at_once() else self._learn_without_repeats()
        if lessons is None:
            return self._better(proof, Proof.run)[0]
        if lessons.tied or lessons.in_training:
            tied = frozenset(name for name, _ in self.model.named_modules() if layer_of(name) in lessons.tied)
            topology = self._traced(_Way(tied, lessons.in_training)) or topology
            proof.check.forget()
        return Proof(topology, proof.check, self.seed, lessons, apart=1).run()

    def _better(self, proof: Proof, step: Callable[[Proof], Topology]) -> tuple[Topology, Lessons]:
        """Take a step of a proof, again with tied channels where that is better; gives its lessons, too."""
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
        """Begin from a trace of training mode, too, where eval mode leaves weights unread and no channel is lost."""
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
        """Another trace, None when there is no time left for one."""
        if time.process_time() + self.trace_seconds > self.deadline:
            return None
        return trace(self.model, self.inputs, tied=way.tied, in_training=way.in_training)

    def _learn_without_repeats(self) -> Lessons | None:
        """What is found out on a copy without repeated layers, None where there is none, or it does not run."""
        shallow = without_repeats(self.model)
        if shallow is None:
            return None
        start = time.process_time()
        half = (start + self.deadline) / 2  # the other half is for the proof itself
        if start + self.trace_seconds > half:
            return None
        try:
            topology = trace(shallow, self.inputs)
            check = EquivalenceCheck.of(shallow, self.inputs, half, rough=_is_fine(shallow))
        except (Exception, OutOfTime):  # user code runs in here, and may want all of its layers
            return None
        seconds = time.process_time() - start
        rehearsal = _Discovery(shallow, self.inputs, self.seed, half, seconds)
        return rehearsal._better(Proof(topology, check, self.seed), Proof.learn)[1]


def _is_fine(model: nn.Module) -> bool:
    """Whether a model computes finely enough to tell right from wrong mostly."""
    return not any(tensor.dtype in {torch.float16, torch.bfloat16} for tensor in model.parameters())


def _unproved(topology: Topology) -> Topology:
    """For want of time."""
    return without_depth(topology.without(dict.fromkeys(topology.widths, Reason(kind=PROOF_TIME))))


def _half(topology: Topology) -> int:
    """Multiply-adds with every group halved."""
    return topology.cost({group.name: group.channels // 2 for group in topology.groups}).multiply_adds
