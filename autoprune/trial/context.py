"""The context that the trials of one study share, and the recovered models from which they start."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from torch import nn

from autoprune.measure.latency.backends import check_backend
from autoprune.measure.latency.timing import Timing
from autoprune.plan.kept import KeptChannels
from autoprune.plan.maskable import maskable
from autoprune.proof.discover import discover_structure
from autoprune.records.measurement import DEFAULT_PROFILE
from autoprune.records.profile import LatencyProfile
from autoprune.recovery.teacher import Teacher
from autoprune.structure.groups import GROUP_KINDS
from autoprune.structure.topology import Topology
from autoprune.task.prepare import PreparedTask, prepare
from autoprune.task.task import Task
from autoprune.trial.costs import CostOracle
from autoprune.trial.energy import EnergyUse

_DEFAULT = LatencyProfile(name=DEFAULT_PROFILE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialContext:
    """Everything the trials of one study share.

    Attributes:
        task: The prepared task.
        topology: Proved groups of the dense model, without the groups that the user protects.
        structure: Fingerprint of all proved groups; every process finds the same one.
        teacher: Outputs of the dense model, for distillation.
        masks_weights: Whether masks may be laid on single weights.
        profiles: Circumstances in which latency is measured, the default one first.
        timing: How long latency is measured; None leaves it out.
        energy: How energy is measured where it can be read; None leaves it out.
        untimed: Names of profiles in which no latency is measured, as nothing asks for it.
        judged: Names of the further metrics whose noise is needed, as they are objectives or limited.
        costs: Costs of pruned models.

    Example:
        >>> import torch
        >>> inputs = torch.randn(200, 4)
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> task = Task(
        ...     model=model,
        ...     example_inputs=inputs[:1],
        ...     train=(inputs, model(inputs).argmax(1)),
        ...     loss=nn.functional.cross_entropy,
        ...     metrics=("accuracy",),
        ...     quality="accuracy",
        ... )
        >>> TrialContext.of(task).topology.widths
        {'0': 8}
    """

    task: PreparedTask
    topology: Topology
    structure: str
    teacher: Teacher
    masks_weights: bool = True
    profiles: tuple[LatencyProfile, ...] = (_DEFAULT,)
    timing: Timing | None = None
    energy: EnergyUse | None = None
    untimed: tuple[str, ...] = ()
    judged: tuple[str, ...] = ()
    costs: CostOracle = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        oracle = CostOracle(
            self.task,
            self.topology,
            profiles=self.profiles,
            timing=self.timing,
            energy=self.energy,
            untimed=self.untimed,
        )
        object.__setattr__(self, "costs", oracle)

    @classmethod
    def of(
        cls,
        task: Task,
        *,
        protect: Sequence[str] = (),
        kinds: Sequence[str] = (*GROUP_KINDS, "blocks", "layers", "weights"),
        profiles: Sequence[LatencyProfile] = (_DEFAULT,),
        timing: Timing | None = None,
        judged: Collection[str] = (),
    ) -> TrialContext:
        """Prepare the task, trace its model and prove its groups.

        Args:
            task: The user's task.
            protect: Patterns of module names whose channels stay.
            kinds: What may be pruned: members of GROUP_KINDS, "blocks", "layers" and "weights".
            profiles: Circumstances in which latency is measured, the default one first.
            timing: How long latency is measured; None leaves it out.
            judged: Names of objectives and of limited ones, those of further metrics of the task among them.

        Returns:
            The context.

        Raises:
            TaskError: The task has faults.
            TraceError: The model cannot be traced.
            UnknownNameError: There is no such latency backend.
            ConfigurationError: A pattern matches no module.
        """
        for profile in profiles if timing is not None else ():
            check_backend(profile.backend)
        prepared = prepare(task)
        topology = discover_structure(prepared.dense, prepared.example_inputs)
        return cls(
            task=prepared,
            topology=topology.protected(protect).only(kinds),
            structure=topology.fingerprint(),
            teacher=Teacher(prepared),
            masks_weights="weights" in kinds and len(maskable(topology)) > 0,
            profiles=tuple(profiles),
            timing=timing,
            judged=judged_metrics(prepared, judged),
        )


def judged_metrics(task: PreparedTask, names: Collection[str]) -> tuple[str, ...]:
    """Select the further metrics of a task whose noise is needed.

    Args:
        task: The prepared task.
        names: Names of objectives and of limited ones.

    Returns:
        Those that are metrics of the task other than the quality, in its order.
    """
    return tuple(name for name in task.metric_set if name in names and name != task.quality)


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
