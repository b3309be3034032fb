"""The guided space: a budget, and residuals around the solved allocation."""

from __future__ import annotations

from autoprune.search.space.context import SpaceContext
from autoprune.search.space.scaled import ScaledSpace, ShapeParameter, indicator_profile, solved_profile


def guided(context: SpaceContext) -> ScaledSpace:
    """Build the guided space: keep shares are uniform^(1 - trust) * solved^trust * 2^residual, scaled onto the budget.

    trust = 0 without residuals is the uniform sweep; trust = 1 is the scan's allocation. Both baselines are points of
    the space, so the sampler learns how far to follow the scan. Each tie has one residual, from half to twice its keep
    share.

    Args:
        context: Settings, topology and scan.

    Returns:
        The space. Without a scan there is no trust.
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
    awaited = ("trust",) if context.settings.search.scan and context.path is None and context.ties else ()
    return ScaledSpace(context=context, shape_parameters=[*trust, *residuals], awaited=awaited)
