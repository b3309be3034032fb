"""CostOracle: the costs of models that are cut from one dense model."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import nn

from autoprune.errors import ConfigurationError, raise_all
from autoprune.measure.cost import count_multiply_adds, count_nonzero, count_parameters, stored_bytes
from autoprune.measure.latency.comparer import LatencyComparer
from autoprune.measure.latency.quiet import quiet_host
from autoprune.measure.latency.timing import Timing
from autoprune.measure.registry import measure_further
from autoprune.plan.kept import KeptChannels
from autoprune.plan.maskable import maskable
from autoprune.plan.resolved import ResolvedPlan
from autoprune.plan.weights import WeightPlan, block_pattern
from autoprune.records.energy import Energy
from autoprune.records.measurement import Latency, Measurement
from autoprune.records.profile import LatencyProfile
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from autoprune.task.clone import clone_with
from autoprune.task.prepare import PreparedTask
from autoprune.trial.energy import EnergyOracle, EnergyUse


class LatencyPredictor(Protocol):
    """Predicts the latency of cut models, see `LatencyModel`."""

    def predict(self, widths: Mapping[str, int], dropped: Sequence[str] = ()) -> Latency:
        """Predict the latency of a cut model.

        Args:
            widths: Group name -> width; whole for a group that is not named.
            dropped: Names of the blocks that are dropped.
        """
        ...


#: Widths and dropped blocks.
_Architecture = tuple[tuple[tuple[str, int], ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Counts:
    """Costs that follow from the architecture, whatever the weights are."""

    parameters: int
    multiply_adds: int
    further: dict[str, float]


class CostOracle:
    """Costs of models that are cut from one dense model.

    Costs that follow from the architecture are counted once for each, and so is a latency that can be trusted: it does
    not depend on the weights. The dense model is prepared once for each latency profile. The weights decide on bytes
    and non-zero parameters.

    Args:
        task: Prepared task.
        topology: Topology of its model.
        profiles: Circumstances in which latency is measured, the default one first.
        timing: How long latency is measured; None leaves it out.
        energy: How energy is measured, in the default profile; None leaves it out.
        untimed: Names of profiles in which no latency is measured.
    """

    def __init__(
        self,
        task: PreparedTask,
        topology: Topology,
        *,
        profiles: Sequence[LatencyProfile],
        timing: Timing | None,
        energy: EnergyUse | None = None,
        untimed: Collection[str] = (),
    ) -> None:
        self._task, self._topology = task, topology
        self._profiles, self._timing = tuple(profiles), timing
        self._timed_profiles = tuple(one for one in profiles if one.name not in untimed and timing is not None)
        self._comparers: dict[str, LatencyComparer] = {}
        self._counted: dict[_Architecture, _Counts] = {}
        self._timed: dict[tuple[_Architecture, str], Latency] = {}
        self._predictors: Mapping[str, LatencyPredictor] = {}
        self._only_predicts = False
        self._energy = None
        if energy is not None:
            self._energy = EnergyOracle(
                energy, task.dense, self._profiles[0], lambda: self._comparer(self._profiles[0]).preparation
            )
        self._alone: Callable[[], AbstractContextManager[None]] = nullcontext

    @property
    def measures_energy(self) -> bool:
        """Whether energy is measured, which takes a counter that can be read."""
        return self._energy is not None and not self._energy.lacks

    @property
    def energy_lacks(self) -> str:
        """Why the energy that is asked for cannot be read here, and what to do; "" where it can, or nobody asks."""
        return "" if self._energy is None else self._energy.lacks

    def refer_to(self, dense: Mapping[str, Latency], energy: Energy | None = None) -> None:
        """Take the milliseconds and millijoules of the dense model from earlier measurements of the same study.

        Args:
            dense: Name of a profile -> latency of the dense model.
            energy: Energy of the dense model; None where it was not measured.
        """
        if self._energy is not None and energy is not None:
            self._energy.refer_to(energy)
        for profile in self._timed_profiles:
            if profile.name in dense:
                self._comparer(profile).refer_to(dense[profile.name])

    def check_profiles(self) -> None:
        """Prepare the dense model for each latency profile and call it once; measurements use what was prepared.

        Raises:
            ConfigurationError: The dense model does not run under some profile; all of them are named.
        """
        faults = []
        called = dict.fromkeys((*(self._profiles[:1] if self.measures_energy else ()), *self._timed_profiles))
        for profile in called:
            try:
                self._comparer(profile).check()
            except ConfigurationError as error:
                faults.append(str(error))
        raise_all("the latency profiles", faults)

    def predict_with(self, predictors: Mapping[str, LatencyPredictor], *, only: bool = False) -> None:
        """Predict latencies from now on, unless a measurement is requested.

        Args:
            predictors: Name of a latency profile -> what predicts its latencies.
            only: Whether nothing else is measured either: the effect of masks on latency, and energy.
        """
        self._predictors, self._only_predicts = predictors, only

    def measure_in_quiet(self) -> None:
        """Measure latencies only while no other trial of this host runs, see `measure.latency.quiet`."""
        self._alone = quiet_host

    def expected(self, plan: ResolvedPlan, *, timed: bool) -> Measurement:
        """Work out the costs of a plan without training.

        Args:
            plan: Plan to cost.
            timed: Whether latency is measured, too, and energy where it decides.

        Returns:
            Costs with NaN as the quality. Under masks, bytes and non-zero parameters are lower bounds.
        """
        kept = plan.first_channels
        model = cut(self._task.dense, self._topology, kept)
        energy = self.energy(model, kept) if timed and self._energy is not None and self._energy.use.decides else None
        costs = self.of(model, kept, latencies=self.latencies(model, kept) if timed else {}, energy=energy)
        return costs if plan.weights is None else self.lower_bounds(costs, model, plan.weights)

    def of(
        self,
        model: nn.Module,
        kept: KeptChannels,
        *,
        latencies: Mapping[str, Latency],
        energy: Energy | None = None,
        mask_latency: Latency | None = None,
    ) -> Measurement:
        """Collect the costs of a model.

        Args:
            model: A pruned model.
            kept: Its channels.
            latencies: Name of a profile -> its latency.
            energy: Its energy; None where it was not measured.
            mask_latency: Effect of its masks on latency; None without.

        Returns:
            Costs with NaN as the quality.
        """
        key = self._architecture(kept)
        if key not in self._counted:
            inputs = self._task.example_inputs
            self._counted[key] = _Counts(
                count_parameters(model), count_multiply_adds(model, inputs), dict(measure_further(model, inputs))
            )
        counts = self._counted[key]
        return Measurement(
            split="search",
            quality=math.nan,
            quality_error=0.0,
            metrics={},
            parameters=counts.parameters,
            nonzero_parameters=count_nonzero(model),
            multiply_adds=counts.multiply_adds,
            size_bytes=stored_bytes(model),
            latencies=latencies,
            energy=energy,
            mask_latency=mask_latency,
            costs=counts.further,
        )

    def latencies(self, model: nn.Module, kept: KeptChannels, *, measured: bool = False) -> dict[str, Latency]:
        """Measure the latency of a model against the dense model in each profile, or predict it, see `predict_with`.

        The dense model is always measured.

        Args:
            model: A pruned model.
            kept: Its channels.
            measured: Whether nothing is predicted.

        Returns:
            Name of the profile -> latency; empty where latency is left out.
        """
        if not self._timed_profiles:
            return {}
        key, found = self._architecture(kept), {}
        is_dense = key == self._architecture(KeptChannels.whole(self._topology))
        predictors = {} if measured or is_dense else self._predictors
        for profile in self._timed_profiles:
            known = self._timed.get((key, profile.name))
            if known is None and profile.name in predictors:
                found[profile.name] = predictors[profile.name].predict(kept.widths, kept.dropped)
                continue
            latency = self._compared(profile, model) if known is None else known
            if latency.trusted:
                self._timed[key, profile.name] = latency
            found[profile.name] = latency
        return found

    def energy(self, model: nn.Module, kept: KeptChannels, *, measured: bool = False) -> Energy | None:
        """Measure the energy of a model against the dense model, which is never predicted.

        Where it decides nothing it is left out of candidates whose latency is predicted.

        Args:
            model: A pruned model.
            kept: Its channels.
            measured: Whether latency is measured and not predicted.

        Returns:
            The energy; None where it is left out.
        """
        if self._energy is None or self._energy.lacks:
            return None
        key = self._architecture(kept)
        predicts = self._only_predicts or self._profiles[0].name in self._predictors
        is_dense = key == self._architecture(KeptChannels.whole(self._topology))
        known = self._energy.known(key)
        if known is not None or (predicts and not (measured or is_dense or self._energy.use.decides)):
            return known
        with self._alone():
            return self._energy.measure(model, key)

    @torch.no_grad()
    def mask_latency(self, model: nn.Module) -> Latency | None:
        """Measure the latency of a masked model against the same model without masks.

        Args:
            model: A model with masks.

        Returns:
            The effect of the masks alone; None where latency, or this effect, is left out.
        """
        if not self._timed_profiles or self._only_predicts:
            return None
        filled = clone_with(model)
        for name, parameter in filled.named_parameters():
            if name in maskable(self._topology):
                # Latency does not depend on the values, unless they are zero or denormal.
                parameter.masked_fill_(parameter == 0, 0.01)
        comparer = LatencyComparer(filled, self._task.example_inputs, self._timed_profiles[0], self._timing)
        with self._alone():
            return comparer.compare(model)

    def _compared(self, profile: LatencyProfile, model: nn.Module) -> Latency:
        with self._alone():
            return self._comparer(profile).compare(model)

    def _comparer(self, profile: LatencyProfile) -> LatencyComparer:
        """Return the comparer of a profile, which prepares the dense model once."""
        if profile.name not in self._comparers:
            dense, inputs = self._task.dense, self._task.example_inputs
            self._comparers[profile.name] = LatencyComparer(dense, inputs, profile, self._timing)
        return self._comparers[profile.name]

    def _architecture(self, kept: KeptChannels) -> _Architecture:
        return tuple(sorted({**self._topology.widths, **kept.widths}.items())), kept.dropped

    def lower_bounds(self, costs: Measurement, model: nn.Module, plan: WeightPlan) -> Measurement:
        """Return lower bounds of the costs once masks are applied.

        Args:
            costs: Costs without masks.
            model: Model without masks.
            plan: Masks of the plan.

        Returns:
            The costs, with fewer bytes and non-zero parameters.
        """
        weights = {n: parameter for n, parameter in model.named_parameters() if n in maskable(self._topology)}
        rows, columns = block_pattern(plan.pattern) or (1, 1)
        # Each weight may lose up to a block more than its share, as whole blocks are masked.
        zeros = {
            n: min(weight.numel(), math.ceil(plan.layers.get(n, plan.target) * weight.numel()) + rows * columns)
            for n, weight in weights.items()
        }
        widest = max((weight.element_size() for weight in weights.values()), default=0)
        return replace(
            costs,
            nonzero_parameters=max(costs.nonzero_parameters - sum(zeros.values()), 0),
            size_bytes=max(costs.size_bytes - sum(zeros.values()) * widest, 0),
        )
