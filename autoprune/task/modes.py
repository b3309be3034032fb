"""The mode in which a loss is defined: eval mode, or training mode at rest where a model means something else there.

Some models return something else in training than in eval mode: softmax in eval mode alone, auxiliary heads or losses
in training mode alone. Their loss is defined on what they return in training mode. Training mode at rest is training
mode without anything random or of the batch: dropout is off and norms use their running statistics.
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
from autoprune.task.data import Batch, Split, call, evaluating

#: Draws by which what a class does in training is told from chance.
DRAWS = 4
#: Outputs further apart than that, as a share of their size, are others: kernels of both modes round differently.
_TOLERANCE = {torch.float16: 2e-2, torch.bfloat16: 5e-2}
_USUAL_TOLERANCE = 1e-3
#: What the draws are apart from eval mode, at most, in units of what they are apart from each other.
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
#: The same of norms, for which running statistics have to be there.
_NORMS_AT_REST: Mapping[object, tuple[str, int, object]] = {
    functional.batch_norm: ("training", 5, False),
    functional.instance_norm: ("use_input_stats", 5, False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LossMode:
    """The mode of a model in which its loss is defined.

    Attributes:
        trains: Whether it is training mode at rest; eval mode else.
        random: Classes of modules that do something at random in training, and stay in eval mode for that.

    """

    trains: bool = False
    random: frozenset[type[nn.Module]] = frozenset()

    @contextmanager
    def on(self, model: nn.Module, seed: int = 0) -> Iterator[None]:
        """Put a model into this mode; its own modes, its buffers and all random generators are as before after that.

        Args:
            model: The dense model or one cut from it.
            seed: Of what is drawn at random in spite of all.

        """
        if not self.trains:
            with evaluating(model):
                yield
            return
        with evaluating(model), _same_buffers(model), seeded(model, seed), _Rest():
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


EVAL = LossMode()


def mode_on(model: nn.Module, split: Split | None, device: str) -> LossMode:
    """Find the mode in which the loss of a model is defined; eval mode where the model or its data fail.

    Args:
        model: On the device.
        split: Whose first batch is looked at; None where there is none.
        device: Where the batch goes.

    """
    try:
        return EVAL if split is None else find_mode(model, next(split.ordered()).to(torch.device(device)))
    except (Exception, SystemExit):  # the user's code may raise anything; checks of the task tell it
        return EVAL


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss, called as it is, together with the mode in which it is defined."""

    loss: Callable[..., Tensor]
    mode: LossMode

    def __call__(self, outputs: object, targets: object) -> Tensor:
        """Call the loss."""
        return self.loss(outputs, targets)


def in_mode_of(loss: Callable[..., Tensor], model: nn.Module) -> AbstractContextManager[None]:
    """Put a model into the mode in which a loss is defined: eval mode for a plain function.

    Args:
        loss: An Objective or a plain function.
        model: The model whose outputs it gets.

    """
    return (loss.mode if isinstance(loss, Objective) else EVAL).on(model)


@torch.no_grad()
def find_mode(model: nn.Module, batch: Batch) -> LossMode:
    """Find the mode in which the loss of a model is defined, by its outputs; the model and all generators stay as is.

    Where training mode at rest gives what eval mode gives, that is eval mode. Classes of the user's that differ from
    eval mode by chance alone, such as stochastic depth, are at rest in eval mode.

    Args:
        model: In any mode.
        batch: On its device.

    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return EVAL
    scratch = clone_with(model)
    kinds = {type(module): None for module in scratch.modules() if not _is_plain(module)}

    def seen(training: Sequence[type[nn.Module]], seed: int = 0) -> Outputs:
        mode = LossMode(trains=True, random=frozenset(kinds) - frozenset(training))
        with mode.on(scratch, seed):
            return Outputs.of(call(scratch, batch.inputs))

    usual = seen(())
    if seen(tuple(kinds)).same(usual):
        return EVAL
    by_chance = frozenset(kind for kind in kinds if _by_chance(kind, seen, usual))
    rest = tuple(kind for kind in kinds if kind not in by_chance)
    return EVAL if seen(rest).same(usual) else LossMode(trains=True, random=by_chance)


def _by_chance(kind: type[nn.Module], seen: Callable[..., Outputs], usual: Outputs) -> bool:
    """Whether what a class does in training is noise around what it does in eval mode."""
    try:
        draws = [seen((kind,), seed) for seed in range(1, 1 + DRAWS)]
    except Exception:  # what holds it needs what it returns in training
        return False
    if any(draw.structure != usual.structure for draw in draws):
        return False
    apart = [one.distance(other) for one, other in itertools.combinations(draws, 2)]
    away = [draw.distance(usual) for draw in draws]
    return sum(apart) > 0 and sum(away) / len(away) <= _BY_CHANCE * sum(apart) / len(apart)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What a model returned, taken apart.

    Attributes:
        structure: Types and places of all that is in it, shapes and dtypes of the tensors.
        tensors: The tensors, in order.

    """

    structure: tuple[object, ...]
    tensors: tuple[Tensor, ...]

    @classmethod
    def of(cls, value: object) -> Outputs:
        """Take apart tensors in mappings, sequences and dataclasses.

        Args:
            value: What a model returned.

        """
        found = list(_leaves(value, ()))
        tensors = tuple(leaf for _, leaf in found if isinstance(leaf, Tensor))
        structure = tuple(
            (place, tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else (place, type(leaf))
            for place, leaf in found
        )
        return cls(structure=structure, tensors=tensors)

    def distance(self, other: Outputs) -> float:
        """Mean over the tensors of how far apart they are, as a share of their size; infinite where shapes differ.

        Args:
            other: Of the same model.

        """
        if self.structure != other.structure:
            return float("inf")
        pairs = list(zip(self.tensors, other.tensors, strict=True))
        return sum(_distance(one, two) for one, two in pairs) / max(1, len(pairs))

    def same(self, other: Outputs) -> bool:
        """Whether they are the same but for rounding.

        Args:
            other: Of the same model.

        """
        return self.structure == other.structure and all(
            _distance(one, two) <= _TOLERANCE.get(one.dtype, _USUAL_TOLERANCE)
            for one, two in zip(self.tensors, other.tensors, strict=True)
        )


def _leaves(value: object, place: tuple[object, ...]) -> Iterator[tuple[tuple[object, ...], object]]:
    """Everything in nested data, with its place; the types of what holds it are part of the place."""
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
    """What the mode of a module does not say anything about the outputs' meaning: torch's forwards, and statistics."""
    if any(isinstance(module._buffers.get(name), Tensor) for name in ("running_mean", "running_var")):
        return True
    return getattr(type(module).forward, "__module__", "").startswith("torch.nn.")


class _Rest(TorchFunctionMode):
    """Calls of dropout, norms and the like as in eval mode, whatever their arguments say."""

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
    """Buffers as before, in place, after what a model counts or averages in training mode."""
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
    """Seed the generators that a model may draw from; their states are as before after that.

    Args:
        model: Whose devices are seeded.
        seed: For each of the generators.

    """
    cuda = sorted({tensor.device for tensor in model.parameters() if tensor.device.type == "cuda"}, key=str)
    python, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
