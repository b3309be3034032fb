"""The user's function that evaluates a model as a whole, in place of a split and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from autoprune.errors import ConfigurationError, error_message
from autoprune.task.clone import clone_with
from autoprune.task.data import Split
from autoprune.task.functions import finite_number
from autoprune.task.modes import seeded
from autoprune.task.names import wrong_metric_name
from autoprune.task.nested import first_tensor

#: Model in eval mode -> name -> number; one name is the task's quality.
EvaluateFunction = Callable[[nn.Module], Mapping[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The user's function that evaluates a model, in place of a split and metrics.

    Attributes:
        function: The function. It gets a copy of the model in eval mode, without gradients.
        argument: Name of the task's argument that holds it, for messages.
        quality: Name of the quality among its results.
        names: Names of all results, as the first call gave them; () before it.
    """

    function: EvaluateFunction
    argument: str
    quality: str
    names: tuple[str, ...] = ()

    @property
    def samples(self) -> int | None:
        """Number of samples, which the function does not tell."""
        return None

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> tuple[dict[str, float], int]:
        """Call the function. Random draws of torch, NumPy and Python are the same each time.

        Args:
            model: Any model; it is not changed.

        Returns:
            Name -> finite number, and the samples of all calls of the model.

        Raises:
            ConfigurationError: The result is no dict of finite numbers, or has other names than that of the first call.
        """
        copied = clone_with(model).eval()
        samples = 0

        def count(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            nonlocal samples
            tensor = first_tensor((args, kwargs))
            samples += len(tensor) if tensor is not None and tensor.ndim else 1

        copied.register_forward_pre_hook(count, with_kwargs=True)
        with seeded(copied, 0):
            found = self.function(copied)
        return self._checked(found), samples

    def first(self, model: nn.Module) -> Evaluation:
        """Call the function for the first time.

        Args:
            model: The dense model.

        Returns:
            The evaluation with the names of the results.

        Raises:
            ConfigurationError: The result is no dict of finite numbers with the quality.
        """
        return replace(self, names=tuple(self.evaluate(model)[0]))

    def _checked(self, found: object) -> dict[str, float]:
        if not isinstance(found, Mapping):
            expected = f"return a dict name -> number with {self.quality!r}"
            raise ConfigurationError(error_message(self.argument, expected, type(found).__name__))
        wrong = [fault for name in found if (fault := wrong_metric_name(f"a name that {self.argument} returns", name))]
        if wrong:
            raise ConfigurationError(" ".join(wrong))
        if self.quality not in found:
            got = ", ".join(map(str, found)) or "no numbers"
            remedy = "quality=... names the number that the search keeps up."
            raise ConfigurationError(error_message(self.argument, f"return {self.quality!r}", got, remedy))
        if self.names and set(found) != set(self.names):
            expected = f"return the same names each time ({', '.join(self.names)})"
            raise ConfigurationError(error_message(self.argument, expected, ", ".join(found)))
        return {name: finite_number(f"{name!r} of {self.argument}", found[name]) for name in self.names or found}


#: Whatever a candidate can be evaluated on.
Scorable = Split | Evaluation
