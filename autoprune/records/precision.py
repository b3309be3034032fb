"""How many search samples a limit of the loss of quality needs."""

from __future__ import annotations

import math


def needed_factor(tells: float, limit: float) -> float:
    """Compute how many times as many samples a limit needs.

    With these, a candidate that is as good as the dense model keeps the limit 9 times of 10 at a confidence of 90 %:
    its measured loss and the margin are each half of the limit. Errors fall with the square root of the samples.

    Args:
        tells: Difference in quality that the present samples tell from luck, at the confidence.
        limit: Largest loss of quality, > 0.

    Returns:
        The factor.

    Example:
        >>> needed_factor(0.01, 0.02)
        1.0
    """
    return (2 * tells / limit) ** 2


def more_samples(tells: float, limit: float) -> str:
    """Say how many more samples a limit needs.

    Args:
        tells: Difference in quality that the present samples tell from luck.
        limit: Largest loss of quality, >= 0.

    Returns:
        Such as "about 6 times as many samples"; "no number of samples" for a limit of 0.
    """
    if limit <= 0:
        return "no number of samples"
    return f"about {math.ceil(needed_factor(tells, limit))} times as many samples"
