"""Origin: where the proposal of a trial comes from, and what follows from that."""

from __future__ import annotations

from enum import StrEnum


class Origin(StrEnum):
    """Source of a proposal.

    Attributes:
        DENSE: The dense model.
        UNIFORM: A point of the uniform sweep.
        SOLVED: A solved allocation.
        ENQUEUED: A user's plan.
        SAMPLED: The sampler.
        POLISHED: A finished candidate that is trained further.
    """

    DENSE = "dense"
    UNIFORM = "uniform"
    SOLVED = "solved"
    ENQUEUED = "enqueued"
    SAMPLED = "sampled"
    POLISHED = "polished"

    @property
    def is_baseline(self) -> bool:
        """Whether others are compared with it: it starts from baselines alone, and is tested at the end."""
        return self in (Origin.DENSE, Origin.UNIFORM)

    @property
    def is_stoppable(self) -> bool:
        """Whether an early-stopping rule may end its training."""
        return self is Origin.SAMPLED

    @property
    def has_rungs(self) -> bool:
        """Whether it is evaluated at rungs. Part of the gain of a polished candidate belongs to its parent."""
        return self not in (Origin.DENSE, Origin.POLISHED)

    @property
    def is_shrinkable(self) -> bool:
        """Whether its plan may be shrunk; user plans and baselines are evaluated unchanged."""
        return self in (Origin.SAMPLED, Origin.SOLVED)

    @property
    def length_follows_cost(self) -> bool:
        """Whether its number of fine-tune steps is scaled by its cost."""
        return self in (Origin.SAMPLED, Origin.SOLVED, Origin.UNIFORM)

    @property
    def repeats_known(self) -> bool:
        """Whether it is evaluated although an equal candidate is finished."""
        return self in (Origin.DENSE, Origin.POLISHED)
