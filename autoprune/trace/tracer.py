"""Follow channels through one forward by watching every dispatched operator (TorchDispatchMode)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from autoprune.errors import TraceError
from autoprune.task.data import Inputs, call
from autoprune.trace.labels import AxisNodes, Labels
from autoprune.trace.topology import Product

Axes = list[AxisNodes]


class Grid(NamedTuple):
    """An axis of channels that a module reshapes into rows and columns, such as heads and head width."""

    module: str
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]


class Follower(NamedTuple):
    """A number of a module that is as large as an axis of channels, such as the groups of a depthwise convolution."""

    module: str
    name: str
    nodes: npt.NDArray[np.int64]
    value: int


class Tracer(TorchDispatchMode):
    """The state of one trace: which nodes run along each axis of each live tensor.

    labels: the union-find. roles: (tensor name, axis) -> role. products: weight name -> positions.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.labels = Labels()
        self.roles: dict[tuple[str, int], str] = {}
        self.readers: set[tuple[str, int]] = set()
        self.positions: dict[str, int] = {}
        self.named: dict[str, Tensor] = {}
        self.owned: dict[str, Axes] = {}
        self.order: list[str] = []
        self.together: list[int] = []
        self.grids: list[Grid] = []
        self.followers: list[Follower] = []
        self.other_multiply_adds = 0
        self.module = ""
        self._axes = WeakIdKeyDictionary()
        self._origin = WeakIdKeyDictionary()
        for name, tensor in _named_tensors(model):
            self.named[name] = tensor
            axes: Axes = [self.labels.new(size) if size > 1 else None for size in tensor.shape]
            self.owned[name] = axes
            self._axes[tensor] = axes
            self._origin[tensor] = (name, tuple(range(tensor.ndim)))

    def axes(self, tensor: Tensor) -> Axes:
        """Nodes of every axis; all None for a tensor that no parameter shaped."""
        known: Axes | None = self._axes.get(tensor)
        return list(known) if known is not None else [None] * tensor.ndim

    def put(self, tensor: Tensor, axes: Axes) -> None:
        """Say what runs along a tensor's axes; an axis of size 1 has no channels to choose from."""
        assert len(axes) == tensor.ndim, f"{len(axes)} axes for shape {tuple(tensor.shape)}"
        self._axes[tensor] = [nodes if size > 1 else None for nodes, size in zip(axes, tensor.shape, strict=True)]

    def origin(self, tensor: object) -> str | None:
        """Name of the parameter that a tensor is or is a view of."""
        found = self._origin.get(tensor) if isinstance(tensor, Tensor) else None
        return None if found is None else str(found[0])

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

    def follow(self, name: str, nodes: AxisNodes, value: int) -> None:
        """The module at work keeps a number of that name which is the width of these channels."""
        if nodes is not None:
            self.followers.append(Follower(self.module, name, nodes, value))

    def unify(self, left: AxisNodes, right: AxisNodes, reason: str) -> AxisNodes:
        """Both axes hold the same channels; an axis without nodes can not shrink, so the other one freezes."""
        if left is None and right is None:
            return None
        if left is None or right is None:
            nodes = left if left is not None else right
            assert nodes is not None
            self.freeze(nodes, reason)
            return nodes
        self.labels.unify(left, right)
        return left

    def freeze(self, nodes: AxisNodes, reason: str) -> None:
        """Channels that have to stay; the module at work is named beside the reason."""
        if nodes is not None:
            where = f" (in {self.module})" if self.module else ""
            self.labels.freeze(nodes.tolist(), f"{reason}{where}")

    def freeze_all(self, value: object, reason: str) -> None:
        """Freeze every axis of every tensor in a nested value."""
        for tensor in tensors_in(value):
            for nodes in self.axes(tensor):
                self.freeze(nodes, reason)

    def role(self, tensor: object, axis: int, role: str) -> None:
        """Say what a parameter's axis does, if the tensor is one; the axis is the parameter's own."""
        name = self.origin(tensor)
        if name is not None:
            self.roles.setdefault((name, axis), role)
            if role == "in":
                self.readers.add((name, axis))
            if role == "out" and name not in self.order:
                self.order.append(name)

    def product(self, weight: object, positions: int) -> None:
        """Count a convolution or matrix product with a parameter."""
        name = self.origin(weight)
        if name is not None:
            self.positions[name] = self.positions.get(name, 0) + positions

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

        out = self.execute(func, args, kwargs or {})
        rule = RULES.get(func.overloadpacket.__name__)
        if rule is None:
            if tensors_in(args):
                self.freeze_all(
                    (args, list((kwargs or {}).values())), f"operator {func.overloadpacket.__name__} is not understood"
                )
        else:
            rule(self, args, kwargs or {}, out)
        return out

    def execute(self, func: torch._ops.OpOverload, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        """Run the operator itself."""
        return func(*args, **kwargs)

    def statistic(self, nodes: AxisNodes) -> None:
        """These channels are looked at together: removing some changes what is computed of the others."""
        if nodes is not None:
            self.together.extend(nodes.tolist())


Rule = Callable[[Tracer, tuple[object, ...], Mapping[str, object], object], None]


def run(model: nn.Module, example_inputs: Inputs) -> tuple[Tracer, nn.Module]:
    """Trace a throw-away copy in eval mode; gives the tracer and the copy. Raises TraceError if it does not run."""
    try:
        scratch = copy.deepcopy(model).eval()
    except Exception as error:  # modules that hold what can not be copied
        raise TraceError(
            f"the model must be copyable with copy.deepcopy, but got {type(error).__name__}: {error}"
        ) from error
    tracer = Tracer(scratch)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), _module_names(scratch, tracer), tracer:
            outputs = call(scratch, example_inputs)
    except Exception as error:  # user code runs in here
        raise TraceError(f"the model must run on example_inputs, but got {type(error).__name__}: {error}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    tracer.module = ""
    tracer.freeze_all(outputs, "is part of the model's output")
    return tracer, scratch


def tensors_in(value: object) -> list[Tensor]:
    """Every tensor in nested tuples, lists, mappings and objects with fields."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in tensors_in(item)]
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in tensors_in(item)]
    if hasattr(value, "__dataclass_fields__"):
        return [tensor for name in value.__dataclass_fields__ for tensor in tensors_in(getattr(value, name))]
    return []


@contextmanager
def _module_names(model: nn.Module, tracer: Tracer) -> Iterator[None]:
    """Keep `tracer.module` at the innermost module that runs."""
    stack: list[str] = [""]
    handles = []

    def enter(name: str) -> Callable[[nn.Module, object], None]:
        def hook(module: nn.Module, args: object) -> None:
            stack.append(name)
            tracer.module = name
            if isinstance(module, nn.modules.instancenorm._InstanceNorm) and isinstance(args, tuple) and args:
                # It has no tensor of that width when it is not affine.
                tracer.follow("num_features", tracer.axes(args[0])[1], module.num_features)

        return hook

    def leave(module: nn.Module, args: object, output: object) -> None:
        stack.pop()
        tracer.module = stack[-1]

    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(enter(name)))
        handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
