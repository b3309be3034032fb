"""Average the weights of the last optimizer steps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from autoprune.plan.recovery import RecoveryPlan
from autoprune.recovery.step import CutMade, RecoveryState, RecoveryStep
from autoprune.task.checkpoint import model_tensors


class Averaging(RecoveryStep):
    """Stochastic weight averaging: the mean of weights and running statistics over the last steps.

    A cut starts the mean anew.
    Source: Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, 2018.
    """

    def __init__(self, plan: RecoveryPlan) -> None:
        self.settings = plan.averaging
        self._mean: dict[str, Tensor] = {}
        self._count = 0

    def after_cut(self, state: RecoveryState, cut: CutMade) -> None:
        """Forget the weights from before the cut."""
        del state, cut
        self._mean, self._count = {}, 0

    @torch.no_grad()
    def each_step(self, state: RecoveryState) -> None:
        """Add the weights of one of the last steps to the mean."""
        if state.step <= (1.0 - self.settings.share) * state.plan.steps:
            return
        self._count += 1
        for name, tensor in _floats(state.model).items():
            mean = self._mean.setdefault(name, tensor.detach().clone())
            mean.lerp_(tensor, 1.0 / self._count)

    @torch.no_grad()
    def at_end(self, state: RecoveryState) -> None:
        """Put the mean into the model."""
        if self._count > 1:
            for name, tensor in _floats(state.model).items():
                tensor.copy_(self._mean[name])
        # Averaged weights need their own statistics. A training that ended before the last steps gets new ones, too.
        state.weights_changed = state.weights_changed or state.plan.steps > 0

    def tensors(self) -> Mapping[str, Tensor]:
        """Return the mean, and the number of steps in it under the name "", which no parameter has."""
        return {"": torch.tensor(self._count), **self._mean} if self._count else {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with a mean."""
        self._mean = {name: tensor for name, tensor in tensors.items() if name}
        self._count = int(tensors[""])


def _floats(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers that can be averaged, by name."""
    return {name: tensor for name, tensor in model_tensors(model).items() if tensor.is_floating_point()}
