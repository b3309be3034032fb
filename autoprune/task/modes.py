"""The mode in which a loss is defined: eval mode, or training mode at rest for models that differ between both.

Some models return other outputs in training than in eval mode: softmax in eval mode alone, auxiliary heads or losses
in training mode alone. Their loss is defined on the outputs of training mode. Training mode at rest is training mode
without randomness and batch statistics: dropout is off and norms use their running statistics.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from autoprune.task.clone import clone_with
from autoprune.task.data import Batch, Split, call, eval_mode
from autoprune.task.seeding import seed_torch

#: Draws that tell randomness in training mode from other outputs.
DRAWS = 4
#: Relative distance above which outputs differ; below it, kernels of both modes may round differently.
_TOLERANCE = {torch.float16: 2e-2, torch.bfloat16: 5e-2}
_USUAL_TOLERANCE = 1e-3
#: Largest mean distance of the draws from eval mode, as a multiple of their mean distance from each other.
_BY_CHANCE = 2.0
#: Function -> name and place of the argument that makes it random or look at the batch, and its value at rest.
_AT_REST: Mapping[object, tuple[str, int, object]] = {
    **dict.fromkeys(
        (functional.dropout, functional.alpha_dropout, functional.feature_alpha_dropout), ("training", 2, False)
    ),
    **dict.fromkeys((functional.dropout1d, functional.dropout2d, functional.dropout3d), ("training", 2, False)),
    **dict.fromkeys((torch.dropout, torch.alpha_dropout, torch.feature_dropout), ("train", 2, False)),
    **dict.fromkeys((torch.dropout_, torch.alpha_dropout_, torch.feature_dropout_), ("train", 2, False)),
    torch.native_dropout: ("train", 2, False),
    functional.rrelu: ("training", 3, False),
    torch.rrelu: ("training", 3, False),
    functional.multi_head_attention_forward: ("training", 13, False),
    functional.scaled_dot_product_attention: ("dropout_p", 4, 0.0),
}
#: The same for norms with running statistics.
_NORMS_AT_REST: Mapping[object, tuple[str, int, object]] = {
    functional.batch_norm: ("training", 5, False),
    functional.instance_norm: ("use_input_stats", 5, False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LossMode:
    """The mode of a model in which its loss is defined.

    Attributes:
        trains: True for training mode at rest, False for eval mode.
        random: Classes of modules that are random in training mode, and therefore stay in eval mode.
    """

    trains: bool = False
    random: frozenset[type[nn.Module]] = frozenset()

    @contextmanager
    def on(self, model: nn.Module, seed: int = 0) -> Iterator[None]:
        """Put a model into this mode in a `with` block, and restore its modes, buffers and all random generators
        afterwards.

        Args:
            model: The dense model or one cut from it.
            seed: Seed of the remaining randomness.
        """
        if not self.trains:
            with eval_mode(model):
                yield
            return
        with eval_mode(model), _same_buffers(model), seeded(model, seed), _Rest():
            self._enter(model)
            yield

    def _enter(self, model: nn.Module) -> None:
        model.train()
        modes = {module: module.training for module in model.modules()}  # a `train` may leave parts in eval mode
        for module in modes:
            if type(module) in self.random and type(module).train is not nn.Module.train:
                module.eval()
        for module, mode in modes.items():
            module.training = mode and not (_is_plain(module) or type(module) in self.random)


EVAL_MODE = LossMode()


def loss_mode_of(model: nn.Module, split: Split | None, device: str) -> LossMode:
    """Find the mode in which the loss of a model is defined; eval mode if the model or its data fail.

    Args:
        model: The model, on the device.
        split: Split whose first batch is used; None if there is none.
        device: Device of the batch.

    Returns:
        The mode.
    """
    try:
        return EVAL_MODE if split is None else find_loss_mode(model, next(split.ordered()).to(torch.device(device)))
    except (Exception, SystemExit):  # the user's code may raise anything; the task's checks report it
        return EVAL_MODE


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss together with the mode in which it is defined. Called like the loss.

    Attributes:
        loss: (outputs, targets) -> scalar tensor.
        mode: Mode of the model for its outputs.
    """

    loss: Callable[..., Tensor]
    mode: LossMode

    def __call__(self, outputs: object, targets: object) -> Tensor:
        """Call the loss.

        Args:
            outputs: Outputs of the model in `mode`.
            targets: Targets of the batch.

        Returns:
            The loss, a scalar.
        """
        return self.loss(outputs, targets)


def in_mode_of(loss: Callable[..., Tensor], model: nn.Module) -> AbstractContextManager[None]:
    """Put a model into the mode in which a loss is defined, in a `with` block; eval mode for a plain function.

    Args:
        loss: An Objective or a plain function.
        model: The model whose outputs the loss gets.

    Returns:
        The context manager.
    """
    return (loss.mode if isinstance(loss, Objective) else EVAL_MODE).on(model)


@torch.no_grad()
def find_loss_mode(model: nn.Module, batch: Batch) -> LossMode:
    """Find the mode in which the loss of a model is defined, by its outputs.

    It is eval mode if training mode at rest gives the same outputs. User classes whose outputs differ from eval mode by
    chance alone, such as stochastic depth, are at rest in eval mode.

    Args:
        model: The model, in any mode; unchanged, like all generators.
        batch: A batch on its device.

    Returns:
        The mode.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return EVAL_MODE
    scratch = clone_with(model)
    kinds = {type(module): None for module in scratch.modules() if not _is_plain(module)}

    def seen(training: Sequence[type[nn.Module]], seed: int = 0) -> Outputs:
        mode = LossMode(trains=True, random=frozenset(kinds) - frozenset(training))
        with mode.on(scratch, seed):
            return Outputs.of(call(scratch, batch.inputs))

    usual = seen(())
    if seen(tuple(kinds)).same(usual):
        return EVAL_MODE
    by_chance = frozenset(kind for kind in kinds if _by_chance(kind, seen, usual))
    rest = tuple(kind for kind in kinds if kind not in by_chance)
    return EVAL_MODE if seen(rest).same(usual) else LossMode(trains=True, random=by_chance)


def _by_chance(kind: type[nn.Module], seen: Callable[..., Outputs], usual: Outputs) -> bool:
    """Whether the outputs of a class in training mode are noise around those in eval mode."""
    try:
        draws = [seen((kind,), seed) for seed in range(1, 1 + DRAWS)]
    except Exception:  # the module around it needs its outputs of training mode
        return False
    if any(draw.structure != usual.structure for draw in draws):
        return False
    apart = [one.distance(other) for one, other in itertools.combinations(draws, 2)]
    away = [draw.distance(usual) for draw in draws]
    return sum(apart) > 0 and sum(away) / len(away) <= _BY_CHANCE * sum(apart) / len(apart)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """The outputs of a model, taken apart.

    Attributes:
        structure: Types and places of all values, shapes and dtypes of the tensors.
        tensors: The tensors, in order.
    """

    structure: tuple[object, ...]
    tensors: tuple[Tensor, ...]

    @classmethod
    def of(cls, value: object) -> Outputs:
        """Take apart tensors in mappings, sequences and dataclasses.

        Args:
            value: Outputs of a model.

        Returns:
            Their structure and tensors.
        """
        found = list(_leaves(value, ()))
        tensors = tuple(leaf for _, leaf in found if isinstance(leaf, Tensor))
        structure = tuple(
            (place, tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else (place, type(leaf))
            for place, leaf in found
        )
        return cls(structure=structure, tensors=tensors)

    def distance(self, other: Outputs) -> float:
        """Compute the mean relative distance of the tensors.

        Args:
            other: Outputs of the same model.

        Returns:
            The distance as a share of the tensors' size; infinite if the structures differ.
        """
        if self.structure != other.structure:
            return float("inf")
        pairs = list(zip(self.tensors, other.tensors, strict=True))
        return sum(_distance(one, two) for one, two in pairs) / max(1, len(pairs))

    def same(self, other: Outputs) -> bool:
        """Tell whether two outputs are the same except for rounding.

        Args:
            other: Outputs of the same model.

        Returns:
            Whether they are the same.
        """
        return self.structure == other.structure and all(
            _distance(one, two) <= _TOLERANCE.get(one.dtype, _USUAL_TOLERANCE)
            for one, two in zip(self.tensors, other.tensors, strict=True)
        )


def _leaves(value: object, place: tuple[object, ...]) -> Iterator[tuple[tuple[object, ...], object]]:
    """Every value in nested data, with its place. Types of the containers are part of the place."""
    items: Iterator[tuple[object, object]]
    if isinstance(value, Mapping):
        items = iter(value.items())
    elif isinstance(value, tuple | list):
        items = enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    else:
        yield place, value
        return
    for key, item in items:
        yield from _leaves(item, (*place, type(value), key))


def _distance(one: Tensor, two: Tensor) -> float:
    if one.is_complex():
        one, two = torch.view_as_real(one), torch.view_as_real(two)
    a, b = one.detach().double(), two.detach().double()
    equal = (a == b) | (a.isnan() & b.isnan())
    gap = torch.where(equal, 0.0, a - b).norm()
    size = torch.nan_to_num(torch.maximum(a.norm(), b.norm()))
    return float(gap / size) if bool(gap > 0) else 0.0


def _is_plain(module: nn.Module) -> bool:
    """Whether the mode of a module cannot change the meaning of outputs: torch's own forwards, and norms with
    statistics.
    """
    if any(isinstance(module._buffers.get(name), Tensor) for name in ("running_mean", "running_var")):
        return True
    return getattr(type(module).forward, "__module__", "").startswith("torch.nn.")


class _Rest(TorchFunctionMode):
    """Calls dropout, norms and the like as in eval mode, whatever their arguments are."""

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: tuple[object, ...] = (), kwargs: object = None
    ) -> object:
        del types
        named = dict(kwargs) if isinstance(kwargs, Mapping) else {}
        quiet = _AT_REST.get(func)
        if quiet is None and func in _NORMS_AT_REST and (args[1:2] or (named.get("running_mean"),))[0] is not None:
            quiet = _NORMS_AT_REST[func]
        if quiet is None:
            return func(*args, **named)
        name, place, value = quiet
        if len(args) > place:
            return func(*args[:place], value, *args[place + 1 :], **named)
        return func(*args, **{**named, name: value})


@contextmanager
def _same_buffers(model: nn.Module) -> Iterator[None]:
    """Restore buffers in place, after a model has counted or averaged in training mode."""
    before = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, values in before:
                if module._buffers.get(name) is not buffer or not torch.equal(buffer, values):
                    module._buffers[name] = buffer.copy_(values)


@contextmanager
def seeded(model: nn.Module, seed: int) -> Iterator[None]:
    """Seed the generators that a model may draw from in a `with` block, and restore their states afterwards.

    Args:
        model: Model whose devices are seeded.
        seed: Seed of each generator.
    """
    devices = sorted({tensor.device for tensor in model.parameters()}, key=str)
    cuda = [device for device in devices if device.type == "cuda"]
    python, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=cuda):
            seed_torch(seed, devices)
            random.seed(seed)
            np.random.seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
