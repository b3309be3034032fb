"""Movement: where a training carries each weight, away from zero or towards it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableMapping, Sequence

import torch
from torch import Tensor, nn

from autoprune.criteria.calibration import Loss, functional_model
from autoprune.task.data import Batch

#: Passes over the calibration batches that the training takes.
MOVEMENT_PASSES = 2
#: How far its first step goes, as a share of the weights' norm: near, whatever the scale of the loss.
_FIRST_STEP = 0.01


def accumulate_movement(
    total: MutableMapping[str, Tensor], weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], rate: float
) -> None:
    """Add one step's -rate * gradient * weight to `total`, in place, each [shape of the weight], for every gradient.

    weights: as they were when the gradients were taken.
    """
    for name, gradient in gradients.items():
        measure_movement = -rate * gradient.detach() * weights[name].detach()
        total[name] = total[name] + measure_movement if name in total else measure_movement


@torch.enable_grad()
def measure_movement(
    model: nn.Module, batches: Sequence[Batch], loss: Loss, names: Collection[str]
) -> dict[str, Tensor]:
    """Name of a parameter -> minus the sum over steps of rate * gradient * weight, for those that the loss reaches.

    Copies of the named parameters are trained for PASSES passes of plain SGD in the mode of the loss, at a rate that
    makes the first step a hundredth of their norm. The training ends where a loss or gradient is no longer finite.
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
    """Euclidean norm of all of them together."""
    norms = [torch.linalg.vector_norm(tensor.detach()) for tensor in tensors.values()]
    return torch.linalg.vector_norm(torch.stack([norm.double().cpu() for norm in norms])) if norms else torch.zeros(())
