"""Identity of a trial: a fingerprint of everything that decides its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import torch

from autoprune.codec import to_plain
from autoprune.plan.resolved import ResolvedPlan
from autoprune.trial.context import TrialContext


def identity_of(
    context: TrialContext, resolved: ResolvedPlan, parent: int | None = None, rungs: Sequence[float] = ()
) -> str:
    """Compute the fingerprint that the stored state of a trial must have for the trial to go on from it.

    Another version of torch is another identity, as its random numbers and rounding may differ.

    Args:
        context: Context of the trials.
        resolved: Plan of the trial.
        parent: Number of the trial that it starts from; None for the dense model.
        rungs: Shares of the fine-tune's steps at which it is evaluated.

    Returns:
        SHA-256 in hexadecimal digits.
    """
    decides = {
        "structure": context.structure,
        "asked": to_plain(resolved.asked),
        "plan": to_plain(resolved.plan),
        "widths": to_plain(resolved.widths),
        "gone": sorted(resolved.gone),
        "parent": parent,
        "rungs": list(rungs),
        "device": torch.device(context.task.device).type,
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
