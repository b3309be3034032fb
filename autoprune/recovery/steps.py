"""Registry of the recovery steps, and the steps of one plan at work."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from autoprune.plan.recovery import RecoveryPlan
from autoprune.recovery.averaging import Averaging
from autoprune.recovery.batch_norm import Recalibration
from autoprune.recovery.distillation import Distillation
from autoprune.recovery.max_norm import MaxNorm
from autoprune.recovery.reconstruction import Reconstruction
from autoprune.recovery.step import CutMade, RecoveryState, RecoveryStep
from autoprune.recovery.teacher import Teacher
from autoprune.surgery.weight_masks import apply_masks
from autoprune.task.data import Batch
from autoprune.task.prepare import PreparedTask

#: Field of RecoveryPlan -> step. In each phase they act in this order; recalibration is last, as it measures the rest.
RECOVERY_STEPS: Mapping[str, type[RecoveryStep]] = {
    "reconstruction": Reconstruction,
    "max_norm": MaxNorm,
    "distillation": Distillation,
    "averaging": Averaging,
    "recalibration": Recalibration,
}


class Recovery:
    """The recovery steps that a plan switches on, and the state that they share.

    Args:
        model: The model at the start.
        task: The user's task.
        plan: Recovery settings.
        teacher: Outputs of the dense model; None for no distillation.

    Attributes:
        state: The state.
        steps: The steps that are on, in the order of the registry.
    """

    def __init__(
        self, model: nn.Module, task: PreparedTask, plan: RecoveryPlan, teacher: Teacher | None = None
    ) -> None:
        self.state = RecoveryState(model=model, task=task, plan=plan, teacher=teacher)
        self._names = [name for name in RECOVERY_STEPS if plan.strength(name)]
        self.steps = [RECOVERY_STEPS[name](plan) for name in self._names]

    def after_cut(self, cut: CutMade) -> None:
        """Recover from a cut.

        Args:
            cut: The cut.
        """
        for step in self.steps:
            step.after_cut(self.state, cut)

    def after_pruning(self) -> None:
        """Recover once a pruning step has removed channels and renewed masks."""
        for step in self.steps:
            step.after_pruning(self.state)

    def before_training(self) -> None:
        """Prepare the model for the first optimizer step."""
        self.state.is_training = True
        for step in self.steps:
            step.before_training(self.state)

    def on_loss(self, loss: Tensor, outputs: object, batch: Batch) -> Tensor:
        """Change the loss of an optimizer step.

        Args:
            loss: The user's loss, a scalar.
            outputs: What the model returned for the batch.
            batch: The batch.

        Returns:
            The loss to train on.
        """
        for step in self.steps:
            loss = step.on_loss(self.state, loss, outputs, batch)
        return loss

    def each_step(self) -> None:
        """Act after an optimizer step, once masks are applied."""
        for step in self.steps:
            step.each_step(self.state)

    def at_end(self) -> None:
        """Finish the model after the last optimizer step."""
        self.state.weights_changed = False
        for step in self.steps:
            step.at_end(self.state)
            apply_masks(self.state.model, self.state.masks)

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """List what the steps remember from one optimizer step to the next.

        Returns:
            Name of a step -> its tensors by name, of the steps that remember any.
        """
        found = {name: step.tensors() for name, step in zip(self._names, self.steps, strict=True)}
        return {name: tensors for name, tensors in found.items() if tensors}

    def restore(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Let the steps remember what they did in an earlier process, in the middle of the training.

        Args:
            tensors: Result of `tensors`, on the device of the model.
        """
        self.state.is_training = True
        for name, step in zip(self._names, self.steps, strict=True):
            if name in tensors:
                step.restore(tensors[name])
