"""Follow channels through one forward, operator by operator (TorchDispatchMode)."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.structure.reasons import TRACE_TIME, UNKNOWN, UNKNOWN_USE
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.located import WITHOUT_RULE
from autoprune.trace.observations import OperatorStep
from autoprune.trace.rules.registry import RULES
from autoprune.trace.rules.rule import Args, Kwargs, OperatorRule
from autoprune.trace.values import tensors_in

#: Seconds after which a trace freezes the channels of every further operator.
TRACE_SECONDS = 60.0


class Tracer(TorchDispatchMode):
    """Runs every operator and applies its rule to the channels.

    Args:
        graph: The channels of the model that is about to run.
        seconds: Time limit, after which every further operator freezes its channels, so that a trace always ends.

    Attributes:
        graph: The channels.
    """

    def __init__(self, graph: ChannelGraph, *, seconds: float = TRACE_SECONDS) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.graph = graph
        self._seconds, self._deadline = seconds, time.monotonic() + seconds

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: Args = (),
        kwargs: Kwargs | None = None,
    ) -> object:
        del types
        given = kwargs or {}
        name, graph, first = func.overloadpacket.__name__, self.graph, args[0] if args else None
        graph.begin(name if func.namespace == "aten" else f"{func.namespace}::{name}")
        graph.steps.append(OperatorStep.of(name, first, graph.axes(first) if isinstance(first, Tensor) else []))
        out = self.computed(func, args, given)
        values = (args, list(given.values()))
        graph.flow.note(name, func, values, out)
        rule = RULES.get(name)
        if time.monotonic() > self._deadline:
            graph.freeze_all(values, TRACE_TIME, f"{self._seconds:g} seconds")
        elif rule is None:
            graph.freeze_all(values, WITHOUT_RULE.get(name, UNKNOWN))
        else:
            self._apply(rule, args, given, out)
        return out

    def computed(self, func: torch._ops.OpOverload, args: Args, kwargs: Mapping[str, object]) -> object:
        """Run an operator, and return its result; `graph.steps[-1]` holds the nodes of its first argument."""
        return func(*args, **kwargs)

    def _apply(self, rule: OperatorRule, args: Args, kwargs: Kwargs, out: object) -> None:
        """Apply a rule. If the rule does not fit the arguments, treat the operator as one without a rule."""
        try:
            rule(self.graph, args, kwargs, out)
        except Exception:  # a form of the operator that its rule does not know; no user code runs in here
            self.graph.freeze_all((args, list(kwargs.values())), UNKNOWN_USE)
            for result in tensors_in(out):
                self.graph.put(result, [None] * result.ndim)
