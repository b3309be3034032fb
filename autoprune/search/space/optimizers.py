"""Choice of the optimizer and its learning rate."""

from __future__ import annotations

from typing import TypeVar

from autoprune.plan.recovery import DEFAULT_LEARNING_RATES
from autoprune.search.space.setting_groups import AUTO
from autoprune.search.space.settings import SpaceSettings
from autoprune.structure.topology import Topology

AnySettings = TypeVar("AnySettings", bound=SpaceSettings)


def suitable_optimizer(topology: Topology, kind: str = "") -> str:
    """Return the optimizer that suits a task: "adamw" for LayerNorm without BatchNorm and for regression, else "sgd".

    Args:
        topology: Structure of the model.
        kind: Kind of prediction, see `autoprune.task.prediction.Prediction`. A regression loss and its gradient scale
            with the unit of the targets; a step of AdamW does not.

    Returns:
        Name of the optimizer.
    """
    return "adamw" if kind == "regression" or topology.norms == ("layer",) else "sgd"


def resolve_optimizers(settings: AnySettings, topology: Topology, kind: str) -> AnySettings:
    """Replace the optimizer "auto" by the one that suits the task.

    Args:
        settings: Settings of the space.
        topology: Structure of the model.
        kind: Kind of prediction.

    Returns:
        Settings without "auto" among the optimizers.
    """
    return settings.changed({"recovery.optimizers": optimizer_choices(settings, topology, kind)})


def optimizer_choices(settings: SpaceSettings, topology: Topology, kind: str = "") -> tuple[str, ...]:
    """Return the optimizers to choose from, with "auto" replaced.

    Args:
        settings: Settings of the space.
        topology: Structure of the model.
        kind: Kind of prediction.
    """
    own = suitable_optimizer(topology, kind)
    return tuple(dict.fromkeys(own if name == AUTO else name for name in settings.recovery.optimizers))


def default_rate(settings: SpaceSettings, optimizer: str) -> float:
    """Return the learning rate of plans without one: the geometric middle of the range, or the optimizer's default.

    Args:
        settings: Settings of the space.
        optimizer: Name of the optimizer.
    """
    if settings.recovery.learning_rate is None:
        return DEFAULT_LEARNING_RATES[optimizer]
    low, high = settings.recovery.rates
    return float((low * high) ** 0.5)


def describe_training(settings: SpaceSettings, topology: Topology, kind: str = "") -> str:
    """Describe in one sentence how candidates are trained, and why where the study chooses.

    Args:
        settings: Settings of the space.
        topology: Structure of the model.
        kind: Kind of prediction.
    """
    rates = (
        []
        if settings.recovery.learning_rate is None
        else [f"{rate:g}" for rate in dict.fromkeys(settings.recovery.rates)]
    )
    names = optimizer_choices(settings, topology, kind)
    each = [
        f"{name} at a learning rate of {' to '.join(rates) or f'{DEFAULT_LEARNING_RATES[name]:g}'}" for name in names
    ]
    why = ""
    if AUTO in settings.recovery.optimizers:
        kinds = {("layer",): "has LayerNorm and no BatchNorm", (): "has neither BatchNorm nor LayerNorm"}
        suits = f"a model that {kinds.get(topology.norms, 'has BatchNorm')}"
        if kind == "regression":
            suits = "a loss in the unit of the targets"
        why = f"; {suitable_optimizer(topology, kind)} suits {suits}"
    return f"Candidates are trained with {' or '.join(each)}{why}."
