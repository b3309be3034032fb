"""The part of the search split on which candidates are evaluated at rungs."""

from __future__ import annotations

import torch

from autoprune.errors import user_code
from autoprune.task.data import IterableSplit, take_batches
from autoprune.task.evaluation import Evaluation, Scorable
from autoprune.task.prepare import PreparedTask


def rung_split(task: PreparedTask, samples: int) -> Scorable:
    """Return the part of the search split that is evaluated at rungs, the same each time; all of the user's evaluation.

    Args:
        task: PreparedTask of the study.
        samples: Samples of the part, >= 1; random ones where the data can be shuffled. All if the split has no more.
    """
    split = task.search_split
    if isinstance(split, Evaluation) or (split.samples is not None and split.samples <= samples):
        return split
    # Data is often sorted by class, so the first samples would hold few classes.
    device = torch.device(task.device)
    with user_code("Choosing the part of the search split that early stopping looks at"):
        batches = [batch.to(device) for batch in take_batches(split.shuffled(task.seed), samples)]
    return IterableSplit([(batch.inputs, batch.targets) for batch in batches])
