"""Counts of each sample at once, for metrics that count: one update and one `compute` serve all folds.

Accuracy, error, recall, precision and F1 of torchmetrics add up what each sample counts. Asked with
`multidim_average="samplewise"` they tell it by sample, and compute one value for each row of counts.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor
from torchmetrics import Metric

from autoprune.measure.jackknife import FOLDS, folds_of, of_the_rest, parts_of
from autoprune.task.prepare import PreparedTask

#: Largest number of counts that are written out at once.
_WRITTEN = 2**22


class Counted:
    """Counts of each fold. Metrics that do not count, or not alike by sample, are refused by `update`.

    Args:
        task: Task with the metric.
        name: Name of the metric.
    """

    def __init__(self, task: PreparedTask, name: str) -> None:
        self._task, self._name, self._metric = task, name, task.new_metric(name)
        self._counting = _count_by_sample(self._metric)
        self._sizes = torch.zeros(FOLDS, dtype=torch.long)
        #: Counts of each fold [FOLDS, ...], in the order of the states.
        self._sums: list[Tensor] = []

    def update(self, predictions: Tensor, targets: Tensor, positions: Tensor) -> bool:
        """Count samples in their folds.

        Args:
            predictions: Predictions [N, ...].
            targets: Targets [N, ...].
            positions: Positions of the samples in their split [N].

        Returns:
            False where the metric does not count each sample, which the first samples tell.
        """
        first = not self._sums
        if not self._counting or (first and not self._is_brief(predictions, targets)):
            return False
        try:
            counts = self._counts(predictions, targets)
        except Exception:  # torchmetrics and users' metrics fail in many ways
            return False
        if first and not self._agrees(predictions, targets, counts):
            return False
        folds = folds_of(positions, FOLDS).to(counts[0].device)
        self._sizes += torch.bincount(folds.cpu(), minlength=FOLDS)
        self._sums = self._sums or [one.new_zeros(FOLDS, *one.shape[1:]) for one in counts]
        for total, one in zip(self._sums, counts, strict=True):
            total.index_add_(0, folds, one)
        return True

    def deviations(self, value: float) -> list[float]:
        """Compute the jackknife's deviations.

        Args:
            value: The metric of all samples.

        Returns:
            One number for each fold that has samples.
        """
        del value
        there = self._sizes.nonzero().squeeze(1)
        rest = [one.sum(0) - one[there.to(one.device)] for one in self._sums]
        return of_the_rest(self._values(rest), self._sizes[there].tolist())

    def _is_brief(self, predictions: Tensor, targets: Tensor) -> bool:
        """Return whether writing out the counts of every class is no more work than the predictions were."""
        classes = max(getattr(part, "num_classes", None) or 1 for part in parts_of(self._metric))
        return targets.numel() * classes <= min(predictions.numel(), _WRITTEN)

    def _counts(self, predictions: Tensor, targets: Tensor) -> list[Tensor]:
        """Compute the counts of each sample [N, ...], one tensor for each state."""
        self._metric.reset()
        # Counts are summed over what follows the first axis of the targets, so there has to be something.
        self._task.update(self._metric, predictions.unsqueeze(-1), targets.unsqueeze(-1))
        states = [torch.cat(getattr(part, name)) for part in parts_of(self._metric) for name in part._defaults]
        return [state.reshape(len(targets), -1) for state in states]

    def _agrees(self, predictions: Tensor, targets: Tensor, counts: list[Tensor]) -> bool:
        """Return whether the value from the counts, in two rows, is twice that of the unchanged metric."""
        plain = self._task.new_metric(self._name)
        try:
            self._task.update(plain, predictions, targets)
            expected = plain.compute()
            found = self._computed([one.sum(0).expand(2, -1) for one in counts]).flatten()
            return len(found) == 2 and torch.allclose(found, expected.expand(2), equal_nan=True)
        except Exception:
            return False

    def _values(self, rows: list[Tensor]) -> list[float | None]:
        """Compute the metric of each row of counts; None where it is not finite, or all fail."""
        try:
            found = self._computed(rows).flatten().tolist()
        except Exception:
            return []
        return [value if math.isfinite(value) else None for value in found]

    def _computed(self, rows: list[Tensor]) -> Tensor:
        """Compute the metric of each row of counts."""
        left = iter(rows)
        for part in parts_of(self._metric):
            vars(part).update({name: [next(left)] for name in part._defaults}, _computed=None, _update_count=1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            value: Tensor = self._metric.compute()
        return value


def _count_by_sample(metric: Metric) -> bool:
    """Let a metric count by sample; return whether all of its states are counts."""
    parts = [part for part in parts_of(metric) if part._defaults]
    for part in parts:
        if getattr(part, "multidim_average", None) != "global":
            return False
        part.multidim_average = "samplewise"
        for name in [*part._defaults]:
            part.add_state(name, [], dist_reduce_fx="cat")
    return bool(parts)
