"""Checks of the user's model: wrappers, scripts and hooked weights are refused by name, each with a remedy."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.prune import BasePruningMethod

from autoprune.errors import ConfigurationError, describe_exception, error_message
from autoprune.task.clone import BorrowedWeights, held_functions
from autoprune.task.data import Inputs, call

#: Class -> remedy. By name, as importing some of them takes seconds or needs another build of torch.
_REFUSED: Mapping[str, str] = {
    "torch._dynamo.eval_frame.OptimizedModule": (
        "Pass the module inside, ._orig_mod, and compile the pruned model: compiled code stays bound to its weights."
    ),
    "torch.nn.parallel.data_parallel.DataParallel": "Pass the module inside, .module, and wrap the pruned model.",
    "torch.nn.parallel.distributed.DistributedDataParallel": (
        "Pass the module inside, .module, and wrap the pruned model."
    ),
    "torch.optim.swa_utils.AveragedModel": "Pass the averaged module inside, .module.",
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel": (
        "Gather the whole weights (its full state dict) and load them into the plain module."
    ),
    "torch.jit._script.ScriptModule": (
        "Pass the nn.Module that it was made of, with its weights; script or trace the pruned model."
    ),
    "torch.export._unlift._StatefulGraphModule": (
        "Pass the nn.Module that was exported, with its weights; export the pruned model."
    ),
}
#: Parts of names that wrappers put into the keys of a state dict.
_WRAPPING = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))


def check_type(model: object) -> None:
    """Check that a value is a module or a function that may build one.

    Args:
        model: The value.

    Raises:
        ConfigurationError: It is neither.
    """
    if not isinstance(model, nn.Module) and (isinstance(model, type) or not callable(model)):
        raise ConfigurationError(
            error_message(
                "model", "be an nn.Module or a function that builds one", repr(model), "Pass lambda: YourModel(...)."
            )
        )


def module_of(model: object) -> nn.Module:
    """Find the module, or build it if the user gave a function.

    Args:
        model: A module, or a function without arguments that builds one.

    Returns:
        The module.

    Raises:
        ConfigurationError: There is no module.
    """
    check_type(model)
    if isinstance(model, nn.Module):
        return model
    try:
        built: object = model()  # type: ignore[operator]  # of the right type
    except Exception as error:  # user code may raise anything
        raise ConfigurationError(error_message("the model function", "run", describe_exception(error))) from error
    if not isinstance(built, nn.Module):
        raise ConfigurationError(error_message("the model function", "return an nn.Module", type(built).__name__))
    return built


def check_kind(model: nn.Module) -> None:
    """Check that a model and all of its parts are plain modules.

    Args:
        model: The model.

    Raises:
        ConfigurationError: A part is refused; the message names it and the remedy.
    """
    for path, module in model.named_modules():
        where = f"{path} in the model" if path else "the model"
        if any(isinstance(tensor, UninitializedParameter) for tensor in module.parameters(recurse=False)):
            raise ConfigurationError(
                error_message(where, "have weights", "a lazy module", "Call the model once first.")
            )
        remedy = _remedy(module)
        if remedy:
            raise ConfigurationError(
                error_message(where, "be a plain nn.Module", f"one of class {_kind(module)}", remedy)
            )
        masked = [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, BasePruningMethod)]
        if masked:
            name = masked[0]._tensor_name
            raise ConfigurationError(
                error_message(
                    where,
                    "hold its weights themselves",
                    f"a {name} that is computed from {name}_orig and {name}_mask at each call",
                    f"Call torch.nn.utils.prune.remove(module, {name!r}) first: zeros stay zeros.",
                )
            )


def check_independent(copied: nn.Module, original: nn.Module, inputs: Inputs) -> None:
    """Check that a copy does not compute with weights of the original, as a closure over them would.

    A model that does not run on the inputs is not checked here.

    Args:
        copied: The copy.
        original: The original.
        inputs: Example inputs.

    Raises:
        ConfigurationError: The copy uses weights of the original.
    """
    borrowed = BorrowedWeights(original)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), borrowed:
            call(copied, copy.deepcopy(inputs))
    except Exception:  # errors of the user's code are reported where inputs are checked
        return
    if borrowed.found:
        raise ConfigurationError(borrowing_message(original, borrowed))


def borrowing_message(original: nn.Module, borrowed: BorrowedWeights) -> str:
    """Build the message about a copy that computes with weights of the original.

    Args:
        original: The original.
        borrowed: The weights that were used.

    Returns:
        The message, with the functions that may be bound to these weights.
    """
    held = held_functions(original)
    return error_message(
        "a copy of the model",
        "compute with its own weights",
        f"one that computes with weights of the original ({', '.join([*borrowed.found][:3])})",
        f"Functions stay bound to the modules they were made for ({', '.join(held[:5]) or 'none found in a module'}): "
        "compile, patch or wrap the pruned model instead, or write a method, which gets its module as self.",
    )


def without_wrapping(weights: Mapping[str, Tensor], own: Collection[str]) -> Mapping[str, Tensor]:
    """Remove the prefixes that a wrapper put into the names of weights.

    Args:
        weights: Weights by stored name.
        own: Names in the module's state dict.

    Returns:
        Weights by the module's names; unchanged if no prefix explains the names.
    """
    for plain in _unwrapped(weights) if weights.keys() != set(own) else ():
        if plain.keys() == set(own):
            return plain
    return weights


def _unwrapped(weights: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
    """The weights without leading parts of their names, one by one, then without any part of a wrapper."""
    left = {name: tensor for name, tensor in weights.items() if name != "n_averaged"}  # a counter of AveragedModel
    while common_prefix(left).removesuffix(".") in _WRAPPING:
        left = {name.partition(".")[2]: tensor for name, tensor in left.items()}
        yield left
    parts = {name: [part for part in name.split(".") if part not in _WRAPPING] for name in weights}
    plain = {".".join(parts[name]): tensor for name, tensor in weights.items()}
    if len(plain) == len(weights):
        yield plain


def common_prefix(names: Collection[str]) -> str:
    """Find the first part that all names share.

    Args:
        names: Dotted names.

    Returns:
        The part with its dot; "" if there is none.
    """
    first = {name.partition(".")[0] if "." in name else "" for name in names}
    return f"{first.pop()}." if len(first) == 1 and "" not in first else ""


def _remedy(module: nn.Module) -> str:
    weights = (*module.parameters(), *module.buffers())
    if isinstance(module, torch.jit.ScriptModule) and not weights:
        return ""  # such as an activation: it has nothing to cut
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__)
    return next((_REFUSED[name] for name in names if name in _REFUSED), "")


def _kind(module: nn.Module) -> str:
    return "ScriptModule" if isinstance(module, torch.jit.ScriptModule) else type(module).__name__
