"""CostOracle: the costs of models that are cut from one dense model."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from autoprune.measure.cost import count_multiply_adds, count_nonzero, count_parameters, stored_bytes
from autoprune.measure.latency.comparer import LatencyComparer
from autoprune.measure.latency.timing import Timing
from autoprune.measure.registry import measure_further
from autoprune.plan.kept import KeptChannels
from autoprune.plan.maskable import maskable
from autoprune.plan.resolved import ResolvedPlan
from autoprune.plan.weights import WeightPlan, block_pattern
from autoprune.records.measurement import DEFAULT_PROFILE, Latency, Measurement
from autoprune.records.profile import LatencyProfile
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from autoprune.task.clone import clone_with
from autoprune.task.prepare import PreparedTask

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

    Costs that follow from the architecture are counted once for each, and the dense model is prepared once for the
    latency backend. The weights decide on bytes and non-zero parameters, and latency is measured whenever it is asked
    for: more measurements of equal widths make a better median.

    Args:
        task: Prepared task.
        topology: Topology of its model.
        rounds: Most bursts of calls per latency measurement; 0 leaves latency out.
        backend: Name of the latency backend.
    """

    def __init__(self, task: PreparedTask, topology: Topology, *, rounds: int, backend: str) -> None:
        self._task, self._topology = task, topology
        self._timing = Timing(bursts=rounds) if rounds else None
        self._profile = LatencyProfile(name=DEFAULT_PROFILE, backend=backend)
        self._dense = LatencyComparer(task.dense, task.example_inputs, self._profile, self._timing)
        self._counted: dict[_Architecture, _Counts] = {}

    def expected(self, plan: ResolvedPlan, *, timed: bool) -> Measurement:
        """Work out the costs of a plan without training.

        Args:
            plan: Plan to cost.
            timed: Whether latency is measured, too.

        Returns:
            Costs with NaN as the quality. Under masks, bytes and non-zero parameters are lower bounds.
        """
        kept = plan.first_channels
        model = cut(self._task.dense, self._topology, kept)
        costs = self.of(model, kept, latency=self.latency(model) if timed else None)
        return costs if plan.weights is None else self.lower_bounds(costs, model, plan.weights)

    def of(
        self, model: nn.Module, kept: KeptChannels, *, latency: Latency | None, mask_latency: Latency | None = None
    ) -> Measurement:
        """Collect the costs of a model.

        Args:
            model: A pruned model.
            kept: Its channels.
            latency: Its latency; None without.
            mask_latency: Effect of its masks on latency; None without.

        Returns:
            Costs with NaN as the quality.
        """
        key = (tuple(sorted({**self._topology.widths, **kept.widths}.items())), kept.dropped)
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
            latencies={} if latency is None else {DEFAULT_PROFILE: latency},
            mask_latency=mask_latency,
            costs=counts.further,
        )

    def latency(self, model: nn.Module) -> Latency | None:
        """Measure the latency of a model against the dense model.

        Args:
            model: A pruned model.

        Returns:
            The latency; None where it is left out.
        """
        return self._dense.compare(model) if self._timing else None

    @torch.no_grad()
    def mask_latency(self, model: nn.Module) -> Latency | None:
        """Measure the latency of a masked model against the same model without masks.

        Args:
            model: A model with masks.

        Returns:
            The effect of the masks alone; None where latency is left out.
        """
        if self._timing is None:
            return None
        filled = clone_with(model)
        for name, parameter in filled.named_parameters():
            if name in maskable(self._topology):
                # Latency does not depend on the values, unless they are zero or denormal.
                parameter.masked_fill_(parameter == 0, 0.01)
        return LatencyComparer(filled, self._task.example_inputs, self._profile, self._timing).compare(model)

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
