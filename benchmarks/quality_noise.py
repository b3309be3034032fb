"""Standard errors of every named metric against a bootstrap, on three data sets.

    python -m benchmarks.quality_noise [--resamples 2000]

Small models of scikit-learn predict digits (ten classes), whether a digit is an eight (yes or no, one in ten) and
diabetes (numbers), each sample by a model that has not seen it. For each metric of the registry the standard error that
a study stores is compared with the standard deviation over resamples of the samples (Efron, Bootstrap methods: another
look at the jackknife, 1979). The last column is the ratio for the difference of two models.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import typer
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_predict
from torch import Tensor, nn

import autoprune
from autoprune.measure.quality import evaluate
from autoprune.task.data import TensorSplit
from autoprune.task.metrics import CLASSIFICATION, REGRESSION
from benchmarks.reporting import print_machine, print_table


class Case(NamedTuple):
    """Predictions of two models for the same targets, and the metrics that suit them."""

    name: str
    first: Tensor
    second: Tensor
    targets: Tensor
    metrics: tuple[str, ...]


class Row(NamedTuple):
    """A metric on a data set: the stored standard error, that of the bootstrap, and their ratio for a difference."""

    case: str
    metric: str
    error: float
    bootstrap: float
    difference: float

    @property
    def ratio(self) -> float:
        """The stored standard error, relative to the bootstrap's."""
        return self.error / self.bootstrap


def main(resamples: int = 2000) -> None:
    """Print the ratios of every metric on every data set."""
    torch.set_num_threads(1)
    print_machine()
    rows = list(compare(resamples))
    shown = [
        [row.case, row.metric, f"{row.error:.5f}", f"{row.bootstrap:.5f}", f"{row.ratio:.3f}", f"{row.difference:.3f}"]
        for row in rows
    ]
    columns = ("data", "metric", "standard error", "bootstrap", "ratio", "ratio for a difference")
    print_table(f"Standard errors against {resamples} resamples", columns, shown)
    worst = max(rows, key=lambda row: abs(row.ratio - 1))
    print(f"farthest: {worst.metric} on {worst.case}, {worst.ratio:.3f}")


def compare(resamples: int, *, pairs: bool = True) -> Iterator[Row]:
    """Compare every metric on every data set.

    Args:
        resamples: Resamples of the bootstrap.
        pairs: Whether differences of two models are compared, too; their ratio is 1 otherwise.

    Yields:
        One row for each.
    """
    for case in cases(pairs=pairs):
        for metric in case.metrics:
            yield _row(case, metric, resamples, pairs=pairs)


@functools.cache
def cases(*, pairs: bool = True) -> tuple[Case, ...]:
    """Make the data sets.

    Args:
        pairs: Whether each has a second model; else it is the first once more.

    Returns:
        Three cases.
    """
    digits, diabetes = load_digits(), load_diabetes()
    images, labels = digits.data / 16, tuple(CLASSIFICATION)
    eights = (digits.target == 8).astype(int)
    classes, yes = _scores((3e-3, 1e-3), images, digits.target, pairs), _scores((1.0, 0.1), images, eights, pairs)
    return (
        Case("digits", *classes, torch.tensor(digits.target), labels),
        Case("eights", *yes, torch.tensor(eights), labels),
        _numbers(diabetes.data, diabetes.target / 100),
    )


def _scores(
    strengths: tuple[float, float], inputs: np.ndarray, targets: np.ndarray, pairs: bool
) -> tuple[Tensor, Tensor]:
    """Predict probabilities by weak classifiers: a perfect one has no error to estimate."""

    def predict(strength: float) -> Tensor:
        model = LogisticRegression(C=strength, max_iter=200)
        found = torch.tensor(cross_val_predict(model, inputs, targets, method="predict_proba"), dtype=torch.float32)
        return found if found.shape[1] > 2 else found[:, 1]

    first = predict(strengths[0])
    return first, predict(strengths[1]) if pairs else first


def _numbers(inputs: np.ndarray, targets: np.ndarray) -> Case:
    first, second = (
        torch.tensor(cross_val_predict(Ridge(alpha=alpha), inputs, targets), dtype=torch.float32)
        for alpha in (0.1, 1.0)
    )
    return Case("diabetes", first, second, torch.tensor(targets, dtype=torch.float32), tuple(REGRESSION))


def _row(case: Case, metric: str, resamples: int, *, pairs: bool) -> Row:
    task = task_of(case, metric)
    models = (case.first, case.second) if pairs else (case.first,)
    stored = [evaluate(task, task.dense, TensorSplit(scores, case.targets, batch_size=256)) for scores in models]
    generator, count = torch.Generator().manual_seed(0), len(case.targets)
    draws = [torch.randint(count, (count,), generator=generator) for _ in range(resamples)]
    found = np.array([[_value(task, scores[index], case.targets[index]) for index in draws] for scores in models])
    spread = float(found[0].std(ddof=1))
    if not pairs:
        return Row(case.name, metric, stored[0].error, spread, 1.0)
    difference = np.linalg.norm(np.subtract(stored[0].deviations, stored[1].deviations))
    return Row(case.name, metric, stored[0].error, spread, float(difference / (found[0] - found[1]).std(ddof=1)))


def _value(task: autoprune.PreparedTask, scores: Tensor, targets: Tensor) -> float:
    metric = task.new_metric(task.quality)
    task.update(metric, scores, targets)
    return float(metric.compute())


def task_of(case: Case, metric: str) -> autoprune.PreparedTask:
    """Make a task whose model gives back its inputs, which are predictions.

    Args:
        case: Data set.
        metric: Its quality.

    Returns:
        The prepared task.
    """
    kind = "regression" if metric in REGRESSION else "multiclass" if case.first.ndim > 1 else "binary"
    losses: dict[str, Callable[..., Tensor]] = {
        "regression": nn.functional.mse_loss,
        "multiclass": nn.functional.nll_loss,
    }
    scores = case.first

    def of_labels(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy(outputs, targets.float())

    return autoprune.prepare(
        autoprune.Task(
            model=nn.Identity(),
            example_inputs=scores[:2],
            train=(scores, case.targets),
            loss=losses.get(
                kind, lambda outputs, targets: nn.functional.binary_cross_entropy(outputs, targets.float())
            ),
            metrics=(metric,),
            quality=metric,
            kind=kind,
            require_trained=False,
        )
    )


if __name__ == "__main__":
    typer.run(main)
