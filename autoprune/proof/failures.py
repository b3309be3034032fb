"""Turn errors of a model into reasons."""

from __future__ import annotations

from autoprune.errors import describe_exception
from autoprune.structure.reasons import Reason, ReasonKind
from autoprune.trace.operators import raised_from


def raised(kind: ReasonKind, error: Exception) -> Reason:
    """Turn an error of the model into a reason, with the line that raised it.

    Args:
        kind: Kind of the reason.
        error: The error.

    Returns:
        The reason.
    """
    return Reason(kind=kind, detail=in_short(error), line=raised_from(error))


def in_short(error: Exception) -> str:
    """Describe an error in its first line.

    Args:
        error: The error.

    Returns:
        At most 200 characters.
    """
    return describe_exception(error).splitlines()[0][:200]
