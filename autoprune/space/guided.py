"""The guided space: a budget, and residuals around an allocation."""

from __future__ import annotations

from autoprune.space.frame import Frame
from autoprune.space.scaled import Direction, ScaledSpace, followed, marked


def guided(frame: Frame) -> ScaledSpace:
    """Keep shares are uniform^(1 - trust) * solved^trust * 2^residual, scaled onto the budget.

    trust = 0 and no residuals is the uniform sweep, trust = 1 the scan's own allocation, so both baselines are points
    of the space and the sampler learns how far the scan is worth following. A residual for each tie, from halving its
    share to doubling it.
    """
    trust = (
        [Direction(name="trust", low=0.0, high=1.0, octaves=followed(frame), solved=1.0)]
        if frame.path is not None
        else []
    )
    residuals = [
        Direction(name=f"residual/{name}", low=-1.0, high=1.0, octaves=marked(frame, [number]))
        for number, name in enumerate(frame.names)
    ]
    awaited = ("trust",) if frame.settings.scan and frame.path is None and frame.ties else ()
    return ScaledSpace(frame=frame, directions=[*trust, *residuals], later=awaited)
