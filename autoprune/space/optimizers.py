"""Which optimizer suits a task, and at which rate."""

from __future__ import annotations

from dataclasses import replace

from autoprune.plan.recovery import DEFAULT_LEARNING_RATES
from autoprune.space.settings import AUTO, SpaceSettings
from autoprune.trace.topology import Topology


def suitable_optimizer(topology: Topology, kind: str = "") -> str:
    """Name the optimizer that suits a task: "adamw" for LayerNorm without BatchNorm and for numbers, else "sgd".

    Args:
        topology: Of the model.
        kind: What is predicted, as `autoprune.task.prediction.Prediction` has it. The loss of numbers, and its slope,
            is as large as their unit says: a step of AdamW is not.

    """
    return "adamw" if kind == "regression" or topology.norms == ("layer",) else "sgd"


def resolve_optimizers(settings: SpaceSettings, topology: Topology, kind: str) -> SpaceSettings:
    """Give the settings with the optimizer that suits a task in the place of "auto"."""
    return replace(settings, optimizers=optimizer_choices(settings, topology, kind))


def optimizer_choices(settings: SpaceSettings, topology: Topology, kind: str = "") -> tuple[str, ...]:
    """Names to choose from, with that which suits the task in the place of "auto"."""
    own = suitable_optimizer(topology, kind)
    return tuple(dict.fromkeys(own if name == AUTO else name for name in settings.optimizers))


def default_rate(settings: SpaceSettings, optimizer: str) -> float:
    """The rate of a plan that is not given one: the middle of a range in the logarithm, or the optimizer's own."""
    if settings.learning_rate is None:
        return DEFAULT_LEARNING_RATES[optimizer]
    low, high = settings.rates
    return float((low * high) ** 0.5)


def describe_training(settings: SpaceSettings, topology: Topology, kind: str = "") -> str:
    """A sentence on what trains the candidates, and why where the study chooses."""
    rates = [] if settings.learning_rate is None else [f"{rate:g}" for rate in dict.fromkeys(settings.rates)]
    names = optimizer_choices(settings, topology, kind)
    each = [
        f"{name} at a learning rate of {' to '.join(rates) or f'{DEFAULT_LEARNING_RATES[name]:g}'}" for name in names
    ]
    why = ""
    if AUTO in settings.optimizers:
        kinds = {("layer",): "has LayerNorm and no BatchNorm", (): "has neither BatchNorm nor LayerNorm"}
        suits = f"a model that {kinds.get(topology.norms, 'has BatchNorm')}"
        if kind == "regression":
            suits = "a loss in the unit of the targets"
        why = f"; {suitable_optimizer(topology, kind)} suits {suits}"
    return f"Candidates are trained with {' or '.join(each)}{why}."
