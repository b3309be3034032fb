"""The context that the trials of one study share, and the recovered models from which they start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from autoprune.measure.latency.backends import check_backend
from autoprune.plan.kept import KeptChannels
from autoprune.plan.maskable import maskable
from autoprune.proof.discover import discover_structure
from autoprune.recovery.teacher import Teacher
from autoprune.structure.groups import GROUP_KINDS
from autoprune.structure.topology import Topology
from autoprune.task.prepare import PreparedTask, prepare
from autoprune.task.task import Task
from autoprune.trial.costs import CostOracle


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialContext:
    """Everything the trials of one study share.

    Attributes:
        task: The prepared task.
        topology: Proved groups of the dense model, without the groups that the user protects.
        structure: Fingerprint of all proved groups; every process finds the same one.
        teacher: Outputs of the dense model, for distillation.
        masks_weights: Whether masks may be laid on single weights.
        latency_rounds: Most bursts of calls per latency measurement; 0 leaves latency out.
        latency_backend: Name of the latency backend.
        costs: Costs of pruned models.
    """

    task: PreparedTask
    topology: Topology
    structure: str
    teacher: Teacher
    masks_weights: bool = True
    latency_rounds: int = 30
    latency_backend: str = "torch"
    costs: CostOracle = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        oracle = CostOracle(self.task, self.topology, rounds=self.latency_rounds, backend=self.latency_backend)
        object.__setattr__(self, "costs", oracle)

    @classmethod
    def of(
        cls,
        task: Task,
        *,
        protect: Sequence[str] = (),
        kinds: Sequence[str] = (*GROUP_KINDS, "blocks", "layers", "weights"),
        latency_rounds: int = 30,
        latency_backend: str = "torch",
    ) -> TrialContext:
        """Prepare the task, trace its model and prove its groups.

        Args:
            task: The user's task.
            protect: Patterns of module names whose channels stay.
            kinds: What may be pruned: members of GROUP_KINDS, "blocks", "layers" and "weights".
            latency_rounds: Most bursts of calls per latency measurement, >= 0.
            latency_backend: Name of the latency backend.

        Returns:
            The context.

        Raises:
            TaskError: The task has faults.
            TraceError: The model cannot be traced.
            UnknownNameError: There is no such latency backend.
            ConfigurationError: A pattern matches no module.
        """
        check_backend(latency_backend)
        prepared = prepare(task)
        topology = discover_structure(prepared.dense, prepared.example_inputs)
        return cls(
            task=prepared,
            topology=topology.protected(protect).only(kinds),
            structure=topology.fingerprint(),
            teacher=Teacher(prepared),
            masks_weights="weights" in kinds and len(maskable(topology)) > 0,
            latency_rounds=latency_rounds,
            latency_backend=latency_backend,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A recovered model that a candidate starts from.

    Attributes:
        number: Number of its trial.
        model: Its modules, with recovered weights.
        kept: Its channels, in dense indices.
    """

    number: int
    model: nn.Module
    kept: KeptChannels
