"""Hold the channels of one forward, and offer rules what they say about them: coupled, frozen, made, read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import CodeType

from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from autoprune.structure.products import Product
from autoprune.structure.reasons import Reason, ReasonKind
from autoprune.trace.flow import Flow
from autoprune.trace.located import locate_reason
from autoprune.trace.numbers import nearby_modules, numbers_in
from autoprune.trace.observations import ActivationProduct, Axes, Grid, ModuleNumber, OperatorStep
from autoprune.trace.union_find import AxisNodes, ChannelUnionFind, Nodes
from autoprune.trace.values import named_tensors, tensors_in


class ChannelGraph:
    """Channels of one forward: the nodes along each axis of each live tensor, and the facts that rules record.

    A node stands for one position of an axis of a parameter or buffer; see `ChannelUnionFind`.

    Args:
        model: The model that is about to run; its parameters and buffers get nodes.
        tied: Modules whose reshaped channels are taken to be as many as those of their input.
        until: Code of the function that runs the model; reasons search the stack for user code up to it.

    Attributes:
        union_find: Classes of nodes.
        modules: Name -> module.
        named: Name -> parameter or buffer.
        owned: Name -> nodes of its axes.
        buffer_nodes: Nodes of buffers.
        roles: (tensor, axis) -> role; see `Member`.
        reading_axes: (tensor, axis) pairs that a product reads.
        order: Tensors that make channels, in the order of the forward.
        beside: Bias -> (weight to whose channels it is added, position of the first of them).
        joined: Concatenation of vectors -> these vectors.
        first_nodes: First node of an axis -> (tensor, axis).
        embedding_rows: Nodes of the rows of embedding tables.
        positions: Weight -> how often it is used whole.
        contracted: Products of two activations.
        contracted_nodes: Nodes along which these products run.
        batch_nodes: Nodes along which these products are independent, such as heads of attention.
        reduced_nodes: Nodes that are normalised or reduced together.
        steps: Every operator, in order.
        grids: Grids that modules reshape axes into.
        named_numbers: Numbers of modules that follow an axis, by name.
        axis_lengths: Axes as long as a number of the running module.
        scale_widths: Axes from whose length a module computes a scale.
        reshaped_axes: Axes that a module reshapes.
        flow: Values, with the operators and modules that made and read them.
        picked: (channels of which one was picked, reason to freeze them if the result is read, number of the result).
        module: The innermost running module.
        inputs: Arguments of the running modules, the innermost last.
        made: For each running module, the channels that its parts gave; filled for tied modules.
        lengths_of_tied: (tied module, length) -> its first reshaped channels of that length.
        operator: The running operator; "" before and after the forward.
        tied_modules: As given.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        tied: frozenset[str] = frozenset(),
        until: CodeType | None = None,
    ) -> None:
        self.union_find = ChannelUnionFind()
        self.modules = dict(model.named_modules())
        self.tied_modules, self._until = tied, until
        self.inputs: list[tuple[object, ...]] = []
        self.made: list[list[Nodes]] = []
        self.lengths_of_tied: dict[tuple[str, int], Nodes] = {}
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
        self.beside: dict[str, tuple[str, int]] = {}
        self.joined = WeakIdKeyDictionary()
        self.first_nodes: dict[int, tuple[str, int]] = {}
        self._axes = WeakIdKeyDictionary()
        self._origin = WeakIdKeyDictionary()
        self.buffer_nodes: set[int] = set()
        for name, tensor in named_tensors(model):
            self.named[name] = tensor
            # Tensors of whole numbers are indices, not channels.
            channels = tensor.is_floating_point() or tensor.is_complex()
            axes: Axes = [self.union_find.new(size) if channels and size > 1 else None for size in tensor.shape]
            if not isinstance(tensor, nn.Parameter):
                self.buffer_nodes.update(node for nodes in axes if nodes is not None for node in nodes.tolist())
            self.owned[name] = axes
            self.first_nodes.update((int(own[0]), (name, axis)) for axis, own in enumerate(axes) if own is not None)
            self._axes[tensor] = axes
            self._origin[tensor] = (name, tuple(range(tensor.ndim)))

    def begin(self, operator: str) -> None:
        """Note the name of the operator that is about to run, for the reasons to freeze."""
        self.operator = operator
        self._reasons.clear()

    def end(self) -> None:
        """Note that no module runs any more."""
        self.module = ""
        self.begin("")

    def axes(self, tensor: Tensor) -> Axes:
        """Return the nodes of every axis of a tensor.

        Args:
            tensor: A tensor of the forward.

        Returns:
            For each axis its nodes, None if it has no channels.
        """
        known: Axes | None = self._axes.get(tensor)
        # An operator in place may have changed the number of axes.
        return list(known) if known is not None and len(known) == tensor.ndim else [None] * tensor.ndim

    def put(self, tensor: Tensor, axes: Axes) -> None:
        """Set the nodes of every axis of a tensor; an axis of length 1 gets none.

        Args:
            tensor: A tensor of the forward.
            axes: For each axis its nodes or None.

        Raises:
            ValueError: If they do not fit the shape.
        """
        if len(axes) != tensor.ndim or any(
            nodes is not None and len(nodes) != size for nodes, size in zip(axes, tensor.shape, strict=True)
        ):
            raise ValueError(f"axes that do not fit the shape {tuple(tensor.shape)}")
        self._axes[tensor] = [nodes if size > 1 else None for nodes, size in zip(axes, tensor.shape, strict=True)]

    def channels_in(self, value: object) -> list[Nodes]:
        """List the nodes of every axis of the tensors in a nested value, without axes that have none."""
        return [own for tensor in tensors_in(value) for own in self.axes(tensor) if own is not None]

    def origin(self, tensor: object) -> str | None:
        """Return the name of the parameter or buffer that a tensor is, views, or is computed from; None for others."""
        found = self._origin.get(tensor) if isinstance(tensor, Tensor) else None
        return None if found is None else str(found[0])

    def is_whole(self, tensor: Tensor) -> bool:
        """Tell whether a tensor is a parameter or buffer, or all of it in another shape."""
        name = self.origin(tensor)
        return name is not None and self.named[name].numel() == tensor.numel()

    def order_of(self, tensor: Tensor) -> tuple[int, ...] | None:
        """Return the axis of the origin behind each axis of a tensor; None without an origin, or after a reshape."""
        found = self._origin.get(tensor)
        return None if found is None else found[1]

    def derive(self, tensor: object, source: object, order: Sequence[int] | None = None) -> None:
        """Note that a tensor is a view of another one's origin.

        Args:
            tensor: The view.
            source: The tensor it was made from.
            order: Axes of `source` in the order of the view; None for a reshape.
        """
        name = self.origin(source)
        if name is None or not isinstance(tensor, Tensor) or not isinstance(source, Tensor):
            return
        before = self.order_of(source)
        after = None if order is None or before is None else tuple(before[axis] for axis in order)
        self._origin[tensor] = (name, after)

    def note_number(self, name: str, nodes: AxisNodes, value: int) -> None:
        """Note that a number of the running module is the length of an axis.

        Args:
            name: Name of the number.
            nodes: Nodes of the axis.
            value: Its length.
        """
        if nodes is not None:
            self.named_numbers.append(ModuleNumber(self.module, name, nodes, value))

    def numbers(self) -> dict[int, str]:
        """Return the whole numbers above 1 of the running module: value -> name."""
        module = self.modules.get(self.module)
        return {} if module is None else {v: k for k, v in vars(module).items() if type(v) is int and v > 1}

    def sizes(self) -> frozenset[int]:
        """Return the whole numbers above 1 of the running module and of modules near it, also inside attributes."""
        known = self._sizes.get(self.module)
        if known is None:
            modules = (self.modules[name] for name in (self.module, *nearby_modules(self.modules, self.module)))
            known = frozenset(value for module in modules for value in numbers_in(module).values() if value > 1)
            self._sizes[self.module] = known
        return known

    def note_length(self, nodes: AxisNodes) -> None:
        """Note an axis if it is as long as a number of the running module."""
        if nodes is not None and len(nodes) in self.sizes():
            self.axis_lengths.append(ModuleNumber(self.module, "", nodes, len(nodes)))

    def note_reshape(self, nodes: AxisNodes) -> None:
        """Note an axis that the running module reshapes."""
        if nodes is not None:
            self.reshaped_axes.append(ModuleNumber(self.module, "", nodes, len(nodes)))

    def note_scale_width(self, nodes: AxisNodes) -> None:
        """Note an axis from whose length the running module computes a scale."""
        if nodes is not None:
            self.scale_widths.append(ModuleNumber(self.module, "", nodes, len(nodes)))

    def unify(self, left: AxisNodes, right: AxisNodes, kind: ReasonKind) -> AxisNodes:
        """Couple two axes; if one has no nodes it cannot shrink, so the other is frozen.

        Args:
            left: Nodes of one axis.
            right: Nodes of the other.
            kind: Reason to freeze.

        Returns:
            Nodes of the common axis.
        """
        if left is None or right is None:
            nodes = right if left is None else left
            self.freeze(nodes, kind)
            return nodes
        self.union_find.unify(left, right)
        return left

    def freeze(self, nodes: AxisNodes, kind: ReasonKind, detail: str = "") -> None:
        """Freeze channels. The reason notes the running operator and module, and the line of code.

        Args:
            nodes: Nodes of the channels.
            kind: Kind of the reason.
            detail: Detail of the reason.
        """
        if nodes is not None:
            self.union_find.freeze(nodes.tolist(), self.reason(kind, detail))

    def freeze_all(self, value: object, kind: ReasonKind, detail: str = "") -> None:
        """Freeze every axis of every tensor in a nested value; `kind` and `detail` as in `freeze`."""
        for tensor in tensors_in(value):
            for nodes in self.axes(tensor):
                self.freeze(nodes, kind, detail)

    def reason(self, kind: ReasonKind, detail: str = "") -> Reason:
        """Return the reason for freezing at the running operator; kept for that operator, as it searches the stack."""
        key = (kind, detail)
        if key not in self._reasons:
            where = (self.operator, self.module)
            self._reasons[key] = locate_reason(kind, detail, where, self._until)
        return self._reasons[key]

    def role(self, tensor: object, axis: int, role: str) -> None:
        """Set the role of an axis of a parameter or buffer.

        Args:
            tensor: The tensor, or a view of it; ignored without an origin.
            axis: Axis of the origin.
            role: See `Member`.
        """
        name = self.origin(tensor)
        if name is not None:
            # Elementwise operators may run on a weight before its product.
            if self.roles.get((name, axis), "other") == "other":
                self.roles[name, axis] = role
            if role == "in":
                self.reading_axes.add((name, axis))
            if role == "out" and name not in self.order:
                self.order.append(name)

    def product(self, weight: object, positions: int) -> None:
        """Count a convolution or matrix product that uses the whole weight `positions` times."""
        name = self.origin(weight)
        if name is not None:
            self.positions[name] = self.positions.get(name, 0) + positions

    def contract(self, axes: Sequence[AxisNodes], sizes: Sequence[int], *, batch: AxisNodes = None) -> None:
        """Count a product of two activations.

        Args:
            axes: Nodes of all its axes.
            sizes: Lengths of these axes.
            batch: Nodes of the axis along which the products are independent, such as the heads of attention.
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
        """Multiply-adds by weight."""
        return tuple(Product(weight=name, positions=count) for name, count in self.positions.items())

    def unread(self) -> frozenset[str]:
        """Return the names of floating-point parameters and buffers that no operator read."""
        readers, tensors = self.flow.readers, ((n, t) for n, t in self.named.items() if t.is_floating_point())
        return frozenset(name for name, tensor in tensors if self.flow.number(tensor) not in readers)

    def note_reduced(self, nodes: AxisNodes) -> None:
        """Note channels that are normalised or reduced together: removing some changes the values of the others."""
        if nodes is not None:
            self.reduced_nodes.extend(nodes.tolist())
