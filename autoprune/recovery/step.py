"""Interface of a recovery step, and the state of a model that all steps share."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor, nn

from autoprune.plan.kept import KeptChannels
from autoprune.plan.recovery import RecoveryPlan
from autoprune.records.work import Work
from autoprune.recovery.teacher import Teacher
from autoprune.structure.topology import Topology
from autoprune.task.data import Batch, first_batches
from autoprune.task.prepare import PreparedTask


class PhaseTimer:
    """Adds up seconds by phase.

    Args:
        seconds: Phase -> seconds before.

    Attributes:
        seconds: Phase -> seconds.
    """

    def __init__(self, seconds: Mapping[str, float] = MappingProxyType({})) -> None:
        self.seconds = dict(seconds)
        self._open: list[tuple[str, float]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of a `with` block to a phase.

        Args:
            name: The phase.
        """
        self._open.append((name, time.perf_counter()))
        try:
            yield
        finally:
            _, start = self._open.pop()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def so_far(self) -> dict[str, float]:
        """Return the seconds by phase, with those of phases that have not ended.

        Returns:
            Phase -> seconds.
        """
        now, found = time.perf_counter(), dict(self.seconds)
        for name, start in self._open:
            found[name] = found.get(name, 0.0) + now - start
        return found


@dataclass(slots=True, kw_only=True)
class RecoveryState:
    """State of a model during recovery.

    Attributes:
        model: The current model, which steps change in place.
        task: The user's task.
        plan: Recovery settings.
        teacher: Outputs of the dense model; None for no distillation.
        masks: Name of a weight -> bool mask of its shape; entries that are False stay zero.
        step: Optimizer steps done.
        is_training: Whether the fine-tune has begun.
        channels_changed: Whether the last pruning step removed channels.
        weights_changed: Whether weights have changed otherwise since: by masks, or by a step in the same phase.
        work: Work done so far. Steps add theirs.
        timer: Seconds by phase.
    """

    model: nn.Module
    task: PreparedTask
    plan: RecoveryPlan
    teacher: Teacher | None = None
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    step: int = 0
    is_training: bool = False
    channels_changed: bool = False
    weights_changed: bool = False
    work: Work = field(default_factory=Work)
    timer: PhaseTimer = field(default_factory=PhaseTimer)

    @property
    def steps_left(self) -> int:
        """Optimizer steps to come."""
        return self.plan.steps - self.step


@dataclass(frozen=True, slots=True, kw_only=True)
class CutMade:
    """A cut that has been made: from a source to the current model.

    Attributes:
        source: The model before the cut.
        topology: Proved groups of the dense model.
        before: Channels of the source, in dense indices.
        kept: Channels of the current model, in dense indices.
    """

    source: nn.Module
    topology: Topology
    before: KeptChannels
    kept: KeptChannels


class RecoveryStep:
    """One recovery method. Each method of the class is one phase of a recovery; by default it does nothing.

    A step changes `state.model` in place. It keeps entries that are zero under `state.masks` at zero in `each_step`; in
    the other phases masks are applied again behind it.

    Args:
        plan: Recovery settings, from which the step takes its own.
    """

    def __init__(self, plan: RecoveryPlan) -> None:
        del plan

    def after_cut(self, state: RecoveryState, cut: CutMade) -> None:
        """Recover from a cut, which may lie between two optimizer steps.

        Args:
            state: The state; its model is the cut one.
            cut: The cut.
        """

    def after_pruning(self, state: RecoveryState) -> None:
        """Recover once a pruning step has removed channels and renewed masks.

        Args:
            state: The state.
        """

    def before_training(self, state: RecoveryState) -> None:
        """Prepare the model for the first optimizer step.

        Args:
            state: The state.
        """

    def on_loss(self, state: RecoveryState, loss: Tensor, outputs: object, batch: Batch) -> Tensor:
        """Change the loss of an optimizer step.

        Args:
            state: The state.
            loss: The loss so far, a scalar.
            outputs: What the model returned for the batch.
            batch: The batch.

        Returns:
            The loss to train on.
        """
        del state, outputs, batch
        return loss

    def each_step(self, state: RecoveryState) -> None:
        """Act after an optimizer step, once masks are applied.

        Args:
            state: The state, with the step counted.
        """

    def at_end(self, state: RecoveryState) -> None:
        """Finish the model after the last optimizer step.

        Args:
            state: The state; its model is in eval mode.
        """

    def tensors(self) -> Mapping[str, Tensor]:
        """List what the step remembers from one optimizer step to the next, so that a stored trial can go on.

        Returns:
            Name -> tensor; nothing by default.
        """
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Remember what the step remembered in an earlier process.

        Args:
            tensors: Result of `tensors`, on the device of the model.
        """
        del tensors


def first_samples(task: PreparedTask, samples: int) -> list[Batch]:
    """Take the first samples of the train split, on the task's device.

    Args:
        task: The user's task.
        samples: Most samples.

    Returns:
        Their batches.
    """
    if samples <= 0:
        return []
    if samples == sum(batch.size for batch in task.calibration):
        return list(task.calibration)
    device = torch.device(task.device)
    return [batch.to(device) for batch in first_batches(task.train_split, samples, task.least_batch)]
