"""Which optimizer suits a model, and at which rate."""

from __future__ import annotations

from autoprune.plan.recovery import RATES
from autoprune.space.settings import AUTO, SpaceSettings
from autoprune.trace.topology import Topology


def suited(topology: Topology) -> str:
    """Name the optimizer that suits a model: "adamw" where it has LayerNorm and no BatchNorm, else "sgd"."""
    return "adamw" if topology.norms == ("layer",) else "sgd"


def optimizers(settings: SpaceSettings, topology: Topology) -> tuple[str, ...]:
    """Names to choose from, with that which suits the model in the place of "auto"."""
    own = suited(topology)
    return tuple(dict.fromkeys(own if name == AUTO else name for name in settings.optimizers))


def rate(settings: SpaceSettings, optimizer: str) -> float:
    """The rate of a plan that is not given one: the middle of a range in the logarithm, or the optimizer's own."""
    if settings.learning_rate is None:
        return RATES[optimizer]
    low, high = settings.rates
    return float((low * high) ** 0.5)


def described(settings: SpaceSettings, topology: Topology) -> str:
    """A sentence on what trains the candidates, and why where the study chooses."""
    rates = [] if settings.learning_rate is None else [f"{rate:g}" for rate in dict.fromkeys(settings.rates)]
    each = [
        f"{name} at a rate of {' to '.join(rates) or f'{RATES[name]:g}'}" for name in optimizers(settings, topology)
    ]
    why = ""
    if AUTO in settings.optimizers:
        kinds = {("layer",): "has LayerNorm and no BatchNorm", (): "has neither BatchNorm nor LayerNorm"}
        why = f"; {suited(topology)} suits a model that {kinds.get(topology.norms, 'has BatchNorm')}"
    return f"Candidates are trained by {' or '.join(each)}{why}."
