"""Discover what can be pruned in a model, and apply a plan to it, without a task and its data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from torch import Tensor, nn

from autoprune.criteria.gathering import gather_signals
from autoprune.criteria.resolve import resolve_allocation, select_channels
from autoprune.errors import ConfigurationError, error_message, user_code
from autoprune.plan.criteria import BLOCK_CRITERIA, CRITERIA, check_applicable
from autoprune.plan.kept import KeptChannels
from autoprune.plan.plan import PruningPlan
from autoprune.plan.resolved import ResolvedPlan
from autoprune.proof.discover import discover_structure
from autoprune.structure.groups import GROUP_KINDS
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from autoprune.task.data import Inputs
from autoprune.task.models import check_kind, module_of


def discover(
    model: nn.Module | Callable[[], nn.Module],
    inputs: Inputs,
    *,
    protect: Sequence[str] = (),
    kinds: Sequence[str] = (*GROUP_KINDS, "blocks", "layers"),
) -> Topology:
    """Trace a model in eval mode and prove what can be pruned: the first step of every study.

    Args:
        model: The model, which is left as it is, or a function that builds it.
        inputs: Example inputs of its forward.
        protect: Patterns of module names whose channels and blocks stay.
        kinds: Structures to look for: "channels", "heads", "head_width", "blocks" and "layers".

    Returns:
        The proved groups and blocks, and what they cost; `describe()` gives plain data for a search.

    Raises:
        TraceError: The model cannot be copied or run.
        ConfigurationError: The model is refused, or a pattern matches nothing.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> discover(model, torch.randn(3, 4)).widths
        {'0': 8}
    """
    module = module_of(model)
    check_kind(module)
    with user_code("Tracing the model", "Nothing was changed: mend the code and start again."):
        found = discover_structure(module, inputs)
    return found.protected(protect).only(kinds)


def apply(
    plan: PruningPlan,
    model: nn.Module | Callable[[], nn.Module],
    inputs: Inputs,
    *,
    topology: Topology | None = None,
) -> nn.Module:
    """Cut a model to a plan, without training and without data.

    Args:
        plan: Plan whose criteria look at weights alone. Its recovery is not run; `evaluate` does all of it.
        model: The model, which is left as it is, or a function that builds it.
        inputs: Example inputs of its forward.
        topology: Result of `discover` for this model, to save the time; None discovers it.

    Returns:
        The smaller model, in eval mode.

    Raises:
        ConfigurationError: The plan does not fit the model, lays masks, or has criteria that need data.
        TraceError: The model cannot be copied or run.

    Example:
        >>> import torch
        >>> from autoprune import GroupPlan
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> apply(PruningPlan(groups={"0": GroupPlan(ratio=0.5)}), model, torch.randn(3, 4))[0]
        Linear(in_features=4, out_features=4, bias=True)
    """
    module = module_of(model)
    _check_class(plan)
    found = discover(module, inputs) if topology is None else topology
    _check_topology(found, module)
    _check(plan, found)
    whole = KeptChannels.whole(found)
    signals = gather_signals(module, (), (found, whole), (), _no_loss, plan.seed)
    resolved = ResolvedPlan.of(resolve_allocation(plan, found, signals), found, asked=plan)
    return cut(module, found, select_channels(resolved, found, signals)).eval()


def _check_class(plan: object) -> None:
    if not isinstance(plan, PruningPlan):
        remedy = "A proposal of a search has one in `plan.asked`."
        raise ConfigurationError(error_message("a plan to apply", "be a PruningPlan", type(plan).__name__, remedy))


def _check_topology(topology: Topology, model: nn.Module) -> None:
    tensors = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    known = topology.tensors
    wrong = [name for name, tensor in tensors if name in known and tensor.shape != known[name].shape]
    if wrong:
        got = f"that of a model with other shapes of {', '.join(wrong[:5])}"
        raise ConfigurationError(error_message("the topology", "be that of the model", got, "Discover this model."))


def _check(plan: PruningPlan, topology: Topology) -> None:
    if plan.weights is not None:
        remedy = "Leave weights out, or evaluate the plan with its task."
        raise ConfigurationError(error_message("a plan to apply", "lay no masks", "masks of single weights", remedy))
    topology.check_names(plan.groups)
    for name, group in plan.groups.items():
        check_applicable((group.criterion,), replace(topology, groups=(topology.group(name),)))
    for what, criterion, signals in _needed(plan):
        if signals:
            got = f"{criterion!r}, which needs {', '.join(signals)}"
            remedy = "Evaluate the plan with its task."
            raise ConfigurationError(error_message(what, "look at weights alone to be applied", got, remedy))


def _needed(plan: PruningPlan) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield each criterion of a plan with the signals that it needs besides weights."""
    for group in plan.groups.values():
        if group.prunes:
            yield "a criterion", group.criterion, CRITERIA.signals_for((group.criterion,))
    if plan.ranking is not None:
        yield "a criterion", plan.ranking.criterion, CRITERIA.signals_for((plan.ranking.criterion,))
    for wanted in plan.block_plans.values():
        yield "a block criterion", wanted.criterion, BLOCK_CRITERIA.signals_for((wanted.criterion,))


def _no_loss(*_: object) -> Tensor:
    raise AssertionError("weights alone are scored")
