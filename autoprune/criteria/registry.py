"""Score the channels of a group by the name of a criterion."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor

from autoprune.criteria.signals import Signals, sanitize
from autoprune.plan.criteria import CRITERIA
from autoprune.structure.groups import ChannelGroup


def score(name: str, group: ChannelGroup, signals: Signals) -> Tensor:
    """Score the remaining channels of a group.

    Args:
        name: Name of a criterion.
        group: Group to score.
        signals: Signals of the model, with those of `CRITERIA.signals_for`.

    Returns:
        Scores, float32 [channels], finite; channels with higher scores stay.

    Raises:
        UnknownNameError: For an unknown criterion.
        ConfigurationError: For a group that the criterion cannot score.
    """
    function = cast("Callable[[ChannelGroup, Signals], Tensor]", CRITERIA.find(name).load())
    return sanitize(function(group, signals))
