"""Perturb weights, statistics and inputs whose values would hide errors from a proof."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoprune.task.clone import clone_with


@torch.no_grad()
def perturb_statistics(model: nn.Module) -> None:
    """Add noise to the running means of norms, in place: equal statistics hide channels in a wrong order.

    Args:
        model: The model.
    """
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            noise = torch.rand(module.running_mean.shape, generator=generator, dtype=torch.float64)
            module.running_mean += noise.to(module.running_mean)


def perturb_weights(model: nn.Module) -> nn.Module:
    """Copy a model, with noise on parameters that are constant or nearly zero: a branch scaled by zero hides any error.

    Args:
        model: The model.

    Returns:
        The copy; it shares the other parameters.
    """
    generator = torch.Generator().manual_seed(1)
    parameters = {name for name, _ in model.named_parameters()}

    def telling(name: str, tensor: Tensor) -> Tensor | None:
        if name not in parameters:
            return None
        if not tensor.is_floating_point() or not tensor.numel() or not _says_nothing(tensor):
            return tensor
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        return tensor + (noise * 0.1).to(tensor)

    return clone_with(model, telling)


def redraw_weights(model: nn.Module, seed: int) -> nn.Module:
    """Copy a model with other weights of the same size: a cut behind a dead ReLU, say, may have an effect then.

    Args:
        model: The model.
        seed: Seed of the weights.

    Returns:
        The copy.
    """
    generator = torch.Generator().manual_seed(4 + seed)
    parameters = {name: parameter.ndim for name, parameter in model.named_parameters()}

    def other(name: str, tensor: Tensor) -> Tensor | None:
        if name not in parameters or not tensor.is_floating_point():
            return None
        drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
        return tensor + drawn if parameters[name] < 2 else tensor * drawn.sign()

    return clone_with(model, other)


def _says_nothing(values: Tensor) -> bool:
    """Tell whether all values are equal or nearly zero. A sample is tested first, which mostly decides."""
    for some in (part.double() for part in (values.flatten()[:1024], values)):
        if float(some.abs().max()) >= 1e-3 and (some.numel() == 1 or float(some.std()) >= 1e-6):
            return False
    return True


def perturb_input(tensor: Tensor, *, dtype: torch.dtype | None, noise: bool) -> Tensor:
    """Add noise of an input's own size to it, as images of zeros would hide any error.

    Args:
        tensor: The input.
        dtype: Precision of the proof; None for the input's own.
        noise: Whether to add noise.

    Returns:
        The input in that precision. Whole numbers are returned unchanged.
    """
    if not tensor.is_floating_point():
        return tensor
    tensor = tensor.to(dtype) if dtype is not None else tensor
    finite = tensor[torch.isfinite(tensor)].double()
    if not noise or finite.numel() == 0:
        return tensor
    spread = float(finite.std()) if finite.numel() > 1 else 0.0
    drawn = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return tensor.add((drawn * (spread or 1.0)).to(tensor))
