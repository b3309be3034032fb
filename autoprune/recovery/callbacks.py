"""Callbacks during recovery, and the state of a model that they get."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from autoprune.plan.kept import KeptChannels
from autoprune.recovery.trial_state import TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """State of a model during recovery.

    Attributes:
        model: The current model.
        kept: Its channels, in dense indices.
        masks: Name of a weight -> bool mask of its shape; True where the entry may be non-zero.
        step: Optimizer steps done.
        epoch: Passes over the train split done.
        rate: Learning rate of the coming step.
        state: Describes everything that the trial needs to go on from here, in the memory of the model; None where it
            cannot.
    """

    model: nn.Module
    kept: KeptChannels
    masks: Mapping[str, Tensor]
    step: int
    epoch: int = 0
    rate: float = 0.0
    state: Callable[[], TrialState] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryCallbacks:
    """Callbacks during recovery. They must not change the model; `on_rung` may end training.

    Attributes:
        on_epoch: Called after each pass over the train split.
        on_rung: Called with the model, in eval mode, and the optimizer steps done, before each step of `rungs` that
            comes
            after the last pruning step. True ends the training.
        rungs: Optimizer steps, ascending.
    """

    on_epoch: Callable[[Snapshot], None] | None = None
    on_rung: Callable[[nn.Module, int], bool] | None = None
    rungs: tuple[int, ...] = ()
