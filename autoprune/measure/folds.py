"""Deviations of a metric over folds of the samples: how much each fold moves the value.

The deviations of one model carry its standard error; those of two models on the same samples carry the standard error
of their difference, and resampling them is a bootstrap over the samples (`records.paired`). They come from the
jackknife: the value without each fold in turn. Folds are random, differ in size by one sample at most, and do not
depend on batches. Why this mechanism: docs/decisions/0011-paired-noise.md.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat, dim_zero_sum

from autoprune.measure.counted import Counted
from autoprune.measure.jackknife import FOLDS, computed, folds_of, of_the_rest, parts_of, spread_out
from autoprune.task.functions import FunctionMetric
from autoprune.task.prepare import PreparedTask

#: Folds of a function of the user, which may take long, and of very many samples.
FEW_FOLDS = 20
#: Folds of metrics that have no value without a fold, whose own values are compared.
SEPARATE_FOLDS = 10
#: Largest number of entries that are kept for metrics of all samples, times the folds.
_WORK = 2**24
#: Entries of predictions that are gathered before folds are updated.
_GATHERED = 2**20
#: (position of a metric among the nested ones, name of its state).
_State = tuple[int, str]


class Folds:
    """Folds of the samples of one evaluation.

    Args:
        task: Task with the metric.
        name: Name of the metric.
    """

    def __init__(self, task: PreparedTask, name: str) -> None:
        self._task, self._name = task, name
        self._kept: _Kept | None = None
        self._gathered: list[tuple[Tensor, Tensor]] = []
        self._entries = self._samples = 0

    def add(self, predictions: Tensor, targets: Tensor) -> None:
        """Take one batch. Batches that do not tell their samples are left out.

        Args:
            predictions: Predictions [N, ...].
            targets: Targets [N, ...].
        """
        if min(predictions.ndim, targets.ndim) == 0 or len(predictions) != len(targets):
            return
        # Copies: a model may write into the same tensor again.
        self._gathered.append((predictions.detach().clone(), targets.detach().clone()))
        self._entries += predictions.numel()
        if self._entries >= _GATHERED:
            self._flush()

    def deviations(self, value: float) -> tuple[float, ...]:
        """Compute how much each fold moves the metric.

        Args:
            value: The metric of all samples.

        Returns:
            One number for each fold, with the sum of their squares the square of the standard error; 0 for a fold
            without which the metric has no value. Empty where fewer than two folds tell.
        """
        self._flush()
        found = [] if self._kept is None else self._kept.deviations(value)
        return tuple(float(f"{one:.4g}") for one in found)

    def _flush(self) -> None:
        gathered, self._gathered, self._entries = self._gathered, [], 0
        # Shapes may differ between batches, as those of images.
        for run in _runs_of_one_shape(gathered):
            predictions, targets = (torch.cat(parts) for parts in zip(*run, strict=True))
            positions = torch.arange(self._samples, self._samples + len(targets))
            self._samples += len(targets)
            if self._kept is not None:
                self._kept.update(predictions, targets, positions)
                continue
            kinds: tuple[type[_Kept], ...] = (Counted, _Whole, _Separate)
            for kind in kinds:
                self._kept = kind(self._task, self._name)
                if self._kept.update(predictions, targets, positions):
                    break


class _Kept(Protocol):
    """State of the folds."""

    def __init__(self, task: PreparedTask, name: str) -> None:
        """Begin without samples."""

    def update(self, predictions: Tensor, targets: Tensor, positions: Tensor) -> bool:
        """Take samples at positions; return whether every fold could."""

    def deviations(self, value: float) -> list[float]:
        """Compute how much each fold moves the metric."""


class _Whole:
    """States of one metric for each fold, where states add up or are lists: the metric without a fold follows."""

    def __init__(self, task: PreparedTask, name: str) -> None:
        self._task, self._metric = task, task.new_metric(name)
        self._parts = parts_of(self._metric)
        self._sizes = torch.zeros(FOLDS, dtype=torch.long)
        #: State -> its sum [FOLDS, ...], or (fold, entries) of each update.
        self._sums: dict[_State, Tensor] = {}
        self._lists: dict[_State, list[tuple[int, Tensor]]] = {}
        self._totals: dict[_State, Tensor] = {}

    def update(self, predictions: Tensor, targets: Tensor, positions: Tensor) -> bool:
        """Add samples to the states of their folds; False where states do not add up, or a fold is refused."""
        kinds = {part._reductions[name] for part in self._parts for name in part._defaults}
        if not kinds or not kinds <= {dim_zero_sum, dim_zero_cat}:
            return False
        refused = False
        for fold, samples in _split(positions, FOLDS):
            self._metric.reset()
            try:
                self._task.update(self._metric, predictions[samples], targets[samples])
            except Exception:  # torchmetrics and users' metrics fail in many ways
                refused = True
                continue
            self._sizes[fold] += len(samples)
            self._keep(fold)
        # A metric that keeps what it has seen outside its states leaves them empty.
        told = any(one.any() for one in self._sums.values()) or any(self._lists.values())
        return told and not refused

    def _keep(self, fold: int) -> None:
        for number, part in enumerate(self._parts):
            for name in part._defaults:
                state, key = getattr(part, name), (number, name)
                if part._reductions[name] is dim_zero_sum:
                    wide = state.double() if state.is_floating_point() else state
                    if key not in self._sums:
                        self._sums[key] = wide.new_zeros((FOLDS, *wide.shape))
                    self._sums[key][fold] += wide
                else:
                    entries = state if isinstance(state, list) else [state]
                    self._lists.setdefault(key, []).extend((fold, one) for one in entries)

    def deviations(self, value: float) -> list[float]:
        """Compute the jackknife's deviations; those of the folds' own values for a metric that is slow or changes."""
        entries = sum(one.numel() for kept in self._lists.values() for _, one in kept)
        self._totals = {key: one.sum(0) for key, one in self._sums.items()}
        count = min(FOLDS, max(FEW_FOLDS, _WORK // max(entries, 1)))
        if isinstance(self._metric, FunctionMetric):
            count = FEW_FOLDS
        sizes = {fold: size for fold in range(count) if (size := int(self._sizes[fold::count].sum()))}
        whole = self._without(count, count) if entries * FEW_FOLDS <= _WORK else None  # no fold has this number
        if whole is None or not math.isclose(whole, value, rel_tol=1e-3, abs_tol=1e-6):
            return spread_out([self._of(fold, count) for fold in sizes])
        return of_the_rest([self._without(fold, count) for fold in sizes], [*sizes.values()])

    def _of(self, fold: int, count: int) -> float | None:
        """Compute the metric of one fold of `count`."""
        sums = {key: one[fold::count].sum(0) for key, one in self._sums.items()}
        return self._computed(sums, lambda other: other % count == fold)

    def _without(self, fold: int, count: int) -> float | None:
        """Compute the metric of all folds but one of `count`."""
        sums = {key: self._totals[key] - one[fold::count].sum(0) for key, one in self._sums.items()}
        return self._computed(sums, lambda other: other % count != fold)

    def _computed(self, sums: Mapping[_State, Tensor], counts: Callable[[int], bool]) -> float | None:
        """Compute the metric from sums, and from the lists of the folds that count."""
        states = [vars(part) for part in self._parts]  # setting them as attributes of a module takes long
        for (number, name), total in sums.items():
            states[number][name] = total
        for (number, name), kept in self._lists.items():
            entries = [one for fold, one in kept if counts(fold)]
            is_list = isinstance(self._parts[number]._defaults[name], list)
            states[number][name] = entries if is_list else torch.cat(entries)
        for state in states:
            state.update(_computed=None, _update_count=1)
        return computed(self._metric)


class _Separate:
    """One metric for each fold, whose values are compared: for metrics of which a part does not follow."""

    def __init__(self, task: PreparedTask, name: str) -> None:
        self._task = task
        self._metrics = [task.new_metric(name) for _ in range(SEPARATE_FOLDS)]

    def update(self, predictions: Tensor, targets: Tensor, positions: Tensor) -> bool:
        """Add samples to the metrics of their folds; a metric that refuses so few samples has no fold."""
        for fold, samples in _split(positions, SEPARATE_FOLDS):
            with contextlib.suppress(Exception):
                self._task.update(self._metrics[fold], predictions[samples], targets[samples])
        return True

    def deviations(self, value: float) -> list[float]:
        """Compute the deviations of the folds' own values."""
        del value
        return spread_out([computed(metric) for metric in self._metrics if metric.update_called])


def _split(positions: Tensor, count: int) -> Iterable[tuple[int, Tensor]]:
    """Yield (fold, indices of its samples) for the folds that have some."""
    found = folds_of(positions, count)
    order = torch.argsort(found, stable=True)
    folds, sizes = torch.unique(found, return_counts=True)
    yield from zip(folds.tolist(), torch.split(order, sizes.tolist()), strict=True)


def _runs_of_one_shape(batches: Sequence[tuple[Tensor, Tensor]]) -> Iterable[list[tuple[Tensor, Tensor]]]:
    """Yield batches that can be put together."""
    run: list[tuple[Tensor, Tensor]] = []
    for batch in batches:
        if run and [one.shape[1:] for one in batch] != [one.shape[1:] for one in run[-1]]:
            yield run
            run = []
        run.append(batch)
    if run:
        yield run
