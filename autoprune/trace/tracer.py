"""Follow channels through one forward by watching every dispatched operator (TorchDispatchMode)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from autoprune.errors import TraceError, describe_exception
from autoprune.task.clone import Borrowed
from autoprune.task.data import Inputs, call
from autoprune.task.models import borrowing
from autoprune.task.modes import LossMode
from autoprune.trace.biases import Biases
from autoprune.trace.flow import Flow
from autoprune.trace.located import WITHOUT_RULE, locate_reason
from autoprune.trace.modules import track_modules
from autoprune.trace.numbers import nearby_modules, numbers_in
from autoprune.trace.reasons import OUTPUT, ROW, TRACE_TIME, UNKNOWN, UNKNOWN_USE, Reason, ReasonKind
from autoprune.trace.running import copy_for_tracing, plain_operators
from autoprune.trace.topology import Product
from autoprune.trace.union_find import AxisNodes, ChannelUnionFind
from autoprune.trace.values import clone_inputs, named_tensors, outputs_in, tensors_in

#: Seconds of watching after which a trace stops to look closely; what comes later is left alone.
TRACE_SECONDS = 60.0

Axes = list[AxisNodes]


class Grid(NamedTuple):
    """An axis of channels that a module reshapes into rows and columns, such as heads and head width."""

    module: str
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]


class ModuleNumber(NamedTuple):
    """A number of a module that is as large as an axis of channels, such as the groups of a depthwise convolution."""

    module: str
    name: str
    nodes: npt.NDArray[np.int64]
    value: int


class ActivationProduct(NamedTuple):
    """A product of two activations: as many multiply-adds as `positions` times the length of every axis."""

    module: str
    positions: int
    axes: tuple[npt.NDArray[np.int64], ...]


class OperatorStep(NamedTuple):
    """One operator: its name, the shape of its first argument, and what runs along the axes of that."""

    name: str
    shape: tuple[int, ...]
    axes: Axes

    @classmethod
    def of(cls, name: str, first: object, axes: Axes) -> OperatorStep:
        """As it is about to run."""
        return cls(name, tuple(first.shape) if isinstance(first, Tensor) else (), axes)


class Tracer(TorchDispatchMode):
    """The state of one trace: which nodes run along each axis of each live tensor.

    labels: the union-find. named, owned: parameters and buffers, and the nodes of their axes; tables: nodes of buffers.
    roles: (tensor name, axis) -> role. readers: those that are read. order: tensors that make channels, in turn.
    biases: to what vectors are added. rows: of embedding tables.
    positions, contracted: multiply-adds by weight, and of products of activations. read: nodes summed over in these;
    independent: nodes along which they do not mix. together: nodes looked at together.
    steps: every operator in turn, and what ran along the axes of its first argument.
    grids, followers, lengths, scaling, views: what modules did with channels, from which their numbers are guessed.
    flow: what every value was computed from, and which modules took and gave it.
    picked: channels of which one was picked, why they have to stay if anything reads it, and the value that it is.
    module, inputs, made: the innermost module at work, what that and those around it were given, and the channels of
        what their parts gave them, for modules that are tied.
    operator: at work; "" before and after the forward.
    seconds: after that long every operator counts as not understood, so that a trace always ends.
    tied: modules whose channels, where they are reshaped, are taken for as many as those of their input.
    """

    def __init__(self, model: nn.Module, *, seconds: float = TRACE_SECONDS, tied: frozenset[str] = frozenset()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.union_find = ChannelUnionFind()
        self.modules = dict(model.named_modules())
        self.tied_modules = tied
        self.inputs: list[tuple[object, ...]] = []
        self.made: list[list[npt.NDArray[np.int64]]] = []
        self.lengths_of_tied: dict[tuple[str, int], npt.NDArray[np.int64]] = {}
        self._seconds, self._deadline = seconds, time.monotonic() + seconds
        self.roles: dict[tuple[str, int], str] = {}
        self.reading_axes: set[tuple[str, int]] = set()
        self.positions: dict[str, int] = {}
        self.named: dict[str, Tensor] = {}
        self.owned: dict[str, Axes] = {}
        self.order: list[str] = []
        self.steps: list[OperatorStep] = []
        self.reduced_nodes: list[int] = []
        self.grids: list[Grid] = []
        self.named_numbers: list[ModuleNumber] = []
        self.axis_lengths: list[ModuleNumber] = []
        self.contracted: list[ActivationProduct] = []
        self.contracted_nodes: set[int] = set()
        self.batch_nodes: set[int] = set()
        self.embedding_rows: list[AxisNodes] = []
        self.scale_widths: list[ModuleNumber] = []
        self.reshaped_axes: list[ModuleNumber] = []
        self.flow = Flow()
        self.picked: list[tuple[AxisNodes, Reason, int]] = []
        self.module = ""
        self.operator = ""
        self._reasons: dict[tuple[ReasonKind, str], Reason] = {}
        self._sizes: dict[str, frozenset[int]] = {}
        self.biases = Biases(self)
        self._axes = WeakIdKeyDictionary()
        self._origin = WeakIdKeyDictionary()
        self.buffer_nodes: set[int] = set()
        for name, tensor in named_tensors(model):
            self.named[name] = tensor
            # Whole numbers say where to look, not what is there.
            channels = tensor.is_floating_point() or tensor.is_complex()
            axes: Axes = [self.union_find.new(size) if channels and size > 1 else None for size in tensor.shape]
            if not isinstance(tensor, nn.Parameter):
                self.buffer_nodes.update(node for nodes in axes if nodes is not None for node in nodes.tolist())
            self.owned[name] = axes
            self._axes[tensor] = axes
            self._origin[tensor] = (name, tuple(range(tensor.ndim)))

    def axes(self, tensor: Tensor) -> Axes:
        """Nodes of every axis; all None for a tensor that no parameter shaped."""
        known: Axes | None = self._axes.get(tensor)
        # An operator in place may have changed the number of axes.
        return list(known) if known is not None and len(known) == tensor.ndim else [None] * tensor.ndim

    def put(self, tensor: Tensor, axes: Axes) -> None:
        """Say what runs along a tensor's axes; an axis of size 1 has no channels to choose from."""
        if len(axes) != tensor.ndim or any(
            nodes is not None and len(nodes) != size for nodes, size in zip(axes, tensor.shape, strict=True)
        ):
            raise ValueError(f"axes that do not fit the shape {tuple(tensor.shape)}")
        self._axes[tensor] = [nodes if size > 1 else None for nodes, size in zip(axes, tensor.shape, strict=True)]

    def origin(self, tensor: object) -> str | None:
        """Name of the parameter that a tensor is or is a view of."""
        found = self._origin.get(tensor) if isinstance(tensor, Tensor) else None
        return None if found is None else str(found[0])

    def is_whole(self, tensor: Tensor) -> bool:
        """True for a parameter or all of it in another shape."""
        name = self.origin(tensor)
        return name is not None and self.named[name].numel() == tensor.numel()

    def order_of(self, tensor: Tensor) -> tuple[int, ...] | None:
        """Axis of the parameter behind each axis of a view of it; None once it has been reshaped."""
        found = self._origin.get(tensor)
        return None if found is None else found[1]

    def derive(self, tensor: object, source: object, order: Sequence[int] | None = None) -> None:
        """`tensor` is a view of the parameter that `source` is, its axes in this order; None for a reshape."""
        name = self.origin(source)
        if name is None or not isinstance(tensor, Tensor) or not isinstance(source, Tensor):
            return
        before = self.order_of(source)
        after = None if order is None or before is None else tuple(before[axis] for axis in order)
        self._origin[tensor] = (name, after)

    def note_number(self, name: str, nodes: AxisNodes, value: int) -> None:
        """The module at work keeps a number of that name which is the width of these channels."""
        if nodes is not None:
            self.named_numbers.append(ModuleNumber(self.module, name, nodes, value))

    def numbers(self) -> dict[int, str]:
        """Whole numbers above one that the module at work keeps: value -> name."""
        module = self.modules.get(self.module)
        return {} if module is None else {v: k for k, v in vars(module).items() if type(v) is int and v > 1}

    def sizes(self) -> frozenset[int]:
        """Whole numbers above one that the module at work keeps, or one near it, also inside of what they hold."""
        known = self._sizes.get(self.module)
        if known is None:
            modules = (self.modules[name] for name in (self.module, *nearby_modules(self.modules, self.module)))
            known = frozenset(value for module in modules for value in numbers_in(module).values() if value > 1)
            self._sizes[self.module] = known
        return known

    def note_length(self, nodes: AxisNodes) -> None:
        """The module at work may keep a number of these channels."""
        if nodes is not None and len(nodes) in self.sizes():
            self.axis_lengths.append(ModuleNumber(self.module, "", nodes, len(nodes)))

    def note_reshape(self, nodes: AxisNodes) -> None:
        """The module at work reads these channels in another shape."""
        if nodes is not None:
            self.reshaped_axes.append(ModuleNumber(self.module, "", nodes, len(nodes)))

    def note_scale_width(self, nodes: AxisNodes) -> None:
        """The module at work works out a scale from the number of these channels."""
        if nodes is not None:
            self.scale_widths.append(ModuleNumber(self.module, "", nodes, len(nodes)))

    def unify(self, left: AxisNodes, right: AxisNodes, kind: ReasonKind) -> AxisNodes:
        """Both axes hold the same channels; an axis without nodes cannot shrink, so the other one freezes."""
        if left is None or right is None:
            nodes = right if left is None else left
            self.freeze(nodes, kind)
            return nodes
        self.union_find.unify(left, right)
        return left

    def freeze(self, nodes: AxisNodes, kind: ReasonKind, detail: str = "") -> None:
        """Channels that have to stay; the operator, the module at work and the line of code are noted with the kind."""
        if nodes is not None:
            self.union_find.freeze(nodes.tolist(), self.reason(kind, detail))

    def freeze_all(self, value: object, kind: ReasonKind, detail: str = "") -> None:
        """Freeze every axis of every tensor in a nested value."""
        for tensor in tensors_in(value):
            for nodes in self.axes(tensor):
                self.freeze(nodes, kind, detail)

    def reason(self, kind: ReasonKind, detail: str = "") -> Reason:
        """The same for all that one operator freezes, as it takes a walk along the stack."""
        key = (kind, detail)
        if key not in self._reasons:
            where = (self.operator, self.module)
            self._reasons[key] = locate_reason(kind, detail, where, watch.__code__)
        return self._reasons[key]

    def role(self, tensor: object, axis: int, role: str) -> None:
        """Say what a parameter's axis does, if the tensor is one; the axis is the parameter's own."""
        name = self.origin(tensor)
        if name is not None:
            # A weight may be computed with before it is used as one.
            if self.roles.get((name, axis), "other") == "other":
                self.roles[name, axis] = role
            if role == "in":
                self.reading_axes.add((name, axis))
            if role == "out" and name not in self.order:
                self.order.append(name)

    def product(self, weight: object, positions: int) -> None:
        """Count a convolution or matrix product with a parameter."""
        name = self.origin(weight)
        if name is not None:
            self.positions[name] = self.positions.get(name, 0) + positions

    def contract(self, axes: Sequence[AxisNodes], sizes: Sequence[int], *, batch: AxisNodes = None) -> None:
        """Count a product that is no weight times activations: over these axes of these lengths.

        batch: the one of them along which products are independent, as the heads of attention are.
        """
        if batch is not None:
            self.batch_nodes.update(batch.tolist())
        positions = math.prod(size for nodes, size in zip(axes, sizes, strict=True) if nodes is None)
        self.contracted_nodes.update(node for nodes in axes if nodes is not None for node in nodes.tolist())
        self.contracted.append(
            ActivationProduct(self.module, positions, tuple(nodes for nodes in axes if nodes is not None))
        )

    @property
    def products(self) -> tuple[Product, ...]:
        """The multiply-adds seen, weight by weight."""
        return tuple(Product(weight=name, positions=count) for name, count in self.positions.items())

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        from autoprune.trace.rules import RULES  # the rules need the Tracer type

        name = func.overloadpacket.__name__
        self.operator = name if func.namespace == "aten" else f"{func.namespace}::{name}"
        self._reasons.clear()
        first = args[0] if args else None
        self.steps.append(OperatorStep.of(name, first, self.axes(first) if isinstance(first, Tensor) else []))
        out = self.computed(func, args, kwargs or {})
        self.flow.note(name, func, (args, list((kwargs or {}).values())), out)
        rule = RULES.get(name)
        if time.monotonic() > self._deadline:
            self.freeze_all((args, list((kwargs or {}).values())), TRACE_TIME, f"{self._seconds:g} seconds")
        elif rule is None:
            self.freeze_all((args, list((kwargs or {}).values())), WITHOUT_RULE.get(name, UNKNOWN))
        else:
            self._apply(rule, args, kwargs or {}, out)
        return out

    def computed(self, func: torch._ops.OpOverload, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        """What an operator gives; the last of the steps says what runs along its first argument."""
        return func(*args, **kwargs)

    def _apply(self, rule: OperatorRule, args: tuple[object, ...], kwargs: Mapping[str, object], out: object) -> None:
        """A rule that does not fit what came costs coverage, as if there were none."""
        try:
            rule(self, args, kwargs, out)
        except Exception:  # a form of the operator that its rule does not know; nothing of the user's runs in here
            self.freeze_all((args, list(kwargs.values())), UNKNOWN_USE)
            for result in tensors_in(out):
                self.put(result, [None] * result.ndim)

    def unread(self) -> frozenset[str]:
        """Names of the weights that no operator read: of floating-point parameters and buffers."""
        readers, tensors = self.flow.readers, ((n, t) for n, t in self.named.items() if t.is_floating_point())
        return frozenset(name for name, tensor in tensors if self.flow.number(tensor) not in readers)

    def note_reduced(self, nodes: AxisNodes) -> None:
        """These channels are looked at together: removing some changes what is computed of the others."""
        if nodes is not None:
            self.reduced_nodes.extend(nodes.tolist())


OperatorRule = Callable[[Tracer, tuple[object, ...], Mapping[str, object], object], None]


def run(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    seconds: float = TRACE_SECONDS,
    tied: frozenset[str] = frozenset(),
    in_training: bool = False,
) -> tuple[Tracer, nn.Module]:
    """Trace a throw-away copy in eval mode; gives the tracer and the copy. Raises TraceError if it does not run.

    in_training: channels that are the same in training mode at rest are the same, too.
    """
    scratch = copy_for_tracing(model)
    with Borrowed(model) as borrowed:
        tracer, _ = watch(scratch, example_inputs, seconds=seconds, tied=tied)
        if in_training:
            _watch_training(tracer, scratch, example_inputs)
    if borrowed.found:
        raise TraceError(borrowing(model, borrowed))
    return tracer, scratch


def watch(
    scratch: nn.Module, example_inputs: Inputs, *, seconds: float = TRACE_SECONDS, tied: frozenset[str] = frozenset()
) -> tuple[Tracer, list[Tensor]]:
    """Trace a model in eval mode that nobody needs afterwards; gives its outputs, too.

    Raises TraceError if it does not run.
    """
    try:
        tracer = Tracer(scratch, seconds=seconds, tied=tied)
        return tracer, _follow(tracer, scratch, example_inputs)
    except TraceError:
        raise
    except Exception as error:  # user code runs in here
        raise TraceError(f"the model must run on example_inputs, but got {describe_exception(error)}") from error


def _follow(tracer: Tracer, scratch: nn.Module, example_inputs: Inputs) -> list[Tensor]:
    """Watch one forward, whose outputs keep all of their channels."""
    inputs = clone_inputs(example_inputs)
    with torch.no_grad(), plain_operators(scratch), track_modules(scratch, tracer), tracer:
        outputs = outputs_in(call(scratch, inputs))
    tracer.module = tracer.operator = ""
    tracer.flow.results = {tracer.flow.number(tensor) for tensor in outputs}
    for nodes, reason, value in tracer.picked:
        if nodes is not None and not tracer.flow.is_unread(value):
            tracer.union_find.freeze(nodes.tolist(), reason)
    tracer.freeze_all(outputs, OUTPUT)
    for nodes in tracer.embedding_rows:
        tracer.freeze(nodes, ROW)
    return outputs


def _watch_training(tracer: Tracer, scratch: nn.Module, example_inputs: Inputs) -> None:
    """Follow the same channels in training mode at rest; costs, values and steps stay those of eval mode."""
    known = (tracer.flow, tracer.steps, tracer.positions, tracer.contracted, tracer.picked)
    tracer.flow, tracer.steps, tracer.positions, tracer.contracted, tracer.picked = Flow(), [], {}, [], []
    try:
        with LossMode(trains=True).on(scratch):
            _follow(tracer, scratch, example_inputs)
    except Exception:  # user code runs in here, and what does not train has no channels to follow
        tracer.module = tracer.operator = ""
    finally:
        tracer.flow, tracer.steps, tracer.positions, tracer.contracted, tracer.picked = known
