"""What a proof compares: a model that is cut with the same one silenced, on inputs that hide nothing."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from autoprune.criteria.kept import KeptChannels
from autoprune.errors import TraceError, describe_exception
from autoprune.surgery.cut import cut
from autoprune.surgery.distance import Tolerance, distance
from autoprune.surgery.forwards import Forwards, most_of, storages
from autoprune.surgery.influence import (
    Axes,
    Cuts,
    Part,
    check_own_weights,
    gradients,
    influential_parameters,
    merge_cuts,
    without_gradient,
)
from autoprune.surgery.mask import mask_traced
from autoprune.surgery.perturbation import perturb_input, perturb_statistics, perturb_weights
from autoprune.surgery.preparation import (
    ATTEMPTS,
    ROUGH_ATTEMPTS,
    Attempt,
    first_samples,
    shapes_of,
    shared_copy,
    widen,
)
from autoprune.task.clone import clone_with, drop_cached_tensors, share_parameters
from autoprune.task.data import Inputs
from autoprune.task.modes import LossMode
from autoprune.trace.operators import raised_from
from autoprune.trace.reasons import DIFFERS, NOT_RUNNING, NOT_TRAINING, OTHER_PATH, OTHER_SHAPE, Reason, ReasonKind
from autoprune.trace.running import copy_for_tracing
from autoprune.trace.topology import Topology
from autoprune.trace.tracer import Tracer
from autoprune.trace.values import map_tensors
from autoprune.trace.watch import watch

#: Outputs of masks that are held: those of a proof's three draws.
_HELD = 3

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class EquivalenceCheck:
    """What proofs run on: a model with telling weights, its inputs, a trace of both, its outputs, and what may differ.

    model: never runs itself, as models keep things of a call; copies that share its parameters do. It shares those that
        need no other values with the user's model.
    forwards: how copies run.
    silenced: outputs of masks that were computed last, by what they keep; they do not depend on what modules note
        beside their weights, so that one serves every change that is tried. `forget` them with another topology.
    _slopes: of `slopes`, once they are worked out.
    _coarse: the same in float32, for a first look; empty where float32 cannot tell.
    """

    model: nn.Module
    inputs: Inputs
    traced: Tracer
    dense: list[Tensor]
    tolerance: Tolerance
    forwards: Forwards
    silenced: OrderedDict[object, list[Tensor]] = field(default_factory=OrderedDict)
    _slopes: list[Mapping[str, Axes]] = field(default_factory=list)
    _coarse: list[EquivalenceCheck] = field(default_factory=list)

    @classmethod
    def of(
        cls, model: nn.Module, example_inputs: Inputs, deadline: float = math.inf, *, rough: bool = False
    ) -> EquivalenceCheck:
        """In float64 and with weights and inputs that hide nothing, as far as the model runs with them.

        deadline: in processor time; forwards that reach it raise OutOfTime.
        rough: in the model's own precision, to look for what is then proved in float64.
        """
        error: Exception = RuntimeError()  # that of the last attempt
        for attempt in (*(ROUGH_ATTEMPTS if rough else ()), *ATTEMPTS):
            try:
                made = cls._of(model, example_inputs, attempt, deadline)
            except Exception as found:  # user code runs in here
                error = found
                continue
            if rough:
                return made
            made._see_coarsely()
            seen = made._coarse[0] if made._coarse else made
            check_own_weights(seen.model, seen.inputs, seen.dense, seen.forwards)
            return made
        raise TraceError(
            "the model must run on example_inputs more than once and give finite values, but got "
            f"{describe_exception(error)}"
        ) from error

    @classmethod
    def _of(cls, model: nn.Module, example_inputs: Inputs, attempt: Attempt, deadline: float) -> EquivalenceCheck:
        forwards = Forwards(deadline, attempt.dtype is not None, storages(model), most_of(model))
        forwards.check_time()
        scratch = shared_copy(model, attempt.dtype) if attempt.shares else copy_for_tracing(model)
        widen(scratch, attempt)
        perturb_statistics(scratch)
        if attempt.stirs_weights:
            scratch = perturb_weights(scratch)
        drop_cached_tensors(scratch)
        inputs = map_tensors(example_inputs, partial(perturb_input, dtype=attempt.dtype, noise=attempt.stirs_inputs))
        return cls._on(scratch, inputs, forwards, finite=attempt.stirs_weights or attempt.stirs_inputs)

    @classmethod
    def _on(cls, scratch: nn.Module, inputs: Inputs, forwards: Forwards, *, finite: bool) -> EquivalenceCheck:
        inputs = first_samples(scratch, inputs, forwards)
        runs = share_parameters(scratch)
        with forwards.of(runs):
            traced, dense = watch(runs, inputs)
        telling = [torch.isfinite(tensor) for tensor in dense]
        if not any(bool(some.any()) for some in telling) or (finite and not all(bool(some.all()) for some in telling)):
            raise ValueError("outputs that are not finite")
        return cls(
            model=scratch,
            inputs=inputs,
            traced=traced,
            dense=dense,
            tolerance=Tolerance.of(forwards.precisions or {torch.float32}),
            forwards=forwards,
        )

    def _see_coarsely(self) -> None:
        """Run the model in float32 as well, where it has such weights and gives what it gives in float64."""
        types = {parameter.dtype for parameter in self.model.parameters() if parameter.ndim > 1}
        if not self.forwards.promotes or types - {torch.float32}:
            return
        forwards = replace(self.forwards, promotes=False, precisions=set())
        model = self.forwards.shortened_model(self.model)
        inputs = map_tensors(self.inputs, self.forwards.shortened)
        try:
            dense = forwards.outputs(share_parameters(model), inputs)
        except Exception:  # user code runs in here
            return
        tolerance = Tolerance.of(forwards.precisions or {torch.float32})
        if shapes_of(dense) == shapes_of(self.dense) and distance(dense, self.dense) <= tolerance.most:
            self._coarse.append(EquivalenceCheck(model, inputs, self.traced, dense, tolerance, forwards))

    def redrawn(self, seed: int) -> EquivalenceCheck | None:
        """The same with other weights of the same size, None where the model does not run with them.

        What is silent by chance, behind a ReLU on a few samples, speaks with these.
        """
        generator = torch.Generator().manual_seed(4 + seed)
        parameters = {name: parameter.ndim for name, parameter in self.model.named_parameters()}

        def other(name: str, tensor: Tensor) -> Tensor | None:
            if name not in parameters or not tensor.is_floating_point():
                return None
            drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
            return tensor + drawn if parameters[name] < 2 else tensor * drawn.sign()

        try:
            return self._on(clone_with(self.model, other), self.inputs, self.forwards, finite=True)
        except Exception:  # user code runs in here
            return None

    def first_difference(self, topology: Topology, chosen: KeptChannels) -> Reason | None:
        """The same as `difference`, by float32 alone where that sees nothing wrong."""
        return self._looked(lambda check: check.difference(topology, chosen))

    def _looked(self, look: Callable[[EquivalenceCheck], _Found | None]) -> _Found | None:
        """What a look finds in float32, None for nothing; only what is found in float64 counts."""
        if self._coarse and look(self._coarse[0]) is None:
            return None
        found = look(self)
        if found is None:
            self._coarse.clear()  # float32 misled
        return found

    def difference(self, topology: Topology, chosen: KeptChannels, *, in_training: bool = False) -> Reason | None:
        """None when cut and mask agree, else what went wrong. in_training: try training mode as well."""
        try:
            outputs = self._cut_outputs(topology, chosen)
        except Exception as error:  # any failure of the cut model means the same: do not offer the group
            return _raised(NOT_RUNNING, error)
        try:
            expected = self._silenced_outputs(topology, chosen)
        except Exception as error:  # where values decide on the path, say
            return _raised(OTHER_PATH, error)
        reason = self._apart(outputs, expected, lambda: self.dense)
        if reason is not None:
            return reason
        return self._fault_in_training(topology, chosen) if in_training else None

    def _apart(
        self, outputs: list[Tensor], expected: list[Tensor], dense: Callable[[], list[Tensor]], note: str = ""
    ) -> Reason | None:
        """Say how outputs of a cut differ from those of a mask, beyond rounding. dense: gives those of the model."""
        if shapes_of(outputs) != shapes_of(expected):
            return Reason(kind=OTHER_SHAPE)
        worst = distance(outputs, expected)
        if self.tolerance.allows(worst, lambda: distance(expected, dense())):
            return None
        how = f"by {worst:.2g} of their size" if math.isfinite(worst) else "to some that are not finite"
        return Reason(kind=DIFFERS, detail=f"{note}{how}")

    def runs(self, topology: Topology, chosen: KeptChannels) -> str | None:
        """None when a cut gives outputs of the number, shapes and types of the model's, else what the model does."""
        return self._looked(lambda check: check._runs(topology, chosen))

    def _runs(self, topology: Topology, chosen: KeptChannels) -> str | None:
        try:
            outputs = self._cut_outputs(topology, chosen)
        except Exception as error:  # user code runs in here
            return f"does not run without it ({_short(error)})"
        if [(tensor.shape, tensor.dtype) for tensor in outputs] != [(one.shape, one.dtype) for one in self.dense]:
            return "gives outputs of another number, shape or type without it"
        return None

    def slopes(self) -> Mapping[str, Axes]:
        """Where gradients of the outputs are other than zero, see `influence.gradients`."""
        if not self._slopes:
            self._slopes.append(gradients(self.model, self.inputs, self.forwards))
        return self._slopes[0]

    def suspects(self, topology: Topology) -> set[Part]:
        """Parts that may have no effect on the outputs, as far as a gradient tells."""
        return without_gradient(self.slopes(), topology)

    def silent(self, topology: Topology, cuts: Cuts) -> list[Part]:
        """Parts none of whose cuts changes the outputs, beyond rounding. cuts: by part."""
        suspects = self.suspects(topology)
        left = {part: choices for part, choices in cuts.items() if part in suspects}
        if self.slopes():
            return self._silent(topology, left)
        # Of classes each may change, and all together not, by chance.
        return [part for part, choices in left.items() if self._silent(topology, {part: choices})]

    def _silent(self, topology: Topology, cuts: Cuts) -> list[Part]:
        """The same of some parts: all at once, then half by half, as parts that nothing depends on are often many."""
        if all(self._effect(topology, one) <= self.tolerance.noise for one in merge_cuts(cuts.values())):
            return list(cuts)
        parts = list(cuts)
        halves = (parts[: len(parts) // 2], parts[len(parts) // 2 :]) if len(parts) > 1 else ()
        return [part for half in halves for part in self._silent(topology, {part: cuts[part] for part in half})]

    def _effect(self, topology: Topology, chosen: KeptChannels) -> float:
        outputs = self._cut_outputs(topology, chosen)
        return distance(outputs, self.dense) if len(outputs) == len(self.dense) else math.inf

    def influential_parameters(self, topology: Topology, chosen: KeptChannels, among: Container[str]) -> set[str]:
        """Find which of the parameters named in `among` the outputs of a cut depend on."""
        return influential_parameters(gradients(self._cut(topology, chosen), self.inputs, self.forwards, among))

    def forget(self) -> None:
        """Drop what was computed for another topology."""
        self.silenced.clear()
        for coarse in self._coarse:
            coarse.forget()

    def _cut(self, topology: Topology, chosen: KeptChannels, model: nn.Module | None = None) -> nn.Module:
        """A cut that is only looked at."""
        self.forwards.check_time()
        # To round a weight that is multiplied by a factor would look like a fault.
        scaled = torch.float64 if self.forwards.promotes else None
        return cut(model or self.model, topology, chosen, share=True, scaled=scaled)

    def _cut_outputs(self, topology: Topology, chosen: KeptChannels, *, training: bool = False) -> list[Tensor]:
        return self.forwards.outputs(self._cut(topology, chosen).train(training), self.inputs)

    def _silenced_outputs(self, topology: Topology, chosen: KeptChannels) -> list[Tensor]:
        key = (tuple(chosen.groups.items()), chosen.dropped)
        if key not in self.silenced:
            while len(self.silenced) >= _HELD:
                self.silenced.popitem(last=False)
            self.forwards.check_time()
            self.silenced[key] = self.forwards.outputs(
                mask_traced(self.model, topology, chosen, self.traced), self.inputs
            )
        return self.silenced[key]

    def _fault_in_training(self, topology: Topology, chosen: KeptChannels) -> Reason | None:
        """What goes wrong in training mode, unless it does so in the dense model: with one sample and a BatchNorm."""
        try:
            self._cut_outputs(topology, chosen, training=True)
        except Exception as error:
            return _raised(NOT_TRAINING, error) if self._trains() else None
        unread = self.traced.unread()
        groups = (topology.group(name) for name in chosen.groups)
        if any(member.tensor in unread for group in groups for member in group.members):
            return self._fault_at_rest(topology, chosen)
        return None

    def _fault_at_rest(self, topology: Topology, chosen: KeptChannels) -> Reason | None:
        """Compare cut and mask in training mode at rest: eval mode does not show weights that only training reads."""
        try:
            outputs = self._at_rest(lambda model: self._cut(topology, chosen, model))
            expected = self._at_rest(lambda model: mask_traced(model, topology, chosen, self.traced))
        except Exception as error:  # user code runs in here
            return _raised(NOT_TRAINING, error)
        return self._apart(outputs, expected, lambda: self._at_rest(share_parameters), "in training mode, ")

    def _at_rest(self, make: Callable[[nn.Module], nn.Module]) -> list[Tensor]:
        """Outputs in training mode at rest of a model that is made from one in that mode."""
        model = share_parameters(self.model)
        with LossMode(trains=True).on(model):
            return self.forwards.outputs(make(model), self.inputs)

    def _trains(self) -> bool:
        try:
            self.forwards.outputs(share_parameters(self.model).train(), self.inputs)
        except Exception:  # user code runs in here
            return False
        return True


def _raised(kind: ReasonKind, error: Exception) -> Reason:
    """What an error of the model says, and where it was raised."""
    return Reason(kind=kind, detail=_short(error), line=raised_from(error))


def _short(error: Exception) -> str:
    return describe_exception(error).splitlines()[0][:200]
