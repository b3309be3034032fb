"""Movement: the change that training makes to each weight, away from zero or towards zero."""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableMapping, Sequence

import torch
from torch import Tensor, nn

from autoprune.criteria.calibration import Loss, functional_model
from autoprune.task.data import Batch

#: Passes over the calibration batches in the training.
MOVEMENT_PASSES = 2
#: Length of the first step as a share of the weights' norm: small, whatever the scale of the loss.
_FIRST_STEP = 0.01


def accumulate_movement(
    total: MutableMapping[str, Tensor], weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], rate: float
) -> None:
    """Add the movement of one training step, -rate * gradient * weight, to a total, in place.

    Args:
        total: Name of a parameter -> movement so far, [shape of the weight].
        weights: Name of a parameter -> its value when the gradients were computed.
        gradients: Name of a parameter -> its gradient.
        rate: Learning rate of the step, >= 0.
    """
    for name, gradient in gradients.items():
        change = -rate * gradient.detach() * weights[name].detach()
        total[name] = total[name] + change if name in total else change


@torch.enable_grad()
def measure_movement(
    model: nn.Module, batches: Sequence[Batch], loss: Loss, names: Collection[str]
) -> dict[str, Tensor]:
    """Train copies of parameters briefly and sum their movement.

    The training takes MOVEMENT_PASSES passes of plain SGD in the mode of the loss; the first step is a hundredth of the
    parameters' norm. It ends where a loss or gradient is not finite.

    Args:
        model: Model to copy; it is not changed.
        batches: Calibration batches on the model's device.
        loss: Loss of the task.
        names: Names of the parameters to train.

    Returns:
        Name of a parameter -> minus the sum over steps of rate * gradient * weight, [shape of the weight], for the
        parameters that the loss reaches.
    """
    weights = {
        name: parameter.detach().clone().requires_grad_()
        for name, parameter in model.named_parameters()
        if name in names
    }
    total: dict[str, Tensor] = {}
    rate: float | None = None
    with functional_model(model, loss) as run:
        for batch in (batch for _ in range(MOVEMENT_PASSES) for batch in batches):
            value = loss(run(weights, batch.inputs), batch.targets)
            if not weights or not value.requires_grad:
                continue
            slopes = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
            gradients = {name: slope for name, slope in zip(weights, slopes, strict=True) if slope is not None}
            length = _norm(gradients)
            if not torch.isfinite(length):
                break
            if rate is None:
                rate = _FIRST_STEP * float(_norm(weights) / length) if length > 0 else 0.0
            accumulate_movement(total, weights, gradients, rate)
            with torch.no_grad():
                for name, gradient in gradients.items():
                    weights[name] -= rate * gradient
    return total


def _norm(tensors: Mapping[str, Tensor]) -> Tensor:
    """Compute the Euclidean norm of all tensors together."""
    norms = [torch.linalg.vector_norm(tensor.detach()) for tensor in tensors.values()]
    return torch.linalg.vector_norm(torch.stack([norm.double().cpu() for norm in norms])) if norms else torch.zeros(())
