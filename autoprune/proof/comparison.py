"""Compare cuts of a model with masks of it."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from autoprune.errors import TraceError, describe_exception
from autoprune.plan.kept import KeptChannels
from autoprune.proof.distance import Tolerance, distance
from autoprune.proof.failures import in_short, raised
from autoprune.proof.forwards import Forwards, most_of, storages
from autoprune.proof.influence import (
    Axes,
    Cuts,
    Part,
    check_own_weights,
    gradients,
    influential_parameters,
    merge_cuts,
    without_gradient,
)
from autoprune.proof.partial_reads import Sample, Staying, large_among, sampled_outputs
from autoprune.proof.perturbation import perturb_input, perturb_statistics, perturb_weights, redraw_weights
from autoprune.proof.preparation import (
    ATTEMPTS,
    ROUGH_ATTEMPTS,
    Attempt,
    first_samples,
    shapes_of,
    shared_copy,
    widen,
)
from autoprune.structure.reasons import DIFFERS, NOT_RUNNING, NOT_TRAINING, OTHER_PATH, OTHER_SHAPE, Reason
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import OnlyRun, cut
from autoprune.surgery.mask import mask_traced
from autoprune.task.clone import drop_cached_tensors, share_parameters
from autoprune.task.data import Inputs
from autoprune.task.modes import LossMode
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.running import copy_for_tracing
from autoprune.trace.values import map_tensors
from autoprune.trace.watch import watch

#: Number of outputs of masks that are kept: those of a proof's three draws.
_HELD = 3

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class EquivalenceCheck:
    """Compares cuts of a model with masks, with weights and inputs that show every difference.

    Attributes:
        model: The model with perturbed weights. Copies of it run, as a model may keep values of a call. It shares
            weights that need no change with the user's model.
        inputs: The perturbed inputs.
        traced: The channels of a trace of model and inputs.
        dense: The outputs of the model.
        tolerance: Differences that rounding explains.
        forwards: Runs copies.
        only_run: How to cut copies; large weights that no forward may write to are sliced once, and masked unchanged.
        silenced: Outputs of the latest masks, by kept set. They do not depend on numbers of modules, so they serve
            every repair that is tried; call `forget` before checks of another topology.
        _slopes: Result of `slopes`, once computed.
        _coarse: The same check in float32, for a first look; empty if float32 is too coarse.
    """

    model: nn.Module
    inputs: Inputs
    traced: ChannelGraph
    dense: list[Tensor]
    tolerance: Tolerance
    forwards: Forwards
    only_run: OnlyRun
    silenced: OrderedDict[object, list[Tensor]] = field(default_factory=OrderedDict)
    _slopes: list[Mapping[str, Axes]] = field(default_factory=list)
    _coarse: list[EquivalenceCheck] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        example_inputs: Inputs,
        deadline: float = math.inf,
        *,
        topology: Topology | None = None,
        rough: bool = False,
    ) -> EquivalenceCheck:
        """Make the check, in float64 and with perturbed weights and inputs as far as the model runs with them.

        Args:
            model: The user's model.
            example_inputs: Inputs of its forward.
            deadline: Processor time at which forwards raise OutOfTime, in seconds.
            topology: A topology of the model, to work out a sample of many outputs; None to work out all.
            rough: Whether the model's own precision is enough, to look for repairs that are proved later.

        Returns:
            The check.

        Raises:
            TraceError: If the model does not run, gives no finite values, or does not depend on its weights.
            OutOfTime: When the deadline passes.
        """
        error: Exception = RuntimeError()  # that of the last attempt
        attempts = (*(ROUGH_ATTEMPTS if rough else ()), *ATTEMPTS)
        samples = sampled_outputs(topology) if topology is not None else {}
        choices: tuple[Mapping[str, Sample], ...] = (samples, {}) if samples else ({},)
        for attempt, some in itertools.product(attempts, choices):
            forwards = Forwards(deadline, attempt.dtype is not None, storages(model), most_of(model), samples=some)
            try:
                made = cls._of(model, example_inputs, attempt, forwards)
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
    def _of(cls, model: nn.Module, example_inputs: Inputs, attempt: Attempt, forwards: Forwards) -> EquivalenceCheck:
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
            # Rounding a weight that is multiplied by a factor would look like an error of the cut.
            only_run=OnlyRun(torch.float64 if forwards.promotes else None, large_among(scratch, forwards.guarded)),
        )

    def _see_coarsely(self) -> None:
        """Add a check in float32, if the weights have that type and the outputs agree with those of float64."""
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
            only_run = replace(self.only_run, scaled=None)
            self._coarse.append(EquivalenceCheck(model, inputs, self.traced, dense, tolerance, forwards, only_run))

    def redrawn(self, seed: int) -> EquivalenceCheck | None:
        """Make the check with other weights.

        Args:
            seed: Seed of the weights.

        Returns:
            The check; None if the model does not run with them.
        """
        try:
            return self._on(redraw_weights(self.model, seed), self.inputs, self.forwards, finite=True)
        except Exception:  # user code runs in here
            return None

    def first_difference(self, topology: Topology, chosen: KeptChannels) -> Reason | None:
        """Do the same as `difference`; if float32 shows no difference, that is enough."""
        return self._looked(lambda check: check.difference(topology, chosen))

    def _looked(self, look: Callable[[EquivalenceCheck], _Found | None]) -> _Found | None:
        """Look in float32, where None ends the search; only a result in float64 counts as found."""
        if self._coarse and look(self._coarse[0]) is None:
            return None
        found = look(self)
        if found is None:
            self._coarse.clear()  # float32 is too coarse
        return found

    def difference(self, topology: Topology, chosen: KeptChannels, *, in_training: bool = False) -> Reason | None:
        """Compare a cut with a mask.

        Args:
            topology: The topology to cut by.
            chosen: Channels and blocks that stay.
            in_training: Whether to run the cut in training mode as well.

        Returns:
            None if they agree, otherwise the reason.
        """
        try:
            outputs = self._cut_outputs(topology, chosen)
        except Exception as error:  # user code runs in here; any failure means that the group is not offered
            return raised(NOT_RUNNING, error)
        try:
            expected = self._silenced_outputs(topology, chosen)
        except Exception as error:  # values may decide on the path
            return raised(OTHER_PATH, error)
        reason = self._apart(outputs, expected, lambda: self.dense)
        if reason is not None:
            return reason
        return self._fault_in_training(topology, chosen) if in_training else None

    def _apart(
        self, outputs: list[Tensor], expected: list[Tensor], dense: Callable[[], list[Tensor]], note: str = ""
    ) -> Reason | None:
        """Return how outputs of a cut differ from those of a mask beyond rounding. dense: returns the dense outputs."""
        if shapes_of(outputs) != shapes_of(expected):
            return Reason(kind=OTHER_SHAPE)
        worst = distance(outputs, expected)
        if self.tolerance.allows(worst, lambda: distance(expected, dense())):
            return None
        how = f"by {worst:.2g} of their size" if math.isfinite(worst) else "to some that are not finite"
        return Reason(kind=DIFFERS, detail=f"{note}{how}")

    def runs(self, topology: Topology, chosen: KeptChannels) -> str | None:
        """Run a cut, and compare number, shapes and dtypes of its outputs with the model's.

        Args:
            topology: The topology to cut by.
            chosen: Channels and blocks that stay.

        Returns:
            None if they agree, otherwise words that follow "the model".
        """
        return self._looked(lambda check: check._runs(topology, chosen))

    def _runs(self, topology: Topology, chosen: KeptChannels) -> str | None:
        try:
            outputs = self._cut_outputs(topology, chosen)
        except Exception as error:  # user code runs in here
            return f"does not run without it ({in_short(error)})"
        if [(tensor.shape, tensor.dtype) for tensor in outputs] != [(one.shape, one.dtype) for one in self.dense]:
            return "gives outputs of another number, shape or type without it"
        return None

    def slopes(self) -> Mapping[str, Axes]:
        """Find where gradients of the outputs are not zero, once; see `influence.gradients`."""
        if not self._slopes:
            self._slopes.append(gradients(self.model, self.inputs, self.forwards))
        return self._slopes[0]

    def suspects(self, topology: Topology) -> set[Part]:
        """Return the groups and blocks that may have no effect on the outputs, judged by gradients.

        Args:
            topology: The topology.

        Returns:
            The parts.
        """
        return without_gradient(self.slopes(), topology)

    def silent(self, topology: Topology, cuts: Cuts) -> list[Part]:
        """Return the parts none of whose cuts changes the outputs beyond rounding.

        Args:
            topology: The topology to cut by.
            cuts: Kept sets by part.

        Returns:
            The parts.
        """
        suspects = self.suspects(topology)
        left = {part: choices for part, choices in cuts.items() if part in suspects}
        if self.slopes():
            return self._silent(topology, left)
        # Outputs that are classes may change with each part, and by chance not with all parts together.
        return [part for part, choices in left.items() if self._silent(topology, {part: choices})]

    def _silent(self, topology: Topology, cuts: Cuts) -> list[Part]:
        """Do the same for some parts: all at once, then half by half, as parts without effect are often many."""
        if all(self._effect(topology, one) <= self.tolerance.noise for one in merge_cuts(cuts.values())):
            return list(cuts)
        parts = list(cuts)
        halves = (parts[: len(parts) // 2], parts[len(parts) // 2 :]) if len(parts) > 1 else ()
        return [part for half in halves for part in self._silent(topology, {part: cuts[part] for part in half})]

    def _effect(self, topology: Topology, chosen: KeptChannels) -> float:
        outputs = self._cut_outputs(topology, chosen)
        return distance(outputs, self.dense) if len(outputs) == len(self.dense) else math.inf

    def influential_parameters(self, topology: Topology, chosen: KeptChannels, among: Container[str]) -> set[str]:
        """Return the parameters on which the outputs of a cut depend.

        Args:
            topology: The topology to cut by.
            chosen: Channels and blocks that stay.
            among: Names of the parameters to look at.

        Returns:
            Names of parameters.
        """
        return influential_parameters(gradients(self._cut(topology, chosen), self.inputs, self.forwards, among))

    def forget(self) -> None:
        """Drop the kept outputs before checks of another topology."""
        self.silenced.clear()
        for coarse in self._coarse:
            coarse.forget()

    def _cut(self, topology: Topology, chosen: KeptChannels, model: nn.Module | None = None) -> nn.Module:
        """Cut the model, for a copy that is only run."""
        self.forwards.check_time()
        return cut(model or self.model, topology, chosen, only_run=self.only_run)

    def _mask(
        self, topology: Topology, chosen: KeptChannels, model: nn.Module | None = None
    ) -> tuple[nn.Module, Staying]:
        """Mask the model, for a copy that is only run."""
        return mask_traced(model or self.model, topology, chosen, self.traced, self.only_run.reused)

    def _cut_outputs(self, topology: Topology, chosen: KeptChannels, *, training: bool = False) -> list[Tensor]:
        return self.forwards.outputs(self._cut(topology, chosen).train(training), self.inputs)

    def _silenced_outputs(self, topology: Topology, chosen: KeptChannels) -> list[Tensor]:
        key = (tuple(chosen.groups.items()), chosen.dropped)
        if key not in self.silenced:
            while len(self.silenced) >= _HELD:
                self.silenced.popitem(last=False)
            self.forwards.check_time()
            masked, staying = self._mask(topology, chosen)
            self.silenced[key] = self.forwards.outputs(masked, self.inputs, staying)
        return self.silenced[key]

    def _fault_in_training(self, topology: Topology, chosen: KeptChannels) -> Reason | None:
        """Return what fails in training mode, unless the dense model fails too: a BatchNorm with one sample, say."""
        reason = self._looked(lambda check: check._training_error(topology, chosen))
        if reason is not None:
            return reason if self._trains() else None
        unread = self.traced.unread()
        groups = (topology.group(name) for name in chosen.groups)
        if any(member.tensor in unread for group in groups for member in group.members):
            return self._fault_at_rest(topology, chosen)
        return None

    def _training_error(self, topology: Topology, chosen: KeptChannels) -> Reason | None:
        try:
            self._cut_outputs(topology, chosen, training=True)
        except Exception as error:  # user code runs in here
            return raised(NOT_TRAINING, error)
        return None

    def _fault_at_rest(self, topology: Topology, chosen: KeptChannels) -> Reason | None:
        """Compare cut and mask in training mode at rest, as eval mode does not run weights that only training reads."""
        try:
            outputs = self._at_rest(lambda model: (self._cut(topology, chosen, model), {}))
            expected = self._at_rest(lambda model: self._mask(topology, chosen, model))
        except Exception as error:  # user code runs in here
            return raised(NOT_TRAINING, error)
        return self._apart(outputs, expected, lambda: self._at_rest(lambda m: (m, {})), "in training mode, ")

    def _at_rest(self, make: Callable[[nn.Module], tuple[nn.Module, Staying]]) -> list[Tensor]:
        """Return the outputs, in training mode at rest, of a model made from the check's."""
        model = share_parameters(self.model)
        with LossMode(trains=True).on(model):
            made, staying = make(model)
            return self.forwards.outputs(made, self.inputs, staying)

    def _trains(self) -> bool:
        try:
            self.forwards.outputs(share_parameters(self.model).train(), self.inputs)
        except Exception:  # user code runs in here
            return False
        return True
