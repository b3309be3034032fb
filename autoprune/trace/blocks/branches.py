"""Find branches: modules whose output is added to an earlier value, such as the attention of a layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import nn

from autoprune.structure.blocks import DroppableBlock, Gap, enclosing_modules
from autoprune.trace.blocks.owners import Owners
from autoprune.trace.flow import ModuleCall, Operator, PassedTensor
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.rules.attention import ATTENTION_RULES
from autoprune.trace.rules.convolutions import CONVOLUTION_RULES
from autoprune.trace.rules.products import PRODUCT_RULES

_ADDING = ("add", "add_", "sub", "sub_")
#: Operators that move or scale their first argument, or add to it: the result still holds that value.
_MOVING = ("view", "_unsafe_view", "reshape", "permute", "transpose", "clone", "alias", "detach", "_to_copy", "expand")
_HOLDING: Mapping[str, int | None] = {
    **dict.fromkeys(_ADDING),
    **dict.fromkeys((*_MOVING, "mul", "mul_", "div", "div_", "relu", "relu_", "native_dropout"), 1),
}
#: Operators that make zeros from zeros -> how many of their leading inputs have to be zero; None for any one of them.
_ZEROING: Mapping[str, int | None] = {
    **dict.fromkeys(("mul", "mul_", "mm", "bmm")),
    **dict.fromkeys((*_MOVING, "t", "squeeze", "unsqueeze", "slice", "select", "roll", "flip", "pixel_shuffle"), 1),
    **dict.fromkeys(("div", "div_", "neg", "relu", "relu_", "gelu", "silu", "silu_", "tanh", "native_dropout"), 1),
    **dict.fromkeys(("im2col", "col2im", "avg_pool2d", "_adaptive_avg_pool2d", "mean", "sum", "index"), 1),
    **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d", "index_select", "constant_pad_nd"), 1),
}
#: Operators that multiply-adds are counted for.
_PRODUCTS = frozenset((*ATTENTION_RULES, *CONVOLUTION_RULES, *PRODUCT_RULES))


class _Term(NamedTuple):
    """A value that is added, and the nearest earlier value in the rest of the sum that it was computed from."""

    value: int
    carried: int


def find_branches(
    graph: ChannelGraph, model: nn.Module, owners: Owners, taken: Iterable[str]
) -> Iterator[DroppableBlock]:
    """Find modules that compute nothing but a value added to an earlier one.

    Args:
        graph: The channels of a finished trace.
        model: The model that was traced.
        owners: Tensors that belong to its modules.
        taken: Names of other blocks, which no branch may have.

    Yields:
        Branches, with all modules that serve them alone.
    """
    finder = _Finder(graph, model, owners)
    names = set(taken)
    for last, terms in finder.lasts(list(_terms(graph.flow.operators, finder))).items():
        block = finder.block(last, terms, names)
        if block is not None:
            names.add(block.name)
            yield block


def _terms(operators: Iterable[Operator], finder: _Finder) -> Iterator[_Term]:
    """Yield every addend of a residual addition."""
    flow = finder.flow
    residual: set[int] = set()
    seen: set[int] = set()
    for operator in operators:
        if operator.name not in _ADDING or len(operator.inputs) < 2 or not operator.outputs:
            continue
        first, second = operator.inputs[:2]
        for rest, addend in ((first, second), (second, first)):
            held = flow.carriers(rest, _HOLDING)
            for value in _addends(finder, addend, residual):
                carried = finder.common(held, value)
                if carried is not None:
                    residual.add(operator.outputs[0])
                    if value not in seen:
                        seen.add(value)
                        yield _Term(value, carried)


def _addends(finder: _Finder, value: int, residual: set[int]) -> list[int]:
    """Return a value, and the addends of the sum that it is, if no earlier residual addition made that sum."""
    found, left = [value], [value]
    while left:
        operator = finder.flow.maker.get(left.pop())
        if operator is not None and operator.name in _ADDING and not residual.intersection(operator.outputs):
            found += operator.inputs[:2]
            left += operator.inputs[:2]
    return found


class _Finder:
    """Module calls of a trace, indexed by module and by output."""

    def __init__(self, graph: ChannelGraph, model: nn.Module, owners: Owners) -> None:
        self.flow, self._labels, self._owners = graph.flow, graph.union_find, owners
        self._sizes = {path: _size(module) for path, module in model.named_modules()}
        self._calls = self.flow.by_module()
        self._givers: dict[int, list[str]] = {}
        for call in self.flow.calls:
            for gave in call.gave:
                self._givers.setdefault(gave.value, []).append(call.module)

    def common(self, held: Sequence[int], value: int) -> int | None:
        """Return the nearest of the `held` values that `value` was computed from, None if there is none."""
        earlier = (number for number in held if number < value)
        return next((number for number in earlier if number in self.flow.ancestors(value, down_to=number)), None)

    def lasts(self, terms: Sequence[_Term]) -> dict[str, list[_Term]]:
        """Map the last module of each branch, whose output is zero if the branch is dropped, to the terms it makes."""
        makers = {term: list(self._makers(term)) for term in terms}
        made: dict[str, list[_Term]] = {}
        for term, modules in makers.items():
            for module in modules:
                made.setdefault(module, []).append(term)
        served = {module: self._serve(module, of) for module, of in made.items()}
        found: dict[str, list[_Term]] = {}
        for modules in makers.values():
            last = next((module for module in modules if served[module]), None)
            if last is not None:
                found[last] = made[last]
        return found

    def _makers(self, term: _Term) -> Iterator[str]:
        """Yield modules with parameters whose output becomes the term and is zero only if it is; nearest first."""
        for value in self.flow.carriers(term.value, _ZEROING, down_to=term.carried + 1):
            yield from sorted((m for m in self._givers.get(value, ()) if m and self._sizes[m][1]), key=len)

    def _serve(self, module: str, terms: Sequence[_Term]) -> bool:
        """Tell whether all outputs of a module serve these terms alone."""
        return self._inside(module, self.flow.serving(term.value for term in terms))

    def _inside(self, module: str, serving: set[int]) -> bool:
        gave = [passed.value for call in self._calls[module] for passed in call.gave]
        return any(value in serving for value in gave) and all(
            value in serving or self.flow.is_dead(value) for value in gave
        )

    def block(self, last: str, terms: Sequence[_Term], names: set[str]) -> DroppableBlock | None:
        """Return the block of a branch that ends in the module `last`, None if nothing can replace it."""
        serving = self.flow.serving(term.value for term in terms)
        end = self._gap(last, ends=True)
        parts = self._parts(serving)
        if end is None or last not in parts:
            return None
        others = [gap for part in parts if part != last for gap in [self._gap(part)] if gap is not None]
        gaps = tuple(gap for gap in others if self._owners.tensors((gap.module,)) is not None)
        gaps = (*gaps, end)
        tensors = self._owners.tensors([gap.module for gap in gaps])
        if tensors is None or any(self._shortens(gap, gaps, terms) for gap in gaps):
            gaps, tensors = (end,), self._owners.tensors((last,))
            if not self._sizes[last][0] or self._shortens(end, gaps, terms):
                return None
        free = [gap.module for gap in gaps if gap.module not in names]
        if tensors is None or not free:
            return None
        whole = DroppableBlock(
            name=max(free, key=self._sizes.__getitem__),
            gaps=gaps,
            tensors=tensors,
            used_tensors=self._owners.read(tensors, serving),
            entry=self._entry(gaps, {term.carried for term in terms}),
        )
        # Code between the modules may need their outputs.
        less = replace(whole, name=last, gaps=(end,), tensors=tuple(t for t in tensors if t.startswith(f"{last}.")))
        return replace(whole, otherwise=less) if len(gaps) > 1 and last not in names else whole

    def _shortens(self, gap: Gap, gaps: Sequence[Gap], terms: Sequence[_Term]) -> bool:
        """Tell whether a remaining product gets shorter inputs where zeros have length 1: its cost was counted whole.

        The costs of such a block would be wrong.
        """
        if not gap.single:
            return False
        gave = {passed.value for call in self._calls[gap.module] for passed in call.gave}
        gone = [call for other in gaps for call in self._calls[other.module]]
        return any(
            operator.name in _PRODUCTS and not any(call.began <= operator.turn < call.ended for call in gone)
            for operator in self.flow.following(gave, until={term.value for term in terms})
        )

    def _parts(self, serving: set[int]) -> list[str]:
        """Return the outermost modules that serve a branch alone, in the order in which they end."""
        near = dict.fromkeys(m for value in sorted(serving) for m in self._givers.get(value, ()))
        inside = [module for module in near if module and self._inside(module, serving)]
        known = set(inside)
        return [m for m in inside if known.isdisjoint(enclosing_modules(m))]

    def _entry(self, gaps: Sequence[Gap], carried: set[int]) -> tuple[str, int | str] | None:
        """Return (module, argument) where a module of the branch receives the value that the branch is added to."""
        for gap in gaps:
            calls = self._calls[gap.module]
            places = [{passed.place for passed in call.took if passed.value in carried} for call in calls]
            common = set.intersection(*places)
            if common:
                return gap.module, min(common, key=str)
        return None

    def _gap(self, module: str, *, ends: bool = False) -> Gap | None:
        """Return the one gap that fits every call of a module. ends: it leaves zeros; otherwise its input where that
        fits.
        """
        found = {self._gap_of(call, ends=ends) for call in self._calls[module]}
        return found.pop() if len(found) == 1 else None

    def _gap_of(self, call: ModuleCall, *, ends: bool) -> Gap | None:
        alive = self.flow.leaving(call)
        if not call.plain or len(alive) != 1:
            return None
        gave = alive[0]
        fitting = [took for took in call.took if len(took.shape) == len(gave.shape) and took.dtype == gave.dtype]
        if not fitting:
            return None
        source, unlike = min(((took.place, self._unlike(took, gave)) for took in fitting), key=lambda one: len(one[1]))
        return call.gap(source, gave, single=unlike if ends or unlike else None)

    def _unlike(self, took: PassedTensor, gave: PassedTensor) -> tuple[int, ...]:
        """Return the axes along which output and input differ in length, or may differ once channels are cut."""
        return tuple(
            axis
            for axis, (length, own) in enumerate(zip(gave.shape, gave.axes, strict=True))
            if took.shape[axis] != length or not self._labels.stay_alike(own, took.axes[axis])
        )


def _size(module: nn.Module) -> tuple[int, bool]:
    """Return the number of weights in a module, without norms and biases, and whether it has any parameter."""
    parameters = list(module.parameters())
    return sum(parameter.numel() for parameter in parameters if parameter.ndim > 1), len(parameters) > 0
