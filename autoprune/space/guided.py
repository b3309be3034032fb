"""The guided space: a budget, and residuals around an allocation."""

from __future__ import annotations

from autoprune.space.context import SpaceContext
from autoprune.space.scaled import ScaledSpace, ShapeParameter, indicator_profile, solved_profile


def guided(context: SpaceContext) -> ScaledSpace:
    """Keep shares are uniform^(1 - trust) * solved^trust * 2^residual, scaled onto the budget.

    trust = 0 and no residuals is the uniform sweep, trust = 1 the scan's own allocation, so both baselines are points
    of the space and the sampler learns how far the scan is worth following. A residual for each tie, from halving its
    share to doubling it.
    """
    trust = (
        [ShapeParameter(name="trust", low=0.0, high=1.0, log2_scale=solved_profile(context), solved=1.0)]
        if context.path is not None
        else []
    )
    residuals = [
        ShapeParameter(name=f"residual/{name}", low=-1.0, high=1.0, log2_scale=indicator_profile(context, [number]))
        for number, name in enumerate(context.names)
    ]
    awaited = ("trust",) if context.settings.scan and context.path is None and context.ties else ()
    return ScaledSpace(context=context, shape_parameters=[*trust, *residuals], awaited=awaited)
